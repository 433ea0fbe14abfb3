"""The papers as a test reads them: their links, the commands that they print, the paths and targets that they name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(r"(src|tests|docs|bench|tools|requirements|\.ci)/[\w./*-]*")
_TARGET = re.compile(r"\bmake ([a-z][a-z-]*)")
_SHELL = {"|", ">", ">>", "<", "&&", "||", ";"}


@dataclass(frozen=True)
class Paper:
    """A Markdown file of ours."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """All but what stands in fences."""
        return _FENCE.sub("", self.text)

    def links(self) -> Iterator[str]:
        """Targets of links and pictures, those to elsewhere apart."""
        for target in _LINK.findall(self.prose):
            if "://" not in target and not target.startswith("mailto:"):
                yield target

    def anchors(self) -> frozenset[str]:
        """What a link may name after ``#``: headings, as they are shown on the web."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return frozenset(re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings)

    def spans(self) -> Iterator[str]:
        """What stands between backticks."""
        yield from _SPAN.findall(self.prose)

    def lines(self) -> Iterator[str]:
        """What one may type: the lines of shell fences, without prompt and comment, and the spans."""
        for language, body in _FENCE.findall(self.text):
            if language in ("console", "sh", "bash", "shell"):
                lines = [line for line in body.splitlines() if language != "console" or line.startswith("$ ")]
                yield from (line.removeprefix("$ ") for line in lines)
        yield from self.spans()

    def commands(self, program: str) -> Iterator[list[str]]:
        """The arguments of each call of a program; one that is cut short (``…``) is not for reading."""
        for line in self.lines():
            if f"{program} " not in line or "…" in line:
                continue
            words = shlex.split(line, comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            if words[:1] == [program]:
                ends = [index for index, word in enumerate(words) if word in _SHELL]
                yield words[1 : ends[0]] if ends else words[1:]

    def paths(self) -> Iterator[str]:
        """Files and folders of the checkout that are named between backticks; words in capitals stand for others."""
        for span in self.spans():
            path = span.partition("::")[0].rstrip("/")
            if _PATH.fullmatch(path) and not re.search(r"[A-Z]{3}", path.replace("README", "")):
                yield path

    def targets(self) -> Iterator[str]:
        """Targets of make."""
        for line in self.lines():
            yield from _TARGET.findall(line.partition("#")[0])


def papers() -> list[Paper]:
    """README, CONTRIBUTING and the pages."""
    return [Paper(ROOT / "README.md"), Paper(ROOT / "CONTRIBUTING.md"), *map(Paper, sorted(ROOT.glob("docs/**/*.md")))]

"""The papers are true where a machine can tell: links, commands, paths, targets of make, tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from bessemer.cli.app import build
from bessemer.cli.verbs import Verbs
from tests.docs import tables
from tests.docs.papers import ROOT, Paper, papers

PAPERS = papers()
each = pytest.mark.parametrize("paper", PAPERS, ids=[paper.name for paper in PAPERS])


@each
def test_links_lead_somewhere(paper: Paper) -> None:
    dead = []
    for link in paper.links():
        place, _, anchor = link.partition("#")
        target = (paper.path.parent / place).resolve() if place else paper.path
        known = not anchor or (target.suffix == ".md" and target.exists() and anchor in Paper(target).anchors())
        if not target.exists() or not known:
            dead.append(link)
    assert dead == []


@each
def test_paths_are_there(paper: Paper) -> None:
    assert [path for path in paper.paths() if not any(ROOT.glob(path))] == []


@each
def test_targets_of_make_are_there(paper: Paper) -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(paper.targets()) - known == set()


@each
def test_commands_can_be_typed(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE", "TOKEN", "PROJECT"):
        monkeypatch.delenv(f"BESSEMER_{name}", raising=False)
    refused = [wrong for words in paper.commands("bessemer") if (wrong := why_not(words))]
    assert refused == []


def test_the_tables_of_the_api_are_those_of_the_source() -> None:
    text = tables.PAGE.read_text(encoding="utf-8")
    assert text == tables.filled(text), "python -m tests.docs.tables writes them anew"


@pytest.mark.parametrize("paper", [p for p in PAPERS if p.path.parent == ROOT / "docs"], ids=lambda p: p.name)
def test_a_page_is_calm(paper: Paper) -> None:
    lines = paper.text.splitlines()
    assert len(lines) <= 120, f"{len(lines)} lines"
    assert lines[0].startswith("# "), "a title"


def test_the_reading_finds_what_is_wrong() -> None:
    assert why_not(["get", "hosts", "-o", "wide"]) == ""
    assert why_not(["user"]) == "" == why_not(["why"]), "what is only named needs no arguments"
    assert why_not(["user", "add", "ada"]) == ""
    assert why_not(["frobnicate"])
    assert why_not(["up", "--fake-host", "3"])
    assert why_not(["invoice", "acme--lab"])


# --- the command line ---------------------------------------------------------------------------------------------


def why_not(words: Sequence[str]) -> str:
    """Why the command line refuses the words, or "": they are read, and nothing is run."""

    def never(_: Any) -> int:
        raise AssertionError

    verbs = Verbs(
        up=never, down=never, server=never, agent=never, demo=never, doctor=never, kubeconfig=lambda _: Path("none")
    )
    command: Any = get_command(build(verbs))
    context, left = None, list(words)
    try:
        while True:
            grouped = hasattr(command, "commands")
            if context is not None and not left:
                return ""  # a command or a group that is named, and not called
            context = command.make_context(command.name or "bessemer", left, parent=context)
            left = [*context._protected_args, *context.args]
            if not grouped or (command.invoke_without_command and context.params and not left):
                return ""
            _, command, left = command.resolve_command(context, left)
    except Exception as error:  # the parser's own classes are not the typer package's to export
        if getattr(error, "exit_code", 1) == 0:
            return ""  # --help and --version have their say and leave
        return f"bessemer {' '.join(words)}: {type(error).__name__} {error}"

"""The regular expressions of a browser's script, found by the part of its grammar that tells them from a division."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# After one of these a slash begins an expression, and after anything else it divides.
_BEFORE = {*"(,=:[!&|?{};+-*%~^<>", "", "return", "typeof", "case", "in", "of", "else", "do", "void", "yield", "await"}
_SKIPPED = re.compile(r"\s+|//[^\n]*|/\*.*?\*/", re.DOTALL)
_TEXT = re.compile(r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+\"""", re.DOTALL)
_TEMPLATE = re.compile(r"(?:[^`\\$]|\\.|\$(?!\{))*+(`|\$\{)", re.DOTALL)
_REGEX = re.compile(r"/((?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*+\])++)/([a-z]*)")
_WORD = re.compile(r"[\w$]+")


@dataclass(frozen=True, slots=True)
class Literal:
    """``/source/flags`` and the line it is in."""

    line: int
    source: str
    flags: str


def regexes(text: str) -> Iterator[Literal]:
    """Each of them. Raises ValueError for text that is not understood."""
    at, last = 0, ""
    depths: list[int] = [0]
    """Braces that are open: of the script, and of each expression in a template."""
    while at < len(text):
        c = text[at]
        if found := _SKIPPED.match(text, at):
            at = found.end()
            continue
        if c == "`" or (c == "}" and len(depths) > 1 and depths[-1] == 0):
            at, last = _template(text, at + 1, inner=c == "}", depths=depths)
        elif c in "'\"":
            at, last = _end(_TEXT, text, at), "text"
        elif c == "/" and last in _BEFORE:
            at, last = _end(_REGEX, text, start := at), "regex"
            source, flags = _REGEX.fullmatch(text, start, at).groups()  # type: ignore[union-attr]
            yield Literal(text.count("\n", 0, start) + 1, source, flags)
        elif found := _WORD.match(text, at):
            at, last = found.end(), found[0]
        else:
            depths[-1] += (c == "{") - (c == "}")
            at, last = at + 1, c


def _template(text: str, at: int, *, inner: bool, depths: list[int]) -> tuple[int, str]:
    """Where its text ends, and what that is to what follows."""
    end = _end(_TEMPLATE, text, at)
    if inner:
        depths.pop()
    if text[end - 1] == "`":
        return end, "text"
    depths.append(0)
    return end, "("


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    if found is None:
        raise ValueError(f"line {text.count(chr(10), 0, at) + 1}: {text[at : at + 40]!r} has no end")
    return found.end()


def as_python(literal: Literal) -> str:
    """The same pattern as `re` writes it. Raises ValueError for what it cannot say."""
    if {*literal.flags} & {"u", "v"} or "[^]" in literal.source or "[]" in literal.source:
        raise ValueError(f"line {literal.line}: {literal.source} is not in the words of Python")
    return re.sub(r"\(\?<(?![=!])", "(?P<", literal.source).replace(r"\/", "/")

"""No pattern of ours takes more than about linear time, whatever it is given: read from the source, not tried by clock.

A backtracking pattern is slow where one repeat without end stands in another, or beside another that takes the same
characters: each way to part a text among them is tried. Every pattern that `re` compiles is found in the source and
judged by its parse; what `judged` holds is harmless for the reason that stands there. Patterns of fields go to a
matcher without backtracking (pydantic's), and are out of question.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "bessemer"
ALPHABET = [chr(c) for c in range(128)] + ["é", "中", "\u202e"]
FUNCTIONS = ("compile", "match", "fullmatch", "search", "sub", "split", "findall", "finditer")
parser: Any = re._parser  # type: ignore[attr-defined]


def patterns() -> Iterator[tuple[str, str]]:
    """Where each pattern stands, and its text. Raises for one that cannot be read from the source."""
    for path in sorted(SRC.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re"):
                continue
            if node.func.attr in FUNCTIONS:
                place = f"{path.relative_to(SRC)}:{node.lineno}"
                yield place, _text(node.args[0], tree) or pytest.fail(f"{place}: no pattern that can be read here")


def _text(node: ast.expr, tree: ast.Module) -> str:
    """A pattern from literals, their sums, f-strings and the constants of its module; "" for anything else."""
    if isinstance(node, ast.Constant):
        return node.value.decode("latin-1") if isinstance(node.value, bytes) else str(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, tree) + _text(node.right, tree)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _text(part.value if isinstance(part, ast.FormattedValue) else part, tree) for part in node.values
        )
    if isinstance(node, ast.Name):
        for other in ast.walk(tree):
            if isinstance(other, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == node.id for t in other.targets
            ):
                return _text(other.value, tree)
    return ""


def characters(items: Any) -> set[str]:
    """Of `ALPHABET`, what a sequence of the parse can take anywhere in it."""
    taken: set[str] = set()
    for op, value in items:
        name = str(op)
        if name == "LITERAL":
            taken.add(chr(value))
        elif name == "ANY":
            taken.update(ALPHABET)
        elif name in ("IN", "NOT_LITERAL"):
            one = parser.SubPattern(parser.State(), [(op, value)])
            compiled = re.compile(_source(one))
            taken.update(c for c in ALPHABET if compiled.fullmatch(c))
        else:
            for part in parts(name, value):
                taken |= characters(part)
    return taken


def _source(part: Any) -> str:
    """A class of characters as it could have been written."""
    ((op, value),) = part
    if str(op) == "NOT_LITERAL":
        return f"[^{re.escape(chr(value))}]"
    words = {"CATEGORY_DIGIT": r"\d", "CATEGORY_WORD": r"\w", "CATEGORY_SPACE": r"\s"}
    words |= {"CATEGORY_NOT_DIGIT": r"\D", "CATEGORY_NOT_WORD": r"\W", "CATEGORY_NOT_SPACE": r"\S"}
    text = ""
    for kind, what in value:
        match str(kind):
            case "NEGATE":
                text += "^"
            case "LITERAL":
                text += re.escape(chr(what))
            case "RANGE":
                text += f"{re.escape(chr(what[0]))}-{re.escape(chr(what[1]))}"
            case _:
                text += words[str(what)]
    return f"[{text}]"


def parts(name: str, value: Any) -> list[Any]:
    """The sequences within an item of the parse."""
    if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        return [value[2]]
    if name == "SUBPATTERN":
        return [value[3]]
    if name == "BRANCH":
        return list(value[1])
    if name == "ATOMIC_GROUP":
        return [value]
    if name in ("ASSERT", "ASSERT_NOT"):
        return [value[1]]
    return []


def endless(name: str, value: Any) -> bool:
    """Whether it is a repeat without end that gives back what it took."""
    return name in ("MAX_REPEAT", "MIN_REPEAT") and value[1] is parser.MAXREPEAT


def faults(items: Any, *, within: bool = False) -> Iterator[str]:
    """What makes a sequence slow."""
    before: set[str] = set()
    for op, value in items:
        name = str(op)
        repeats = endless(name, value)
        if repeats and within:
            yield "a repeat without end in another"
        inner = name not in ("POSSESSIVE_REPEAT", "ATOMIC_GROUP") and (within or repeats)
        for part in parts(name, value):
            yield from faults(part, within=inner)
        takes = characters([(op, value)])
        if repeats:
            if before & takes:
                yield f"two repeats without end in a row take {sorted(before & takes)[:3]}"
            before |= takes
        elif name not in ("AT", "ASSERT", "ASSERT_NOT") and not _optional(name, value):
            # What must stand between them and neither takes parts them in one way only.
            before = before if takes <= before else set()


def _optional(name: str, value: Any) -> bool:
    return name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT") and value[0] == 0


JUDGED = {
    r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*": "each turn of the outer repeat begins "
    "with a dot, which the inner one does not take",
}
"""Pattern → why it is harmless all the same."""


def test_patterns_are_found() -> None:
    assert len(list(patterns())) > 20


@pytest.mark.parametrize(("place", "pattern"), [pytest.param(*found, id=found[0]) for found in patterns()])
def test_a_pattern_is_linear(place: str, pattern: str) -> None:
    found = list(faults(parser.parse(pattern)))
    assert not found or pattern in JUDGED, f"{place}: {pattern!r}: {'; '.join(found)}"


@pytest.mark.parametrize("slow", ["(a+)+$", "a*a*$", "(a|b*)*c", r"\s+\w*\s*\d*\w*x", "(.*?,)*;", "a+b?a+c"])
def test_a_slow_pattern_is_found(slow: str) -> None:
    assert list(faults(parser.parse(slow)))


@pytest.mark.parametrize("quick", ["a+b+c", "(?:[^b]|b[^c])*+c", r"[a-z]+-[a-z]+", "a{1,63}a{1,63}", r"(?>a+)a"])
def test_a_quick_pattern_is_let_pass(quick: str) -> None:
    assert not list(faults(parser.parse(quick)))

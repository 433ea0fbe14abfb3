"""No pattern of ours takes more than about linear time, whatever it is given: read from the source, not tried by clock.

A backtracking pattern is slow where one repeat without end stands in another, or beside another that takes the same
characters: each way to part a text among them is tried. One that is searched for is slow where a repeat without end
takes all that could begin the pattern anew: each place of the text is tried as a beginning, to the text's end. Every
pattern that `re` compiles, and every one of the portal's scripts, is found in the source and judged by its parse; what
`JUDGED` holds is harmless for the reason that stands there. Patterns of fields go to a matcher without backtracking
(pydantic's), and are out of question.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import as_python, regexes

SRC = Path(__file__).resolve().parents[1] / "src" / "bessemer"
ALPHABET = [chr(c) for c in range(128)] + ["é", "中", "\u202e"]
SEARCHES = {"search", "sub", "subn", "split", "findall", "finditer", "scanner"}
FUNCTIONS = {"compile", "match", "fullmatch", *SEARCHES}
parser: Any = re._parser  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Pattern:
    """One as it stands in the source; ``searched`` is whether a match may begin anywhere."""

    place: str
    text: str
    flags: int
    searched: bool


@cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted(SRC.rglob("*.py"))}


@cache
def matched() -> set[str]:
    """The names of compiled patterns of which no match begins but where it is said."""
    used: dict[str, set[str]] = {}
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in FUNCTIONS:
                used.setdefault(ast.unparse(node.value).rpartition(".")[2], set()).add(node.attr)
    return {name for name, how in used.items() if not how & SEARCHES}


def patterns() -> Iterator[Pattern]:
    """Where each pattern stands, and its text. Raises for one that cannot be read from the source."""
    for path, tree in trees().items():
        held = {node.value: node.targets for node in ast.walk(tree) if isinstance(node, ast.Assign)}
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re"):
                continue
            if (how := node.func.attr) in FUNCTIONS:
                place = f"{path.relative_to(SRC)}:{node.lineno}"
                text = _text(node.args[0], tree) or pytest.fail(f"{place}: no pattern that can be read here")
                names = {ast.unparse(target) for target in held.get(node, ())}
                # One that no name holds is used in a way that cannot be seen here.
                searched = how in SEARCHES or (how == "compile" and not (names and names <= matched()))
                yield Pattern(place, text, _flags(node), searched)
    for path in sorted((SRC / "portal" / "static").glob("*.js")):
        for found in regexes(path.read_text()):
            flags = (re.MULTILINE if "m" in found.flags else 0) | (re.IGNORECASE if "i" in found.flags else 0)
            yield Pattern(f"{path.relative_to(SRC)}:{found.line}", as_python(found), flags, "y" not in found.flags)


def _flags(call: ast.Call) -> int:
    """Those that a call says by name."""
    said = [*call.args[1:], *(keyword.value for keyword in call.keywords if keyword.arg == "flags")]
    names = {node.attr for part in said for node in ast.walk(part) if isinstance(node, ast.Attribute)}
    return sum(re.RegexFlag[name] for name in names if name in re.RegexFlag.__members__)


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
    """Of `ALPHABET`, what a sequence of the parse can take anywhere in it; a dot takes no line break here."""
    taken: set[str] = set()
    for op, value in items:
        name = str(op)
        if name == "LITERAL":
            taken.add(chr(value))
        elif name == "ANY":
            taken.update(ALPHABET[:10] + ALPHABET[11:])
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


def restarts(items: Any, flags: int = 0) -> Iterator[str]:
    """What makes a search for a sequence slow: each text that begins as the pattern does is read anew from each of its
    places."""
    for line in lines(items):
        for at, (op, value) in enumerate(line):
            name = str(op)
            if _anchored(line[:at], flags):
                break
            if not name.endswith("REPEAT") or value[1] is not parser.MAXREPEAT or not _may_fail(line[at + 1 :]):
                continue
            taken = characters([(op, value)])
            if all(characters([before]) & taken for before in line[:at] if _must(before)) and _begins(
                line[:at], taken, flags
            ):
                yield f"a search reads {sorted(taken)[:3]} anew from each place"


def lines(items: Any) -> Iterator[list[Any]]:
    """The sequences that it can be, without the groups and branches that are not repeated."""
    ways: list[Sequence[list[Any]]] = []
    for op, value in items:
        if str(op) == "SUBPATTERN":
            ways.append(list(lines(value[3])))
        elif str(op) == "ATOMIC_GROUP":
            ways.append(list(lines(value)))
        elif str(op) == "BRANCH":
            ways.append([line for branch in value[1] for line in lines(branch)])
        else:
            ways.append([[(op, value)]])
    for way in product(*ways):
        yield [item for part in way for item in part]


def _must(item: Any) -> bool:
    """Whether it takes a character whenever it matches."""
    op, value = item
    name = str(op)
    return name not in ("AT", "ASSERT", "ASSERT_NOT") and not _optional(name, value)


def _may_fail(rest: Sequence[Any]) -> bool:
    return any(not _optional(str(op), value) for op, value in rest)


def _anchored(before: Sequence[Any], flags: int) -> bool:
    """Whether a match begins at the text's beginning alone; in many lines it begins at each."""
    return bool(before) and str(before[0][0]) == "AT" and "BEGINNING" in str(before[0][1]) and not flags & re.MULTILINE


def _begins(before: Sequence[Any], taken: set[str], flags: int) -> bool:
    """Whether what must stand before a match may be what the repeat takes."""
    for op, value in before:
        if str(op) == "AT" and "BEGINNING" in str(value) and "\n" not in taken and not flags & re.DOTALL:
            return False
        if str(op) == "ASSERT" and value[0] < 0 and not characters(value[1]) & taken:
            return False
        if str(op) == "ASSERT_NOT" and value[0] < 0 and taken <= characters(value[1]):
            return False
    return True


JUDGED = {
    r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*": "each turn of the outer repeat begins "
    "with a dot, which the inner one does not take",
    r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)\Z": "the reader of YAML asks whether a word matches it",
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?\Z": "so it does with this one",
    "WHEN (.*) ?EXECUTE": "what it is searched in are the database's words of one trigger, in which both stand once",
}
"""Pattern → why it is harmless all the same."""


def slow(text: str, *, flags: int = 0, searched: bool = False) -> list[str]:
    parsed = parser.parse(text, flags)
    return [*faults(parsed), *(restarts(parsed, flags) if searched else ())]


def test_patterns_are_found() -> None:
    found = list(patterns())
    assert len(found) > 60
    assert {"portal/static/chat.js:", "portal/static/instance.js:"} <= {
        f"{one.place.partition(':')[0]}:" for one in found
    }
    assert {one.searched for one in found} == {False, True}


def test_no_script_makes_a_pattern_of_text() -> None:
    for path in sorted((SRC / "portal" / "static").glob("*.js")):
        assert "RegExp" not in path.read_text(), path


@pytest.mark.parametrize("one", [pytest.param(found, id=found.place) for found in patterns()])
def test_a_pattern_is_linear(one: Pattern) -> None:
    found = slow(one.text, flags=one.flags, searched=one.searched)
    assert not found or one.text in JUDGED, f"{one.place}: {one.text!r}: {'; '.join(found)}"


def test_what_is_judged_is_there() -> None:
    assert {one.text for one in patterns() if slow(one.text, flags=one.flags, searched=one.searched)} == JUDGED.keys()


@pytest.mark.parametrize("pattern", ["(a+)+$", "a*a*$", "(a|b*)*c", r"\s+\w*\s*\d*\w*x", "(.*?,)*;", "a+b?a+c"])
def test_a_slow_pattern_is_found(pattern: str) -> None:
    assert slow(pattern)


@pytest.mark.parametrize("quick", ["a+b+c", "(?:[^b]|b[^c])*+c", r"[a-z]+-[a-z]+", "a{1,63}a{1,63}", r"(?>a+)a"])
def test_a_quick_pattern_is_let_pass(quick: str) -> None:
    assert not slow(quick)


@pytest.mark.parametrize(
    "pattern", [r"\s+$", "a*b", "a++b", "(a+)b", "x|a+b", r"a\w*;", r"<[^>]*>", "(?m)^\\s*x", "(?<=a)a+b", "b?a+c"]
)
def test_a_slow_search_is_found(pattern: str) -> None:
    flags = re.MULTILINE if pattern.startswith("(?m)") else 0
    assert not slow(pattern, flags=flags), "it is the search that is slow"
    assert slow(pattern, flags=flags, searched=True)


@pytest.mark.parametrize(
    "quick", [r"^\s+$", "a+", "a+b?", "ba+c", "(?m)^a+b", "(?<!a)a+b", "(?<=b)a+c", '"[^"]*"', r"a{1,9}b", "ab|c+"]
)
def test_a_quick_search_is_let_pass(quick: str) -> None:
    flags = re.MULTILINE if quick.startswith("(?m)") else 0
    assert not slow(quick, flags=flags, searched=True)

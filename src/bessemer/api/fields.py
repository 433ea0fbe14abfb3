"""Sets of fields as Kubernetes writes them (``FieldsV1``), and the algebra of them. Pure.

A set is the JSON itself: an object whose keys are steps (``f:name`` of an object, ``k:{"type":"Ready"}`` of a list
keyed by fields, ``v:"x"`` of a list of values, ``i:0`` of any list) and whose values are what is below. ``{}`` is a
field that is in the set, ``.`` says so of one that has more below it. The root alone is never a member: there ``{}`` is
the empty set. Nothing here changes a set that it is given; everything is linear to the sets. After the Kubernetes docs,
"Server-Side Apply", and structured-merge-diff's ``fieldpath``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import orjson

from bessemer.api.names import PATH_MAX, plain

Fields = dict[str, Any]
SELF = "."
_STEPS = ("f:", "k:", "v:", "i:")


def is_fields(value: Any) -> bool:
    """Whether it can be read as a set."""
    left = [value]
    while left:
        node = left.pop()
        if not isinstance(node, dict):
            return False
        for step, below in node.items():
            if step == SELF and below == {}:
                continue
            if not _is_step(step):
                return False
            left.append(below)
    return True


def _is_step(step: str) -> bool:
    kind, rest = step[:2], step[2:]
    if kind not in _STEPS:
        return False
    if kind == "f:":
        return True
    try:
        value = orjson.loads(rest)
    except orjson.JSONDecodeError:
        return False
    if kind == "k:":
        return isinstance(value, dict) and bool(value)
    return kind == "v:" or isinstance(value, int)


def _member(node: Fields) -> bool:
    return not node or SELF in node


def union(one: Fields, other: Fields) -> Fields:
    """What is in either."""
    return _union(one, other) if one and other else one or other


def _union(one: Fields, other: Fields) -> Fields:
    if not one and not other:
        return {}
    found = dict(one) if one else {SELF: {}}
    for step, below in (other or {SELF: {}}).items():
        found[step] = _union(found[step], below) if step in found else below
    return found


def minus(one: Fields, other: Fields) -> Fields:
    """What is in the one and not in the other."""
    return (_minus(one, other) or {}) if one and other else one


def _minus(one: Fields, other: Fields) -> Fields | None:
    rest: Fields = {}
    for step, below in one.items():
        if step == SELF:
            continue
        left = _minus(below, other[step]) if step in other else below
        if left is not None:
            rest[step] = left
    if _member(one) and not _member(other):
        return {SELF: {}, **rest} if rest else {}
    return rest or None


def both(one: Fields, other: Fields) -> Fields:
    """What is in the one and in the other."""
    return (_both(one, other) or {}) if one and other else {}


def _both(one: Fields, other: Fields) -> Fields | None:
    rest: Fields = {}
    for step, below in one.items():
        if step != SELF and step in other:
            common = _both(below, other[step])
            if common is not None:
                rest[step] = common
    if _member(one) and _member(other):
        return {SELF: {}, **rest} if rest else {}
    return rest or None


def steps(fields: Fields) -> Iterator[tuple[str, ...]]:
    """Each field of the set as the steps to it; one of the middle comes before what is below it."""
    levels: list[tuple[tuple[str, ...], Iterator[tuple[str, Any]]]] = [((), iter(fields.items()))]
    while levels:
        above, here = levels[-1]
        for step, below in here:
            if step == SELF:
                continue
            at = (*above, step)
            if _member(below):
                yield at
            if below:
                levels.append((at, iter(below.items())))
                break
        else:
            levels.pop()


def paths(fields: Fields, most: int) -> list[str]:
    """The first of them as people read them: ``.spec.members[user="ann"].role``."""
    return [plain("".join(map(_shown, at)), PATH_MAX) for at in islice(steps(fields), most)]


def count(fields: Fields) -> int:
    """How many there are."""
    return sum(1 for _ in steps(fields))


def _shown(step: str) -> str:
    kind, rest = step[:2], step[2:]
    if kind == "f:":
        return f".{rest}"
    if kind == "k:":
        return "[" + ",".join(f"{name}={_json(value)}" for name, value in orjson.loads(rest).items()) + "]"
    return f"[={rest}]" if kind == "v:" else f"[{rest}]"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def value_step(value: Any) -> str:
    """The step to a value in a list of values."""
    return "v:" + orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def key_step(keys: Mapping[str, Any]) -> str:
    """The step to an item in a list keyed by fields."""
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()

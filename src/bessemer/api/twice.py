"""Fields that stand twice in a body: JSON takes the last and forgets the others, so a client may mean another.

A body reads the same with and without a field that stands twice, so it is found by what is missing. Nearly all bodies
are small: one is written again from its values, and has as many colons as before unless something got lost. That costs
some two microseconds; where the counts differ it is read once more, slowly, for the places. What is larger is looked
through at Python's speed, some 0.2 s for a MiB, so beside the event loop, and one name is told of it. The words are
Go's.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import orjson
import yaml

from bessemer.api.names import CAUSES_MAX, field_path, places, plain

STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""A string, closed or not: each quote begins a match, so that none is looked past twice, and the time is linear."""

Twice = Callable[[Sequence[str]], None]
"""What is done about them: it is told in words which they are."""

SMALL_BYTES = 32 << 10
"""What is larger is not written again, as orjson makes room for 270 times the length of a list."""

_ESCAPED = b"\\u003"
"""Of a colon in a string, which is written again as itself, and counts then."""


class _Object(dict[str, Any]):
    """One in which fields stand twice."""

    __slots__ = ("twice",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]


class _Found(Exception):
    """The name of one, where no more is looked for."""


async def told(raw: bytes, value: Any, *, twice: Twice) -> None:
    """Have ``twice`` done about what `in_json` finds, if anything; nobody else waits for a large body."""
    found = in_json(raw, value) if len(raw) <= SMALL_BYTES else await asyncio.to_thread(in_json, raw, value)
    if found:
        twice(found)


def in_json(raw: bytes, value: Any) -> list[str]:
    """``duplicate field "spec.size"`` for each, ``CAUSES_MAX`` at most, of a body that was read as ``value``; of a
    large one the first whose object ends, by its name alone."""
    if _whole(raw, value):
        return []
    return [f'duplicate field "{path}"' for path in (_all(raw) if len(raw) <= SMALL_BYTES else _one(raw))]


def _all(raw: bytes) -> list[str]:
    left = iter(range(CAUSES_MAX))

    def read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        return made if len(made) == len(pairs) or next(left, None) is None else _Object(pairs)

    return list(islice(_paths(_read_again(raw, read)), CAUSES_MAX))


def _one(raw: bytes) -> list[str]:
    def read(pairs: list[tuple[str, Any]]) -> None:
        if len(pairs) > 1 and len(dict(pairs)) < len(pairs):
            raise _Found(field_path(_Object(pairs).twice[:1]))

    try:
        _read_again(raw, read)
    except _Found as found:
        return [str(found)]
    return []


def _read_again(raw: bytes, read: Callable[[list[tuple[str, Any]]], Any]) -> Any:
    return json.loads(raw, object_pairs_hook=read, parse_int=float, parse_float=float)


def in_yaml(node: yaml.MappingNode) -> list[str]:
    """``line 3: key "size" already set in map`` for each of one mapping, ``CAUSES_MAX`` at most."""
    found: list[str] = []
    seen: set[str] = set()
    for key, _ in node.value:
        said = str(key.value)
        if said in seen:
            found.append(f'line {key.start_mark.line + 1}: key "{plain(said)}" already set in map')
        seen.add(said)
    return found[:CAUSES_MAX]


def _whole(raw: bytes, value: Any) -> bool:
    """Whether ``value``, an object or a list, has all that was said."""
    if not isinstance(value, dict | list):
        return True
    if len(raw) <= SMALL_BYTES and _ESCAPED not in raw:
        return raw.count(b":") == orjson.dumps(value).count(b":")
    fields, left = 0, [value]
    while left:
        item = left.pop()
        inside = item.values() if isinstance(item, dict) else item
        fields += len(item) if isinstance(item, dict) else 0
        left += [one for one in inside if isinstance(one, dict | list)]
    in_strings = sum(string[0].count(b":") for string in STRING.finditer(raw))
    return raw.count(b":") - in_strings == fields


def _paths(again: Any) -> Iterator[str]:
    for at, item in places(again, ""):
        if isinstance(item, _Object):
            yield from (field_path((*at, name)) for name in item.twice)

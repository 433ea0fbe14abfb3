"""Endpoints that would answer for themselves: by others, of whom one has backends. Who writes the last of them is told.

That two stand in for each other (``fallbacks``) is no such thing: each has replicas of its own, and is asked once. One
with ``backends`` has none: asked again it is asked for nothing. Two writes at once may make a circle all the same; the
gateway asks each once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import orjson

from bessemer.core.errors import Cause, NotFound
from bessemer.core.ports import Stored
from bessemer.core.resource import Key
from bessemer.kinds.inference.endpoint.spec import Endpoint

LOOKED_AT_MAX = 64
"""Endpoints of a project, for one write."""

_Spec = Mapping[str, Any]
_Step = tuple[str, bool]
"""An endpoint, and whether somebody has it as a backend on the way there."""


class Finds(Protocol):
    """What is needed of ``ports.Objects``."""

    async def get(self, key: Key) -> Stored: ...


async def circles(objects: Finds, body: Mapping[str, Any], *, old: Mapping[str, Any] | None) -> list[Cause]:
    """What to say of an Endpoint that leads back to itself, by the field that does; of what it said before, nothing."""
    spec, metadata = body["spec"], body["metadata"]
    said = list(_others(spec))
    if not said or (old is not None and said == list(_others(old["spec"]))):
        return []
    found = await _back(objects, Key(Endpoint.KIND, metadata["namespace"], metadata["name"]), spec=spec)
    if not found:
        return []
    first = (found[1][0], found[1][1])
    path = next(path for path, *other in said if tuple(other) == first)
    words = "makes a circle, in which it would answer for itself: " + ", then ".join(name for name, _ in found)
    return [Cause(path, words)]


async def _back(objects: Finds, key: Key, *, spec: _Spec) -> list[_Step]:
    """The shortest way from an endpoint to itself on which somebody has a backend; [] where there is none."""
    start: _Step = (key.name, False)
    before: dict[_Step, _Step] = {}
    waiting, specs = deque([start]), {key.name: spec}
    while waiting:
        step = waiting.popleft()
        for _, other, backend in _others(await _spec(objects, key, name=step[0], known=specs)):
            reached = (other, backend or step[1])
            if reached == (key.name, True):
                return [*_way(before, step, start=start), reached]
            if reached not in before and other != key.name:
                before[reached] = step
                waiting.append(reached)
    return []


def _way(before: Mapping[_Step, _Step], step: _Step, *, start: _Step) -> list[_Step]:
    way = [step]
    while step != start:
        step = before[step]
        way.append(step)
    return way[::-1]


async def _spec(objects: Finds, key: Key, *, name: str, known: dict[str, _Spec]) -> _Spec:
    if name not in known and len(known) < LOOKED_AT_MAX:
        try:
            known[name] = orjson.loads((await objects.get(Key(key.kind, key.namespace, name))).body)["spec"]
        except NotFound:
            known[name] = {}
    return known.get(name, {})


def _others(spec: _Spec) -> Iterator[tuple[str, str, bool]]:
    """Who answers for it: the field, the name, and whether that is one of its backends."""
    for index, one in enumerate(spec.get("backends") or ()):
        yield f"spec.backends[{index}].endpoint", one["endpoint"], True
    for index, name in enumerate(spec.get("fallbacks") or ()):
        yield f"spec.fallbacks[{index}]", name, False

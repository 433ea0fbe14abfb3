"""Who is made of what: workloads by the flavor, image or model that they name, projects by their tenant, tenants by
their price plan, so that a part's change finds them.

It is filled by their own reconciles, before they read a part, and lost with the process: whoever drives a kind looks at
all of it when it begins, so the index is complete when it matters. It only shortens waits; what it forgot would be seen
on the next timer, and who must know that nobody is left asks the store. It is no cache: nothing of a part stands here
but its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from bessemer.core.ports import Page, Scope, Stored
from bessemer.core.resource import Key


class Lists(Protocol):
    """What `made_of` needs of ``ports.Objects``."""

    async def list(self, scope: Scope) -> Page: ...


class Parts:
    """An index in memory, one per process; looking up costs what it finds."""

    def __init__(self) -> None:
        self._parts: dict[Key, tuple[Key, ...]] = {}
        self._named: dict[Key, set[Key]] = {}
        self._waiting: dict[Key, set[Key]] = {}

    def note(self, workload: Key, parts: Sequence[Key], *, waits: bool) -> None:
        """The object is made of these, and has what it needs of them or ``waits`` for some. What was noted of it before
        is forgotten."""
        if self._parts.get(workload) != tuple(parts):
            self.forget(workload)
            self._parts[workload] = tuple(parts)
            for part in parts:
                self._named.setdefault(part, set()).add(workload)
        for part in parts:
            if waits:
                self._waiting.setdefault(part, set()).add(workload)
            else:
                _remove(self._waiting, part, workload=workload)

    def forget(self, workload: Key) -> None:
        """It is made of nothing any more: gone, or about to be noted anew. Harmless where nothing is known of it."""
        for part in self._parts.pop(workload, ()):
            _remove(self._named, part, workload=workload)
            _remove(self._waiting, part, workload=workload)

    def concerned(self, part: Key, *, waiting: bool) -> Sequence[Key]:
        """Those that name the part, or of those the ones that wait."""
        return sorted((self._waiting if waiting else self._named).get(part, ()))


async def made_of(
    objects: Lists, parts: Parts, *, part: Key, kind: str, still: Callable[[Stored], bool]
) -> Sequence[Stored]:
    """Objects of ``kind`` that are ``still`` made of the part: of those that the index knows, else of all there are.

    So whoever waits for the last of them asks for a few by name, and all are read once, to be sure that none is left.
    """
    known = frozenset(key.name for key in parts.concerned(part, waiting=False) if key.kind == kind)
    for scope in (Scope(kind=kind, names=known), Scope(kind=kind)):
        found = [stored for stored in (await objects.list(scope)).items if still(stored)]
        if found:
            return found
    return ()


def _remove(index: dict[Key, set[Key]], part: Key, *, workload: Key) -> None:
    found = index.get(part)
    if found is not None:
        found.discard(workload)
        if not found:
            del index[part]

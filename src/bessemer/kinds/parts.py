"""Who is made of what: workloads by the flavor, image or model that they name, so that a part's change finds them.

It is filled by the workloads' own reconciles, before they read a part, and lost with the process: whoever drives a kind
looks at all of it when it begins, so the index is complete when it matters. It only shortens waits; what it forgot
would be seen on the next timer. It is no cache: nothing of a part stands here but its name.
"""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core.resource import Key


class Parts:
    """An index in memory, one per process; looking up costs what it finds."""

    def __init__(self) -> None:
        self._parts: dict[Key, tuple[Key, ...]] = {}
        self._named: dict[Key, set[Key]] = {}
        self._waiting: dict[Key, set[Key]] = {}

    def note(self, workload: Key, parts: Sequence[Key], *, waits: bool) -> None:
        """The workload is made of these, and has what it needs or ``waits`` for a place."""
        if self._parts.get(workload) != tuple(parts):
            self.forget(workload)
            self._parts[workload] = tuple(parts)
        for part in parts:
            self._named.setdefault(part, set()).add(workload)
            if waits:
                self._waiting.setdefault(part, set()).add(workload)
            else:
                _remove(self._waiting, part, workload=workload)

    def forget(self, workload: Key) -> None:
        """It is gone."""
        for part in self._parts.pop(workload, ()):
            _remove(self._named, part, workload=workload)
            _remove(self._waiting, part, workload=workload)

    def concerned(self, part: Key, *, waiting: bool) -> Sequence[Key]:
        """Those that name the part, or of those the ones that wait."""
        return sorted((self._waiting if waiting else self._named).get(part, ()))


def _remove(index: dict[Key, set[Key]], part: Key, *, workload: Key) -> None:
    found = index.get(part)
    if found is not None:
        found.discard(workload)
        if not found:
            del index[part]

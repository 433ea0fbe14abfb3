"""`Thought`: what would be, upon the arrays themselves, of which nothing is left afterwards.

While it lasts, whoever decides over the arrays sees what it holds and drops. When it is left, however that comes about,
each claim holds what it held, the version is the one from before, and who keeps something of each row and did not look
meanwhile has nothing to look at anew. What a version stood for in thought it never stands for again.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from bessemer.core.asking import Decision
from bessemer.placement.facts import Hold
from bessemer.placement.fleet import FleetArrays

_NAME = "in thought"


class Thought:
    """Holds that come and go until it is left: by `take`, or by anybody at the arrays. Thoughts may be within one
    another. Nobody else may look at the arrays meanwhile, so whoever is in it awaits nothing; and no host may be set
    or removed."""

    def __init__(self, fleet: FleetArrays) -> None:
        self._fleet = fleet
        self._version = fleet.version
        self._taken = 0

    def __enter__(self) -> Self:
        self._version = self._fleet.version
        self._fleet.held.thoughts.append({})
        self._fleet.changes.begin()
        self._fleet.named.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fleet = self._fleet
        for uid, before in reversed(list(fleet.held.thoughts[-1].items())):
            if before is None:
                fleet.drop(uid)
            else:
                # The same as now is no change.
                fleet.hold(uid, before)
        fleet.held.thoughts.pop()
        fleet.changes.end()
        fleet.named.end()
        fleet.version = self._version

    def take(self, decision: Decision) -> None:
        """Count a decision as if it were taken."""
        uid = f"{_NAME}/{len(self._fleet.held.thoughts)}/{self._taken}"
        assert self._fleet.held.of(uid) is None
        self._fleet.hold(uid, Hold.of(decision))
        self._taken += 1

    def leave_out(self, uids: Iterable[str]) -> None:
        """Claims as if they were gone."""
        for uid in uids:
            self._fleet.drop(uid)

"""Places that somebody else took first: they count as taken for a moment, until that one is heard of."""

from __future__ import annotations

from collections import OrderedDict

from bessemer.core.clock import Clock
from bessemer.kinds.fleet.told import Told
from bessemer.placement import FleetArrays

LOST_SECONDS = 1.0
"""For so long what was lost counts as taken all the same: whoever was faster is heard of a while after, and until then
each that decides here would go to the same host, and lose, too."""


class Lost:
    """By the names under which ``arrays`` have them: ``WORKLOAD_UID/REPLICA``. What ``told`` has heard of since is a
    claim that stands, and nobody's to drop."""

    def __init__(self, arrays: FleetArrays, told: Told, *, clock: Clock) -> None:
        self._arrays = arrays
        self._told = told
        self._clock = clock
        self._until: OrderedDict[str, float] = OrderedDict()
        """Those first that are over first, for all count equally long."""

    def add(self, name: str) -> None:
        """It was lost just now."""
        self._until[name] = self._clock.monotonic() + LOST_SECONDS
        self._until.move_to_end(name)

    def end(self, name: str) -> None:
        """It is counted otherwise from here on, if it is counted."""
        self._until.pop(name, None)

    def recall(self, workload_uid: str) -> None:
        """Whoever asks anew has waited for a moment and heard who was faster: what it lost keeps nothing from it."""
        for name in [name for name in self._until if name.partition("/")[0] == workload_uid]:
            self._drop(name)

    def expire(self) -> None:
        """Count no more what was lost a while ago."""
        now = self._clock.monotonic()
        while self._until and self._until[name := next(iter(self._until))] <= now:
            self._drop(name)

    def _drop(self, name: str) -> None:
        del self._until[name]
        if name not in self._told.known["Claim"]:
            self._arrays.drop(name)

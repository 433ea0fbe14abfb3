"""`Line`: who waits for the fleet, by what it asked and by what objects say; `Vain`: for whom nobody is stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from bessemer.core.clock import Clock
from bessemer.core.ports import Objects
from bessemer.kinds.fleet.waiting import Waiting
from bessemer.placement.queue import Pending

SILENT_SECONDS = 45.0
"""Whoever waits asks every ten seconds at least; who is silent for longer, and says nothing in its object, left."""

VAIN_SECONDS = (60.0, 600.0)
"""For whom others were stopped in vain nobody is stopped for so long: twice as long each time, up to the second."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """Who asked here, and when (monotonic)."""

    pending: Pending
    at: float


class Line:
    """``waiting`` are those whose objects say so; ``version`` is another after each change of who waits."""

    def __init__(self, objects: Objects, clock: Clock, *, heed: Callable[[str, Pending | None], None]) -> None:
        self.waiting = Waiting(objects, clock, left=self.leave, heed=heed)
        self._clock = clock
        self._heard: dict[str, _Heard] = {}
        self._joined = 0

    @property
    def version(self) -> tuple[int, int]:
        return self._joined, self.waiting.version

    def join(self, pending: Pending) -> None:
        """It asks here."""
        known = self._heard.get(pending.uid)
        if known is None or not alike(known.pending, pending):
            self._joined += 1
        self._heard[pending.uid] = _Heard(pending, self._clock.monotonic())

    def leave(self, uid: str) -> None:
        """It is gone, to go, or at its end: it need not be silent for a while first."""
        self._joined += self._heard.pop(uid, None) is not None

    def place(self, uid: str) -> None:
        """It has its place; its object says so in a moment."""
        self.leave(uid)
        self.waiting.forget(uid)

    def all(self) -> Mapping[str, Pending]:
        """Who waits: by its object, and by what it asked here, which is newer."""
        self._silence()
        return {**self.waiting.pending, **{uid: heard.pending for uid, heard in self._heard.items()}}

    def others(self, uid: str) -> bool:
        """Whether anybody else does."""
        self._silence()
        waiting, heard = self.waiting.pending, self._heard
        return len(waiting) > (uid in waiting) or len(heard) > (uid in heard)

    def _silence(self) -> None:
        """Whoever was silent for too long waits no more."""
        if self._heard:
            before = self._clock.monotonic() - SILENT_SECONDS
            for uid in [uid for uid, heard in self._heard.items() if heard.at < before]:
                self.leave(uid)


def alike(known: Pending, pending: Pending) -> bool:
    """Whether it asks as before. While it waits its end moves away with each second, which is no news to a plan that is
    no older than plans may be."""
    return replace(known, asker=replace(known.asker, ends=pending.asker.ends)) == pending


class Vain:
    """Until when nobody is stopped for whom, and for how long that is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[str, tuple[float, float]] = {}

    def add(self, uid: str) -> None:
        """Once more. A quota, a name, money: what kept it from its place is not placement's to know, and may keep it
        again."""
        now, (first, most) = self._clock.monotonic(), VAIN_SECONDS
        for old in [one for one, (_, until) in self._until.items() if until + most < now]:
            del self._until[old]
        seconds, until = self._until.get(uid, (first / 2, now))
        if until <= now:  # all members of a gang are taken back at once, which is once in vain
            self._until[uid] = (min(most, 2 * seconds), now + min(most, 2 * seconds))

    def now(self) -> frozenset[str]:
        """For whom nobody is stopped at this moment."""
        now = self._clock.monotonic()
        return frozenset(uid for uid, (_, until) in self._until.items() if now < until)

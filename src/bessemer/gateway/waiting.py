"""Who waits for a slot of an endpoint: the line (`fair`), how long it may be, and when to come again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bessemer.gateway.fair import WEIGHTS, Line

WAITING_MAX, WAITING_PER_SLOT = 256, 32
"""Who may wait for one endpoint: the larger of the first, and the second for each slot."""
RETRY_SECONDS_MAX = 60


class Waiter(Protocol):
    """A request that waits."""

    def turn(self) -> None:
        """There is room for it."""

    def crowded(self) -> None:
        """It gives way to others who wait."""


@dataclass(slots=True)
class Tally:
    """What was decided, and how often, over all endpoints. ``ejected`` are replicas that were."""

    session: int = 0
    prefix: int = 0
    ring: int = 0
    load: int = 0
    ejected: int = 0
    queued: int = 0
    turned_away: int = 0
    waiting: int = 0
    fell_over: int = 0


class Waiting:
    """Those of one endpoint."""

    __slots__ = ("_line", "_seconds", "_tally")

    def __init__(self, tally: Tally) -> None:
        self._line: Line[Waiter] = Line(WEIGHTS)
        self._seconds = 1.0
        """That an answer takes, lately."""
        self._tally = tally

    @property
    def count(self) -> int:
        return self._line.count

    def add(self, waiter: Waiter, path: Sequence[str], *, cost: int, slots: int) -> tuple[bool, Waiter | None]:
        """Let a request wait for one of so many slots; whether there is room, and who gave way for it."""
        line, tally, gone = self._line, self._tally, None
        if line.count >= max(WAITING_MAX, WAITING_PER_SLOT * slots):
            tally.turned_away += 1
            gone = line.yield_to(path)
            if gone is None:
                return False, None
            tally.waiting -= 1
        line.push(path, waiter, cost=cost)
        tally.queued += 1
        tally.waiting += 1
        return True, gone

    def next(self) -> Waiter | None:
        """Whose turn it is, out of the line."""
        waiter = self._line.pop()
        if waiter is not None:
            self._tally.waiting -= 1
        return waiter

    def leave(self, waiter: Waiter, path: Sequence[str]) -> None:
        """It waits no more."""
        if self._line.remove(path, waiter):
            self._tally.waiting -= 1

    def took(self, seconds: float) -> None:
        """How long an answer took."""
        self._seconds += (seconds - self._seconds) / 16

    def retry_after(self, slots: int) -> int:
        """Seconds after which somebody who comes now would have had a turn, as far as is known."""
        return max(1, min(RETRY_SECONDS_MAX, round((self.count + 1) * self._seconds / max(1, slots))))

"""Lets the requests of a trace come to a fleet, one after the other, and counts what becomes of them.

Who decides is handed in beside the fleet that it reads; what it gives is held there at once, as the feed of a running
system would. A request that is refused is lost.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bessemer.core.asking import Decision, Refusal, Request
from bessemer.placement.facts import Hold, Tenure
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.replay.arrivals import Visits
from bessemer.placement.replay.figures import Churned, Count, Filled, size_of, together
from bessemer.placement.replay.moving import Mover
from bessemer.placement.replay.trace import milli_of
from bessemer.placement.vectors import Ints

Decide = Callable[[Request], Decision | Refusal | None]
"""Where a request goes. None refuses it without a word: here nobody reads them."""

Told = Callable[[float], None]
"""Hears how much of a replay is done, from 0 to 1."""

_EVERY = 128
"""Arrivals between two words of progress."""


@dataclass(frozen=True, slots=True)
class Desk:
    """A fleet, and who decides over it; ``left`` hears of each request that was placed and has gone. ``mover`` makes
    room for what would be refused; without one nothing is ever moved. ``look`` says where something would go for who
    may not take it, and ``took`` hears that he did; without, ``decide`` says it, and nobody need hear."""

    fleet: FleetArrays
    decide: Decide
    left: Callable[[Request], None] = lambda _: None
    mover: Mover | None = None
    look: Decide | None = None
    took: Callable[[Request], None] = lambda _: None


def fill(
    desk: Desk,
    requests: Sequence[Request],
    *,
    arrivals: Ints,
    capacity_milli: int,
    levels: Sequence[float],
    told: Told = lambda _: None,
) -> Filled:
    """Nobody leaves. ``arrivals`` are indices into ``requests``; a level that they do not quite reach is answered with
    what there is at their end."""
    tally, reached = _Tally(desk), dict[float, float]()
    first: float | None = None
    ahead = sorted(levels)
    for n, index in enumerate(arrivals.tolist()):
        request = requests[index]
        if not tally.place(request, n) and request.device_count and first is None:
            first = tally.came_milli / capacity_milli
        while len(reached) < len(ahead) and tally.came_milli >= ahead[len(reached)] * capacity_milli:
            reached[ahead[len(reached)]] = tally.held_milli / capacity_milli
        if n % _EVERY == 0:
            told(n / len(arrivals))
    told(1.0)
    end = tally.held_milli / capacity_milli
    return Filled(
        levels={level: reached.get(level, end) for level in ahead},
        allocated=end,
        unallocated_milli=capacity_milli - tally.held_milli,
        first_refusal=first,
        counts=tally.by_size(),
        moves=tally.moves,
    )


def churn(
    desk: Desk,
    requests: Sequence[Request],
    *,
    visits: Visits,
    capacity_milli: int,
    told: Told = lambda _: None,
) -> Churned:
    """They come and leave. Figures are of the time after the warm-up; what was placed before it still holds there."""
    tally = _Tally(desk)
    leaving: list[tuple[float, int, Request]] = []
    clock = _Clock(tally, leaving)
    warm = int(np.searchsorted(visits.comes, visits.warm_up))
    for n, index in enumerate(visits.indices.tolist()):
        if n == warm:
            clock.start(visits.warm_up)
        clock.until(float(visits.comes[n]))
        request = requests[index]
        if tally.place(request, n):
            heapq.heappush(leaving, (float(visits.leaves[n]), n, request))
        if n % _EVERY == 0:
            told(n / len(visits))
    if warm == len(visits):
        clock.start(visits.warm_up)
    clock.until(visits.end)
    told(1.0)
    counts = tally.by_size()
    offered = sum(count.came_milli for count in counts.values())
    return Churned(
        allocated=clock.area / capacity_milli / (visits.end - visits.warm_up),
        blocked=sum(count.refused_milli for count in counts.values()) / max(1, offered),
        counts=counts,
        moves=tally.moves,
    )


@dataclass(slots=True)
class _Clock:
    """Lets those leave whose time is over (a heap of time, arrival, request), and adds up what is held."""

    tally: _Tally
    leaving: list[tuple[float, int, Request]]
    now: float = 0.0
    area: float = 0.0

    def until(self, then: float) -> None:
        while self.leaving and self.leaving[0][0] <= then:
            at, n, request = heapq.heappop(self.leaving)
            self._pass(at)
            self.tally.leave(n, request)
        self._pass(then)

    def start(self, then: float) -> None:
        """Count from here on; what is held stays held."""
        self.until(then)
        self.area = 0.0
        self.tally.forget()

    def _pass(self, then: float) -> None:
        self.area += self.tally.held_milli * (then - self.now)
        self.now = then


@dataclass(slots=True)
class _Tally:
    """Holds what is decided, and counts."""

    desk: Desk
    came_milli: int = 0
    held_milli: int = 0
    moves: int = 0
    _counts: dict[str, list[int]] = field(default_factory=dict)

    def place(self, request: Request, n: int) -> bool:
        """Ask for a place for the arrival number ``n`` and hold it; whether there was one."""
        milli = milli_of(request)
        decision = self._decided(request)
        placed = decision is not None
        count = self._counts.setdefault(size_of(request), [0, 0, 0, 0])
        for at, more in enumerate((1, not placed, milli, milli * (not placed))):
            count[at] += more
        self.came_milli += milli
        if decision is not None:
            self.held_milli += milli
            tenure = Tenure(restartable=self.desk.mover is not None)
            self.desk.fleet.hold(str(n), replace(Hold.of(decision), tenure=tenure))
        return placed

    def _decided(self, request: Request) -> Decision | None:
        decision, moved = decided(self.desk, request)
        self.moves += len(moved)
        return decision

    def leave(self, n: int, request: Request) -> None:
        """The arrival number ``n`` is gone."""
        self.desk.fleet.drop(str(n))
        self.desk.left(request)
        self.held_milli -= milli_of(request)

    def forget(self) -> None:
        """Count from nothing on."""
        self._counts.clear()
        self.moves = 0
        if self.desk.mover is not None:
            self.desk.mover.forget()

    def by_size(self) -> dict[str, Count]:
        return dict(together([{size: Count(*count) for size, count in self._counts.items()}]))


def decided(desk: Desk, request: Request) -> tuple[Decision | None, Sequence[str]]:
    """Where it goes; where it goes nowhere as things stand, others are moved if they may be: which ones."""
    if desk.mover is not None:
        desk.mover.came()
    decision = desk.decide(request)
    if isinstance(decision, Decision):
        return decision, ()
    plan = desk.mover.room_for(request) if desk.mover is not None else None
    if plan is None:
        return None, ()
    for move in plan.moves:
        desk.fleet.hold(move.uid, move.hold)
    # As if it had fitted at once: who decides hears of it like of any other.
    placed = desk.decide(request)
    return placed if isinstance(placed, Decision) else plan.decision, [move.uid for move in plan.moves]

"""What the queue would say of a request that is not in line yet, for who plans: its place in the order, when it would
start, and who would make room for it. Nothing is joined, kept or told by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bessemer.core.clock import rfc3339
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.kinds.fleet.queueing import Queueing
from bessemer.placement.facts import Hold
from bessemer.placement.queue import Pending


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """``ahead`` of ``waiting`` others go before it. ``start`` is when it starts at the latest, None where nobody knows:
    ``at_once``, or when the claims ``stops`` have made room for it, which are told where it asks, or others have ended.
    ``deep``: it is so far back in the order that nobody looks."""

    ahead: int
    waiting: int
    start: int | None
    at_once: bool = False
    deep: bool = False
    stops: Mapping[str, Hold] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """When, and why not sooner."""
        before = f"; {self.ahead} of {self.waiting} that wait go before it" if self.waiting else ""
        if self.at_once:
            return f"at once{before}"
        if self.start is not None:
            return f"by {rfc3339(self.start)}{before}"
        why = "nobody looks so far ahead" if self.deep else "nobody knows when what it would wait for ends"
        return f"not known: {why}{before}"


class Foresight:
    """Implements ``kinds.fleet.planning.Planner``: where things would go by the feed, and whose turn it would be."""

    def __init__(self, feed: FleetFeed, queue: Queueing) -> None:
        self.arrays, self.own = feed.arrays, feed.own
        self.ready, self.decide, self.decide_gang = queue.ready, queue.decide, queue.decide_gang
        self.others = queue.others
        self._queue = queue

    def foresee(self, pending: Pending) -> Foreseen:
        """As things are. Raises Unavailable until all has been read."""
        made, answer = self._queue.tried(pending)
        ahead, turn = made.order[pending.uid], made.turns.get(pending.uid)
        found = Foreseen(ahead=ahead, waiting=len(made.order) - 1, start=None, deep=turn is None)
        now = self._queue.now()
        if answer is not None:
            return Foreseen(ahead=ahead, waiting=found.waiting, start=now, at_once=True)
        if turn is None:
            return found
        stops = self._queue.holds(turn.victims)
        return Foreseen(ahead=ahead, waiting=found.waiting, start=turn.expected, stops=stops)

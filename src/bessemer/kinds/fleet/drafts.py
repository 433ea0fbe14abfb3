"""`Drafts`: plans of who waits, made upon the feed's arrays, and what is free beside what they keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bessemer.core.clock import Clock
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.kinds.fleet.moving import Fork
from bessemer.kinds.fleet.places import Here
from bessemer.placement.facts import Hold
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.queue import Book, Pending, Plan, Rules, Running, Share, plan
from bessemer.placement.queue.plan import ask, beside
from bessemer.placement.queue.values import Kept, Placed, Wants


class Drafts:
    """Nothing is left of one in the arrays. ``tree`` are shares by the name of a tenant or project."""

    def __init__(self, feed: FleetFeed, tree: Mapping[str, Share], *, clock: Clock, rules: Rules) -> None:
        self.rules = rules
        self._feed = feed
        self._tree = tree
        self._clock = clock
        self._book = Book(feed.arrays)
        self._running = Running(Holdings(feed.arrays))
        self._here = Here(feed)

    def make(self, waiting: Sequence[Pending], *, rules: Rules) -> Plan:
        """Of these, at this moment."""
        now, terms = int(self._clock.now()), (self._tree, rules)
        return plan(self._book, self._running, places=self._here, waiting=waiting, now=now, terms=terms)

    def free(self, wants: Wants, *, kept: Sequence[Kept], ends: int | None) -> Placed | None:
        """Where it goes beside what is kept for others. Why not, and what would help, is dear to say, and not said."""
        with beside(self._book, kept, ends=ends):
            return ask(self._here, wants)

    def fork(self, kept: Sequence[Kept]) -> Fork:
        """The fleet of this moment with what is kept for others."""
        with beside(self._book, kept, ends=None):
            return self._feed.forked(self._running.holdings)

    def holds(self, uids: Sequence[str]) -> Mapping[str, Hold]:
        """What claims that stand hold."""
        return self._running.holds(uids)

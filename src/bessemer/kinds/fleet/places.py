"""What stands between the queue and the feed: where something would go, without the reasons against; and places that
were given and are not taken yet.
"""

from __future__ import annotations

from itertools import islice

from bessemer.core.asking import Decision, Gang, GangDecision, Refusal, Request
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.placement.arrays import Arrays
from bessemer.placement.facts import Tenure
from bessemer.placement.gangs import place_gang


class Here:
    """Implements ``placement.queue.Places`` over a feed. Of whoever fits it says also why not elsewhere."""

    def __init__(self, feed: FleetFeed) -> None:
        self._feed = feed

    def place(self, request: Request) -> Decision | None:
        if self._feed.own.place(request) is None:
            return None
        found = self._feed.decide(request)
        return None if isinstance(found, Refusal) else found

    def place_gang(self, gang: Gang, among: Arrays | None = None) -> GangDecision | None:
        return place_gang(among or self._feed.arrays, gang, policy=self._feed.own.policy)


class Promised:
    """Places that were said to somebody, who reads this and that before they are taken: they are counted at once, so
    that nobody is told the same place meanwhile. They are forgotten as other assumptions are."""

    def __init__(self, feed: FleetFeed) -> None:
        self._feed = feed
        self._told = 0
        self._by: dict[str, dict[str, Decision]] = {}

    def promise(self, uid: str, decision: Decision, *, tenure: Tenure) -> None:
        """Count it for the workload."""
        self._expire_first()
        # Never the same name twice: the feed forgets by name, at a time of its own.
        self._told += 1
        name = f"{uid}/promised/{self._told}"
        self._by.setdefault(uid, {})[name] = decision
        self._feed.assume(decision, name, tenure=tenure)

    def kept(self, uid: str, decision: Decision) -> str:
        """It is about to be taken: the name under which it is counted, for who counts it from here on; "" for none."""
        some = self._by.get(uid, {})
        name = next((name for name, promised in some.items() if _same(promised, decision)), "")
        if name:
            self._pop(uid, name)
        return name

    def end(self, uid: str) -> None:
        """Whoever asks anew has not taken what it was told."""
        for name in list(self._by.get(uid, ())):
            self._drop(uid, name)

    def expire(self) -> None:
        """Forget what the feed has forgotten."""
        for uid, some in list(self._by.items()):
            for name in [name for name in some if self._feed.arrays.held.of(name) is None]:
                self._drop(uid, name)

    def _expire_first(self) -> None:
        """The same of those who were told longest ago, at most two: more than come, so that none are left behind where
        nobody waits, and nobody has all of them looked at."""
        for uid in list(islice(self._by, 2)):
            if self._feed.arrays.held.of(next(iter(self._by[uid]))) is None:
                self.end(uid)

    def _drop(self, uid: str, name: str) -> None:
        self._pop(uid, name)
        self._feed.arrays.drop(name)

    def _pop(self, uid: str, name: str) -> None:
        del self._by[uid][name]
        if not self._by[uid]:
            del self._by[uid]


def _same(one: Decision, other: Decision) -> bool:
    return (one.host, one.devices, one.allocations) == (other.host, other.devices, other.allocations)

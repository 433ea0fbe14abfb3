"""Which replica answers a request, or that it waits for one: a table of replicas and a request in. Pure: the time is
given, and nothing is asked of anybody.

In this order: never one that was tried, nor one that has not the adapter, nor one that is ejected (`health`) or leaving
while another is there; one with a free slot, or the request waits (`fair`); then by what is known of it:

1. **session**: a request that names one goes where the ring of replicas has it, the same at every gateway;
2. **prefix**: where a replica was sent most of this prompt before (`prefix`), the least loaded of those;
3. **ring**: else by the first mark of the prompt that is not known here: gateways that never heard of each other's
   requests send the turns of one conversation to one replica, while a beginning that all know ties nobody;
4. **load**: else the one with least to do; of many replicas, of two.

What a replica has to do is told in tokens: of prompts that it has not begun to answer, and some for each request that
it answers. The first three hold while the least loaded has not so much less to do that it would be sooner there: by so
much more as there is to be found again.

Sources: Karger et al. (consistent hashing, STOC 1997); Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded
Loads (SODA 2018); Mitzenmacher: The Power of Two Choices (2001); the cost function of NVIDIA Dynamo's KV router and the
cache-aware policy of SGLang's router (affinity until loads differ too much).
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bessemer.gateway.gauge import Gauge
from bessemer.gateway.health import EJECTED_SHARE_MAX, Health
from bessemer.gateway.onward import Fields
from bessemer.gateway.prefix import MARKS_KEPT, Marks, Trail
from bessemer.gateway.waiting import Tally, Waiting

if TYPE_CHECKING:
    from bessemer.gateway.outer import Outer

REQUEST_TOKENS = 1024
"""What a request weighs that is being answered, beside the tokens of its prompt until they are read."""
KNOWN_WORTH, LATER_WORTH = 4.0, 0.25
"""Tokens that others may have less to do for each one of a prompt that a replica has read before, and for each one that
the next prompt of a conversation may find there."""
SESSION_TOKENS = 8 * REQUEST_TOKENS
"""By which others may have less to do than the replica of a session."""
KNOWN_SHARE = 0.5
"""Of its marks, from which on a prompt belongs to who has them."""
MANY = 8
"""Replicas, from which on two of them are looked at and not all."""
POINTS = 32
"""Of one replica on the ring."""
_CIRCLE, _SPREAD = 1 << 32, 2654435761
"""Points of the ring, and what spreads keys over it that lie close together."""


class Full(Enum):
    """No slot is free: the request waits."""

    FULL = "full"


FULL = Full.FULL


@dataclass(slots=True, eq=False)
class Replica:
    """One replica that answered its probe. ``folder`` holds its host's doors, if that shares this machine; ``busy``
    counts the requests that it answers now, ``tokens`` are of those prompts that it has not begun to answer. One that
    is ``leaving`` was told when it ends: it answers what it has, and new ones only where nobody else does. ``model``,
    ``slots`` and ``context_tokens`` are its own, of whatever ``revision`` it is; "" and 0 are its endpoint's. The model
    is as records say it (`core.money.said_of`): what it was ``made_of``, of which project as ``owner``. ``most`` is
    what it answers at once. ``adapters`` are those it has loaded, and ``carries`` is what a request must say by them
    (`onward`). ``outer`` is a service elsewhere (`outer`). ``links`` are the connections to it that wait (`upstream`),
    ``heads`` what each request to it begins with."""

    claim_uid: str
    host: str
    address: str
    folder: Path | None = None
    busy: int = 0
    tokens: int = 0
    health: Health = field(default_factory=Health)
    leaving: bool = False
    revision: str = ""
    model: str = ""
    made_of: str = ""
    owner: str = ""
    slots: int = 0
    context_tokens: int = 0
    most: int = 0
    adapters: frozenset[str] = frozenset()
    carries: Mapping[str, Fields] = field(default_factory=dict)
    outer: Outer | None = None
    links: list[Any] = field(default_factory=list)
    heads: dict[tuple[str, bool], bytes] = field(default_factory=dict, repr=False)


class Sought(msgspec.Struct, gc=False):
    """What of a request decides who answers it. ``session`` is a hash, 0 where it names none; ``marks`` are of its
    prompt, ``cost`` the tokens of that."""

    session: int = 0
    marks: Marks = ()
    adapter: str = ""
    cost: int = 1


class Pool:
    """The replicas of one endpoint by Claim uid, what they were sent, and who waits for them. ``each`` is how many
    slots a replica has that does not say it, 0 where nobody knows: then nobody waits. ``slots`` are those of who has
    fewest, ``total`` all of them; ``busy`` is what all of them answer now."""

    def __init__(self, slots: int = 0, tally: Tally | None = None) -> None:
        self.each = self.slots = slots
        self.total = 0
        self.busy = 0
        self.replicas: dict[str, Replica] = {}
        self.tally = tally if tally is not None else Tally()
        self.waiting = Waiting(self.tally)
        self.gauge = Gauge()
        self._trail = Trail()
        self._ring = Ring()
        self._all: list[Replica] = []
        self._plain = True
        """All of them stay, and none is ejected."""

    # --- who there is -------------------------------------------------------------------------------------------

    def add(self, replica: Replica) -> None:
        """One more, or one that is another than it was."""
        self.drop(replica.claim_uid)
        self.replicas[replica.claim_uid] = replica
        self.busy += replica.busy
        self._lay()

    def drop(self, uid: str) -> None:
        """It is gone: what it answers it goes on with, if it can."""
        if (old := self.replicas.pop(uid, None)) is not None:
            self.busy -= old.busy
            self._lay()

    def began(self, replica: Replica, cost: int) -> bool:
        """A request is sent to a replica; whether it is a probe."""
        replica.busy += 1
        replica.tokens += cost
        if self.replicas.get(replica.claim_uid) is replica:
            self.busy += 1
        return replica.health.failures > 0 and replica.health.probe()

    def ended(self, replica: Replica, cost: int, *, probe: bool) -> None:
        """It is not asked any more."""
        replica.busy -= 1
        replica.tokens -= cost
        if probe:
            replica.health.probing = False
        if self.replicas.get(replica.claim_uid) is replica:
            self.busy -= 1

    def changed(self) -> None:
        """One of them leaves now, or stays after all; or has other slots than before."""
        for one in self._all:
            one.most = one.slots or self.each
        self.slots = min((one.most for one in self._all), default=self.each)
        self.total = sum(one.most for one in self._all)
        self._plain = not any(one.leaving or one.health.failures for one in self._all)

    def lost(self, replica: Replica, now: float) -> None:
        """A replica did not answer: it is ejected for a while."""
        replica.health.lost(now)
        self.tally.ejected += 1
        self._plain = False

    def erred(self, replica: Replica, now: float) -> None:
        """A replica answered with a status of 5xx what another answered (`blame`)."""
        resting = sum(1 for one in self._all if one.health.resting(now))
        spared = len(self._all) > 1 and resting + 1 > EJECTED_SHARE_MAX * len(self._all)
        if replica.health.erred(now, spared=spared):
            self.tally.ejected += 1
            self._plain = False

    def answered(self, replica: Replica) -> None:
        """An answer of it was whole."""
        health = replica.health
        if health.failures or health.errors:
            health.answered()
            self.changed()

    # --- who is asked -------------------------------------------------------------------------------------------

    def choose(
        self, sought: Sought, now: float, *, tried: frozenset[str] = frozenset(), waited: bool = False
    ) -> Replica | Full | None:
        """Who answers it; FULL where it waits, None where nobody is there who was not tried. Who has ``waited`` waits
        behind nobody, and who was tried somewhere had his turn: he waits for no slot, either. Nor does who wants an
        adapter that only those have who are busy, while others are not: the line would be held up for him."""
        there, slots = self._all, 0 if tried else self.slots
        if slots and self.waiting.count and not waited:
            return FULL
        if tried or sought.adapter or not self._plain:
            there = self._usable(now, tried, adapter=sought.adapter)
        if slots and (there is not self._all or self.busy >= slots):
            free = [one for one in there if one.busy < one.most]
            if not free and not (there and sought.adapter and self.room(now)):
                return FULL if there else None
            there = free or there
        if len(there) < 2:
            chosen = there[0] if there else None
        else:
            chosen = self._preferred(sought, there)
        if chosen is not None and sought.marks:
            self._trail.keep(sought.marks, chosen.claim_uid)
        return chosen

    def room(self, now: float) -> bool:
        """Whether who waits longest would be served or refused now, rather than wait on."""
        slots = self.slots
        usable = self._usable(now, frozenset())
        return not usable or any(one.busy < one.most for one in usable) or not slots

    def _usable(self, now: float, tried: frozenset[str], *, adapter: str = "") -> list[Replica]:
        """The best that there are, of those that have the adapter: that stay and are not ejected; else those that
        leave; else whoever rests the shortest."""
        there = [one for one in self._all if not tried or one.claim_uid not in tried]
        if adapter:
            there = [one for one in there if adapter in one.adapters]
        ready = [one for one in there if not one.health.failures or one.health.ready(now)]
        if not ready:
            return sorted(there, key=lambda one: (one.leaving, one.health.not_before, one.busy))[:1]
        return [one for one in ready if not one.leaving] or ready

    def _preferred(self, sought: Sought, free: list[Replica]) -> Replica:
        tally, marks = self.tally, sought.marks
        light = _lightest(free if len(free) <= MANY else self._ring.two(free))
        least = light.tokens + REQUEST_TOKENS * light.busy
        some = None if free is self._all else free
        if sought.session:
            there = self._ring.first(sought.session, some, most=least + SESSION_TOKENS)
            if there is not None:
                tally.session += 1
                return there
        if marks:
            depth, holders = self._trail.find(marks)
            share = depth / len(marks)
            if share > KNOWN_SHARE:
                there = self._known(holders, some, most=least + KNOWN_WORTH * share * sought.cost)
                if there is not None:
                    tally.prefix += 1
                    return there
            key = marks[min(depth, len(marks) - 1)]
            there = self._ring.first(key, some, most=least + LATER_WORTH * sought.cost)
            if there is not None:
                tally.ring += 1
                return there
        tally.load += 1
        return light

    def _known(self, holders: Sequence[str], some: list[Replica] | None, *, most: float) -> Replica | None:
        """Of those who have read it the one with least to do, where that is no more than ``most``."""
        known = [one for one in map(self.replicas.get, holders) if one is not None and (some is None or one in some)]
        if not known:
            return None
        there = known[0] if len(known) == 1 else _lightest(known)
        return there if there.tokens + REQUEST_TOKENS * there.busy <= most else None

    def _lay(self) -> None:
        """What follows from who there is."""
        self._all = list(self.replicas.values())
        self._ring = Ring(self._all)
        self._trail.most = MARKS_KEPT * max(1, len(self._all))
        self.changed()


class Ring:
    """Replicas, each at many points of a circle: a key belongs to the next of them, and when one comes or goes only
    what is its own moves."""

    __slots__ = ("_count", "_owners", "_points")

    def __init__(self, replicas: Sequence[Replica] = ()) -> None:
        points = sorted((_point(f"{one.claim_uid}/{n}"), at) for at, one in enumerate(replicas) for n in range(POINTS))
        self._points = [point for point, _ in points]
        self._owners = [replicas[at] for _, at in points]
        self._count = 0

    def first(self, key: int, some: list[Replica] | None, *, most: float) -> Replica | None:
        """The first from a key on, of ``some`` or of all, that has no more to do than ``most``."""
        owners = self._owners
        start = bisect(self._points, key * _SPREAD % _CIRCLE)
        for at in range(start, start + len(owners)):
            there = owners[at % len(owners)]
            if there.tokens + REQUEST_TOKENS * there.busy <= most and (some is None or there in some):
                return there
        return None

    def two(self, some: Sequence[Replica]) -> tuple[Replica, Replica]:
        """Another two at each time."""
        self._count += 1
        at = self._count * _SPREAD % _CIRCLE
        return some[at % len(some)], some[(at >> 8) % len(some)]


def _point(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "big")


def _lightest(some: Iterable[Replica]) -> Replica:
    """With least to do; of those that have as much, the first."""
    found, least = None, 0
    for one in some:
        load = one.tokens + REQUEST_TOKENS * one.busy
        if not load:
            return one
        if found is None or load < least:
            found, least = one, load
    assert found is not None, "somebody is there"
    return found

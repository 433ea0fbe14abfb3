"""`Queueing`: the fleet, taken in turn. It stands before `FleetFeed` and implements ``kinds.context.Fleet``, too.

Who asks for itself and finds nobody waiting is answered by the feed. Else all who wait are planned for
(``placement.queue``), and who asks hears what the plan says of it. Invariants: nothing is placed that the plan keeps
for another; nothing stands here that is lost with the process: who waits is in the objects and asks again, what runs
is in the Claims. It takes nothing and stops nothing: it proposes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from bessemer.core.asking import Asker, Decision, Gang, GangDecision, Reason, Refusal, Request
from bessemer.core.clock import Clock, rfc3339
from bessemer.core.errors import Unavailable
from bessemer.core.notices import Stops, mark_of
from bessemer.core.ports import Objects
from bessemer.kinds.fleet.foresight import Forecasts, Foreseen
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.kinds.fleet.moving import Fork
from bessemer.kinds.fleet.places import Here, Promised
from bessemer.kinds.fleet.tenure import CLEARED_SECONDS
from bessemer.kinds.fleet.waiting import Waiting
from bessemer.placement.facts import Tenure
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.queue import Book, Pending, Plan, Rules, Running, Turn, plan
from bessemer.placement.queue.plan import ask, beside
from bessemer.placement.queue.values import Placed, Wants, decisions

SILENT_SECONDS = 45.0
"""Whoever waits asks every ten seconds at least; who is silent for longer, and says nothing in its object, left."""

VAIN_SECONDS = (60.0, 600.0)
"""For whom others were stopped in vain nobody is stopped for so long: twice as long each time, up to the second."""

_PLAN_SECONDS = 5.0
"""A plan holds for so long where nothing changes: times pass by themselves."""

_PLAN_SHARE = 10
"""Where much changes, planning takes one part in so many of the time at most."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """Who asked here, and when (monotonic)."""

    pending: Pending
    at: float


@dataclass(frozen=True, slots=True)
class _Made:
    """A plan and what it was made of; ``given`` are those who had their place by it."""

    plan: Plan
    of: tuple[int, ...]
    at: float
    took: float
    waiting: Mapping[str, Pending]
    given: set[str] = field(default_factory=set)


class Queueing:
    """Implements ``kinds.context.Fleet``."""

    def __init__(self, feed: FleetFeed, objects: Objects, *, clock: Clock, rules: Rules | None = None) -> None:
        self._feed = feed
        self._clock = clock
        self._rules = rules or Rules(cleared=CLEARED_SECONDS)
        self._waiting = Waiting(objects, clock, left=partial(_leave, self), heed=feed.demand.waits)
        self._book = Book(feed.arrays)
        self._running = Running(Holdings(feed.arrays))
        self._here = Here(feed)
        self._promised = Promised(feed)
        self._heard: dict[str, _Heard] = {}
        self._joined = 0
        self._asked: dict[str, Pending] = {}
        self._made: _Made | None = None
        self._vain: dict[str, tuple[float, float]] = {}
        self.moving = feed.moving
        self.forked = partial(_forked, self)
        self.wanted = partial(_wanted, self)

    async def run(self) -> None:
        """Follow the fleet and who waits for it, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed.run())
            group.create_task(self._waiting.run())

    def ready(self) -> bool:
        """Whether the fleet, and who waits for it, have been read once."""
        return self._feed.ready() and self._waiting.ready()

    def decide(self, request: Request, asker: Asker | None = None) -> Decision | Refusal:
        """Where the request would go now, were it its turn; for an asker, where it goes. Raises Unavailable until all
        has been read."""
        answer = self._answer(request, asker)
        assert not isinstance(answer, GangDecision)
        return answer

    def decide_gang(self, gang: Gang, asker: Asker | None = None) -> GangDecision | Refusal:
        """The same for all of a gang or none."""
        answer = self._answer(gang, asker)
        assert not isinstance(answer, Decision)
        return answer

    def plan(self) -> Plan:
        """Of all who wait, at this moment. Raises Unavailable until all has been read."""
        if not self.ready():
            raise Unavailable("The fleet is still being read.", retry_after_seconds=1)
        return self._planned().plan

    def assume(self, decision: Decision, claim_uid: str) -> None:
        """Count a decision until its Claim is seen; for whoever asked, on its terms."""
        uid = claim_uid.partition("/")[0]
        asked = self._asked.get(uid)
        tenure = _tenure(asked, since=int(self._clock.now())) if asked is not None else None
        self._feed.assume(decision, claim_uid, tenure=tenure, before=self._promised.kept(uid, decision))

    def forget(self, claim_uid: str) -> None:
        """Take an assumption back: the Claim was not taken; or where there is none, a turn that nobody can use."""
        uid, now = claim_uid.partition("/")[0], self._clock.monotonic()
        assumed = self._feed.arrays.held.of(claim_uid) is not None
        self._feed.forget(claim_uid)
        _leave(self, uid)
        if not assumed:
            return
        # A quota, a name, money: what kept it from its place is not placement's to know, and may keep it again.
        first, most = VAIN_SECONDS
        for old in [one for one, (_, until) in self._vain.items() if until + most < now]:
            del self._vain[old]
        seconds, until = self._vain.get(uid, (first / 2, now))
        if until <= now:  # all members of a gang are taken back at once, which is once in vain
            self._vain[uid] = (min(most, 2 * seconds), now + min(most, 2 * seconds))

    # --- turns ---

    def _answer(self, wants: Wants, asker: Asker | None) -> Placed | Refusal:
        if not self.ready():
            raise Unavailable("The fleet is still being read.", retry_after_seconds=1)
        if asker is None:
            return _ask(self._feed, wants)
        pending = Pending(asker, wants)
        self._promised.end(asker.uid)
        # Whoever is moved waits for nobody: its place is kept for it, and it gives another one back.
        there = self.moving.kept(asker.uid, wants)
        if there is not None:
            return self._placed(pending, there)
        if not any(uid != asker.uid for uid in self._all()):
            answer = _ask(self._feed, wants)
            if not isinstance(answer, Refusal):
                return self._placed(pending, answer)
        self._join(pending)
        made = self._planned(pending)
        # Who had its place by this plan, and asks for another, is new to it.
        turn = made.plan.turns.get(asker.uid) if asker.uid not in made.given else None
        if turn is not None and turn.placed is not None:
            made.given.add(asker.uid)
            return self._placed(pending, turn.placed)
        if turn is None:
            waiting = self._all()
            others = [one for one in made.plan.kept if one.uid in waiting and one.uid != asker.uid]
            with beside(self._book, others, ends=asker.ends):
                # Why not, and what would help, is dear to say and said below, of the fleet as it is.
                free = ask(self._here, wants)
            if free is not None:
                return self._placed(pending, free)
        return self._refused(pending, made.plan, turn=turn)

    def _placed(self, pending: Pending, answer: Placed) -> Placed:
        uid = pending.uid
        self._joined += self._heard.pop(uid, None) is not None
        self._waiting.forget(uid)
        self._asked.pop(uid, None)
        self._asked[uid] = pending
        while len(self._asked) > 1024:
            del self._asked[next(iter(self._asked))]
        tenure = _tenure(pending, since=int(self._clock.now()))
        for decision in decisions(answer):
            self._promised.promise(uid, decision, tenure=tenure)
        return answer

    def _join(self, pending: Pending) -> None:
        known = self._heard.get(pending.uid)
        if known is None or not _alike(known.pending, pending):
            self._joined += 1
        self._heard[pending.uid] = _Heard(pending, self._clock.monotonic())

    def _all(self) -> Mapping[str, Pending]:
        """Who waits: by its object, and by what it asked here, which is newer."""
        before = self._clock.monotonic() - SILENT_SECONDS
        for uid in [uid for uid, heard in self._heard.items() if heard.at < before]:
            del self._heard[uid]
            self._joined += 1
        return {**self._waiting.pending, **{uid: heard.pending for uid, heard in self._heard.items()}}

    def _planned(self, pending: Pending | None = None) -> _Made:
        """The plan of this moment: the last one, where it would be the same, or was dear to make and knows nothing else
        of who asks. Then it may be old, as decisions may be."""
        self._feed.expire()
        self._promised.expire()
        waiting, now = self._all(), self._clock.monotonic()
        vain = frozenset(uid for uid, (_, until) in self._vain.items() if now < until)
        of = (self._feed.arrays.version, self._joined, self._waiting.version, hash(vain))
        made = self._made
        if made is not None and made.of == of and now - made.at < _PLAN_SECONDS:
            return made
        recent = made is not None and now - made.at < _PLAN_SHARE * made.took
        if made is not None and recent and pending is not None:
            known = made.waiting.get(pending.uid)
            # Whoever is new has what is free beside all that is kept: else each of a flood would cost a plan.
            if known is None or _alike(known, pending):
                return made
        found = _plan(self, list(waiting.values()), rules=replace(self._rules, vain=vain))
        took = self._clock.monotonic() - now
        self._made = _Made(found, of, now, took, waiting)
        return self._made

    # --- words ---

    def _refused(self, pending: Pending, found: Plan, *, turn: Turn | None) -> Refusal:
        """Why not now: what placement says where it would not fit in any case, else who comes before it."""
        plain = _ask(self._feed, pending.wants)
        ahead = found.order.get(pending.uid, 0)
        stops = self._stops(turn, uid=pending.uid)
        # For whom nobody is stopped now, nobody knows when that is.
        expected = turn.expected if turn is not None and (stops is not None or not turn.victims) else None
        wait = f"wait until {rfc3339(expected)}" if expected is not None else ""
        if isinstance(plain, Refusal):
            cheapest = "; or ".join(filter(None, (plain.cheapest, wait)))
            refusal = replace(plain, cheapest=cheapest, expected=expected)
        else:
            hosts = sorted({host for one in found.kept if one.uid != pending.uid for host in one.hosts})
            text = f"room, but {ahead} of higher standing {'wait' if ahead != 1 else 'waits'} for it"
            if hosts:
                text += f"; places on {len(hosts)} host{'s'[: len(hosts) > 1]} are kept for them"
            if isinstance(plain, Decision):
                reasons: tuple[Reason, ...] = (Reason("Queued", plain.fitting, text), *plain.reasons)
            else:
                reasons = (Reason("Queued", len({member.host for member in plain.members}), text),)
            refusal = Refusal(reasons=reasons, cheapest=wait, queued=True, expected=expected)
        return replace(refusal, stops=stops)

    def _stops(self, turn: Turn | None, *, uid: str) -> Stops | None:
        if turn is None or not turn.victims or turn.kept is None:
            return None
        if uid in self._vain and self._clock.monotonic() < self._vain[uid][1]:
            return None
        at = int(self._clock.now()) + self._rules.grace
        hosts = {hold.host for hold in self._running.holds(turn.victims).values()}
        return Stops(turn.victims, tuple(sorted(hosts)), at)


def _ask(feed: FleetFeed, wants: Wants) -> Placed | Refusal:
    """With the reasons against."""
    return feed.decide_gang(wants) if isinstance(wants, Gang) else feed.decide(wants)


def _forked(queue: Queueing) -> Fork:
    """The fleet of this moment with what is kept for those who wait, for who plans moves. Raises Unavailable until all
    has been read."""
    with beside(queue._book, queue.plan().kept, ends=None):
        return queue._feed.forked(queue._running.holdings)


def _alike(known: Pending, pending: Pending) -> bool:
    """Whether it asks as before. While it waits its end moves away with each second, which is no news to a plan that is
    no older than plans may be."""
    return replace(known, asker=replace(known.asker, ends=pending.asker.ends)) == pending


def _tenure(pending: Pending, *, since: int) -> Tenure:
    """Of what is taken for whoever asked."""
    asker = pending.asker
    return Tenure(
        project=asker.project,
        priority=asker.priority,
        since=since,
        ends=asker.ends,
        preemptible=asker.preemptible,
        workload=asker.uid,
        gang=asker.uid if pending.count > 1 else "",
    )


def _leave(queue: Queueing, uid: str) -> None:
    """It is gone, to go, or at its end: it need not be silent for a while first."""
    queue._joined += queue._heard.pop(uid, None) is not None


def _wanted(queue: Queueing, asker: str, *, hosts: Collection[str], claims: Collection[str] = ()) -> bool:
    """Whether who had claims on these hosts told to end still counts on a place there, or somebody else who stands
    higher than one of them on its end. Who is not looked at yet may."""
    if not queue.ready():
        return True
    waiting = queue._all()
    pending = next((one for one in waiting.values() if mark_of(one.uid) == asker), None)
    if not waiting:
        return False
    made = queue._planned(pending or next(iter(waiting.values())))
    turn = made.plan.turns.get(pending.uid) if pending is not None else None
    if pending is not None and (turn is None or turn.kept is None or not set(turn.kept.hosts).isdisjoint(hosts)):
        return True
    return any(
        one.gone[uid].tenure.priority < made.waiting[one.uid].asker.priority
        for one in made.plan.kept
        for uid in one.gone.keys() & set(claims)
    )


def _plan(queue: Queueing, waiting: Sequence[Pending], *, rules: Rules) -> Plan:
    terms, now = (queue._waiting.tree, rules), int(queue._clock.now())
    return plan(queue._book, queue._running, places=queue._here, waiting=waiting, now=now, terms=terms)


class Foresight:
    """Implements ``kinds.fleet.planning.Planner``: where things would go by the feed, and whose turn it would be."""

    def __init__(self, feed: FleetFeed, queue: Queueing) -> None:
        self.arrays, self.own = feed.arrays, feed.own
        self.ready, self.decide, self.decide_gang = queue.ready, queue.decide, queue.decide_gang
        self._queue = queue
        self._forecasts = Forecasts(queue._clock)

    def others(self) -> bool:
        """Whether somebody waits for a place already."""
        return bool(self._queue._all())

    def foresee(self, pending: Pending) -> Foreseen:
        """The plan of this moment, did it ask too. Nothing is left of it. Raises Unavailable until all has been
        read, TooMany where its tenant asked too much of it."""
        queue = self._queue
        if not queue.ready():
            raise Unavailable("The fleet is still being read.", retry_after_seconds=1)
        moment = (queue._feed.arrays.version, len(queue._all()), queue._joined, queue._waiting.version)
        found = self._forecasts.of(pending, moment=moment, make=partial(self._made, pending))
        return replace(found, start=int(queue._clock.now())) if found.at_once else found

    def _made(self, pending: Pending) -> Foreseen:
        queue, uid = self._queue, pending.uid
        waiting = [one for one in queue._all().values() if one.uid != uid]
        # All that it looks at are told: this one may come last of them.
        made = _plan(queue, [*waiting, pending], rules=replace(queue._rules, told=queue._rules.depth))
        turn = made.turns.get(uid)
        at_once = turn is not None and turn.placed is not None
        if turn is None:
            with beside(queue._book, made.kept, ends=pending.asker.ends):
                at_once = ask(queue._here, pending.wants) is not None
        now = int(queue._clock.now())
        return Foreseen(
            ahead=made.order[uid],
            waiting=len(waiting),
            start=now if at_once else turn.expected if turn is not None else None,
            at_once=at_once,
            deep=turn is None,
            stops=queue._running.holds(turn.victims) if turn is not None else {},
        )

"""`Queueing`: the fleet, taken in turn. It stands before `FleetFeed` and implements ``kinds.context.Fleet``, too.

Who asks for itself and finds nobody waiting is answered by the feed. Else all who wait are planned for
(``placement.queue``), and who asks hears what the plan says of it. Invariants: nothing is placed that the plan keeps
for another; nothing stands here that is lost with the process: who waits is in the objects and asks again, what runs
is in the Claims. It takes nothing and stops nothing: it proposes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from bessemer.core.asking import Asker, Decision, Gang, GangDecision, Reason, Refusal, Request
from bessemer.core.clock import Clock, rfc3339
from bessemer.core.errors import Unavailable
from bessemer.core.notices import Stops, mark_of
from bessemer.core.ports import Objects
from bessemer.kinds.fleet.drafts import Drafts
from bessemer.kinds.fleet.foresight import Forecasts, Foreseen
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.kinds.fleet.line import Line, Vain, alike
from bessemer.kinds.fleet.moving import Fork
from bessemer.kinds.fleet.places import Promised
from bessemer.kinds.fleet.tenure import CLEARED_SECONDS
from bessemer.placement.facts import Tenure
from bessemer.placement.queue import Pending, Plan, Rules, Turn
from bessemer.placement.queue.values import Placed, Wants, decisions

_PLAN_SECONDS = 5.0
"""A plan holds for so long where nothing changes: times pass by themselves."""

_PLAN_SHARE = 10
"""Where much changes, planning takes one part in so many of the time at most."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A plan and what it was made of; ``given`` are those who had their place by it."""

    plan: Plan
    of: tuple[Hashable, ...]
    at: float
    took: float
    waiting: Mapping[str, Pending]
    given: set[str] = field(default_factory=set)


class Queueing:
    """Implements ``kinds.context.Fleet``."""

    def __init__(self, feed: FleetFeed, objects: Objects, *, clock: Clock, rules: Rules | None = None) -> None:
        self._feed = feed
        self._clock = clock
        self.line = Line(objects, clock, heed=feed.demand.waits)
        rules = rules or Rules(cleared=CLEARED_SECONDS)
        self.drafts = Drafts(feed, self.line.waiting.tree, clock=clock, rules=rules)
        self._promised = Promised(feed)
        self._asked: dict[str, Tenure] = {}
        self._made: _Made | None = None
        self._vain = Vain(clock)
        self.moving = feed.moving

    async def run(self) -> None:
        """Follow the fleet and who waits for it, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed.run())
            group.create_task(self.line.waiting.run())

    def ready(self) -> bool:
        """Whether the fleet, and who waits for it, have been read once."""
        return self._feed.ready() and self.line.waiting.ready()

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

    def forked(self) -> Fork:
        """The fleet of this moment with what is kept for those who wait, for who plans moves. Raises Unavailable until
        all has been read."""
        return self.drafts.fork(self.plan().kept)

    def wanted(self, asker: str, *, hosts: Collection[str], claims: Collection[str] = ()) -> bool:
        """Whether who had claims on these hosts told to end still counts on a place there, or somebody else who stands
        higher than one of them on its end. Who is not looked at yet may."""
        if not self.ready():
            return True
        waiting = self.line.all()
        pending = next((one for one in waiting.values() if mark_of(one.uid) == asker), None)
        if not waiting:
            return False
        made = self._planned(pending or next(iter(waiting.values())))
        turn = made.plan.turns.get(pending.uid) if pending is not None else None
        if pending is not None and (turn is None or turn.kept is None or not set(turn.kept.hosts).isdisjoint(hosts)):
            return True
        return any(
            one.gone[uid].tenure.priority < made.waiting[one.uid].asker.priority
            for one in made.plan.kept
            for uid in one.gone.keys() & set(claims)
        )

    def assume(self, decision: Decision, claim_uid: str) -> None:
        """Count a decision until its Claim is seen; for whoever asked, on its terms."""
        uid = claim_uid.partition("/")[0]
        before = self._promised.kept(uid, decision)
        self._feed.assume(decision, claim_uid, tenure=self._asked.get(uid), before=before)

    def forget(self, claim_uid: str, *, lost: bool = False) -> None:
        """Take an assumption back: the Claim was not taken; or where there is none, a turn that nobody can use."""
        uid = claim_uid.partition("/")[0]
        assumed = self._feed.arrays.held.of(claim_uid) is not None
        self._feed.forget(claim_uid, lost=lost)
        self.line.leave(uid)
        if assumed:
            self._vain.add(uid)

    # --- turns ---

    def _answer(self, wants: Wants, asker: Asker | None) -> Placed | Refusal:
        if not self.ready():
            raise Unavailable("The fleet is still being read.", retry_after_seconds=1)
        if asker is None:
            return _ask(self._feed, wants)
        pending = Pending(asker, wants)
        self._promised.end(asker.uid)
        self._feed.lost.recall(asker.uid)
        # Whoever is moved waits for nobody: its place is kept for it, and it gives another one back.
        there = self.moving.kept(asker.uid, wants)
        if there is not None:
            return self._placed(pending, there)
        if not self.line.others(asker.uid):
            answer = _ask(self._feed, wants)
            if not isinstance(answer, Refusal):
                return self._placed(pending, answer)
        self.line.join(pending)
        made = self._planned(pending)
        # Who had its place by this plan, and asks for another, is new to it.
        turn = made.plan.turns.get(asker.uid) if asker.uid not in made.given else None
        if turn is not None and turn.placed is not None:
            made.given.add(asker.uid)
            return self._placed(pending, turn.placed)
        if turn is None:
            waiting = self.line.all()
            others = [one for one in made.plan.kept if one.uid in waiting and one.uid != asker.uid]
            # Why not, and what would help, is said below, of the fleet as it is.
            free = self.drafts.free(wants, kept=others, ends=asker.ends)
            if free is not None:
                return self._placed(pending, free)
        return self._refused(pending, made.plan, turn=turn)

    def _placed(self, pending: Pending, answer: Placed) -> Placed:
        uid = pending.uid
        self.line.place(uid)
        tenure = _tenure(pending, since=int(self._clock.now()))
        self._asked.pop(uid, None)
        self._asked[uid] = tenure
        while len(self._asked) > 1024:
            del self._asked[next(iter(self._asked))]
        for decision in decisions(answer):
            self._promised.promise(uid, decision, tenure=tenure)
        return answer

    def _planned(self, pending: Pending | None = None) -> _Made:
        """The plan of this moment: the last one, where it would be the same, or was dear to make and knows nothing else
        of who asks. Then it may be old, as decisions may be."""
        self._feed.expire()
        self._promised.expire()
        waiting, now, vain = self.line.all(), self._clock.monotonic(), self._vain.now()
        of = (self._feed.arrays.version, self.line.version, vain)
        made = self._made
        if made is not None and made.of == of and now - made.at < _PLAN_SECONDS:
            return made
        recent = made is not None and now - made.at < _PLAN_SHARE * made.took
        if made is not None and recent and pending is not None:
            known = made.waiting.get(pending.uid)
            # Whoever is new has what is free beside all that is kept: else each of a flood would cost a plan.
            if known is None or alike(known, pending):
                return made
        found = self.drafts.make(list(waiting.values()), rules=replace(self.drafts.rules, vain=vain))
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
        if uid in self._vain.now():
            return None
        at = int(self._clock.now()) + self.drafts.rules.grace
        hosts = {hold.host for hold in self.drafts.holds(turn.victims).values()}
        return Stops(turn.victims, tuple(sorted(hosts)), at)


def _ask(feed: FleetFeed, wants: Wants) -> Placed | Refusal:
    """With the reasons against."""
    return feed.decide_gang(wants) if isinstance(wants, Gang) else feed.decide(wants)


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


class Foresight:
    """Implements ``kinds.fleet.planning.Planner``: where things would go by the feed, and whose turn it would be."""

    def __init__(self, feed: FleetFeed, queue: Queueing) -> None:
        self.arrays, self.own = feed.arrays, feed.own
        self.ready, self.decide, self.decide_gang = queue.ready, queue.decide, queue.decide_gang
        self.forked = queue.forked
        self._queue = queue
        self._forecasts = Forecasts(queue._clock)

    def others(self) -> bool:
        """Whether somebody waits for a place already."""
        return bool(self._queue.line.all())

    def foresee(self, pending: Pending) -> Foreseen:
        """The plan of this moment, did it ask too. Nothing is left of it. Raises Unavailable until all has been
        read, TooMany where its tenant asked too much of it."""
        queue = self._queue
        if not queue.ready():
            raise Unavailable("The fleet is still being read.", retry_after_seconds=1)
        moment = (self.arrays.version, len(queue.line.all()), queue.line.version)
        found = self._forecasts.of(pending, moment=moment, make=partial(self._made, pending))
        return replace(found, start=int(queue._clock.now())) if found.at_once else found

    def _made(self, pending: Pending) -> Foreseen:
        queue, uid = self._queue, pending.uid
        waiting = [one for one in queue.line.all().values() if one.uid != uid]
        # All that it looks at are told: this one may come last of them.
        rules = queue.drafts.rules
        made = queue.drafts.make([*waiting, pending], rules=replace(rules, told=rules.depth))
        turn = made.turns.get(uid)
        at_once = turn is not None and turn.placed is not None
        if turn is None:
            at_once = queue.drafts.free(pending.wants, kept=made.kept, ends=pending.asker.ends) is not None
        now = int(queue._clock.now())
        return Foreseen(
            ahead=made.order[uid],
            waiting=len(waiting),
            start=now if at_once else turn.expected if turn is not None else None,
            at_once=at_once,
            deep=turn is None,
            stops=queue.drafts.holds(turn.victims) if turn is not None else {},
        )

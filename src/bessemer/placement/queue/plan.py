"""`plan`: what each of those who wait may have, by turn.

One after the other, in the order of `standing.ordered`. Who fits beside what is kept for those before goes there. Who
does not, waits: where what is leaving already makes room, or somebody may be stopped for it, that place is kept; else,
for the first who does not fit and for whoever is overdue, the place that is free soonest (EASY: Lifka, The ANL/IBM SP
Scheduling System, JSSPP 1995). What is kept is kept from all who come later in the order, but for those who will have
ended before it starts. So a start that was promised is delayed by nobody who comes later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from bessemer.core.asking import Gang
from bessemer.placement.facts import Hold
from bessemer.placement.queue.book import Book, wanted_amounts
from bessemer.placement.queue.future import EVER, earliest, kept, lasting, relied, without
from bessemer.placement.queue.gangs import stop_for_gang
from bessemer.placement.queue.running import Running
from bessemer.placement.queue.standing import Standing, ordered
from bessemer.placement.queue.stops import Claims, Stop, stop
from bessemer.placement.queue.timeline import Timeline
from bessemer.placement.queue.values import Kept, Pending, Placed, Places, Rules, Tree, Turn, Wants, decisions
from bessemer.placement.thought import Thought


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``turns`` by uid, of those whom it looked at; ``order`` is everybody's place in the order, from 0."""

    turns: Mapping[str, Turn]
    order: Mapping[str, int]

    @property
    def kept(self) -> Sequence[Kept]:
        return [turn.kept for turn in self.turns.values() if turn.kept is not None]


@dataclass(slots=True)
class _Draft:
    """A plan while it is made: what is kept so far, and how often what is scarce was done."""

    claims: Claims
    rules: Rules
    now: int
    kept: dict[str, Kept] = field(default_factory=dict)
    turns: dict[str, Turn] = field(default_factory=dict)
    refused: set[Wants] = field(default_factory=set)
    alone: set[tuple[str, int, Wants]] = field(default_factory=set)
    """Projects, priorities and requests for which nobody may be stopped to any end: nor may they for the next."""
    overdue: set[str] = field(default_factory=set)
    reserved: int = 0
    stopped: int = 0
    gangs: Counter[str] = field(default_factory=Counter)
    """How often it was asked for one whom to stop, or when it would fit."""
    timelines: dict[bool, Timeline] = field(default_factory=dict)
    passing: dict[str, Hold] = field(default_factory=dict)
    """What is placed now, and when it will have ended, where that is known."""

    def ends(self, *, drain: bool = False) -> Timeline:
        """What ends when; made once."""
        if drain not in self.timelines:
            book, stuck = self.claims.book, self.rules.stuck
            made = self.timelines[drain] = Timeline(book, now=self.now, stuck=stuck, drain=drain)
            made.add(self.passing)
            for one in self.kept.values():
                made.rely(one)
        return self.timelines[drain]

    def dear(self, pending: Pending, *, what: str) -> bool:
        """Whether it is for a gang, and so was enough else."""
        if not isinstance(pending.wants, Gang):
            return False
        self.gangs[what] += 1
        return self.gangs[what] > self.rules.gangs

    def earliest(self, pending: Pending, *, drain: bool = False, by: int = EVER) -> Kept | None:
        """Beside what is kept for those before."""
        timeline, places = self.ends(drain=drain), self.claims.places
        return earliest(timeline, pending, places=places, beside=self.kept.values(), by=by)

    def leave(self, some: Mapping[str, Hold], *, by: int) -> None:
        """These go, whatever was known of them; shares count them no more."""
        book, leaving = self.claims.book, self.claims.leaving
        known = self.ends()
        for uid, hold in some.items():
            if uid in leaving:
                continue
            self.claims.standing.change(hold.tenure.project, book.amounts(hold), sign=-1)
            ends = hold.tenure.ends
            if ends is None or ends > by:
                known.add({uid: replace(hold, tenure=replace(hold.tenure, ends=by))})
            leaving[uid] = hold


def plan(
    book: Book,
    running: Running,
    *,
    places: Places,
    waiting: Sequence[Pending],
    now: int,
    terms: tuple[Tree, Rules],
) -> Plan:
    """Pure: equal arrays, pending requests and times give equal plans, and leave the arrays as they were. ``terms`` are
    the tree of shares and the rules."""
    tree, rules = terms
    book.refresh()
    standing = Standing(book.used, book.total, waiting=waiting, tree=tree)
    claims = Claims(book=book, running=running, standing=standing, places=places, leaving={})
    draft = _Draft(claims, rules, now)
    order = list(ordered(waiting, standing, overdue=now - rules.patience))
    draft.overdue = _first_overdue(order, before=now - rules.patience)
    draft.leave(_leaving(draft), by=now + rules.window)
    with Thought(book.fleet):
        for number, pending in enumerate(order[: rules.depth]):
            _look(draft, pending, ahead=number)
        _expect(draft, order[: rules.depth])
    return Plan(turns=draft.turns, order={pending.uid: number for number, pending in enumerate(order)})


@contextmanager
def beside(book: Book, some: Sequence[Kept], *, ends: int | None) -> Iterator[None]:
    """The arrays with what is kept for others, but from whoever will have ended before it starts."""
    binding = [one for one in some if ends is None or one.start is None or ends > one.start]
    with Thought(book.fleet):
        for one in binding:
            for uid, ghost in one.ghosts.items():
                book.fleet.hold(uid, ghost)
        yield


def _first_overdue(order: Sequence[Pending], *, before: int) -> set[str]:
    """Of each tenant and priority the one that waits longest, where that is long enough: `ordered` has it first."""
    first: dict[tuple[int, str], Pending] = {}
    for pending in sorted(order, key=lambda p: (p.asker.since, p.uid)):
        if pending.asker.since <= before:
            first.setdefault((pending.asker.priority, pending.tenant), pending)
    return {pending.uid for pending in first.values()}


def ask(places: Places, wants: Wants) -> Placed | None:
    return places.place_gang(wants) if isinstance(wants, Gang) else places.place(wants)


def _look(draft: _Draft, pending: Pending, *, ahead: int) -> None:
    fleet, now, uid = draft.claims.book.fleet, draft.now, pending.uid
    ends = pending.asker.ends
    passed = {
        name: ghost
        for one in draft.kept.values()
        if ends is not None and one.start is not None and now < one.start and ends <= one.start
        for name, ghost in one.ghosts.items()
    }
    # Equal requests get equal answers, and where many wait most are equal.
    known = not passed and pending.wants in draft.refused
    with without(fleet, passed):
        answer = None if known else ask(draft.claims.places, pending.wants)
    if answer is not None:
        keep = kept(uid, decisions(answer), start=now, gone={})
        draft.turns[uid] = Turn(ahead=ahead, placed=answer, kept=keep, expected=now)
        # Whoever waits behind it counts on its end, as on that of any claim: in a second it is one.
        ending = lasting(keep, pending=pending, now=now)
        draft.passing.update(ending)
        for timeline in draft.timelines.values():
            timeline.add(ending)
    else:
        if not passed:
            draft.refused.add(pending.wants)
        draft.turns[uid] = _wait(draft, pending, ahead=ahead)
    found = draft.turns[uid].kept
    if found is not None:
        draft.kept[uid] = found
        for timeline in draft.timelines.values():
            timeline.rely(found)
        if found.start is not None and found.start <= now + draft.rules.window:
            wanted = wanted_amounts(pending.member, pending.count)
            draft.claims.standing.change(pending.asker.project, wanted, sign=1)
        for name, ghost in found.ghosts.items():
            fleet.hold(name, ghost)


def _wait(draft: _Draft, pending: Pending, *, ahead: int) -> Turn:
    """It does not fit now."""
    rules, now, claims = draft.rules, draft.now, draft.claims
    if claims.leaving:
        soon = draft.earliest(pending, by=now + rules.window)
        if soon is not None:
            return Turn(ahead=ahead, kept=soon, expected=soon.start)
    who = (pending.asker.project, pending.asker.priority, pending.wants)
    # Whoever would be over its quota could not take what others are stopped for, and would have them stopped again.
    allowed = claims.standing.admits(pending.asker.project, wanted_amounts(pending.member, pending.count))
    may = allowed and draft.stopped < rules.stops and who not in draft.alone and pending.uid not in rules.vain
    if may and not draft.dear(pending, what="stop"):
        found = _stop(draft, pending)
        if found is not None:
            draft.stopped += 1
            start, gone = now + rules.window, claims.running.holds(found.uids)
            keep = kept(pending.uid, found.places, start=start, gone={**claims.leaving, **gone})
            draft.leave(gone, by=start)
            return Turn(ahead=ahead, kept=keep, victims=found.uids, expected=start)
        draft.alone.add(who)
    first = not draft.reserved or pending.uid in draft.overdue
    if first and draft.reserved < rules.reservations and not draft.dear(pending, what="keep"):
        soonest = draft.earliest(pending)
        if soonest is None and pending.uid in draft.overdue:
            soonest = draft.earliest(pending, drain=True)
        if soonest is not None:
            draft.reserved += 1
            return Turn(ahead=ahead, kept=soonest, expected=soonest.start)
    return Turn(ahead=ahead)


def _stop(draft: _Draft, pending: Pending) -> Stop | None:
    """Whom to stop. What is leaving already leaves: so a stop that was begun, and cut short, goes on with the same."""
    claims, beside = draft.claims, list(draft.kept.values())
    if isinstance(pending.wants, Gang):
        return stop_for_gang(claims, pending, beside=beside, rules=draft.rules, now=draft.now)
    with relied(claims.book.fleet, claims.leaving, beside=beside):
        return stop(claims, pending, rules=draft.rules, now=draft.now)


def _leaving(draft: _Draft) -> Mapping[str, Hold]:
    """What will have ended within the window, and all of a gang of which one has: without it they are worth nothing.
    What should have ended long ago is stuck: nobody waits there for its place."""
    gangs, leaving = draft.claims.book.gangs, draft.ends().soon(by=draft.now + draft.rules.window)
    names = {hold.tenure.gang for hold in leaving.values()} - {""}
    return {**leaving, **{uid: hold for name in sorted(names) for uid, hold in gangs.get(name, {}).items()}}


def _expect(draft: _Draft, order: Sequence[Pending]) -> None:
    """When the others will start at the latest, each behind those before it, as if something were kept for each. Behind
    whom nobody knows when it starts, nobody is told: it may take what they would count on."""
    book, now = draft.claims.book, draft.now
    if not book.ending and not draft.kept:
        return
    waits = [pending for pending in order if draft.turns[pending.uid].kept is None][: draft.rules.told]
    soft: dict[str, Kept] = {}
    timeline = draft.ends()
    by_uid = {pending.uid: pending for pending in order}
    for one in draft.kept.values():
        if one.ghosts.keys().isdisjoint(draft.passing):
            timeline.add(lasting(one, pending=by_uid[one.uid], now=now))
    for pending in waits:
        if draft.dear(pending, what="keep"):
            return
        some = [*draft.kept.values(), *soft.values()]
        found = earliest(timeline, pending, places=draft.claims.places, beside=some)
        if found is None or found.start is None:
            return
        draft.turns[pending.uid] = replace(draft.turns[pending.uid], expected=found.start)
        soft[pending.uid] = found
        timeline.rely(found)
        timeline.add(lasting(found, pending=pending, now=now))
        for name, ghost in found.ghosts.items():
            book.fleet.hold(name, ghost)

"""Who is stopped for whom, and which of them cost their owners least.

Nothing is ever stopped that is not preemptible. What is may be stopped for a higher priority; and for an equal one
where it is *borrowed*: its owner has more than its fair share, and would still without the others that are stopped
with it, and the asker stays within its own. Owners are the tenants; within one tenant, its projects. So whoever is
stopped stands lower than the asker, and would not be given the place back: two never stop each other in turn.

What is lost is paid for: devices times seconds since they were taken; cores count a thousandth of a device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bessemer.core.asking import Decision, Gang, GangDecision
from bessemer.core.resource import tenant_of
from bessemer.placement.facts import Hold
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.moves.removal import removals
from bessemer.placement.queue.book import Book, wanted_amounts
from bessemer.placement.queue.future import without
from bessemer.placement.queue.standing import HAIR, Standing
from bessemer.placement.queue.values import Pending, Places, Rules
from bessemer.placement.vectors import NONE

_DOMAINS = 16
"""Leaves that are tried for a gang, from the one on where least would be lost."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Without the claims ``uids`` the request goes to ``places``; ``lost`` is what their owners paid for, in
    device-seconds."""

    uids: tuple[str, ...]
    places: tuple[Decision, ...]
    lost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """All that is known of what runs: of a fleet, and where everybody stands without what leaves, and with what was
    given since."""

    book: Book
    holdings: Holdings
    standing: Standing
    places: Places


def lost(hold: Hold, *, now: int) -> float:
    """Device-seconds that are lost with a claim."""
    cores = sum(part.milli_cores for part in hold.allocations) / 1_000_000
    return (hold.milli * len(set(hold.devices)) / 1000 + cores) * max(0, now - hold.tenure.since)


def stop(claims: Claims, pending: Pending, *, rules: Rules, now: int) -> Stop | None:
    """The cheapest to stop for ``pending``, fewest among equals; None where there is nobody whom it may stop, or
    nothing would fit even so."""
    eligible = _eligible(claims, pending, rules=rules, now=now)
    if not eligible:
        return None
    if isinstance(pending.wants, Gang):
        return _together(claims, pending, eligible=eligible, now=now)
    found = removals(claims.holdings, pending.wants, cost=_costs(claims.holdings, eligible, now=now))
    for removal in found:
        gone = {uid: eligible[uid] for uid in removal.uids}
        if gone and _just(claims, pending, gone=gone):
            return Stop(removal.uids, (removal.decision,), sum(lost(hold, now=now) for hold in gone.values()))
    return None


def owners(pending: Pending, hold: Hold) -> tuple[str, str]:
    """Asker and holder as they stand beside each other: two tenants, or two projects of one."""
    project = hold.tenure.project
    if tenant_of(project) != pending.tenant:
        return pending.tenant, tenant_of(project)
    return pending.asker.project, project


def _eligible(claims: Claims, pending: Pending, *, rules: Rules, now: int) -> Mapping[str, Hold]:
    """What may be stopped for ``pending``, each by itself; what will have ended within the grace anyway is not, nor is
    anything of its own: an Endpoint whose priority was raised has replicas of the lower one."""
    wanted = wanted_amounts(pending.member, pending.count)
    within: dict[str, bool] = {}
    over: dict[str, bool] = {}
    found: dict[str, Hold] = {}
    for some in claims.book.stoppable.values():
        for uid, hold in some.items():
            tenure = hold.tenure
            if (tenure.ends is not None and tenure.ends <= now + rules.grace) or tenure.workload == pending.uid:
                continue
            if tenure.priority < pending.asker.priority:
                found[uid] = hold
                continue
            asker, holder = owners(pending, hold)
            if tenure.priority > pending.asker.priority or asker == holder or now - tenure.since < rules.least_run:
                continue
            standing = claims.standing
            if asker not in within:
                within[asker] = standing.share(asker, more=wanted) <= standing.fair.get(asker, 0.0) + HAIR
            if holder not in over:
                over[holder] = standing.share(holder) > standing.fair.get(holder, 0.0) + HAIR
            if within[asker] and over[holder]:
                found[uid] = hold
    return found


def _just(claims: Claims, pending: Pending, *, gone: Mapping[str, Hold]) -> bool:
    """Whether each owner of what is borrowed has too much even without the others that go."""
    borrowed: dict[str, list[Counter[str]]] = {}
    for hold in gone.values():
        if hold.tenure.priority >= pending.asker.priority:
            borrowed.setdefault(owners(pending, hold)[1], []).append(claims.book.amounts(hold))
    return all(
        claims.standing.share(owner, less=sum(others, Counter())) > claims.standing.fair.get(owner, 0.0) + HAIR
        for owner, some in borrowed.items()
        for others in (some[:n] + some[n + 1 :] for n in range(len(some)))
    )


def _costs(
    holdings: Holdings, eligible: Mapping[str, Hold], *, now: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """[slots]: what is lost with each, and one more for each, so that of equals the fewest are stopped."""
    holdings.refresh()
    found = np.full(holdings.claims.size, np.inf)
    for row in {holdings.fleet.row(hold.host) for hold in eligible.values()} - {None}:
        for slot in holdings.at(row or 0):
            uid, hold = holdings.held(slot)
            if uid in eligible:
                found[slot] = 1.0 + lost(hold, now=now)
    return found


def _together(claims: Claims, pending: Pending, *, eligible: Mapping[str, Hold], now: int) -> Stop | None:
    """For a gang: of one leaf all that it takes, from the leaf on where least is lost; then of the whole fleet."""
    best: Stop | None = None
    for some in _domains(claims, eligible, now=now):
        found = _pruned(claims, pending, some=some, now=now)
        if found is not None and (best is None or (found.lost, len(found.uids)) < (best.lost, len(best.uids))):
            best = found
    return best or _pruned(claims, pending, some=eligible, now=now)


def _domains(claims: Claims, eligible: Mapping[str, Hold], *, now: int) -> Sequence[Mapping[str, Hold]]:
    fleet = claims.book.fleet
    leaves: dict[int, dict[str, Hold]] = {}
    for uid, hold in sorted(eligible.items()):
        row = fleet.row(hold.host)
        if row is not None and fleet.leaf[row] != NONE:
            leaves.setdefault(int(fleet.leaf[row]), {})[uid] = hold
    ranked = sorted(leaves.values(), key=lambda some: (sum(lost(hold, now=now) for hold in some.values()), min(some)))
    return ranked[:_DOMAINS]


def _pruned(claims: Claims, pending: Pending, *, some: Mapping[str, Hold], now: int) -> Stop | None:
    """Of ``some`` what must go, so that the gang fits: whatever it fits beside stays, the dearest first."""
    fleet, gang = claims.book.fleet, pending.wants
    assert isinstance(gang, Gang)
    gone = set(some)
    with without(fleet, some):
        answer = claims.places.decide_gang(gang)
        if not isinstance(answer, GangDecision):
            return None
        # Halves of halves: what stays is found together, and costs few questions however much there is of it.
        parts = [sorted(some, key=lambda uid: (-lost(some[uid], now=now), uid))]
        while parts:
            part = parts.pop()
            for uid in part:
                fleet.hold(uid, some[uid])
            beside = claims.places.decide_gang(gang)
            if isinstance(beside, GangDecision):
                answer = beside
                gone.difference_update(part)
                continue
            for uid in part:
                fleet.drop(uid)
            if len(part) > 1:
                parts += [part[len(part) // 2 :], part[: len(part) // 2]]
    going = {uid: some[uid] for uid in gone}
    if not going or not _just(claims, pending, gone=going):
        return None
    return Stop(tuple(sorted(going)), answer.members, sum(lost(some[uid], now=now) for uid in sorted(going)))

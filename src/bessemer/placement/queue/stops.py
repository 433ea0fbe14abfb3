"""Who is stopped for whom, and which of them cost their owners least.

Nothing is ever stopped that is not preemptible. What is may be stopped for a higher priority; and for an equal one
where it is *borrowed*: its owner has more than its fair share, and would still without the others that are stopped
with it, and the asker stays within its own. Owners are the tenants; within one tenant, its projects. So whoever is
stopped stands lower than the asker, and would not be given the place back: two never stop each other in turn.

What is lost is as `Running` says. A gang is stopped whole: with one of its claims the others are worth nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bessemer.core.asking import Decision, Gang
from bessemer.core.resource import tenant_of
from bessemer.placement.facts import Hold
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.moves.removal import removals
from bessemer.placement.policies import Floats
from bessemer.placement.queue.book import Book, wanted_amounts
from bessemer.placement.queue.running import Running
from bessemer.placement.queue.standing import HAIR, Standing
from bessemer.placement.queue.values import Pending, Places, Rules
from bessemer.placement.vectors import NONE, Bools


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
    given since. ``leaving`` will have ended within the window."""

    book: Book
    running: Running
    standing: Standing
    places: Places
    leaving: dict[str, Hold]

    @property
    def holdings(self) -> Holdings:
        return self.running.holdings


@dataclass(frozen=True, slots=True, kw_only=True)
class Eligible:
    """What may be stopped for a request, [slots], each by itself, with all that falls with it; what ``leaves`` anyway;
    and what each costs its owner, ``lost`` with it alone and ``together`` with its gang. Some may be ``borrowed``."""

    slots: Bools
    leaves: Bools
    lost: Floats
    together: Floats
    borrowed: bool


def eligible_for(claims: Claims, pending: Pending, *, rules: Rules, now: int) -> Eligible | None:
    """None where nobody may be stopped for it. What will have ended within the window anyway is not, nor is anything of
    its own: an Endpoint whose priority was raised has replicas of the lower one."""
    running = claims.running
    running.refresh()
    of, leaves = claims.holdings.claims, _leaving(claims)
    found = (of["used"] > 0) & (of["preemptible"] > 0) & ~leaves
    found &= (of["ends"] == NONE) | (of["ends"] > now + rules.window)
    found[running.of_workload(pending.uid)] = False
    lower = of["priority"] < pending.asker.priority
    equal = found & (of["priority"] == pending.asker.priority) & (now - of["since"] >= rules.least_run)
    if equal.any():
        names = {running.projects.all[number] for number in np.unique(running.project[equal]).tolist()}
        equal &= running.of_projects({name: _borrows(claims, pending, project=name) for name in names})
    found &= lower | equal
    if not found.any():
        return None
    lost = running.lost(now=now)
    together, borrowed = running.lost_together(lost), bool(equal.any())
    return Eligible(slots=found, leaves=leaves, lost=lost, together=together, borrowed=borrowed)


def stop(claims: Claims, pending: Pending, *, rules: Rules, now: int) -> Stop | None:
    """The cheapest on one host to stop for ``pending``, fewest among equals; None where there is nobody whom it may
    stop, or nothing would fit even so."""
    assert not isinstance(pending.wants, Gang)
    among = eligible_for(claims, pending, rules=rules, now=now)
    if among is None:
        return None
    best: Stop | None = None
    # Where nothing is borrowed and nobody falls with another, the first that is found is the best.
    most = 1 if among.together is among.lost and not among.borrowed else 4
    for cost in _costs(claims, among):
        for removal in removals(claims.holdings, pending.wants, cost=cost, most=most):
            row = claims.book.fleet.row(removal.host) or 0
            slots = [slot for slot in claims.holdings.at(row) if claims.holdings.held(slot)[0] in removal.uids]
            found = made(claims, pending, among=among, slots=slots, places=(removal.decision,))
            if found is not None and (best is None or (found.lost, len(found.uids)) < (best.lost, len(best.uids))):
                best = found
            if found is not None and among.together is among.lost:
                return best  # they come in order of cost
    return best


def made(
    claims: Claims, pending: Pending, *, among: Eligible, slots: Sequence[int], places: tuple[Decision, ...]
) -> Stop | None:
    """What is stopped where the claims of ``slots`` go, with all that falls with them; None where it would be unjust,
    or they leave anyway."""
    running = claims.running
    units, done = [], set[int]()
    for slot in slots:
        if slot not in done and not among.leaves[slot]:
            unit = [one for one in running.together([slot]) if not among.leaves[one]]
            units.append(running.held(unit))
            done.update(unit)
    if not done or not _just(claims, pending, units=units):
        return None
    uids = tuple(sorted(claims.holdings.held(slot)[0] for slot in done))
    return Stop(uids, places, sum(among.lost[slot].item() for slot in sorted(done)))


def owners(pending: Pending, project: str) -> tuple[str, str]:
    """Asker and holder as they stand beside each other: two tenants, or two projects of one."""
    if tenant_of(project) != pending.tenant:
        return pending.tenant, tenant_of(project)
    return pending.asker.project, project


def _leaving(claims: Claims) -> Bools:
    """[slots]: what leaves."""
    found = np.zeros(claims.holdings.claims.size, dtype=np.bool_)
    fleet, holdings = claims.book.fleet, claims.holdings
    for row in {fleet.row(hold.host) for hold in claims.leaving.values()} - {None}:
        for slot in holdings.at(row or 0):
            found[slot] = holdings.held(slot)[0] in claims.leaving
    return found


def _borrows(claims: Claims, pending: Pending, *, project: str) -> bool:
    """Whether a project has more than is its own, and the asker would not."""
    asker, holder = owners(pending, project)
    if asker == holder:
        return False
    standing, wanted = claims.standing, wanted_amounts(pending.member, pending.count)
    within = standing.share(asker, more=wanted) <= standing.fair.get(asker, 0.0) + HAIR
    return within and standing.share(holder) > standing.fair.get(holder, 0.0) + HAIR


def _just(claims: Claims, pending: Pending, *, units: Sequence[Mapping[str, Hold]]) -> bool:
    """Whether each owner of what is borrowed has too much even without the others that go."""
    borrowed: dict[str, list[Counter[str]]] = {}
    for unit in units:
        tenure = next(iter(unit.values())).tenure
        if tenure.priority >= pending.asker.priority:
            amounts = sum((claims.book.amounts(hold) for hold in unit.values()), Counter[str]())
            borrowed.setdefault(owners(pending, tenure.project)[1], []).append(amounts)
    return all(
        claims.standing.share(owner, less=sum(others, Counter())) > claims.standing.fair.get(owner, 0.0) + HAIR
        for owner, some in borrowed.items()
        for others in (some[:n] + some[n + 1 :] for n in range(len(some)))
    )


def _costs(claims: Claims, among: Eligible) -> Sequence[Floats]:
    """[slots] each: what is lost with each, and one more for each, so that of equals the fewest are stopped.

    What several of a gang cost together is no sum. So hosts are searched by two costs: the whole gang's for each, which
    is too much for several on one host, and each one's part of it, which is too little for fewer; what is found is
    compared by what it costs in truth."""

    def cost(lost: Floats) -> Floats:
        found: Floats = np.where(among.slots, 1.0 + lost, np.inf)
        found[among.leaves] = 0.0
        return found

    if among.together is among.lost:
        return [cost(among.lost)]
    return [cost(among.together), cost(among.together / claims.running.beside())]

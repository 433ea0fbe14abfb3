"""Fair shares, and the order of those who wait.

A tenant's *dominant share* is the largest part that it has of any one resource (Ghodsi et al., Dominant Resource
Fairness, NSDI 2011); its *level* is that divided by its weight. Fair shares are weighted max-min over dominant shares:
the fleet is shared out by weight, nobody gets more than they use and wait for (or may have at all), and what they leave
is the others', who borrow it. The same again among a tenant's projects (Bhattacharya et al., Hierarchical Scheduling
for Diverse Datacenter Workloads, SoCC 2013). Shares of all together are at most 1, and their projects' at most theirs.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush

from bessemer.core.resource import tenant_of
from bessemer.placement.queue.book import Amounts, wanted_amounts
from bessemer.placement.queue.values import EQUAL, Pending, Tree

HAIR = 1e-9
"""Below it, shares are equal: they are quotients."""


def dominant(amounts: Amounts, total: Amounts) -> float:
    """The largest part of any resource. What there is nothing of counts as all of it."""
    found = 0.0
    for name, amount in amounts.items():
        if amount > 0:
            there = total.get(name)
            found = max(found, amount / there if there else 1.0)
    return found


def filled(whole: float, wants: Mapping[str, float], *, weights: Mapping[str, int]) -> dict[str, float]:
    """``whole`` shared out by weight, to nobody more than they want: weighted max-min."""
    found: dict[str, float] = {}
    left, weight = whole, sum(weights[name] for name in wants)
    for name in sorted(wants, key=lambda name: (wants[name] / weights[name], name)):
        found[name] = min(wants[name], left * weights[name] / weight)
        left, weight = max(0.0, left - found[name]), weight - weights[name]
    return found


class Standing:
    """Of all tenants and projects at one moment. ``used`` is by project."""

    def __init__(self, used: Mapping[str, Amounts], total: Amounts, *, waiting: Sequence[Pending], tree: Tree) -> None:
        self.total = total
        self._tree = tree
        self._used: dict[str, Counter[str]] = {}
        for project, amounts in used.items():
            self.change(project, amounts, sign=1)
        wanted = {project: Counter(amounts) for project, amounts in used.items()}
        for pending in waiting:
            wanted.setdefault(pending.asker.project, Counter()).update(wanted_amounts(pending.member, pending.count))
        projects: dict[str, dict[str, Counter[str]]] = {}
        for project, amounts in wanted.items():
            projects.setdefault(tenant_of(project), {})[project] = self._bounded(project, amounts)
        sums = {tenant: self._bounded(tenant, _total(some.values())) for tenant, some in projects.items()}
        self.fair = self._filled(1.0, sums)
        """By name of a tenant or a project: the dominant share that is its own now."""
        for tenant in sorted(projects):
            self.fair |= self._filled(self.fair[tenant], projects[tenant])

    def weight(self, name: str) -> int:
        return self._tree.get(name, EQUAL).weight

    def share(self, name: str, *, more: Amounts | None = None, less: Amounts | None = None) -> float:
        """The dominant share of a tenant or a project, were it to have ``more`` or ``less``."""
        return dominant(_sum(self._used.get(name, {}), more=more or {}, less=less or {}), self.total)

    def level(self, name: str, amounts: Amounts) -> float:
        """Of a tenant or a project that has ``amounts``."""
        return dominant(amounts, self.total) / self.weight(name)

    def has(self, name: str) -> Counter[str]:
        """What a tenant or a project has, for who counts on from there."""
        return Counter(self._used.get(name, {}))

    def admits(self, project: str, more: Amounts) -> bool:
        """Whether a project and its tenant may have ``more`` at all, by their bounds."""
        for name in (project, tenant_of(project)):
            used: Amounts = self._used.get(name, {})
            bounds = self._tree.get(name, EQUAL).bounds
            if any(used.get(what, 0) + more.get(what, 0) > bound for what, bound in bounds.items() if more.get(what)):
                return False
        return True

    def change(self, project: str, amounts: Amounts, *, sign: int) -> None:
        """A project has so much more or less from here on, and its tenant. Fair shares stay as they were."""
        for name in {project, tenant_of(project)}:
            sums = self._used.setdefault(name, Counter())
            for resource, amount in amounts.items():
                sums[resource] += sign * amount

    def _bounded(self, name: str, amounts: Amounts) -> Counter[str]:
        bounds = self._tree.get(name, EQUAL).bounds
        return Counter({what: min(amount, bounds.get(what, amount)) for what, amount in amounts.items()})

    def _filled(self, whole: float, wants: Mapping[str, Amounts]) -> dict[str, float]:
        parts = {name: dominant(amounts, self.total) for name, amounts in wants.items()}
        return filled(whole, parts, weights={name: self.weight(name) for name in wants})


def _total(some: Iterable[Amounts]) -> Counter[str]:
    found: Counter[str] = Counter()
    for amounts in some:
        found.update(amounts)
    return found


def _sum(amounts: Amounts, *, more: Amounts, less: Amounts) -> Amounts:
    names = {*amounts, *more, *less}
    return {name: amounts.get(name, 0) + more.get(name, 0) - less.get(name, 0) for name in names}


def ordered(waiting: Sequence[Pending], standing: Standing, *, overdue: int) -> Iterator[Pending]:
    """Whoever waits, by turn: higher priorities first. Within one, first of each tenant whoever waits longest, where
    that is since ``overdue`` or before; then progressive filling: next is always the tenant with the lowest level, and
    within it the project, each counted with what came before it in the order; and of those the one that waits longest.
    """
    for priority in sorted({pending.asker.priority for pending in waiting}, reverse=True):
        those = sorted((p for p in waiting if p.asker.priority == priority), key=_since)
        first: dict[str, Pending] = {}
        for pending in those:
            if pending.asker.since <= overdue:
                first.setdefault(pending.tenant, pending)
        yield from first.values()
        served = {pending.uid for pending in first.values()}
        yield from _by_share([p for p in those if p.uid not in served], standing, served=tuple(first.values()))


def _by_share(waiting: Sequence[Pending], standing: Standing, *, served: Sequence[Pending]) -> Iterator[Pending]:
    """Whoever was served has another level, and nobody else: so a heap has them in order, with one push for each."""
    have: dict[str, Counter[str]] = {}

    def level(name: str) -> float:
        if name not in have:
            have[name] = standing.has(name)
        return standing.level(name, have[name])

    def serve(pending: Pending) -> None:
        wanted = wanted_amounts(pending.member, pending.count)
        for name in (pending.tenant, pending.asker.project):
            if name not in have:
                have[name] = standing.has(name)
            for what, amount in wanted.items():
                have[name][what] += amount

    for pending in served:
        serve(pending)
    lines: dict[str, dict[str, deque[Pending]]] = {}
    oldest: dict[str, deque[Pending]] = {}
    for pending in waiting:
        lines.setdefault(pending.tenant, {}).setdefault(pending.asker.project, deque()).append(pending)
        oldest.setdefault(pending.tenant, deque()).append(pending)
    projects = {
        tenant: [(level(name), _since(line[0]), name) for name, line in some.items()] for tenant, some in lines.items()
    }
    tenants = [(level(tenant), _since(some[0]), tenant) for tenant, some in oldest.items()]
    for heap in (tenants, *projects.values()):
        heapify(heap)
    gone: set[str] = set()
    while tenants:
        tenant = heappop(tenants)[-1]
        project = heappop(projects[tenant])[-1]
        line, others = lines[tenant][project], oldest[tenant]
        pending = line.popleft()
        serve(pending)
        yield pending
        gone.add(pending.uid)
        if line:
            heappush(projects[tenant], (level(project), _since(line[0]), project))
        while others and others[0].uid in gone:
            others.popleft()
        if others:
            heappush(tenants, (level(tenant), _since(others[0]), tenant))


def _since(pending: Pending) -> tuple[int, str]:
    return (pending.asker.since, pending.uid)

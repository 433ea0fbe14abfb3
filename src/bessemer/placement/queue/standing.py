"""Fair shares, and the order of those who wait.

A tenant's *dominant share* is the largest part that it has of any one resource (Ghodsi et al., Dominant Resource
Fairness, NSDI 2011); its *level* is that divided by its weight. Fair shares are weighted max-min over dominant shares:
the fleet is shared out by weight, nobody gets more than they use and wait for (or may have at all), and what they leave
is the others', who borrow it. The same again among a tenant's projects (Bhattacharya et al., Hierarchical Scheduling
for Diverse Datacenter Workloads, SoCC 2013). Shares of all together are at most 1, and their projects' at most theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from bessemer.core.resource import tenant_of
from bessemer.placement.queue.book import Amounts, wanted_amounts
from bessemer.placement.queue.values import EQUAL, Pending, Tree

HAIR = 1e-9
"""Below it, shares are equal: they are quotients."""


def dominant(amounts: Amounts, total: Amounts) -> float:
    """The largest part of any resource. What there is nothing of counts as all of it."""
    parts = (amount / total[name] if total.get(name) else 1.0 for name, amount in amounts.items() if amount > 0)
    return max(parts, default=0.0)


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
        self._used = {project: Counter(amounts) for project, amounts in used.items()}
        wanted = {project: Counter(amounts) for project, amounts in used.items()}
        for pending in waiting:
            wanted.setdefault(pending.asker.project, Counter()).update(wanted_amounts(pending.member, pending.count))
        wants = {project: self._bounded(project, amounts) for project, amounts in wanted.items()}
        by_tenant: dict[str, Counter[str]] = {}
        for project, amounts in wants.items():
            by_tenant.setdefault(tenant_of(project), Counter()).update(amounts)
        self.fair = self._filled(1.0, {tenant: self._bounded(tenant, sums) for tenant, sums in by_tenant.items()})
        """By name of a tenant or a project: the dominant share that is its own now."""
        for tenant in sorted(by_tenant):
            own = {project: amounts for project, amounts in wants.items() if tenant_of(project) == tenant}
            self.fair |= self._filled(self.fair[tenant], own)

    def weight(self, name: str) -> int:
        return self._tree.get(name, EQUAL).weight

    def share(self, name: str, *, more: Amounts | None = None, less: Amounts | None = None) -> float:
        """The dominant share of a tenant or a project, were it to have ``more`` or ``less``."""
        return dominant(_sum(self._of(name), more=more or {}, less=less or {}), self.total)

    def level(self, name: str, more: Amounts | None = None) -> float:
        return self.share(name, more=more) / self.weight(name)

    def admits(self, project: str, more: Amounts) -> bool:
        """Whether a project and its tenant may have ``more`` at all, by their bounds."""
        for name in (project, tenant_of(project)):
            used, bounds = self._of(name), self._tree.get(name, EQUAL).bounds
            if any(used.get(what, 0) + more.get(what, 0) > bound for what, bound in bounds.items() if more.get(what)):
                return False
        return True

    def change(self, project: str, amounts: Amounts, *, sign: int) -> None:
        """A project has so much more or less from here on. Fair shares stay as they were."""
        sums = self._used.setdefault(project, Counter())
        for resource, amount in amounts.items():
            sums[resource] += sign * amount

    def _of(self, name: str) -> Amounts:
        if tenant_of(name):
            return self._used.get(name, {})
        found: Counter[str] = Counter()
        for project, amounts in self._used.items():
            if tenant_of(project) == name:
                found.update(amounts)
        return found

    def _bounded(self, name: str, amounts: Amounts) -> Counter[str]:
        bounds = self._tree.get(name, EQUAL).bounds
        return Counter({what: min(amount, bounds.get(what, amount)) for what, amount in amounts.items()})

    def _filled(self, whole: float, wants: Mapping[str, Amounts]) -> dict[str, float]:
        parts = {name: dominant(amounts, self.total) for name, amounts in wants.items()}
        return filled(whole, parts, weights={name: self.weight(name) for name in wants})


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
    queues: dict[str, dict[str, list[Pending]]] = {}
    for pending in reversed(waiting):
        queues.setdefault(pending.tenant, {}).setdefault(pending.asker.project, []).append(pending)
    more: dict[str, Counter[str]] = {}
    levels: dict[str, float] = {}

    def level(name: str) -> float:
        if name not in levels:
            levels[name] = standing.level(name, more.get(name))
        return levels[name]

    def serve(pending: Pending) -> None:
        for name in (pending.tenant, pending.asker.project):
            more.setdefault(name, Counter()).update(wanted_amounts(pending.member, pending.count))
            levels.pop(name, None)

    for pending in served:
        serve(pending)
    while queues:
        tenant = min(queues, key=lambda name: (level(name), min(_since(q[-1]) for q in queues[name].values())))
        projects = queues[tenant]
        project = min(projects, key=lambda name: (level(name), _since(projects[name][-1])))
        pending = projects[project].pop()
        if not projects[project]:
            del projects[project]
        if not projects:
            del queues[tenant]
        serve(pending)
        yield pending


def _since(pending: Pending) -> tuple[int, str]:
    return (pending.asker.since, pending.uid)

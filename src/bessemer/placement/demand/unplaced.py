"""`Unplaced`: what the mix knows beside what was placed: who waits for a place, and what is offered.

Who waits counts once while it waits, and leaves before its claim counts as an arrival. Invariants: equal waits, offers,
placed shapes and hosts make equal mixes, in whatever order they came; nobody turns the mix by asking; what no host
could hold were it empty counts for nothing, for nothing can be kept for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from bessemer.placement.demand.mix import MOST, Mix
from bessemer.placement.hostclass import HostClass
from bessemer.placement.shape import Shape

TENANT_PART = 0.1
"""Who waits of one tenant counts at most as this part of all that was placed, however many they are: in arrivals and in
devices, for shapes are weighed by both. Of more each shape counts so much less. So it is an eleventh of the mix."""

TENANT_LEAST = (5.0, 8.0)
"""In arrivals and in devices: so much it may count for where less was placed than makes that part."""

TENANTS = 10
"""All who wait count at most as so many tenants: half of the mix, once enough was placed."""

OFFERED = 5.0
"""What is offered counts as so many arrivals before there are any, the same for each shape."""

FADES = 0.1
"""With each arrival it counts so much less, of those who wait too: after fifty for nothing."""


class Unplaced:
    """``version`` rises with each change."""

    def __init__(self) -> None:
        self.version = 0
        self._asked: dict[str, tuple[str, Shape, int]] = {}
        self._tenants: dict[str, Counter[Shape]] = {}
        self._offered: dict[str, Shape] = {}

    def asks(self, uid: str, *, tenant: str, shape: Shape, count: int) -> None:
        """It waits for ``count`` places; this takes the place of what it asked for before."""
        if self._asked.get(uid) == (tenant, shape, count):
            return
        self.leaves(uid)
        self._asked[uid] = (tenant, shape, count)
        self._tenants.setdefault(tenant, Counter())[shape] += count
        self.version += 1

    def leaves(self, uid: str) -> None:
        """It waits no more. Harmless when repeated."""
        known = self._asked.pop(uid, None)
        if known is None:
            return
        tenant, shape, count = known
        asked = self._tenants[tenant]
        asked[shape] -= count
        if not asked[shape]:
            del asked[shape]
        if not asked:
            del self._tenants[tenant]
        self.version += 1

    def offers(self, name: str, shape: Shape | None) -> None:
        """What one may ask for under a name; None: nothing any more."""
        if self._offered.get(name) == shape:
            return
        if shape is None:
            del self._offered[name]
        else:
            self._offered[name] = shape
        self.version += 1

    def mix(self, placed: Mix, *, hosts: Collection[HostClass]) -> Mix:
        """What was placed, and beside it the rest; of the rest at most `MOST` shapes that wait and as many offered."""
        counts = dict(zip(placed.shapes, placed.counts, strict=True))
        waiting = _most(self._waiting(placed, hosts=hosts))
        known = sum(placed.counts) + sum(waiting.values())
        offered = {shape: 1.0 for shape in self._offered.values() if _holds(hosts, shape)}
        each = max(0.0, OFFERED - FADES * known) / max(1, len(offered))
        for more, weight in ((waiting, 1.0), (_most(offered), each)):
            for shape, count in more.items():
                counts[shape] = counts.get(shape, 0.0) + weight * count
        return Mix.of(counts, version=placed.version + self.version)

    def _waiting(self, placed: Mix, *, hosts: Collection[HostClass]) -> Mapping[Shape, float]:
        """In arrivals, within the bounds."""
        sums = (sum(placed.counts), placed.devices)
        bounds = [max(least, TENANT_PART * each) for least, each in zip(TENANT_LEAST, sums, strict=True)]
        held = {shape: _holds(hosts, shape) for asked in self._tenants.values() for shape in asked}
        found: dict[Shape, float] = {}
        # Rounding depends on the order of sums.
        for _, asked in sorted(self._tenants.items()):
            some = {shape: float(count) for shape, count in asked.items() if held[shape]}
            for shape, count in _within(some, bounds).items():
                found[shape] = found.get(shape, 0.0) + count
        return _within(found, [TENANTS * bound for bound in bounds])


def _within(counts: Mapping[Shape, float], bounds: Sequence[float]) -> Mapping[Shape, float]:
    """As many as are within ``bounds`` in arrivals and in devices, of each shape the same part."""
    mix = Mix.of(counts)
    sums = (sum(mix.counts), mix.devices)
    part = min([1.0, *(most / each for most, each in zip(bounds, sums, strict=True) if each)])
    return {shape: part * count for shape, count in zip(mix.shapes, mix.counts, strict=True)}


def _most(counts: Mapping[Shape, float]) -> Mapping[Shape, float]:
    """The `MOST` that count most."""
    ranked = Mix.of(counts)
    return dict(list(zip(ranked.shapes, ranked.counts, strict=True))[:MOST])


def _holds(hosts: Collection[HostClass], shape: Shape) -> bool:
    """Whether some host would, were it empty."""
    return any(kind.fits(shape) for kind in hosts)

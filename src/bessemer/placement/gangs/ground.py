"""`Ground`: the hosts with room for members of a gang, the switches above them, and for how many each has room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bessemer.core.asking import Gang, Level
from bessemer.placement.filters import fitting
from bessemer.placement.gangs.fabric import Fabric
from bessemer.placement.gangs.room import room
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import Bools, Ints

LEVELS: Sequence[Level] = ("host", "leaf", "spine", "site")
"""From near to far."""


@dataclass(frozen=True, eq=False)
class Ground:
    """``rows`` [hosts] are rows of the fleet. ``hosts``, ``leaves``, ``spines`` and ``sites`` say for how many members
    there is room on each host and under each switch (numbered as in ``fabric``). Where blocks lie under one switch of a
    level, there and above members come in whole blocks: in ``steps``, by level."""

    rows: Ints
    fabric: Fabric
    steps: tuple[int, int, int, int]
    hosts: Ints
    leaves: Ints
    spines: Ints
    sites: Ints

    @classmethod
    def of(cls, sight: Sight, gang: Gang, *, fits: Bools | None = None) -> Ground:
        """``fits`` [hosts of the sight] are those that fit a member, for who has sifted them already."""
        most = min(gang.count, gang.per_host or gang.count)
        counts = np.where(fitting(sight) if fits is None else fits, room(sight, most=most), 0)
        blocks = LEVELS.index(gang.segment_level) if gang.segment else len(LEVELS)
        steps = tuple(gang.segment if level >= blocks else 1 for level in range(len(LEVELS)))
        counts -= counts % steps[0]
        rows = np.flatnonzero(counts)
        hosts = counts[rows]
        fabric = Fabric.above(sight.fleet, rows)
        leaves = _floored(fabric.leaf, hosts, count=len(fabric.spine), step=steps[1])
        spines = _floored(fabric.spine, leaves, count=len(fabric.site), step=steps[2])
        places = int(fabric.site.max(initial=-1)) + 1
        sites = _floored(fabric.site, spines, count=places, step=steps[3])
        return cls(rows, fabric, (steps[0], steps[1], steps[2], steps[3]), hosts, leaves, spines, sites)

    def at(self, level: Level) -> Ints:
        """For how many members there is room on each host, or under each switch, of a level."""
        return (self.hosts, self.leaves, self.spines, self.sites)[LEVELS.index(level)]

    def above(self, level: Level) -> Ints:
        """[hosts]: the switch of a level above each; itself at the level of hosts."""
        fabric = self.fabric
        if level == "host":
            return np.arange(len(self.rows))
        if level == "leaf":
            return fabric.leaf
        spine = fabric.spine[fabric.leaf]
        return spine if level == "spine" else fabric.site[spine]

    @cached_property
    def by_spine(self) -> Sequence[Ints]:
        """[spines]: the leaves with room under each, the largest first."""
        spine = self.fabric.spine
        order = np.lexsort((-self.leaves, spine))
        order = order[self.leaves[order] > 0]
        return np.split(order, np.searchsorted(spine[order], np.arange(1, len(self.spines))))

    @cached_property
    def offers(self) -> Sequence[Ints]:
        """[spines][leaves]: for how many members its best leaf has room, its two best, and so on."""
        sums = (np.cumsum(self.leaves[leaves]) for leaves in self.by_spine)
        return [total - total % self.steps[2] for total in sums]

    def most(self, gang: Gang) -> int:
        """How many members there is room for, together as the gang says: it fits where that is not less than it has."""
        if gang.policy == "preferred":
            return int(self.sites.sum())
        return int(self.at(gang.level).max(initial=0))


def _floored(above: Ints, counts: Ints, *, count: int, step: int) -> Ints:
    """[count]: sums of ``counts`` by what is ``above`` them, down to whole steps."""
    total = np.zeros(count, dtype=np.int64)
    np.add.at(total, above, counts)
    return total - total % step

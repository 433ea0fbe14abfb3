"""`Fabric`: the switches above some hosts, as a tree of site, spine and leaf."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bessemer.placement.arrays import Arrays
from bessemer.placement.vectors import NONE, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Fabric:
    """Numbers follow the order of names, whatever order hosts came in. ``leaf`` [hosts] is the leaf above each,
    ``spine`` [leaves] the spine above each leaf, ``site`` [spines] where each spine stands; ``names`` are the leaves'.

    A host of which no leaf is told is under a leaf of its own, and so is a leaf without a spine under a spine of its
    own: what must be shared must be known. Hosts of no site are at one, which has no name. A switch is known by all
    that is above it, so equal names at two sites are two switches.
    """

    leaf: Ints
    spine: Ints
    site: Ints
    names: tuple[str, ...]

    @classmethod
    def above(cls, fleet: Arrays, rows: Ints) -> Fabric:
        """The switches above ``rows``."""
        keys = _keys(fleet, rows)
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        paths = [_path(fleet, int(row)) for row in rows[first]]
        order = sorted(range(len(paths)), key=paths.__getitem__)
        numbers = np.zeros(len(paths), dtype=np.int64)
        numbers[order] = np.arange(len(paths))
        spines, sites = [], []
        before: tuple[str, str] | None = None
        for number in order:
            site, spine, *_ = paths[number]
            if not spine or (site, spine) != before:
                sites.append(site)
            before = (site, spine)
            spines.append(len(sites) - 1)
        places = {site: number for number, site in enumerate(dict.fromkeys(sites))}
        return cls(
            leaf=numbers[inverse.reshape(-1)],
            spine=np.array(spines, dtype=np.int64),
            site=np.array([places[site] for site in sites], dtype=np.int64),
            names=tuple(paths[number][2] or paths[number][3] for number in order),
        )


def _keys(fleet: Arrays, rows: Ints) -> Ints:
    """[rows]: equal for those under one leaf."""
    walls = fleet.walls.all
    sites = {site: number for number, site in enumerate({wall.site: None for wall in walls})}
    site = np.array([sites[wall.site] for wall in walls], dtype=np.int64)[fleet.wall[rows]]
    switches = len(fleet.switches.all) + 1
    leaf = np.where(fleet.leaf[rows] != NONE, fleet.leaf[rows].astype(np.int64), switches + rows)
    keys: Ints = (site * switches + fleet.spine[rows] + 1) * (switches + fleet.size) + leaf
    return keys


def _path(fleet: Arrays, row: int) -> tuple[str, str, str, str]:
    """From the site down to the leaf; to the host where no leaf is told."""
    leaf, spine = fleet.leaf[row], fleet.spine[row]
    known = leaf != NONE
    return (
        fleet.walls.all[fleet.wall[row]].site,
        fleet.switches.all[spine] if spine != NONE else "",
        fleet.switches.all[leaf] if known else "",
        "" if known else fleet.names[row],
    )

"""How many members go under each leaf: under as few switches as possible, and of those the tightest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bessemer.core.asking import Gang
from bessemer.placement.gangs.ground import Ground
from bessemer.placement.gangs.spans import takes
from bessemer.placement.vectors import Ints

_TRIED = 32
"""Spines, the tightest first, that are looked at for what they would leave over."""


@dataclass(frozen=True, slots=True)
class _Shares:
    """Members by leaf, for leaves that get any."""

    of: dict[int, int]
    left: int
    """Members for whom there would still be room under those leaves."""

    def key(self, ground: Ground, *, leaves_first: bool) -> tuple[int, ...]:
        """Small is good."""
        spines = len({int(ground.fabric.spine[leaf]) for leaf in self.of})
        counts = (len(self.of), spines) if leaves_first else (spines, len(self.of))
        return (*counts, self.left)


def shares(ground: Ground, gang: Gang) -> Ints | None:
    """[leaves]: members for each, or None where there is no way within the gang's level."""
    found = _one_leaf(ground, gang)
    if found is None and not (gang.policy == "required" and gang.level in {"host", "leaf"}):
        found = _one_spine(ground, gang) if _must_be_one_spine(gang) else _one_site(ground, gang)
    if found is None and gang.policy == "preferred":
        found = _several_sites(ground, gang)
    if found is None:
        return None
    counts = np.zeros(len(ground.leaves), dtype=np.int64)
    counts[list(found.of)] = list(found.of.values())
    return counts


def _must_be_one_spine(gang: Gang) -> bool:
    return gang.policy == "required" and gang.level == "spine"


def _leaves_first(gang: Gang) -> bool:
    return gang.level in {"host", "leaf"}


# --- one switch suffices ----------------------------------------------------------------------------------------


def _one_leaf(ground: Ground, gang: Gang) -> _Shares | None:
    """Of the leaves that suffice the one on which the fewest hosts do (the most are used, of a gang that is spread),
    then the tightest, then the one under the tightest spine."""
    leaves = np.flatnonzero(ground.leaves >= gang.count)
    if not len(leaves):
        return None
    hosts = _hosts_needed(ground, gang)[leaves]
    spine = ground.spines[ground.fabric.spine[leaves]]
    best = np.lexsort((leaves, spine, ground.leaves[leaves], -hosts if gang.spread else hosts))[0]
    leaf = int(leaves[best])
    return _Shares({leaf: gang.count}, int(ground.leaves[leaf]) - gang.count)


def _hosts_needed(ground: Ground, gang: Gang) -> Ints:
    """[leaves]: hosts that the gang would be on, as far as a leaf has room for it."""
    leaf, count = ground.fabric.leaf, len(ground.leaves)
    if gang.spread:
        return np.minimum(np.bincount(leaf, minlength=count), gang.count)
    order = np.lexsort((-ground.hosts, leaf))
    before = running(ground.hosts[order], leaf[order])
    return np.bincount(leaf[order][before < gang.count], minlength=count)


def running(counts: Ints, groups: Ints) -> Ints:
    """For each of ``counts`` the sum of those before it in its group; groups are in a row each."""
    total = np.cumsum(counts) - counts
    first = np.flatnonzero(np.append(True, groups[1:] != groups[:-1])[: len(groups)])
    sums: Ints = total - np.repeat(total[first], np.diff(first, append=len(groups)))
    return sums


def _one_spine(ground: Ground, gang: Gang) -> _Shares | None:
    """Of the spines that suffice the one with the fewest leaves, then the tightest."""
    return _best_spine(ground, gang, among=range(len(ground.spines)), count=gang.count)


def _best_spine(ground: Ground, gang: Gang, *, among: Sequence[int], count: int) -> _Shares | None:
    offers = {p: ground.offers[p] for p in among if ground.spines[p] >= count}
    if not offers:
        return None
    needed = {p: int(np.searchsorted(offer, count)) + 1 for p, offer in offers.items()}
    fewest = min(needed.values())
    tight = sorted((p for p in offers if needed[p] == fewest), key=lambda p: (int(ground.spines[p]), p))
    found = [_dealt(ground, {p: fewest}, count=count) for p in tight[:_TRIED]]
    return min(found, key=lambda shares: shares.left)


# --- several ----------------------------------------------------------------------------------------------------


def _one_site(ground: Ground, gang: Gang) -> _Shares | None:
    found = [
        under
        for site in np.flatnonzero(ground.sites >= gang.count)
        if (under := _within(ground, gang, site=int(site), count=gang.count)) is not None
    ]
    return min(found, key=lambda under: under.key(ground, leaves_first=_leaves_first(gang)), default=None)


def _several_sites(ground: Ground, gang: Gang) -> _Shares | None:
    """The fewest sites: the largest whole, and of the others the tightest that takes the rest."""
    if int(ground.sites.sum()) < gang.count:
        return None
    order = sorted(range(len(ground.sites)), key=lambda site: (-int(ground.sites[site]), site))
    all_of: dict[int, int] = {}
    left, rest = 0, gang.count
    while rest:
        last = [site for site in order if ground.sites[site] >= rest]
        site = last[-1] if last else order[0]
        order.remove(site)
        part = min(rest, int(ground.sites[site]))
        under = _within(ground, gang, site=site, count=part)
        assert under is not None
        all_of |= under.of
        left, rest = left + under.left, rest - part
    return _Shares(all_of, left)


def _within(ground: Ground, gang: Gang, *, site: int, count: int) -> _Shares | None:
    """So many members at one site that has room for them, under several leaves."""
    spines = [int(p) for p in np.flatnonzero((ground.fabric.site == site) & (ground.spines > 0))]
    offers = [ground.offers[p] for p in spines]
    first = _leaves_first(gang)
    one = _best_spine(ground, gang, among=spines, count=count)
    if one is not None and (not first or len(one.of) <= _fewest_leaves(offers, count)):
        return one
    taken = takes(offers, count, leaves_first=first)
    if taken is None:
        return None
    several = _dealt(ground, {p: leaves for p, leaves in zip(spines, taken, strict=True) if leaves}, count=count)
    found = [several] if one is None else [several, one]
    return min(found, key=lambda shares: shares.key(ground, leaves_first=first))


def _fewest_leaves(offers: Sequence[Ints], count: int) -> int:
    """Fewer can not do, wherever they are. What a spine gains by a further leaf may be a whole block, which is no less
    than it gains with the one before: so each is held to be worth the most of all from it on."""
    gains = [np.maximum.accumulate(np.diff(offer, prepend=0)[::-1])[::-1] for offer in offers]
    gain = np.sort(np.concatenate(gains))[::-1]
    return int(np.searchsorted(np.cumsum(gain), count)) + 1


# --- who gets how many ------------------------------------------------------------------------------------------


def _dealt(ground: Ground, taken: dict[int, int], *, count: int) -> _Shares:
    """Members by leaf, of so many leaves under each spine: all full but the last, which is as small as will do."""
    step = ground.steps[2]
    over = {p: int(ground.offers[p][leaves - 1]) for p, leaves in taken.items()}
    surplus = sum(over.values()) - count
    dealt: dict[int, int] = {}
    left = 0
    for p in sorted(over, key=lambda p: (over[p], p)):
        leaves = ground.by_spine[p]
        spare = min(surplus, over[p]) // step * step
        part = over[p] - spare
        chosen = _tightened(ground.leaves[leaves], taken[p], count=part)
        surplus -= spare
        # Those of one spine fill up in order, the smallest last.
        for leaf in leaves[chosen]:
            some = min(part, int(ground.leaves[leaf]))
            part -= some
            if some:
                dealt[int(leaf)] = some
                left += int(ground.leaves[leaf]) - some
    return _Shares(dealt, left)


def _tightened(rooms: Ints, taken: int, *, count: int) -> list[int]:
    """Which ``taken`` of some leaves, the largest first: with room for ``count``, and little more. Exact for one; of
    more each is changed once, from the smallest on, for the smallest that will do."""
    chosen = list(range(taken))
    surplus = int(rooms[:taken].sum()) - count
    free = list(range(taken, len(rooms)))
    for place in range(taken - 1, -1, -1):
        if surplus <= 0 or not free:
            break
        mine = int(rooms[chosen[place]])
        fit = [leaf for leaf in free if mine - surplus <= rooms[leaf] < mine]
        if fit:
            best = min(fit, key=lambda leaf: (int(rooms[leaf]), leaf))
            free[free.index(best)], chosen[place] = chosen[place], best
            surplus -= mine - int(rooms[best])
    return sorted(chosen, key=lambda leaf: (-int(rooms[leaf]), leaf))

"""How many leaves to take under each of several spines: the fewest of the one, then of the other.

A spine offers a table: for how many members there is room under its best leaf, its two best, and so on. To take so many
leaves under so many spines as make the most room is a knapsack of tables, which is solved exactly by going through
spines one by one (as the multiple-choice knapsack: Kellerer, Pferschy, Pisinger, Knapsack Problems, 2004, ch. 11).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from bessemer.placement.vectors import Ints

WORK_MAX = 4_000_000
"""Additions that a table may cost; some 4 ms. Beyond, what was found greedily stands."""


def takes(offers: Sequence[Ints], count: int, *, leaves_first: bool) -> list[int] | None:
    """Leaves to take under each spine so that there is room for ``count``; None where there is not. ``offers`` are
    [leaves] each, rising. With ``leaves_first`` the fewest leaves count before the fewest spines, else after."""
    greedy = _largest_spines(offers, count)
    if greedy is None:
        return None
    leaves, spines = sum(greedy), sum(map(bool, greedy))
    if leaves_first:
        other = _largest_leaves(offers, count)
        if other is not None and sum(other) <= leaves:
            greedy, leaves, spines = other, sum(other), sum(map(bool, other))
        else:
            # Fewer leaves may be had under more spines.
            spines = min(len(offers), leaves)
    if sum(map(len, offers)) * (spines + 1) * (leaves + 1) > WORK_MAX:
        return greedy
    return _fewest(offers, count, bounds=(spines, leaves), leaves_first=leaves_first)


def _largest_spines(offers: Sequence[Ints], count: int) -> list[int] | None:
    """Whole spines, the largest first, until there is room: the fewest spines that there can be."""
    chosen = [0] * len(offers)
    for p in sorted(range(len(offers)), key=lambda p: -int(offers[p][-1])):
        chosen[p] = min(len(offers[p]), int(np.searchsorted(offers[p], count)) + 1)
        count -= int(offers[p][chosen[p] - 1])
        if count <= 0:
            return chosen
    return None


def _largest_leaves(offers: Sequence[Ints], count: int) -> list[int] | None:
    """The largest leaves, of equal ones those under spines that are taken anyway: the fewest leaves that there can be.
    None where a spine takes whole blocks alone, and so its leaves are not worth what they have."""
    gains = [np.diff(offer, prepend=0) for offer in offers]
    if any(bool((np.diff(gain) > 0).any()) for gain in gains):
        return None
    spine = np.repeat(np.arange(len(offers)), [len(gain) for gain in gains])
    gain = np.concatenate(gains)
    order = np.argsort(-gain, kind="stable")
    needed = int(np.searchsorted(np.cumsum(gain[order]), count)) + 1
    if needed > len(order):
        return None
    least = gain[order[needed - 1]]
    larger = np.bincount(spine[gain > least], minlength=len(offers))
    equal = np.bincount(spine[gain == least], minlength=len(offers))
    chosen, left = larger.copy(), needed - int(larger.sum())
    for p in sorted(range(len(offers)), key=lambda p: (not larger[p], -int(equal[p]))):
        more = min(left, int(equal[p]))
        chosen[p] += more
        left -= more
    return [int(taken) for taken in chosen]


def _fewest(offers: Sequence[Ints], count: int, *, bounds: tuple[int, int], leaves_first: bool) -> list[int] | None:
    """Within bounds of spines and leaves, exactly."""
    tables = [np.zeros((bounds[0] + 1, bounds[1] + 1), dtype=np.int64)]
    for offer in offers:
        before, after = tables[-1], tables[-1].copy()
        for taken in range(1, min(len(offer), bounds[1]) + 1):
            there = after[1:, taken:]
            np.maximum(there, before[:-1, : bounds[1] + 1 - taken] + offer[taken - 1], out=there)
        tables.append(after)
    enough = tables[-1] >= count
    if not enough.any():
        return None
    ways = [(int(spines), int(leaves)) for spines, leaves in np.argwhere(enough)]
    spines, leaves = min(ways, key=lambda way: way[::-1] if leaves_first else way)
    return _walked_back(tables, offers, spines=spines, leaves=leaves)


def _walked_back(tables: Sequence[Ints], offers: Sequence[Ints], *, spines: int, leaves: int) -> list[int]:
    """Which leaves made the figure in the last table."""
    chosen: list[int] = []
    for offer, (before, after) in zip(reversed(offers), reversed(list(pairwise(tables))), strict=True):
        taken = 0
        if after[spines, leaves] != before[spines, leaves]:
            most = min(len(offer), leaves)
            made = before[spines - 1, leaves - np.arange(1, most + 1)] + offer[:most]
            taken = int(np.flatnonzero(made == after[spines, leaves])[0]) + 1
            spines, leaves = spines - 1, leaves - taken
        chosen.append(taken)
    return chosen[::-1]

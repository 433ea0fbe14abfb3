"""How many members go on each host of the leaves that were chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bessemer.core.asking import Gang
from bessemer.placement.arrays import Glance
from bessemer.placement.gangs.ground import Ground
from bessemer.placement.gangs.leaves import running
from bessemer.placement.inbytes import costs_of
from bessemer.placement.policies import Policy
from bessemer.placement.shape import Shape
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import Ints


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """``index`` [candidates] are hosts of the ground, ``rank`` their order among those with equal room: what the policy
    would rather take first."""

    index: Ints
    rank: Ints


def one_host(ground: Ground, gang: Gang, *, sight: Sight, policy: Policy | None) -> Ints | None:
    """[hosts]: all on the tightest host that holds them, or None."""
    enough = np.flatnonzero(ground.hosts >= gang.count)
    if not len(enough):
        return None
    tightest = enough[ground.hosts[enough] == ground.hosts[enough].min()]
    among = _ranked(ground, tightest, sight=sight, policy=policy)
    counts = np.zeros(len(ground.hosts), dtype=np.int64)
    counts[among.index[np.argmin(among.rank)]] = gang.count
    return counts


def by_host(ground: Ground, gang: Gang, *, shares: Ints, sight: Sight, policy: Policy | None) -> Ints:
    """[hosts]: members on each, as many under each leaf as ``shares`` [leaves] say: on as few hosts as possible, or on
    as many. The fewest are those with the most room and, last, the one with the least that takes the rest."""
    index = np.flatnonzero(shares[ground.fabric.leaf] > 0)
    among = _ranked(ground, index, sight=sight, policy=policy)
    counts = np.zeros(len(ground.hosts), dtype=np.int64)
    if gang.spread:
        counts[index] = _spread(ground, among, shares=shares)
    else:
        counts[index] = _packed(ground, among, shares=shares)
    return counts


def _ranked(ground: Ground, index: Ints, *, sight: Sight, policy: Policy | None) -> _Candidates:
    """Who would rather not span NUMA nodes does not; then what the policy says, or the tightest; then the name."""
    rows = ground.rows[index]
    names = sight.fleet.names
    by_name = np.zeros(len(rows), dtype=np.int64)
    by_name[sorted(range(len(rows)), key=lambda at: names[rows[at]])] = np.arange(len(rows))
    seen = Sight.of(Glance(sight.fleet, rows), sight.request)
    if policy is not None:
        keys: Sequence[np.ndarray] = (costs_of(policy, Shape.of(sight.request), fleet=sight.fleet, rows=rows).value,)
    else:
        keys = (seen.usable_count, seen.cores_sum, seen.memory_sum)
    apart = ~seen.close if sight.request.numa == "preferred" else np.zeros(len(rows), dtype=np.bool_)
    rank = np.zeros(len(rows), dtype=np.int64)
    rank[np.lexsort((by_name, *reversed(keys), apart))] = np.arange(len(rows))
    return _Candidates(index, rank)


def _packed(ground: Ground, among: _Candidates, *, shares: Ints) -> Ints:
    room, leaf = ground.hosts[among.index], ground.fabric.leaf[among.index]
    order = np.lexsort((among.rank, -room, leaf))
    wanted = shares[leaf[order]] - running(room[order], leaf[order])
    counts = np.zeros(len(room), dtype=np.int64)
    counts[order] = np.clip(wanted, 0, room[order])
    for last in np.flatnonzero((counts > 0) & (counts < room)):
        # The rest of a leaf's share goes where it leaves the least.
        fit = np.flatnonzero((leaf == leaf[last]) & (counts == 0) & (room >= counts[last]) & (room < room[last]))
        if len(fit):
            tight = fit[np.lexsort((among.rank[fit], room[fit]))[0]]
            counts[tight], counts[last] = counts[last], 0
    return counts


def _spread(ground: Ground, among: _Candidates, *, shares: Ints) -> Ints:
    """One on each host in turn, in blocks where blocks lie on one host."""
    step = ground.steps[0]
    leaf = ground.fabric.leaf[among.index]
    turns = np.minimum(ground.hosts[among.index], shares[leaf]) // step
    host = np.repeat(np.arange(len(turns)), turns)
    turn = np.arange(len(host)) - np.repeat(np.cumsum(turns) - turns, turns)
    order = np.lexsort((among.rank[host], turn, leaf[host]))
    before = running(np.full(len(host), step, dtype=np.int64), leaf[host][order])
    taken = host[order][before < shares[leaf[host][order]]]
    return np.bincount(taken, minlength=len(turns)) * step

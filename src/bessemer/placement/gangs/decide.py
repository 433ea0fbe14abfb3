"""`decide_gang`: places for all members, or every reason against and a change that would help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bessemer.core.asking import Gang, GangDecision, Refusal
from bessemer.placement.arrays import Arrays
from bessemer.placement.filters import fitting, sift
from bessemer.placement.gangs.ground import LEVELS, Ground
from bessemer.placement.gangs.hosts import by_host, one_host
from bessemer.placement.gangs.leaves import shares
from bessemer.placement.gangs.members import Told, settle
from bessemer.placement.gangs.rails import OnRails, on_rails, own_host, wants_rails
from bessemer.placement.gangs.refuse import refused
from bessemer.placement.policies import Policy
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import Bools, Ints


@dataclass(frozen=True, slots=True, eq=False)
class _Chosen:
    """``counts`` [hosts] are members on each host of the ground, on which rails if on some."""

    ground: Ground
    counts: Ints
    rails: OnRails | None = None

    def switches(self, gang: Gang) -> tuple[int, ...]:
        """How many there are above the members, in the order in which they count."""
        taken = np.flatnonzero(self.counts)
        leaves, spines, sites = (len(np.unique(self.ground.above(level)[taken])) for level in LEVELS[1:])
        return (sites, leaves, spines) if gang.level in {"host", "leaf"} else (sites, spines, leaves)


def decide_gang(fleet: Arrays, gang: Gang, *, policy: Policy | None = None) -> GangDecision | Refusal:
    """Where all members of ``gang`` go now. Which hosts of a leaf with equal room are taken is the ``policy``'s to say;
    without one the tightest are. The decision holds only as long as nobody else takes the same."""
    sight = Sight.of(fleet, gang.member)
    fits, reasons = sift(sight)
    chosen = _chosen(sight, gang, fits=fits, policy=policy)
    if chosen is None:
        return refused(Ground.of(sight, gang, fits=fits), gang, sight=sight, reasons=reasons)
    return _settled(chosen, gang, sight=sight, told=Told(int(fits.sum()), reasons))


def place_gang(fleet: Arrays, gang: Gang, *, policy: Policy | None = None) -> GangDecision | None:
    """The same for who asks about many, and would not hear why it fits nowhere."""
    sight = Sight.of(fleet, gang.member)
    fits = fitting(sight)
    chosen = _chosen(sight, gang, fits=fits, policy=policy)
    if chosen is None:
        return None
    return _settled(chosen, gang, sight=sight, told=Told(int(fits.sum()), sift(sight)[1]))


def _chosen(sight: Sight, gang: Gang, *, fits: Bools, policy: Policy | None) -> _Chosen | None:
    """Rails count before switches: who prefers them has them where they can be had within the level."""
    if wants_rails(gang):
        ways = [
            _Chosen(rails.ground, counts, rails)
            for rails in on_rails(sight, gang, fits=fits)
            if (counts := _placed(rails.ground, own_host(gang), sight=sight, policy=policy)) is not None
        ]
        if ways or gang.rails == "required":
            return min(ways, key=lambda way: way.switches(gang), default=None)
    ground = Ground.of(sight, gang, fits=fits)
    counts = _placed(ground, gang, sight=sight, policy=policy)
    return None if counts is None else _Chosen(ground, counts)


def _settled(chosen: _Chosen, gang: Gang, *, sight: Sight, told: Told) -> GangDecision:
    ground, counts = chosen.ground, chosen.counts
    taken = np.flatnonzero(counts)
    taken = taken[_ranks(ground, taken, names=sight.fleet.names)]
    only = None if chosen.rails is None else chosen.rails.columns()
    members = settle(sight, ground.rows[taken], counts=counts[taken], told=told, only=only)
    leaves, spines, sites = (np.unique(ground.above(level)[taken]) for level in LEVELS[1:])
    score = {
        "sites": float(len(sites)),
        "leaves": float(len(leaves)),
        "spines": float(len(spines)),
        "hosts": float(len(taken)),
        "placesLeftOnLeaves": float(ground.leaves[leaves].sum() - gang.count),
    }
    if chosen.rails is not None:
        score["rails"] = float(len(set(chosen.rails.rails)))
    return GangDecision(members=members, leaves=len(leaves), spines=len(spines), score=score)


def _placed(ground: Ground, gang: Gang, *, sight: Sight, policy: Policy | None) -> Ints | None:
    """[hosts]: members on each, or None."""
    if ground.most(gang) < gang.count:
        return None
    if gang.level == "host":
        together = one_host(ground, gang, sight=sight, policy=policy)
        if together is not None or gang.policy == "required":
            return together
    by_leaf = shares(ground, gang)
    return None if by_leaf is None else by_host(ground, gang, shares=by_leaf, sight=sight, policy=policy)


def _ranks(ground: Ground, taken: Ints, *, names: Sequence[str]) -> Ints:
    """[taken]: in the order of ranks, so that neighbours in rank are near: leaf by leaf, spine by spine, and by name on
    each leaf."""
    leaf = ground.fabric.leaf[taken].tolist()
    name = [names[row] for row in ground.rows[taken]]
    return np.array(sorted(range(len(taken)), key=lambda at: (leaf[at], name[at])), dtype=np.int64)

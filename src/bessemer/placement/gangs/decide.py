"""`decide_gang`: places for all members, or every reason against and a change that would help."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bessemer.core.asking import Gang, GangDecision, Refusal
from bessemer.placement.arrays import Arrays
from bessemer.placement.filters import fitting, sift
from bessemer.placement.gangs.ground import LEVELS, Ground
from bessemer.placement.gangs.hosts import by_host, one_host
from bessemer.placement.gangs.leaves import shares
from bessemer.placement.gangs.members import Told, settle
from bessemer.placement.gangs.refuse import refused
from bessemer.placement.policies import Policy
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import Ints


def decide_gang(fleet: Arrays, gang: Gang, *, policy: Policy | None = None) -> GangDecision | Refusal:
    """Where all members of ``gang`` go now. Which hosts of a leaf with equal room are taken is the ``policy``'s to say;
    without one the tightest are. The decision holds only as long as nobody else takes the same."""
    sight = Sight.of(fleet, gang.member)
    fits, reasons = sift(sight)
    ground = Ground.of(sight, gang, fits=fits)
    found = _decided(ground, gang, sight=sight, policy=policy, told=Told(int(fits.sum()), reasons))
    return found or refused(ground, gang, sight=sight, reasons=reasons)


def place_gang(fleet: Arrays, gang: Gang, *, policy: Policy | None = None) -> GangDecision | None:
    """The same, for who does not ask why not: what would help is dear to find."""
    sight = Sight.of(fleet, gang.member)
    fits = fitting(sight)
    ground = Ground.of(sight, gang, fits=fits)
    if ground.most(gang) < gang.count:
        return None
    reasons = sift(sight)[1]
    return _decided(ground, gang, sight=sight, policy=policy, told=Told(int(fits.sum()), reasons))


def _decided(ground: Ground, gang: Gang, *, sight: Sight, policy: Policy | None, told: Told) -> GangDecision | None:
    counts = _placed(ground, gang, sight=sight, policy=policy)
    if counts is None:
        return None
    taken = np.flatnonzero(counts)
    taken = taken[_ranks(ground, taken, names=sight.fleet.names)]
    members = settle(sight, ground.rows[taken], counts=counts[taken], told=told)
    leaves, spines, sites = (np.unique(ground.above(level)[taken]) for level in LEVELS[1:])
    score = {
        "sites": float(len(sites)),
        "leaves": float(len(leaves)),
        "spines": float(len(spines)),
        "hosts": float(len(taken)),
        "placesLeftOnLeaves": float(ground.leaves[leaves].sum() - gang.count),
    }
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

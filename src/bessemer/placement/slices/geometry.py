"""Where on a device an instance leaves most to those that come later.

What a device can still take is counted in ways: for each profile the starts that are free, weighted by how much that
profile is asked for. A place costs the ways that it takes away, and the least is taken. With equal weights this is the
"configuration capability" by which GRMU ranks placements (arXiv 2502.01909; weighted by what is expected, its MECC),
and near the fragmentation that grows least of Zambianco et al. (arXiv 2511.18906).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from bessemer.core.slices import Partitioning, Profile, fits, starts, taken

EQUALLY: Mapping[str, float] = MappingProxyType({})


class Spot(NamedTuple):
    """Where an instance of a profile best begins on a device, and the ways that this takes away."""

    start: int
    lost: float


def ways(table: Partitioning, used: int, *, weights: Mapping[str, float] = EQUALLY) -> float:
    """What a device can still take: free starts, over profiles. ``weights`` are by name; what is not named counts 1."""
    return sum(weights.get(profile.name, 1.0) * len(starts(table, used, profile=profile)) for profile in table.profiles)


def lost(
    table: Partitioning, used: int, *, profile: Profile, start: int, weights: Mapping[str, float] = EQUALLY
) -> float:
    """The ways that an instance takes away which begins at ``start``."""
    before = ways(table, used, weights=weights)
    return before - ways(table, used + taken(profile, start), weights=weights)


def best_start(table: Partitioning, used: int, *, name: str, weights: Mapping[str, float] = EQUALLY) -> Spot | None:
    """The start that loses least, of equals the last: wide profiles begin at low slices. None where none is free, or
    the device has no profile of that name."""
    profile = table.find(name)
    if profile is None:
        return None
    free = [start for start in profile.starts if fits(table, used, take=taken(profile, start))]
    spots = [Spot(start, lost(table, used, profile=profile, start=start, weights=weights)) for start in free]
    return min(spots, key=lambda spot: (spot.lost, -spot.start), default=None)

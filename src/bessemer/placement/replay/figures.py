"""What came of a replay: frozen values, one for each seed, and their means.

Shares are of all devices of the fleet, from 0 to 1. A standard deviation is that of a sample.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bessemer.core.asking import Request

CORES, SHARE = "cores", "share"


def size_of(request: Request) -> str:
    """What a request is counted under: `CORES` without a device, `SHARE` of one, or how many devices."""
    if not request.device_count:
        return CORES
    return SHARE if request.device_milli < 1000 else str(request.device_count)


def sizes_in_order(sizes: Iterable[str]) -> Sequence[str]:
    """From nothing to most."""
    return sorted(sizes, key=lambda size: (size.isdigit(), int(size) if size.isdigit() else size == SHARE))


@dataclass(frozen=True, slots=True)
class Count:
    """Requests that came and those of them that were refused; and thousandths of devices, likewise."""

    came: int = 0
    refused: int = 0
    came_milli: int = 0
    refused_milli: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.came + other.came,
            self.refused + other.refused,
            self.came_milli + other.came_milli,
            self.refused_milli + other.refused_milli,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What came of arrivals that stay. ``levels``: the share allocated when so much had arrived; ``first_refusal``: how
    much had when the first that wants devices was refused, None where none was; ``useless_milli``: what is free at the
    end and serves nothing that is asked for, in thousandths of devices (FGD's measure)."""

    levels: Mapping[float, float]
    allocated: float
    unallocated_milli: int
    first_refusal: float | None
    counts: Mapping[str, Count]
    moves: int = 0
    useless_milli: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Churned:
    """What came of visits after the warm-up. ``allocated`` is the mean over time; ``blocked`` the share of what was
    offered, in thousandths of devices; ``useless_milli`` as in `Filled`."""

    allocated: float
    blocked: float
    counts: Mapping[str, Count]
    moves: int = 0
    useless_milli: float = 0.0


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean and its standard deviation."""

    mean: float
    deviation: float


def spread(values: Iterable[float]) -> Spread:
    """Of at least one value."""
    given = list(values)
    return Spread(statistics.fmean(given), statistics.stdev(given) if len(given) > 1 else 0.0)


def together(counts: Iterable[Mapping[str, Count]]) -> Mapping[str, Count]:
    """The counts of several replays as one, in the order of sizes."""
    total: dict[str, Count] = {}
    for one in counts:
        for size, count in one.items():
            total[size] = total.get(size, Count()) + count
    return {size: total[size] for size in sizes_in_order(total)}

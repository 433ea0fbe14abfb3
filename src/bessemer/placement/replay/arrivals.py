"""Who comes when: the arrivals of a replay, drawn from the requests of a trace.

`inflated` is the rule of the artefact of FGD (hkust-adsl/kubernetes-scheduler-simulator; Weng et al., USENIX ATC 2023):
nobody leaves. `churning` is a loss system: Poisson arrivals, exponential stays, and who is refused does not come back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bessemer.core.asking import Request
from bessemer.core.errors import Invalid
from bessemer.placement.policies import Floats
from bessemer.placement.replay.trace import milli_of
from bessemer.placement.vectors import Ints


def inflated(requests: Sequence[Request], capacity_milli: int, *, ratio: float, generator: np.random.Generator) -> Ints:
    """[arrivals]: indices into ``requests``: all of them shuffled, then drawn with replacement until the devices that
    they want come to ``ratio`` of the capacity. Of more than that, some are left out at random.

    As in the artefact, the last one is tried by the thousandths of one device, however many it wants.
    """
    wanted = np.array([milli_of(request) for request in requests], dtype=np.int64)
    if not wanted.any():
        raise Invalid("no request wants a device: arrivals are counted by the devices that they want")
    each = np.where(wanted > 0, [request.device_milli for request in requests], 0)
    most = ratio * capacity_milli
    indices = [int(index) for index in generator.permutation(len(requests))]
    total = int(wanted.sum())
    if total > most:
        while total > most:
            total -= int(wanted[indices.pop(int(generator.integers(len(indices))))])
        return np.array(indices, dtype=np.int64)
    while True:
        index = int(generator.integers(len(requests)))
        if total + each[index] > most:
            return np.array(indices, dtype=np.int64)
        total += int(wanted[index])
        indices.append(index)


@dataclass(frozen=True, slots=True)
class Visits:
    """[visits] in the order in which they come: index of the request, and when it comes and would leave, in mean stays.
    Figures are taken from ``warm_up`` to ``end``."""

    indices: Ints
    comes: Floats
    leaves: Floats
    warm_up: float
    end: float

    def __len__(self) -> int:
        return len(self.indices)


def churning(
    requests: Sequence[Request],
    capacity_milli: int,
    *,
    load: float,
    stays: tuple[float, float],
    generator: np.random.Generator,
) -> Visits:
    """Visits that want ``load`` of the capacity on average, would nobody be refused: each is any of the requests, and
    stays for one unit of time on average. ``stays`` are the lengths of warm-up, from an empty fleet, and of what is
    counted after it."""
    wanted = sum(map(milli_of, requests)) / max(1, len(requests))
    if not wanted:
        raise Invalid("no request wants a device: arrivals are counted by the devices that they want")
    rate, end = load * capacity_milli / wanted, float(sum(stays))
    # More than will come, however the dice fall; those after the end are cut off.
    drawn = int(rate * end + 10 * math.sqrt(rate * end) + 10)
    comes = np.cumsum(generator.exponential(1 / rate, drawn))
    lasts = generator.exponential(1.0, drawn)
    indices = generator.integers(len(requests), size=drawn)
    count = int(np.searchsorted(comes, end))
    return Visits(indices[:count], comes[:count], (comes + lasts)[:count], warm_up=stays[0], end=end)

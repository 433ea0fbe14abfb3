"""`anywhere`: which of many requests could find a place at all, looked at together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bessemer.core.asking import Request
from bessemer.placement.arrays import Arrays
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import Bools


def anywhere(fleet: Arrays, requests: Sequence[Request]) -> Bools:
    """[requests]: False where no host that is open has the cores, the memory and the devices in sum. How they lie, and
    to whom hosts are open, is not looked at: so True says little, and False is certain."""
    found = np.zeros(len(requests), dtype=np.bool_)
    n = fleet.size
    hosts = np.flatnonzero(fleet.present[:n] & fleet.reachable[:n] & fleet.schedulable[:n])
    cores = np.maximum(fleet.cores_free[hosts], 0).sum(axis=1)
    memory = np.maximum(fleet.memory_free[hosts], 0).sum(axis=1)
    alike: dict[tuple[frozenset[str], int, int], list[int]] = {}
    for number, request in enumerate(requests):
        models = request.device_models if request.device_count else frozenset[str]()
        alike.setdefault((models, request.device_count, request.device_milli), []).append(number)
    free = {
        models: np.where(Sight.of(fleet, requests[numbers[0]]).wanted, fleet.device_milli[:n], 0)[hosts]
        for (models, count, _), numbers in alike.items()
        if count
    }
    for (models, count, milli), numbers in alike.items():
        there = (free[models] >= milli).sum(axis=1) >= count if count else np.ones(len(hosts), dtype=np.bool_)
        wants_cores = np.array([requests[number].milli_cores for number in numbers])[:, None]
        wants_memory = np.array([requests[number].memory_bytes for number in numbers])[:, None]
        found[numbers] = ((cores[there] >= wants_cores) & (memory[there] >= wants_memory)).any(axis=1)
    return found

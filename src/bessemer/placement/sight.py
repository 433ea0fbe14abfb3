"""One request and the fleet as it sees it: the arrays as they are, or as they would be after a change that is tried."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from bessemer.core.values import Request
from bessemer.placement.fleet import Bools, FleetArrays, Ints


@dataclass(frozen=True)
class Sight:
    """Rows ``[:size]`` of what may be changed in thought; the rest is read from ``fleet``. What is derived is kept."""

    fleet: FleetArrays
    request: Request
    reachable: Bools
    schedulable: Bools
    cores_free: Ints
    memory_free: Ints
    device_free: Bools

    @classmethod
    def of(cls, fleet: FleetArrays, request: Request) -> Sight:
        n = fleet.size
        return cls(
            fleet,
            request,
            fleet.reachable[:n],
            fleet.schedulable[:n],
            fleet.cores_free[:n],
            fleet.memory_free[:n],
            fleet.device_free[:n],
        )

    @property
    def size(self) -> int:
        return len(self.reachable)

    @property
    def everyone(self) -> Bools:
        """[hosts]: all of them."""
        return np.ones(self.size, dtype=np.bool_)

    @cached_property
    def cores_sum(self) -> Ints:
        """Free milli-cores of each host; what a node lacks is not made good by another."""
        total: Ints = np.maximum(self.cores_free, 0).sum(axis=1)
        return total

    @cached_property
    def memory_sum(self) -> Ints:
        """Free bytes of each host, likewise."""
        total: Ints = np.maximum(self.memory_free, 0).sum(axis=1)
        return total

    @cached_property
    def wanted(self) -> Bools:
        """[hosts, devices]: sound devices of the model asked for, free or not."""
        sound = self.fleet.device_sound[: self.size]
        if not self.request.device_model:
            return sound
        model = self.fleet.models.find(self.request.device_model)
        chosen: Bools = sound & (self.fleet.device_model[: self.size] == model)
        return chosen

    @cached_property
    def usable(self) -> Bools:
        """[hosts, devices]: those of them that are free."""
        chosen: Bools = self.wanted & self.device_free
        return chosen

    @cached_property
    def usable_count(self) -> Ints:
        """[hosts]: how many those are."""
        total: Ints = self.usable.sum(axis=1)
        return total

    @cached_property
    def close(self) -> Bools:
        """[hosts]: whether cores, memory and devices of one NUMA node suffice, devices as near as they must be."""
        return self.together(numa=True)

    def together(self, *, numa: bool) -> Bools:
        """[hosts]: whether devices lie as near to one another as they must; with ``numa`` see `close`."""
        fleet, ask, n = self.fleet, self.request, self.size
        switches = range(fleet.switch_count) if ask.same_switch and ask.device_count else [None]
        domains = range(fleet.nvlink_count) if ask.same_nvlink and ask.device_count else [None]
        fits: Bools = np.zeros(n, dtype=np.bool_)
        for node in range(self.cores_free.shape[1]) if numa else [None]:
            room, near = self.everyone, self.usable
            if node is not None:
                room = (self.cores_free[:, node] >= ask.milli_cores) & (self.memory_free[:, node] >= ask.memory_bytes)
                near = near & (fleet.device_node[:n] == node)
            for switch, domain in product(switches, domains):
                joined = near if switch is None else near & (fleet.device_switch[:n] == switch)
                linked = joined if domain is None else joined & (fleet.device_nvlink[:n] == domain)
                fits |= room & (linked.sum(axis=1) >= ask.device_count)
        return fits

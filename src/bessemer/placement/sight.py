"""The fleet as one decision sees it: the arrays as they are, or as they would be after a change that is tried."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bessemer.core.values import Request
from bessemer.placement.fleet import Bools, FleetArrays, Ints


@dataclass(frozen=True)
class Sight:
    """Rows ``[:size]`` of what may be changed in thought; the rest is read from ``fleet``."""

    fleet: FleetArrays
    reachable: Bools
    schedulable: Bools
    cores_free: Ints
    memory_free: Ints
    device_free: Bools

    @classmethod
    def of(cls, fleet: FleetArrays) -> Sight:
        n = fleet.size
        return cls(
            fleet,
            fleet.reachable[:n],
            fleet.schedulable[:n],
            fleet.cores_free[:n],
            fleet.memory_free[:n],
            fleet.device_free[:n],
        )

    @property
    def size(self) -> int:
        return len(self.reachable)

    @cached_property
    def cores_sum(self) -> Ints:
        """Free milli-cores of each host; what a node lacks is not made good by another."""
        total: Ints = np.maximum(self.cores_free, 0).sum(axis=1)
        return total

    @cached_property
    def memory_sum(self) -> Ints:
        total: Ints = np.maximum(self.memory_free, 0).sum(axis=1)
        return total

    def of_model(self, request: Request) -> Bools:
        """[hosts, devices]: sound devices of the model asked for, free or not."""
        sound = self.fleet.device_sound[: self.size]
        if not request.device_model:
            return sound
        chosen: Bools = sound & (self.fleet.device_model[: self.size] == self.fleet.models.find(request.device_model))
        return chosen

    def usable(self, request: Request) -> Bools:
        """[hosts, devices]: those of them that are free."""
        return self.of_model(request) & self.device_free

    def together(self, request: Request, usable: Bools, *, numa: bool) -> Bools:
        """[hosts]: whether devices, and with ``numa`` cores and memory too, lie as closely as they must."""
        fleet, n = self.fleet, self.size
        switches = range(fleet.switch_count) if request.same_switch and request.device_count else [None]
        domains = range(fleet.nvlink_count) if request.same_nvlink and request.device_count else [None]
        fits: Bools = np.zeros(n, dtype=np.bool_)
        for node in range(self.cores_free.shape[1]) if numa else [None]:
            room, near = np.ones(n, dtype=np.bool_), usable
            if node is not None:
                room = (self.cores_free[:, node] >= request.milli_cores) & (
                    self.memory_free[:, node] >= request.memory_bytes
                )
                near = usable & (fleet.device_node[:n] == node)
            for switch in switches:
                joined = near if switch is None else near & (fleet.device_switch[:n] == switch)
                for domain in domains:
                    linked = joined if domain is None else joined & (fleet.device_nvlink[:n] == domain)
                    fits |= room & (linked.sum(axis=1) >= request.device_count)
        return fits

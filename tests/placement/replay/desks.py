"""Traces to replay, and a desk whose decisions anybody can follow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bench._trace import drawn

from bessemer.core.asking import Allocation, Decision, Request
from bessemer.placement import FleetArrays, Hold, HostFacts
from bessemer.placement.replay import Desk, Trace, openb


def trace(seed: int = 1, *, hosts: int = 12, picky: float = 0.0) -> Trace:
    """A small one, read from the lines of its files."""
    lines = drawn(seed, hosts=hosts, picky=picky)
    return Trace(tuple(openb.read_hosts(lines.nodes)), tuple(openb.read_requests(lines.pods)))


class Watched(FleetArrays):
    """Keeps a second account of what is held, and lets nobody take more than there is."""

    def __init__(self, hosts: Sequence[HostFacts]) -> None:
        super().__init__()
        self.of_host = {host.name: host.inventory for host in hosts}
        self.account: dict[str, Hold] = {}
        for host in hosts:
            self.set_host(host)

    def hold(self, uid: str, hold: Hold) -> None:
        assert uid not in self.account
        super().hold(uid, hold)  # it drops what it held before
        self.account[uid] = hold
        self._check(hold.host)

    def drop(self, uid: str) -> None:
        self.account.pop(uid, None)
        super().drop(uid)

    @property
    def held_milli(self) -> int:
        return sum(len(hold.devices) * hold.device_milli for hold in self.account.values())

    def _check(self, host: str) -> None:
        there = self.of_host[host]
        here = [hold for hold in self.account.values() if hold.host == host]
        taken = dict.fromkeys((device.id for device in there.devices), 0)
        for hold in here:
            for device in hold.devices:
                taken[device] += hold.device_milli
        assert all(milli <= 1000 for milli in taken.values())
        parts = [part for hold in here for part in hold.allocations]
        assert sum(part.milli_cores for part in parts) <= 1000 * there.threads
        assert sum(part.memory_bytes for part in parts) <= there.memory_bytes


def first_fit(fleet: FleetArrays) -> Desk:
    """The first host that has room, and of a share the fullest device."""

    def decide(request: Request) -> Decision | None:
        for row in range(fleet.size):
            devices = _devices(fleet, row, request)
            if (
                devices is not None
                and fleet.cores_free[row, 0] >= request.milli_cores
                and fleet.memory_free[row, 0] >= request.memory_bytes
            ):
                part = Allocation(numa_node=0, milli_cores=request.milli_cores, memory_bytes=request.memory_bytes)
                return Decision(
                    host=fleet.names[row],
                    devices=devices,
                    allocations=(part,),
                    device_milli=request.device_milli,
                    request=request,
                )
        return None

    return Desk(fleet, decide)


def _devices(fleet: FleetArrays, row: int, request: Request) -> tuple[str, ...] | None:
    there = fleet.devices(row)
    fitting = [
        (int(fleet.device_milli[row, column]), column)
        for column, device in enumerate(there)
        if fleet.device_milli[row, column] >= request.device_milli
        and (not request.device_models or device.model in request.device_models)
    ]
    if len(fitting) < request.device_count:
        return None
    return tuple(there[column].id for _, column in sorted(fitting)[: request.device_count])


def generator(seed: int = 42) -> np.random.Generator:
    return np.random.default_rng(seed)

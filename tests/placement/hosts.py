"""Hosts to place on, small enough to see through."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

from bessemer.core.asking import Request
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.units import GIB
from bessemer.placement import FleetArrays, HostFacts


def inventory(*, nodes: int = 2, threads: int = 8, memory: int = 32 * GIB, gpus: int = 0, **more: Any) -> Inventory:
    """GPUs lie two to a PCIe switch, half of them on each NUMA node, all in one NVLink domain."""
    model = more.pop("model", "H100")
    devices = [
        Device(
            id=f"gpu{n}",
            kind="gpu",
            model=model,
            numa_node=n * nodes // max(gpus, 1),
            pcie_switch=f"sw{n // 2}",
            nvlink_domain="nv0",
        )
        for n in range(gpus)
    ]
    numa = [NumaNode(id=n, cores=threads // 2, threads=threads, memory_bytes=memory) for n in range(nodes)]
    return Inventory(
        **{"numa": numa, "devices": devices, "virtualization": "kvm", "isolation": "strong", "sharing": "time", **more}
    )


def share_of(request: Request, device: Device) -> int:
    """Thousandths of the device that are asked for; more than there are where it has not the memory."""
    if not request.device_bytes:
        return request.device_milli
    if device.memory_bytes < request.device_bytes:
        return 1001
    return ceil(1000 * Fraction(request.device_bytes, device.memory_bytes))


def host(name: str, *, taints: tuple[str, ...] = (), **more: Any) -> HostFacts:
    own = {key: more.pop(key) for key in ("schedulable", "reachable", "overcommit_milli", "wall") if key in more}
    return HostFacts(name=name, inventory=inventory(**more), taints=taints, **own)


def fleet(*facts: HostFacts) -> FleetArrays:
    arrays = FleetArrays()
    for fact in facts:
        arrays.set_host(fact)
    return arrays


def ask(cores: float = 1, memory: int = GIB, **more: Any) -> Request:
    return Request(tenant="acme", milli_cores=int(cores * 1000), memory_bytes=memory, **more)

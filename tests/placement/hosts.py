"""Hosts to place on, small enough to see through."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from typing import Any

from hypothesis import strategies as st

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


@st.composite
def partitions(draw: st.DrawFn, devices: Sequence[Device], *, blocks: bool = False) -> list[list[str]]:
    """NVLink partitions of some devices, and now and then of one that is not there; mostly none. ``blocks``: of equal
    size no two have a device in common."""
    ids = [device.id for device in devices]
    if draw(st.integers(0, 2)) or len(ids) < 2:
        return []
    if blocks:
        ids = draw(st.permutations(ids))
        sizes = draw(st.sets(st.integers(1, len(ids)), min_size=1))
        return [ids[at : at + size] for size in sorted(sizes) for at in range(0, len(ids) - size + 1, size)]
    some = st.sets(st.sampled_from([*ids, *ids, "gone"]), min_size=1).map(sorted)
    return draw(st.lists(some, min_size=1, max_size=5, unique_by=tuple))


def joined(found: Inventory, devices: Sequence[Device]) -> bool:
    """Whether all of these, and some, have NVLink among themselves on their host."""
    if len(devices) > 1 and found.nvlink_partitions:
        return {device.id for device in devices} in map(set, found.nvlink_partitions)
    return len({device.nvlink_domain for device in devices}) == 1 and bool(devices[0].nvlink_domain)


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

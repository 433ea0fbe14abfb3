"""Fake hosts: eight H100 behind four PCIe switches, one NVLink domain, eight rails, placed in a fabric by an ordinal.

Every value follows from the ordinal, so that the same fleet comes back after each start.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.units import GIB, TIB
from bessemer.drivers import Hook, no_hook
from bessemer.drivers.inspect.tables import of_devices

_GPUS = 8
_SWITCHES = 4
_CORES = 56
_NAMESPACE = uuid.UUID("b2a7f0de-6a0c-5c56-9d6b-0f6d2d1a7c11")


@dataclass(frozen=True, slots=True)
class FakeFabric:
    """How fake hosts are racked and cabled: a rack is within a leaf, a leaf within a spine."""

    hosts_per_rack: int = 4
    hosts_per_leaf: int = 16
    hosts_per_spine: int = 64


class FakeInspect:
    """Implements `inspect.protocol.Inspect` for the fake host with this ordinal (0, 1, 2 …)."""

    def __init__(self, ordinal: int, *, fabric: FakeFabric | None = None, on_call: Hook = no_hook) -> None:
        self._ordinal = ordinal
        self._fabric = fabric or FakeFabric()
        self._on_call = on_call
        self.lost: set[str] = set()
        """Ids of devices that have fallen off the bus."""

    async def inventory(self) -> Inventory:
        self._on_call("inspect.inventory")
        fabric, devices = self._fabric, [device for device in _devices() if device.id not in self.lost]
        return Inventory(
            fake=True,
            kernel="6.1.0-fake",
            boot_id=str(uuid.uuid5(_NAMESPACE, f"boot/{self._ordinal}")),
            cpu_model="Intel(R) Xeon(R) Platinum 8480C (fake)",
            numa=[_node(number) for number in (0, 1)],
            devices=devices,
            sharing="time",
            partitions=of_devices(devices),
            addresses=[f"198.18.{self._ordinal >> 8 & 255}.{self._ordinal & 255}"],
            virtualization="kvm",
            virtualization_note="fake",
            isolation="strong",
            isolation_note="fake",
            rack=f"rack-{self._ordinal // fabric.hosts_per_rack:03d}",
            leaf=f"leaf-{self._ordinal // fabric.hosts_per_leaf:02d}",
            spine=f"spine-{self._ordinal // fabric.hosts_per_spine}",
        )


def _node(number: int) -> NumaNode:
    """56 cores of two threads; as the kernel does, first threads of all cores are numbered before their siblings."""
    firsts = range(number * _CORES, (number + 1) * _CORES)
    siblings = [f"{first},{first + 2 * _CORES}" for first in firsts]
    return NumaNode(id=number, cores=_CORES, threads=2 * _CORES, memory_bytes=TIB, hugepages={}, siblings=siblings)


def _devices() -> list[Device]:
    """GPUs 0–3 and their rails hang on NUMA node 0, 4–7 on node 1; two of each share a PCIe switch."""
    found: list[Device] = []
    for index in range(_GPUS):
        node, switch = index * 2 // _GPUS, f"switch-{index * _SWITCHES // _GPUS}"
        bus = 0x18 + 0x10 * index
        found += [
            Device(
                id=f"gpu-{index}",
                kind="gpu",
                model="H100-SXM5-80GB",
                vendor="nvidia",
                address=f"0000:{bus:02x}:00.0",
                memory_bytes=80 * GIB,
                numa_node=node,
                pcie_switch=switch,
                nvlink_domain="nvlink-0",
                rail=index,
            ),
            Device(
                id=f"nic-{index}",
                kind="nic",
                model="ConnectX-7",
                vendor="mellanox",
                address=f"0000:{bus + 1:02x}:00.0",
                numa_node=node,
                pcie_switch=switch,
                rail=index,
                speed_mbps=400_000,
                functions=16,
            ),
            Device(
                id=f"disk-{index}",
                kind="disk",
                model="NVMe-3.84TB",
                vendor="samsung",
                address=f"0000:{bus + 2:02x}:00.0",
                memory_bytes=3_840_755_982_336,
                numa_node=node,
                pcie_switch=switch,
            ),
        ]
    return found

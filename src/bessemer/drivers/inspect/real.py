"""The inventory of this machine, put together from sysfs, NVML, the KVM probe and what the agent may confine."""

from __future__ import annotations

import asyncio
import ipaddress
import platform
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import psutil
import structlog

from bessemer.core.errors import DriverError
from bessemer.core.hosts import ADDRESSES_MAX, DEVICES_MAX, Device, Inventory
from bessemer.drivers.inspect.fabric import read_partitions
from bessemer.drivers.inspect.kvm import KvmProbe
from bessemer.drivers.inspect.nvml import GpuFacts, nvlink_domains, read_gpus
from bessemer.drivers.inspect.sysfs import Machine, PciFunction, disk_id, iommu, word
from bessemer.drivers.process.protocol import Processes

_VENDORS = {
    "10de": "nvidia",
    "1002": "amd",
    "8086": "intel",
    "15b3": "mellanox",
    "14e4": "broadcom",
    "144d": "samsung",
    "1af4": "virtio",
}
_GPU_CLASSES = frozenset({"0300", "0302", "0380", "1200"})
_GPU_VENDORS = frozenset({"10de", "1002"})
_INTEL_GPU_CLASSES = frozenset({"0380", "1200"})
"""Intel's display controllers (0300) are part of its processors; its accelerators are the others."""

_STORAGE = "01"
_NETWORK = ("02", "0c06")
"""Ethernet and its kin, and InfiniBand where it is a bus."""

_log = structlog.get_logger(__name__)


class LocalInspect:
    """Implements `inspect.protocol.Inspect`.

    ``probe`` judges KVM, ``processes`` says how tenants' processes are confined here. ``machine``, ``gpus``,
    ``addresses`` and ``partitions`` are where facts come from.
    """

    def __init__(
        self,
        probe: KvmProbe,
        processes: Processes | None = None,
        *,
        machine: Machine | None = None,
        gpus: Callable[[], Mapping[str, GpuFacts]] = read_gpus,
        addresses: Callable[[], list[str]] | None = None,
        partitions: Callable[[], Awaitable[list[list[str]]]] = read_partitions,
    ) -> None:
        self._probe = probe
        self._processes = processes
        self._machine = machine or Machine()
        self._gpus = gpus
        self._addresses = addresses or own_addresses
        self._partitions = partitions

    async def inventory(self) -> Inventory:
        machine = self._machine
        boot_id = machine.boot_id()
        verdict = await self._probe.verdict(boot_id)
        isolation, isolation_note = await self._isolation()
        return Inventory(
            kernel=machine.kernel(),
            architecture=platform.machine(),
            boot_id=boot_id,
            cpu_model=machine.cpu_model(),
            numa=await asyncio.to_thread(machine.numa),
            devices=await asyncio.to_thread(self._devices),
            addresses=self._addresses()[:ADDRESSES_MAX],
            virtualization=verdict.virtualization,
            virtualization_note=verdict.note,
            passthrough=iommu(machine),
            isolation=isolation,
            isolation_note=isolation_note,
            nvlink_partitions=[[_gpu_id(address) for address in some] for some in await self._partitions()],
        )

    async def _isolation(self) -> tuple[Literal["strong", "weak", "none"], str]:
        if self._processes is None:
            return "none", "nothing confines processes here"
        try:
            isolation = await self._processes.isolation()
        except DriverError as error:
            return "none", error.message
        return isolation.value, ""

    def _devices(self) -> list[Device]:
        functions = {function.address: function for function in self._machine.pci()}
        found = [
            *self._gpu_devices(functions),
            *self._nic_devices(functions),
            *self._disk_devices(functions),
        ]
        if len(found) > DEVICES_MAX:
            _log.warning("devices left out", found=len(found), reported=DEVICES_MAX)
        return found[:DEVICES_MAX]

    def _gpu_devices(self, functions: Mapping[str, PciFunction]) -> list[Device]:
        answering = self._gpus()
        domains = nvlink_domains(answering)
        found = []
        for address, function in functions.items():
            if not _is_gpu(function):
                continue
            facts = answering.get(address)
            name = facts.name if facts else self._machine.gpu_model(address)
            found.append(
                Device(
                    id=_gpu_id(address),
                    kind="gpu",
                    model=_model(name) or f"{function.vendor}:{function.device}",
                    vendor=_VENDORS.get(function.vendor, function.vendor),
                    address=address,
                    memory_bytes=facts.memory_bytes if facts else 0,
                    numa_node=function.numa_node,
                    pcie_switch=function.switch,
                    nvlink_domain=domains.get(address, ""),
                    # Without a driver it may go to a guest whole; with one, a GPU that does not answer is broken.
                    healthy=facts.healthy if facts else not name,
                )
            )
        return found

    def _nic_devices(self, functions: Mapping[str, PciFunction]) -> list[Device]:
        found = []
        for nic in self._machine.nics():
            function = functions.get(nic.address)
            if function is None or function.virtual:
                continue
            found.append(
                Device(
                    id=f"nic-{nic.address}",
                    kind="nic",
                    model=f"{function.vendor}:{function.device}",
                    vendor=_VENDORS.get(function.vendor, function.vendor),
                    address=nic.address,
                    numa_node=function.numa_node,
                    pcie_switch=function.switch,
                    speed_mbps=nic.speed_mbps,
                    functions=function.functions,
                    # A card on a USB port, as a BMC shows itself, has its address from the whole controller.
                    in_use=nic.in_use or not function.kind.startswith(_NETWORK),
                )
            )
        return found

    def _disk_devices(self, functions: Mapping[str, PciFunction]) -> list[Device]:
        found = []
        disks = self._machine.disks()
        beside = Counter(disk.address for disk in disks if disk.address)
        for disk in disks:
            function = functions.get(disk.address)
            # What is given away is the function: one that has other disks as well, or is no disk's own, goes to nobody.
            alone = beside[disk.address] <= 1 and (function is None or function.kind.startswith(_STORAGE))
            found.append(
                Device(
                    id=disk_id(disk.wwid, disk.name),
                    kind="disk",
                    model=_model(disk.model) or disk.name.rstrip("0123456789"),
                    vendor=_VENDORS.get(function.vendor, function.vendor) if function else "",
                    address=disk.address,
                    memory_bytes=disk.size_bytes,
                    in_use=disk.in_use or not alone,
                    numa_node=function.numa_node if function else 0,
                    pcie_switch=function.switch if function else "",
                )
            )
        return found


def own_addresses() -> list[str]:
    """This machine's addresses that others could reach: no loopback, nothing link-local."""
    found = []
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            try:
                address = ipaddress.ip_address(entry.address.partition("%")[0])
            except ValueError:
                continue
            if not (address.is_loopback or address.is_link_local):
                found.append(str(address))
    return sorted(found)


def _gpu_id(address: str) -> str:
    return f"gpu-{address}"


def _is_gpu(function: PciFunction) -> bool:
    if function.virtual or function.kind not in _GPU_CLASSES:
        return False
    return function.vendor in _GPU_VENDORS or (function.vendor == "8086" and function.kind in _INTEL_GPU_CLASSES)


def _model(name: str) -> str:
    """``NVIDIA H100 80GB HBM3`` → ``H100-80GB-HBM3``: the model without its maker, as one word."""
    return word(re.sub(r"^(NVIDIA|AMD|Intel)\s+", "", name.strip()))

"""What the kernel shows of a machine below ``/sys`` and ``/proc``: NUMA nodes, PCI functions, NICs and disks.

``root`` is where those two stand, so that a drawn tree serves as well. What is not there is left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bessemer.core.hosts import NumaNode
from bessemer.drivers.inspect.cores import Cores
from bessemer.drivers.inspect.files import children, number, numbered, text

_SECTOR_BYTES = 512
_ADDRESS = re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")
_BRIDGE = "0604"
_GLOBAL = "00"
"""Of an IPv6 address: others reach it."""
_BLOCK_SKIP = re.compile(r"^(loop|ram|zram|dm-|md|sr|fd|nbd)")


@dataclass(frozen=True, slots=True)
class PciFunction:
    """A function on the PCI bus. ``kind`` is the class code's first four digits ("0302"), ids are hexadecimal digits.

    ``switch`` is the address of the PCIe switch's upstream port right above it, "" where it hangs on a root port.
    ``functions`` are the virtual functions that it can give.
    """

    address: str
    kind: str
    vendor: str
    device: str
    numa_node: int
    switch: str
    virtual: bool
    functions: int = 0


@dataclass(frozen=True, slots=True)
class Nic:
    name: str
    address: str
    speed_mbps: int
    in_use: bool = False


@dataclass(frozen=True, slots=True)
class Disk:
    name: str
    address: str
    model: str
    wwid: str
    size_bytes: int
    in_use: bool = False


def disk_id(wwid: str, name: str) -> str:
    """What a disk is called: by its own id, which goes with it, else by the name that the kernel gave it."""
    return f"disk-{word(wwid) or name}"


def word(said: str) -> str:
    """As one word."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", said.strip()).strip("-")[:63]


def iommu(machine: Machine) -> bool:
    """Whether devices are in IOMMU groups: without, none can be handed to a guest."""
    return machine.groups.is_dir() and any(machine.groups.iterdir())


class Machine:
    """The machine below ``root``; of its hardware threads those ``allowed``, where something around the agent (a
    container, a unit of its supervisor) leaves it some only. None: all."""

    def __init__(self, root: Path = Path("/"), *, allowed: Collection[int] | None = None) -> None:
        self._sys = root / "sys"
        self._proc = root / "proc"
        self._cores = Cores(self._sys / "devices/system/cpu", allowed=allowed)
        self.groups = self._sys / "kernel/iommu_groups"

    def kernel(self) -> str:
        return text(self._proc / "sys/kernel/osrelease")

    def boot_id(self) -> str:
        return text(self._proc / "sys/kernel/random/boot_id")

    def cpu_model(self) -> str:
        found = re.search(r"^model name\s*:\s*(.+)$", text(self._proc / "cpuinfo"), re.MULTILINE)
        return found[1].strip() if found else ""

    def numa(self) -> list[NumaNode]:
        """The NUMA nodes that have memory or cores; a kernel without NUMA is one node. Of one whose cores are all kept
        from the agent its memory mostly is as well."""
        paths = list(numbered(self._sys / "devices/system/node", "node"))
        nodes = [node for node in map(self._node, paths) if node.threads or node.memory_bytes]
        if len(nodes) <= 1:
            # The whole machine, also for memory that was plugged in later and that no node counts as its own.
            return [self._whole()]
        has_cores = {int(path.name.removeprefix("node")) for path in paths if text(path / "cpulist")}
        return [node for node in nodes if node.threads or node.id not in has_cores]

    def pci(self) -> list[PciFunction]:
        base = self._sys / "bus/pci/devices"
        if not base.is_dir():
            return []
        return [_function(base / entry.name) for entry in sorted(base.iterdir()) if _ADDRESS.match(entry.name)]

    def nics(self) -> list[Nic]:
        """Network interfaces with hardware behind them, the first of each PCI function. One that has a route, or is a
        part of another, is the host's own."""
        routed = {line.split()[0] for line in text(self._proc / "net/route").splitlines()[1:]}
        lines = [line.split() for line in text(self._proc / "net/if_inet6").splitlines()]
        routed |= {line[5] for line in lines if len(line) == 6 and line[3] == _GLOBAL}
        found: dict[str, Nic] = {}
        for path in children(self._sys / "class/net"):
            address = _pci_above(path / "device")
            if address:
                used = path.name in routed or any(path.glob("upper_*"))
                before = found.setdefault(address, Nic(path.name, address, max(0, number(path / "speed")), used))
                found[address] = replace(before, in_use=before.in_use or used)
        return list(found.values())

    def disks(self) -> list[Disk]:
        """Whole disks that stay: no partitions, nothing stacked, nothing removable. Of an NVMe that the kernel has by
        way of its multipath, which hides the path to it, the one that can be mounted."""
        found: list[Disk] = []
        hidden: list[Disk] = []
        words = f"{text(self._proc / 'mounts')}\n{text(self._proc / 'swaps')}".splitlines()
        mounted = {line.split()[0].removeprefix("/dev/") for line in words if line.startswith("/dev/")}
        # By number as well: what the kernel mounted by itself it calls /dev/root.
        mounted |= {line.split()[2] for line in text(self._proc / "self/mountinfo").splitlines()}
        for path in children(self._sys / "block"):
            size = number(path / "size") * _SECTOR_BYTES
            if _BLOCK_SKIP.match(path.name) or number(path / "removable") == 1 or size <= 0:
                continue
            wwid = text(path / "wwid") or text(path / "device/wwid") or text(path / "serial")
            parts = [path, *(part for part in children(path) if part.name.startswith(path.name))]
            used = any(
                part.name in mounted or text(part / "dev") in mounted or any(children(part / "holders"))
                for part in parts
            )
            disk = Disk(path.name, _pci_above(path), text(path / "device/model"), wwid, size, used)
            (hidden if number(path / "hidden") else found).append(disk)
        return [_by_path(disk, hidden) for disk in found]

    def gpu_model(self, address: str) -> str:
        """What NVIDIA's kernel driver calls the GPU, or ""."""
        said = text(self._proc / f"driver/nvidia/gpus/{address}/information")
        found = re.search(r"^Model:\s*(.+)$", said, re.MULTILINE)
        return found[1].strip() if found else ""

    def _node(self, path: Path) -> NumaNode:
        threads = self._cores.listed(path / "cpulist")
        memory = re.search(r"MemTotal:\s*(\d+) kB", text(path / "meminfo"))
        return NumaNode(
            id=int(path.name.removeprefix("node")),
            cores=self._cores.count(threads),
            threads=len(threads),
            memory_bytes=int(memory[1]) << 10 if memory else 0,
            hugepages=_hugepages(path / "hugepages"),
            siblings=self._cores.siblings(threads),
        )

    def _whole(self) -> NumaNode:
        threads = self._cores.online()
        memory = re.search(r"^MemTotal:\s*(\d+) kB", text(self._proc / "meminfo"), re.MULTILINE)
        return NumaNode(
            id=0,
            cores=self._cores.count(threads),
            threads=len(threads),
            memory_bytes=min(int(memory[1]) << 10 if memory else 0, self._memory_limit()),
            hugepages=_hugepages(self._sys / "kernel/mm/hugepages"),
            siblings=self._cores.siblings(threads),
        )

    def _memory_limit(self) -> int:
        """What a container around the agent allows: no limit of ours can lift that one."""
        group = self._sys / "fs/cgroup"
        found = (number(path) for path in (group / "memory.max", group / "memory/memory.limit_in_bytes"))
        return min((limit for limit in found if limit > 0), default=1 << 62)


def used(machine: Machine) -> frozenset[str]:
    """PCI addresses of what the host needs itself."""
    found: list[Nic | Disk] = [*machine.nics(), *machine.disks()]
    return frozenset(one.address for one in found if one.in_use)


def _function(path: Path) -> PciFunction:
    where = path.resolve()
    above = [part for part in where.parts[:-1] if _ADDRESS.match(part)]
    # Root port, then a switch's upstream and downstream port: with fewer bridges there is no switch.
    bridges = [part for part in above if text(path.parent / part / "class")[2:6] == _BRIDGE]
    return PciFunction(
        address=path.name,
        kind=text(path / "class")[2:6],
        vendor=text(path / "vendor").removeprefix("0x"),
        device=text(path / "device").removeprefix("0x"),
        numa_node=max(0, number(path / "numa_node")),
        switch=bridges[-2] if len(bridges) >= 3 else "",
        virtual=(path / "physfn").exists(),
        functions=max(0, number(path / "sriov_totalvfs")),
    )


def _pci_above(path: Path) -> str:
    """The PCI function that a device of the kernel hangs on, "" for a virtual one."""
    if not path.exists():
        return ""
    return next((part for part in reversed(path.resolve().parts) if _ADDRESS.match(part)), "")


def _by_path(disk: Disk, hidden: Sequence[Disk]) -> Disk:
    """One that hangs nowhere itself hangs where the only hidden path to it does: of several none is the disk's."""
    ways = [way for way in hidden if disk.wwid and way.wwid == disk.wwid]
    if disk.address or len(ways) != 1:
        return disk
    return replace(disk, address=ways[0].address, in_use=disk.in_use or ways[0].in_use)


def _hugepages(path: Path) -> dict[str, int]:
    sizes = {entry.name: number(entry / "nr_hugepages") for entry in children(path)}
    return {
        str(int(name.removeprefix("hugepages-").removesuffix("kB")) << 10): count
        for name, count in sizes.items()
        if count > 0
    }

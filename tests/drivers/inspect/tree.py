"""Draws a machine's ``/sys`` and ``/proc``: NUMA nodes, PCIe switches, GPUs, NICs, disks and hugepages."""

from __future__ import annotations

from pathlib import Path


class Tree:
    """A drawn machine below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file("proc/sys/kernel/osrelease", "6.1.0-drawn")
        self.file("proc/sys/kernel/random/boot_id", "11111111-2222-4333-8444-555555555555")
        self.file("proc/cpuinfo", "processor\t: 0\nmodel name\t: Drawn CPU @ 2 GHz\n")
        self.file("proc/meminfo", "MemTotal:       1048576 kB\n")

    def file(self, path: str, text: str) -> None:
        where = self.root / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(text + "\n")

    def node(self, number: int, *, threads: str, memory_kib: int, hugepages: dict[int, int] | None = None) -> None:
        """A NUMA node; ``hugepages`` is count by size in KiB."""
        base = f"sys/devices/system/node/node{number}"
        self.file(f"{base}/cpulist", threads)
        self.file(f"{base}/meminfo", f"Node {number} MemTotal:       {memory_kib} kB")
        for size, count in (hugepages or {}).items():
            self.file(f"{base}/hugepages/hugepages-{size}kB/nr_hugepages", str(count))

    def threads(self, *siblings: str) -> None:
        """Cores, each by the threads that it has (``0,4``)."""
        for group in siblings:
            for thread in group.split(","):
                self.file(f"sys/devices/system/cpu/cpu{thread}/topology/thread_siblings_list", group)

    def pci(self, path: str, *, kind: str, vendor: str = "8086", device: str = "0001", numa: int = -1) -> Path:
        """A function at ``path`` below the root complex (``pci0000:10/0000:10:00.0``); its address is the last part."""
        where = self.root / "sys/devices" / path
        for name, text in (("class", f"0x{kind}00"), ("vendor", f"0x{vendor}"), ("device", f"0x{device}")):
            self.file(f"sys/devices/{path}/{name}", text)
        self.file(f"sys/devices/{path}/numa_node", str(numa))
        self._link(self.root / "sys/bus/pci/devices" / where.name, where)
        return where

    def net(self, name: str, *, above: Path | None, speed: int = -1) -> None:
        where = (above or self.root / "sys/devices/virtual") / "net" / name
        where.mkdir(parents=True)
        (where / "speed").write_text(f"{speed}\n")
        if above is not None:
            self._link(where / "device", above)
        self._link(self.root / "sys/class/net" / name, where)

    def block(
        self, name: str, *, above: Path | None, gib: int, model: str = "", wwid: str = "", removable: int = 0
    ) -> None:
        where = (above or self.root / "sys/devices/virtual") / "block" / name
        where.mkdir(parents=True)
        (where / "size").write_text(f"{gib << 21}\n")
        (where / "removable").write_text(f"{removable}\n")
        (where / "wwid").write_text(f"{wwid}\n")
        (where / "device").mkdir()
        (where / "device/model").write_text(f"{model}\n")
        self._link(self.root / "sys/block" / name, where)

    def _link(self, at: Path, to: Path) -> None:
        at.parent.mkdir(parents=True, exist_ok=True)
        at.symlink_to(to)


def two_socket_server(root: Path) -> Tree:
    """Two nodes, a PCIe switch on each; below a switch two GPUs, a NIC and an NVMe disk; a BMC's display; a VF."""
    tree = Tree(root)
    tree.threads("0,4", "1,5", "2,6", "3,7")
    for node, bus in ((0, "10"), (1, "40")):
        tree.node(node, threads=f"{2 * node}-{2 * node + 1},{2 * node + 4}-{2 * node + 5}", memory_kib=4 << 20)
        port = f"pci0000:{bus}/0000:{bus}:00.0"
        upstream = f"{port}/0000:{node}1:00.0"
        tree.pci(port, kind="0604", numa=node)
        tree.pci(upstream, kind="0604", numa=node)
        for slot in range(4):
            tree.pci(f"{upstream}/0000:{node}2:0{slot}.0", kind="0604", numa=node)
        below = [f"{upstream}/0000:{node}2:0{slot}.0/0000:{node}{slot + 3}:00.0" for slot in range(4)]
        for path in below[:2]:
            tree.pci(path, kind="0302", vendor="10de", device="2330", numa=node)
        nic = tree.pci(below[2], kind="0207", vendor="15b3", device="1021", numa=node)
        tree.net(f"ib{node}", above=nic, speed=400_000)
        disk = tree.pci(below[3], kind="0108", vendor="144d", device="a80a", numa=node)
        tree.block(f"nvme{node}n1", above=disk, gib=3576, model="SAMSUNG MZWLJ3T8", wwid=f"eui.36344830{node}")
    tree.node(2, threads="", memory_kib=0)
    tree.file("sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages", "16")
    tree.file("sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "0")
    tree.pci("pci0000:00/0000:00:01.0", kind="0300", vendor="1a03", device="2000")
    plain = tree.pci("pci0000:00/0000:00:02.0", kind="0200", vendor="8086", device="1563")
    tree.net("eno1", above=plain, speed=10_000)
    virtual = tree.pci("pci0000:00/0000:00:02.1", kind="0200", vendor="8086", device="1565")
    (plain / "sriov_totalvfs").write_text("63\n")
    (virtual / "physfn").symlink_to(plain)
    tree.net("eno1v0", above=virtual, speed=10_000)
    tree.net("lo", above=None)
    tree.block("loop0", above=None, gib=1)
    tree.block("sdz", above=plain, gib=32, removable=1)
    return tree

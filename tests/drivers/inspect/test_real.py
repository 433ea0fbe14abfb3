"""What is read from a drawn machine, from NVML, and from KVM as it is here."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bessemer.core.clock import FakeClock
from bessemer.core.hosts import DEVICES_MAX, Device, Inventory
from bessemer.core.units import GIB
from bessemer.drivers.inspect import kvm
from bessemer.drivers.inspect.firmware import PASSED
from bessemer.drivers.inspect.kvm import KvmProbe, Verdict, run_guest
from bessemer.drivers.inspect.nvml import GpuFacts, nvlink_domains, read_gpus
from bessemer.drivers.inspect.real import LocalInspect
from bessemer.drivers.inspect.sysfs import Machine, iommu, used
from bessemer.drivers.process.fake import FakeProcesses
from bessemer.main.hostdrivers import local_drivers
from tests.drivers.inspect.tree import Tree, two_socket_server

GPUS = ("0000:03:00.0", "0000:04:00.0", "0000:13:00.0", "0000:14:00.0")


def facts(address: str, *links: str, healthy: bool = True) -> GpuFacts:
    return GpuFacts(address, "NVIDIA H100 80GB HBM3", 80 * GIB, healthy, frozenset(links))


async def inventory(tree: Tree, *gpus: GpuFacts) -> Inventory:
    probe = KvmProbe(tree.root / "kvm.json", device=tree.root / "no-kvm")
    found = {gpu.address: gpu for gpu in gpus}
    return await LocalInspect(probe, machine=Machine(tree.root), gpus=lambda: found, addresses=list).inventory()


def of_kind(found: Inventory, kind: str) -> list[Device]:
    return [device for device in found.devices if device.kind == kind]


async def test_numa_nodes_have_cores_threads_memory_and_hugepages(tmp_path: Path) -> None:
    found = await inventory(two_socket_server(tmp_path))
    assert [(n.id, n.cores, n.threads, n.memory_bytes, n.hugepages) for n in found.numa] == [
        (0, 2, 4, 4 * GIB, {str(GIB): 16}),
        (1, 2, 4, 4 * GIB, {}),
    ]
    assert [n.siblings for n in found.numa] == [["0,4", "1,5"], ["2,6", "3,7"]]
    assert found.cpu_model == "Drawn CPU @ 2 GHz"


async def test_a_machine_of_one_node_has_all_of_its_memory(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.threads("0", "1")
    tree.node(0, threads="0-1", memory_kib=1000)
    tree.file("sys/devices/system/cpu/online", "0-1")
    assert [(n.cores, n.memory_bytes) for n in (await inventory(tree)).numa] == [(2, GIB)]


async def test_a_container_that_has_some_threads_reports_those_alone(tmp_path: Path) -> None:
    """Else what owns threads would be placed on some where it cannot run."""
    tree = two_socket_server(tmp_path)
    whole = Machine(tree.root).numa()
    assert [(n.id, n.cores, n.threads, n.siblings) for n in whole] == [
        (0, 2, 4, ["0,4", "1,5"]),
        (1, 2, 4, ["2,6", "3,7"]),
    ]
    assert Machine(tree.root, allowed=range(8)).numa() == whole
    some = Machine(tree.root, allowed=(0, 1, 4, 7)).numa()
    assert [(n.id, n.cores, n.threads, n.siblings) for n in some] == [(0, 2, 3, ["0,4", "1"]), (1, 1, 1, ["7"])]
    # Of a node of which nothing is left to it, its memory is not either.
    (one,) = Machine(tree.root, allowed=(2, 6)).numa()
    assert (one.id, one.cores, one.threads, one.memory_bytes) == (1, 1, 2, whole[1].memory_bytes)


def test_an_agent_reports_the_threads_that_it_may_use(tmp_path: Path) -> None:
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        drivers = local_drivers(tmp_path)
        # What it gives up later, for somebody's own, is the host's all the same.
        os.sched_setaffinity(0, mine)
        assert sum(node.threads for node in drivers.inspect._machine.numa()) == 1
        assert drivers.threads._mine == {min(mine)}
    finally:
        os.sched_setaffinity(0, mine)


async def test_a_container_bounds_the_memory(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.file("sys/devices/system/cpu/online", "0")
    for limit, memory in (("max", GIB), (str(GIB // 4), GIB // 4), (str(1 << 60), GIB)):
        tree.file("sys/fs/cgroup/memory.max", limit)
        assert (await inventory(tree)).memory_bytes == memory


async def test_a_machine_with_more_than_a_report_holds_reports_its_gpus_first(tmp_path: Path) -> None:
    """A shelf of disks, each by several paths, and an address for every service: the host serves all the same."""
    tree = two_socket_server(tmp_path)
    for number in range(300):
        tree.block(f"sd{number}", above=None, gib=1, wwid=f"naa.{number}")
    probe, addresses = KvmProbe(tree.root / "kvm.json", device=tree.root / "no-kvm"), ["192.0.2.1"] * 1000
    inspect = LocalInspect(probe, machine=Machine(tree.root), gpus=dict, addresses=lambda: addresses)
    with capture_logs() as logs:
        found = await inspect.inventory()
    assert len(found.devices) == DEVICES_MAX
    assert len(of_kind(found, "gpu")) == 4
    assert [line["event"] for line in logs] == ["devices left out"]


async def test_gpus_know_their_switch_node_and_domain(tmp_path: Path) -> None:
    switch = "0000:c0:00.0"
    found = await inventory(two_socket_server(tmp_path), *(facts(address, switch) for address in GPUS))
    gpus = of_kind(found, "gpu")
    assert [gpu.address for gpu in gpus] == list(GPUS)
    assert [gpu.pcie_switch for gpu in gpus] == ["0000:01:00.0"] * 2 + ["0000:11:00.0"] * 2
    assert [gpu.numa_node for gpu in gpus] == [0, 0, 1, 1]
    assert {(gpu.model, gpu.vendor, gpu.memory_bytes, gpu.nvlink_domain, gpu.healthy) for gpu in gpus} == {
        ("H100-80GB-HBM3", "nvidia", 80 * GIB, "nvlink-0", True)
    }


async def test_a_gpu_without_a_driver_is_there_by_its_numbers(tmp_path: Path) -> None:
    gpus = of_kind(await inventory(two_socket_server(tmp_path)), "gpu")
    assert {(gpu.model, gpu.memory_bytes, gpu.nvlink_domain, gpu.healthy) for gpu in gpus} == {
        ("10de:2330", 0, "", True)
    }


async def test_a_gpu_that_its_driver_lost_is_not_healthy(tmp_path: Path) -> None:
    tree = two_socket_server(tmp_path)
    tree.file(f"proc/driver/nvidia/gpus/{GPUS[0]}/information", "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 1")
    gpus = of_kind(await inventory(tree, facts(GPUS[1]), facts(GPUS[2], healthy=False), facts(GPUS[3])), "gpu")
    assert [gpu.healthy for gpu in gpus] == [False, True, False, True]
    assert gpus[0].model == "H100-80GB-HBM3"


async def test_what_the_host_needs_itself_is_said(tmp_path: Path) -> None:
    tree = two_socket_server(tmp_path)
    tree.file("proc/net/route", "Iface\tDestination\tGateway\neno1\t00000000\t0100000A")
    tree.file("proc/net/if_inet6", "fe800000000000000000000000000001 02 40 20 80 ib0")
    (tree.root / "sys/class/net/ib1/upper_bond0").mkdir()
    tree.file("proc/mounts", "proc /proc proc\n/dev/nvme0n1p2 / ext4 rw")
    (tree.root / "sys/block/nvme0n1/nvme0n1p2").mkdir()
    found = await inventory(tree)
    assert [nic.in_use for nic in of_kind(found, "nic")] == [True, False, True]
    assert [disk.in_use for disk in of_kind(found, "disk")] == [True, False]
    assert [nic.functions for nic in of_kind(found, "nic")] == [63, 0, 0]
    assert used(Machine(tree.root)) == {"0000:00:02.0", "0000:15:00.0", "0000:06:00.0"}


async def test_a_disk_that_the_kernel_mounted_by_itself_is_the_hosts(tmp_path: Path) -> None:
    """Without an initial file system in memory its table of mounts says /dev/root, which is no disk's name."""
    tree = two_socket_server(tmp_path)
    tree.file("proc/mounts", "/dev/root / ext4 rw")
    tree.file("proc/self/mountinfo", "21 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw")
    tree.file("sys/block/nvme0n1/dev", "259:0")
    tree.file("sys/block/nvme0n1/nvme0n1p2/dev", "259:2")
    tree.file("sys/block/nvme1n1/dev", "259:3")
    assert [disk.in_use for disk in of_kind(await inventory(tree), "disk")] == [True, False]


def test_a_disk_behind_the_kernels_multipath_is_one_and_as_used_as_it_is(tmp_path: Path) -> None:
    """Of an NVMe with two ports the kernel mounts what hangs nowhere (nvme9n1), and hides what hangs on the bus."""
    tree = two_socket_server(tmp_path)
    port = tree.pci("pci0000:00/0000:00:09.0", kind="0108")
    tree.block("nvme9c0n1", above=port, gib=8, wwid="eui.9")
    tree.file("sys/block/nvme9c0n1/hidden", "1")
    tree.block("nvme9n1", above=None, gib=8, wwid="eui.9")
    for mounts, in_use in (("", False), ("/dev/nvme9n1 / ext4 rw", True)):
        tree.file("proc/mounts", mounts)
        found = [disk for disk in Machine(tree.root).disks() if disk.wwid == "eui.9"]
        assert [(disk.name, disk.address, disk.in_use) for disk in found] == [("nvme9n1", port.name, in_use)]


async def test_a_disk_whose_controller_has_more_than_it_is_given_to_nobody(tmp_path: Path) -> None:
    """Who is given the one is given the controller: the host's own disk with it, or its keyboard."""
    tree = two_socket_server(tmp_path)
    shelf = tree.pci("pci0000:00/0000:00:17.0", kind="0106")
    tree.block("sda", above=shelf, gib=1, wwid="naa.a")
    tree.block("sdb", above=shelf, gib=1, wwid="naa.b")
    tree.file("proc/mounts", "/dev/sda / ext4 rw")
    tree.block("sdc", above=tree.pci("pci0000:00/0000:00:14.0", kind="0c03"), gib=1, wwid="naa.usb")
    used = {disk.id: disk.in_use for disk in of_kind(await inventory(tree), "disk")}
    assert [used[f"disk-naa.{name}"] for name in ("a", "b", "usb")] == [True, True, True]
    assert not used["disk-eui.363448300"]


async def test_a_card_on_a_usb_port_is_given_to_nobody(tmp_path: Path) -> None:
    """As a BMC shows itself to its host: who is given it is given keyboard and console, and reaches the BMC."""
    tree = two_socket_server(tmp_path)
    tree.net("usb0", above=tree.pci("pci0000:00/0000:00:14.0", kind="0c03"))
    tree.net("ib9", above=tree.pci("pci0000:00/0000:00:15.0", kind="0c06", vendor="15b3"))
    used = {nic.address: nic.in_use for nic in of_kind(await inventory(tree), "nic")}
    assert used["0000:00:14.0"]
    assert not used["0000:00:15.0"]


async def test_nics_and_disks_are_hardware_that_stays(tmp_path: Path) -> None:
    found = await inventory(two_socket_server(tmp_path))
    assert [(n.id, n.vendor, n.speed_mbps, n.pcie_switch, n.numa_node) for n in of_kind(found, "nic")] == [
        ("nic-0000:00:02.0", "intel", 10_000, "", 0),
        ("nic-0000:05:00.0", "mellanox", 400_000, "0000:01:00.0", 0),
        ("nic-0000:15:00.0", "mellanox", 400_000, "0000:11:00.0", 1),
    ]
    assert [(d.id, d.model, d.memory_bytes, d.pcie_switch) for d in of_kind(found, "disk")] == [
        ("disk-eui.363448300", "SAMSUNG-MZWLJ3T8", 3576 * GIB, "0000:01:00.0"),
        ("disk-eui.363448301", "SAMSUNG-MZWLJ3T8", 3576 * GIB, "0000:11:00.0"),
    ]


async def test_an_empty_tree_is_an_empty_machine(tmp_path: Path) -> None:
    probe = KvmProbe(tmp_path / "kvm.json", device=tmp_path / "no-kvm")
    found = await LocalInspect(probe, machine=Machine(tmp_path / "none"), gpus=dict).inventory()
    assert (found.devices, found.threads, found.memory_bytes, found.isolation) == ([], 0, 0, "none")


async def test_without_groups_of_an_iommu_no_guest_is_handed_devices(tmp_path: Path) -> None:
    groups = tmp_path / "sys/kernel/iommu_groups"
    groups.mkdir(parents=True)
    assert not iommu(Machine(tmp_path))
    (groups / "0").mkdir()
    assert iommu(Machine(tmp_path))
    assert not iommu(Machine(tmp_path / "none"))


async def test_isolation_is_the_process_drivers_word(tmp_path: Path) -> None:
    probe = KvmProbe(tmp_path / "kvm.json", device=tmp_path / "no-kvm")
    found = await LocalInspect(probe, FakeProcesses(FakeClock()), machine=Machine(tmp_path), gpus=dict).inventory()
    assert found.isolation == "strong"


def test_nvlink_domains_are_what_reaches_each_other() -> None:
    pairs = [facts("a", "b"), facts("b", "a"), facts("c", "d"), facts("d", "c"), facts("e")]
    assert nvlink_domains({gpu.address: gpu for gpu in pairs}) == {
        "a": "nvlink-0",
        "b": "nvlink-0",
        "c": "nvlink-1",
        "d": "nvlink-1",
    }


def test_a_machine_without_the_library_has_no_gpus() -> None:
    assert all(address == gpu.address for address, gpu in read_gpus().items())


async def test_without_a_device_or_without_qemu_there_is_no_kvm(tmp_path: Path) -> None:
    probe = KvmProbe(tmp_path / "kvm.json", device=tmp_path / "kvm")
    assert (await probe.verdict("boot")).virtualization == "tcg"
    probe = KvmProbe(tmp_path / "kvm.json", program="no-such-qemu")
    assert (await probe.verdict("boot")).virtualization == "none"


def qemu(folder: Path, does: str) -> str:
    """A program that says a version as QEMU does, and does this where it is to run a guest."""
    program = folder / "qemu"
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec echo "QEMU 7.2"\n{does}\n')
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        ("echo 'kvm: something is missing' >&2; kill -ABRT $$", "QEMU ends with -cpu host: kvm: something is missing"),
        ("exit 1", "QEMU ends with -cpu host: without a word"),
        ("exec sleep 60", "it hangs with -cpu host"),
        (f"exit {PASSED}", ""),
    ],
    ids=["aborts", "ends", "hangs", "runs"],
)
async def test_what_kvm_may_do_to_a_guest(tmp_path: Path, does: str, expected: str) -> None:
    """On any machine: a device that opens proves nothing, and a guest that hangs is ended in bounded time."""
    before, seconds = time.monotonic(), 1.0 if expected.startswith("it hangs") else 60.0
    assert await run_guest("kvm", "host", program=qemu(tmp_path, does), seconds=seconds) == expected
    assert time.monotonic() - before < 50


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        ("kill -ABRT $$", Verdict("tcg", "KVM runs no guest: QEMU ends with -cpu host: without a word")),
        (f"exit {PASSED}", Verdict("kvm")),
    ],
    ids=["aborts", "runs"],
)
async def test_the_verdict_is_what_a_guest_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, expected: Verdict
) -> None:
    monkeypatch.setattr(kvm, "run_guest", partial(run_guest, seconds=60.0))
    device = tmp_path / "kvm"
    device.touch()
    device.chmod(0o666)
    probe = KvmProbe(tmp_path / "kvm.json", device=device, program=qemu(tmp_path, does))
    assert await probe.verdict("boot") == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root runs guests as itself")
async def test_a_device_that_is_roots_alone_runs_no_guest_of_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "kvm"
    device.touch(0o600)
    probe = KvmProbe(tmp_path / "kvm.json", device=device, program=qemu(tmp_path, f"exit {PASSED}"))
    monkeypatch.setattr(kvm, "run_guest", partial(run_guest, seconds=60.0))
    found = await probe.verdict("boot")
    assert found.virtualization == "tcg"
    assert "root's alone" in found.note


@pytest.mark.real
async def test_the_probes_guest_runs_to_its_end_without_kvm() -> None:
    assert await run_guest("tcg", "qemu64", seconds=120.0) == ""


@pytest.mark.real
@pytest.mark.parametrize("cpu", ["host", "max", "qemu64"])
async def test_the_probe_survives_what_kvm_does_here(cpu: str) -> None:
    """It aborts with some models and hangs with another: each is a phrase, in bounded time."""
    if not Path("/dev/kvm").exists():  # noqa: ASYNC240
        pytest.skip("this machine has no KVM device")
    before = time.monotonic()
    said = await run_guest("kvm", cpu)
    assert time.monotonic() - before < 30
    assert said == "" or cpu in said


@pytest.mark.real
async def test_a_verdict_is_kept_for_one_boot(tmp_path: Path) -> None:
    cache = tmp_path / "kvm.json"
    first = await KvmProbe(cache).verdict("boot-1")
    kept = json.loads(cache.read_text())
    cache.write_text(json.dumps({**kept, "note": "from the cache"}))
    assert await KvmProbe(cache).verdict("boot-1") == Verdict(first.virtualization, "from the cache")
    assert await KvmProbe(cache).verdict("boot-2") == first
    cache.write_text("{")
    assert await KvmProbe(cache).verdict("boot-2") == first

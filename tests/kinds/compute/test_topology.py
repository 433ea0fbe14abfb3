"""What a guest sees of its host, against what was decided: a Claim of a fake host of two nodes, booted by a real QEMU,
whose guest says what its kernel found."""

from __future__ import annotations

import asyncio
import os
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bessemer.core.cpus import show_cpus
from bessemer.core.hosts import Device, NumaNode
from bessemer.core.units import MIB
from bessemer.drivers.guest.protocol import seed_files
from bessemer.drivers.qemu import qmp
from bessemer.drivers.qemu.nodes import HostNodes
from bessemer.drivers.qemu.protocol import MachineSpec
from bessemer.drivers.qemu.real import LocalQemu
from tests.drivers import micro_guest
from tests.drivers.qemu.rig import NONCE, RealRig, read_until
from tests.kinds.world import World

pytestmark = pytest.mark.real

FLAVOR = {
    "cores": 2,
    "memory": "256Mi",
    "cpuPolicy": "threads",
    "devices": {"count": 3, "model": "H100"},
    "companions": [{"kind": "nic", "count": 2, "near": "switch"}, {"kind": "disk"}],
}
MODELS = {"0x1234:0x11e8": "gpu", "0x8086:0x10d3": "nic", "0x1af4:0x1048": "disk"}
"""What stands in for each kind of device (`drivers.passthrough.fake`), as the guest reads it."""

LOOK = (
    "for n in /sys/devices/system/node/node[0-9]*; do set -- $(head -n1 $n/meminfo); "
    'echo "NO""DE ${n##*/node} $(cat $n/cpulist) $4 $(cat $n/distance)"; done; '
    "for d in /sys/bus/pci/devices/*; do "
    'echo "PC""I $(cat $d/vendor):$(cat $d/device) $(cat $d/numa_node) $(readlink -f $d)"; done; echo en""d-of-it\n'
)


def world() -> World:
    """One host of two nodes of a thread each, two switches, and a disk that hangs from the second root."""
    made = World()
    there = made.hosts["h1"]
    numa = [NumaNode(id=n, cores=1, threads=1, memory_bytes=192 * MIB, siblings=[str(n)]) for n in (0, 1)]
    devices = [
        Device(id="gpu-0", kind="gpu", model="H100", address="0000:41:00.0", numa_node=0, pcie_switch="a"),
        Device(id="gpu-1", kind="gpu", model="H100", address="0000:42:00.0", numa_node=0, pcie_switch="a"),
        Device(id="nic-0", kind="nic", model="x7", address="0000:43:00.0", numa_node=0, pcie_switch="a"),
        Device(id="gpu-2", kind="gpu", model="H100", address="0000:81:00.0", numa_node=1, pcie_switch="b"),
        Device(id="nic-1", kind="nic", model="x7", address="0000:82:00.0", numa_node=1, pcie_switch="b"),
        Device(id="disk-0", kind="disk", model="d", address="0000:91:00.0", numa_node=1),
    ]
    there.inventory = there.inventory.model_copy(update={"numa": numa, "devices": devices})
    return made


def drawn(folder: Path) -> HostNodes:
    """A host of two nodes that are 21 apart, of which this machine has the first alone."""
    for number, row in enumerate(("10 21", "21 10")):
        (folder / f"node{number}").mkdir(parents=True)
        (folder / f"node{number}" / "distance").write_text(f"{row}\n")
    (folder / "online").write_text("0-1\n")
    (folder / "has_memory").write_text("0\n")
    return HostNodes(folder)


async def decided() -> tuple[dict[str, Any], MachineSpec]:
    """The Claim's spec, and what the driver was told by it."""
    async with world() as here:
        await here.create("Flavor", "wide", FLAVOR, namespace="")
        await here.create("Instance", "vm", {"flavor": "wide", "image": "micro"})
        await here.until_ready("Instance", "vm")
        found = await here.object("Claim", "instance-vm-0")
        (guest,) = here.hosts["h1"].qemu.guests.values()
        assert found is not None
        return found["spec"], guest.spec


async def looked(qemu: LocalQemu, uid: str) -> tuple[list[list[str]], list[list[str]]]:
    console = await qemu.console(uid)
    await console.write(LOOK.encode())
    said = (await read_until(console, b"end-of-it")).decode()
    await console.close()
    nodes = [line.split()[1:] for line in said.splitlines() if line.startswith("NODE ")]
    return nodes, [line.split()[1:] for line in said.splitlines() if line.startswith("PCI ")]


def hanging(tree: list[dict[str, Any]]) -> list[tuple[int, bool, list[str]]]:
    """The decision's tree: node, whether below a switch, and what hangs there together."""
    groups: dict[tuple[int, str], list[str]] = defaultdict(list)
    for place in tree:
        groups[place["numaNode"], place["switch"] or place["device"]].append(place["kind"])
    switched = {(place["numaNode"], place["switch"] or place["device"]): bool(place["switch"]) for place in tree}
    return sorted((key[0], switched[key], sorted(kinds)) for key, kinds in groups.items())


def seen(lines: list[list[str]]) -> list[tuple[int, bool, list[str]]]:
    """The same out of the guest's: a switch is a port with ports below it, a device hangs below its last port."""
    groups: dict[tuple[int, str], list[str]] = defaultdict(list)
    switched: dict[tuple[int, str], bool] = {}
    for model, node, path in lines:
        above = re.findall(r"0000:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", path)[:-1]
        if model in MODELS and above:  # a device of the machine's own hangs from the root, below no port
            key = int(node), above[1] if len(above) == 3 else above[0]
            groups[key].append(MODELS[model])
            switched[key] = len(above) == 3
    return sorted((key[0], switched[key], sorted(kinds)) for key, kinds in groups.items())


async def threads_of_cpus(socket: Path) -> list[str]:
    """Where each CPU of the guest may run, in order."""
    async with qmp.talk(socket, timeout_seconds=30) as monitor:
        said = await monitor.execute("query-cpus-fast")
    tids = [cpu["thread-id"] for cpu in sorted(said, key=lambda cpu: int(cpu["cpu-index"]))]
    return [show_cpus(os.sched_getaffinity(tid)) for tid in tids]


async def test_a_guest_sees_the_nodes_and_the_tree_that_were_decided(tmp_path: Path) -> None:
    claim, told = await decided()
    rig = RealRig(tmp_path, await asyncio.to_thread(micro_guest.build, tmp_path / "image.tar"))
    qemu = LocalQemu(
        tmp_path / "guests",
        confinement=rig.confinement,
        cgroups=rig.cgroups,
        nodes=await asyncio.to_thread(drawn, tmp_path / "nodes"),
    )
    try:
        seed = await rig.disks.seed(told.uid, seed_files(instance_id="i", hostname="vm", nonce=NONCE))
        here = replace(told, image=rig.image, image_digest=rig.digest, disks=(), seed=seed, name="vm")
        await qemu.start(here)
        parts = {part["numaNode"]: part for part in claim["allocations"]}
        cpus = await threads_of_cpus(tmp_path / "guests" / told.uid / "qmp.sock")
        assert cpus == [parts[0]["cpus"], parts[1]["cpus"]]
        await rig.report(qemu, told.uid)
        nodes, devices = await looked(qemu, told.uid)
    finally:
        await qemu.remove(told.uid)
        await rig.close()
    assert [(int(node), cpus, distances) for node, cpus, _, *distances in nodes] == [
        (0, "0", ["10", "21"]),
        (1, "1", ["21", "10"]),
    ]
    for node, _, kib, *_ in nodes:
        # The kernel counts what it has left of it for others, after itself and what it unpacks.
        assert 0 <= parts[int(node)]["memoryBytes"] - int(kib) * 1024 < 48 * MIB
    assert seen(devices) == hanging(claim["tree"])
    assert seen(devices) == [
        (0, True, ["gpu", "gpu", "nic"]),
        (1, False, ["disk"]),
        (1, True, ["gpu", "nic"]),
    ]

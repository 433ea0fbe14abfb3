"""Instances with companions, threads of their own and huge pages: from the flavor to what the driver is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bessemer.core.hosts import Device, NumaNode
from bessemer.core.units import GIB
from bessemer.drivers.qemu.protocol import NumaCell
from tests.kinds.five import Life, check_lives_through
from tests.kinds.world import Point, World

FLAVOR = {
    "cores": 3,
    "memory": "2Gi",
    "devices": {"count": 1, "model": "H100"},
    "companions": [{"kind": "nic", "functions": 2, "near": "switch"}],
    "cpuPolicy": "cores",
    "hugepages": "1Gi",
    "numa": "required",
}


def world(**more: Any) -> World:
    """One host: on its second node a GPU with a NIC under its switch, on its first another NIC."""
    made = World(**more)
    there = made.hosts["h1"]
    numa = [
        NumaNode(
            id=n,
            cores=4,
            threads=8,
            memory_bytes=16 * GIB,
            hugepages={str(GIB): 4},
            siblings=[f"{4 * n + core},{8 + 4 * n + core}" for core in range(4)],
        )
        for n in (0, 1)
    ]
    devices = [
        Device(id="gpu-0", kind="gpu", model="H100", address="0000:41:00.0", numa_node=1, pcie_switch="0000:40:00.0"),
        Device(id="nic-0", kind="nic", model="x7", address="0000:11:00.0", numa_node=0, functions=8),
        Device(
            id="nic-1",
            kind="nic",
            model="x7",
            address="0000:42:00.0",
            numa_node=1,
            pcie_switch="0000:40:00.0",
            functions=3,
        ),
    ]
    there.inventory = there.inventory.model_copy(update={"numa": numa, "devices": devices})
    return made


async def spec_of(world: World, name: str) -> dict[str, Any]:
    found = await world.object("Claim", f"instance-{name}-0")
    assert found is not None
    spec: dict[str, Any] = found["spec"]
    return spec


async def test_what_was_taken_is_said_and_the_driver_is_told() -> None:
    async with world() as here:
        await here.create("Flavor", "pinned", FLAVOR, namespace="")
        await here.create("Instance", "vm", {"flavor": "pinned", "image": "micro"})
        await here.until_ready("Instance", "vm")
        spec = await spec_of(here, "vm")
        assert spec["companions"] == [{"kind": "nic", "device": "nic-1", "functions": 2, "address": "0000:42:00.0"}]
        assert spec["allocations"] == [
            {
                "numaNode": 1,
                "milliCores": 3000,
                "memoryBytes": 2 * GIB,
                "cpus": "4-5,12-13",
                "spareMilliCores": 1000,
                "pageBytes": GIB,
            }
        ]
        assert [(place["device"], place["switch"], place["numaNode"]) for place in spec["tree"]] == [
            ("gpu-0", "0000:40:00.0", 1),
            ("nic-1", "0000:40:00.0", 1),
        ]
        (guest,) = here.hosts["h1"].qemu.guests.values()
        assert (guest.spec.own_cpus, guest.spec.page_bytes) == ("4-5,12-13", GIB)
        assert guest.spec.numa == (NumaCell(3, 2 * GIB, host_node=1, own_cpus="4-5,12-13"),)
        hanging = [(one.device, one.switch, one.host_node) for one in guest.spec.tree]
        assert hanging == [("gpu-0", "0000:40:00.0", 1), *[("nic-1", "0000:40:00.0", 1)] * 2], "of functions each"
        assert guest.spec.uid in here.hosts["h1"].pci.handed
        # Quotas and prices count what the flavor says.
        uses = {use.meter: use.used for use in await here.store.capacity.use("tenant/acme")}
        assert (uses["milli_cores"], uses["memory_bytes"], uses["devices/*"]) == (3000, 2 * GIB, 1)


async def test_devices_of_two_nodes_have_threads_and_pages_of_both_and_so_has_the_guest() -> None:
    """Though either node would have had all of them."""
    made = world()
    there = made.hosts["h1"]
    second = Device(id="gpu-1", kind="gpu", model="H100", address="0000:12:00.0", numa_node=0)
    there.inventory = there.inventory.model_copy(update={"devices": [*there.inventory.devices, second]})
    async with made as here:
        both = {"cores": 6, "memory": "4Gi", "devices": {"count": 2}, "cpuPolicy": "cores", "hugepages": "1Gi"}
        await here.create("Flavor", "both", both, namespace="")
        await here.create("Instance", "vm", {"flavor": "both", "image": "micro"})
        await here.until_ready("Instance", "vm")
        parts = (await spec_of(here, "vm"))["allocations"]
        said = sorted((part["numaNode"], part["milliCores"], part["memoryBytes"], part["cpus"]) for part in parts)
        assert said == [(0, 4000, 2 * GIB, "0-1,8-9"), (1, 2000, 2 * GIB, "4,12")]
        (guest,) = there.qemu.guests.values()
        assert guest.spec.numa == (
            NumaCell(4, 2 * GIB, host_node=0, own_cpus="0-1,8-9"),
            NumaCell(2, 2 * GIB, host_node=1, own_cpus="4,12"),
        )


async def test_what_is_taken_is_nobody_elses_until_it_is_given_back() -> None:
    async with world() as here:
        alone = {**FLAVOR, "devices": None, "companions": [{"kind": "nic", "model": "x7", "count": 2, "functions": 2}]}
        await here.create("Flavor", "two", {**alone, "numa": "legacy"}, namespace="")
        await here.create("Instance", "a", {"flavor": "two", "image": "micro"})
        await here.until_ready("Instance", "a")
        await here.create("Instance", "b", {"flavor": "two", "image": "micro"})
        said = await here.until_reason("Instance", "b", "Unschedulable")
        assert said["message"] == "1 host: short of 2 x7 with 2 functions (1 free)"
        vm = await here.object("Instance", "b")
        assert vm is not None
        assert vm["status"]["remedy"] == "ask for x7 with 2 functions"
        await here.delete("Instance", "a")
        await here.until_ready("Instance", "b")
        assert {use["device"] for use in (await spec_of(here, "b"))["companions"]} == {"nic-0", "nic-1"}


async def test_a_device_that_does_not_come_is_said_and_waited_for() -> None:
    async with world() as here:
        here.hosts["h1"].pci.broken.add("nic-1")
        await here.create("Flavor", "pinned", FLAVOR, namespace="")
        await here.create("Instance", "vm", {"flavor": "pinned", "image": "micro"})
        said = await here.until_reason("Instance", "vm", "DeviceBusy")
        assert "nic nic-1 cannot be taken from its driver" in said["message"]
        assert not here.hosts["h1"].qemu.guests
        here.hosts["h1"].pci.broken.clear()
        await here.until_ready("Instance", "vm")
        await here.delete("Instance", "vm")
        await here.until_gone("Instance", "vm")
        assert await here.hosts["h1"].residue() == []


async def test_it_converges_after_a_crash_at_every_call_of_its_devices() -> None:
    """They are with the guest, or nobody's again, wherever its agent was stopped."""

    async def live(stop: Point | None) -> Life:
        async with world(stop=stop) as here:
            await here.create("Flavor", "pinned", FLAVOR, namespace="")
            await here.create("Instance", "vm", {"flavor": "pinned", "image": "micro"})
            await here.until_ready("Instance", "vm")
            (uid,) = here.hosts["h1"].pci.handed
            assert uid in here.hosts["h1"].qemu.guests
            await here.delete("Instance", "vm")
            await here.until_gone("Instance", "vm")
            await here.check_clean()
            return Life(here.points.names, here.crashes)

    await check_lives_through(live, chosen=of_devices)


def of_devices(names: Sequence[str]) -> list[int]:
    """Of what is called for devices the first and the last, and what comes right before and after."""
    at = [index for index, name in enumerate(names) if name.startswith("passthrough")]
    return sorted({near for index in (at[:1] + at[-1:]) for near in (index, index + 1) if near < len(names)})


async def test_a_flavor_says_what_nobody_can_have() -> None:
    async with world() as here:
        odd = {**FLAVOR, "companions": [{"kind": "nic", "near": "anywhere", "distinctRails": True}], "numa": "legacy"}
        await here.create("Flavor", "odd", odd, namespace="")
        await here.create("Instance", "vm", {"flavor": "odd", "image": "micro"})
        said = await here.until_reason("Instance", "vm", "Unschedulable")
        assert said["message"] == "1 host: without NIC on a rail"
        assert await here.object("Claim", "instance-vm-0") is None

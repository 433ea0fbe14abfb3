"""A disk of the host, whole, from one tenant's guest to another's: by way of what wipes it, and no other."""

from __future__ import annotations

from typing import Any

from bessemer.core.hosts import Device
from bessemer.drivers.wipe.fake import FakeDisk, FakeMedium, fake_lending
from tests.kinds.compute.test_hardware import of_devices
from tests.kinds.five import Life, check_lives_through
from tests.kinds.world import Point, World

ADDRESS = "0000:43:00.0"
FLAVOR = {"cores": 1, "memory": "1Gi", "companions": [{"kind": "disk"}]}
SIZE = 1 << 20
PATTERN = b"A wrote this and B may never read it.".ljust(4096, b"!")


def world(**more: Any) -> World:
    """One host with one disk to give away."""
    made = World(**more)
    there = made.hosts["h1"]
    disk = Device(id="disk-0", kind="disk", model="NVMe", address=ADDRESS, memory_bytes=SIZE)
    there.inventory = there.inventory.model_copy(update={"devices": [disk]})
    there.media.disks[ADDRESS] = FakeDisk(size_bytes=SIZE)
    return made


def disk_of(here: World) -> FakeMedium:
    return FakeMedium(here.hosts["h1"].media.disks[ADDRESS], SIZE)


async def written(here: World) -> None:
    """A guest has the disk, and wrote on it."""
    await here.create("Flavor", "local", FLAVOR, namespace="")
    await here.create("Instance", "a", {"flavor": "local", "image": "micro"})
    await here.until_ready("Instance", "a")
    disk_of(here).write(8192, PATTERN)


async def wiped(here: World) -> None:
    """What the agent does beside its Claims."""
    while await fake_lending(here.hosts["h1"].media).wipes.step():
        pass


async def test_what_one_tenants_guest_wrote_anothers_does_not_find() -> None:
    async with world() as here:
        await written(here)
        await here.delete("Instance", "a")
        await here.until_gone("Instance", "a")
        await here.create("Instance", "b", {"flavor": "local", "image": "micro"})
        said = await here.until_reason("Instance", "b", "BeingWiped")
        assert "disk disk-0 goes to nobody yet: being wiped" in said["message"]
        assert not here.hosts["h1"].qemu.guests
        assert disk_of(here).read(8192, 4096) == PATTERN
        await wiped(here)
        await here.until_ready("Instance", "b")
        assert PATTERN not in disk_of(here).read(0, SIZE)
        assert len(here.hosts["h1"].qemu.guests) == 1


async def test_a_disk_that_is_being_wiped_is_offered_to_nobody() -> None:
    made = world()
    there = made.hosts["h1"]
    (disk,) = there.inventory.devices
    owed = disk.model_copy(update={"healthy": False, "unfit": "being wiped: discard, 40 %"})
    there.inventory = there.inventory.model_copy(update={"devices": [owed]})
    async with made as here:
        await here.create("Flavor", "local", FLAVOR, namespace="")
        await here.create("Instance", "b", {"flavor": "local", "image": "micro"})
        said = await here.until_reason("Instance", "b", "Unschedulable")
        assert said["message"] == "1 host: without disk"
        assert await here.object("Claim", "instance-b-0") is None


async def test_a_guest_that_is_stopped_and_started_keeps_its_disk() -> None:
    async with world() as here:
        await written(here)
        uid = next(iter(here.hosts["h1"].pci.handed))
        await fake_lending(here.hosts["h1"].media).passthrough.give_back(uid)  # as `bessemer down` does
        await wiped(here)
        assert disk_of(here).read(8192, 4096) == PATTERN


async def test_it_converges_after_a_crash_at_every_call_of_its_disk() -> None:
    """It is the guest's, or owed, wherever its agent was stopped; never anybody's as it is."""

    async def live(stop: Point | None) -> Life:
        async with world(stop=stop) as here:
            await written(here)
            await here.delete("Instance", "a")
            await here.until_gone("Instance", "a")
            await wiped(here)
            assert PATTERN not in disk_of(here).read(0, SIZE)
            assert await fake_lending(here.hosts["h1"].media).wipes.unfit() == {}
            await here.check_clean()
            return Life(here.points.names, here.crashes)

    await check_lives_through(live, chosen=of_devices)

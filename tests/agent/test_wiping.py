"""What an agent says of disks that it wipes, and when it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from bessemer.agent.report import _fit
from bessemer.agent.wiping import HEARD_SECONDS, LOOK_SECONDS, Cleaner
from bessemer.core.clock import FakeClock
from bessemer.core.errors import DriverError
from bessemer.core.hosts import Device
from bessemer.drivers.passthrough.protocol import Wanted
from bessemer.drivers.wipe.fake import FakeDisk, FakeMediaWorld, fake_lending

ADDRESS = "0000:43:00.0"
DISK = Wanted("disk-0", "disk", ADDRESS)


class Reported:
    """Stands in for what reports the machine: which words were looked at, and whether the api was waited for."""

    def __init__(self, world: FakeMediaWorld) -> None:
        self._world = world
        self.looks: list[Mapping[str, str]] = []
        self.waited: list[float] = []
        self.broken = 0

    async def look(self) -> None:
        if self.broken:
            self.broken -= 1
            raise DriverError("InspectFailed", "not now")
        self.looks.append(await fake_lending(self._world).wipes.unfit())

    async def heard(self, *, seconds: float) -> None:
        self.waited.append(seconds)


async def until(holds: Callable[[], bool]) -> None:
    """Threads of the driver are not the clock's."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


async def test_what_is_owed_is_told_before_a_claim_is_gone_and_wiped_then() -> None:
    world, clock = FakeMediaWorld({ADDRESS: FakeDisk(size_bytes=1 << 20)}), FakeClock()
    lending, machine = fake_lending(world), Reported(world)
    cleaner = Cleaner(lending.wipes, machine, clock=clock)
    await cleaner.tell()
    assert (machine.looks, machine.waited) == ([], []), "who owes nothing says nothing"
    await lending.passthrough.hand("a", (DISK,))
    await lending.passthrough.end("a")
    await cleaner.tell()
    assert machine.looks == [dict.fromkeys((DISK.device, ADDRESS), "being wiped: it waits")]
    assert machine.waited == [HEARD_SECONDS]
    await cleaner.tell()
    assert len(machine.waited) == 1, "it has been told"
    task = asyncio.create_task(cleaner.run())
    await until(lambda: machine.looks[-1] == {})
    assert world.records.all() == []
    task.cancel()


async def test_a_disk_that_has_to_be_waited_for_is_looked_at_again() -> None:
    world, clock = FakeMediaWorld({ADDRESS: FakeDisk(size_bytes=1 << 20)}), FakeClock()
    lending, machine = fake_lending(world), Reported(world)
    await lending.passthrough.hand("a", (DISK,))
    world.disks[ADDRESS].in_use = True
    machine.broken = 1
    task = asyncio.create_task(Cleaner(lending.wipes, machine, clock=clock).run())
    await lending.passthrough.end("a")
    await until(lambda: not machine.broken)
    assert world.records.all() != [], "an inspection that failed ends nothing"
    world.disks[ADDRESS].in_use = False
    async with asyncio.timeout(10):
        while machine.looks[-1:] != [{}]:
            await clock.advance(LOOK_SECONDS)
            await asyncio.sleep(0.005)
    assert not task.done(), "nobody has to say more"
    task.cancel()


def test_a_device_is_unfit_by_its_id_or_by_where_it_hangs() -> None:
    """Its id is what it says of itself, which a tenant may have changed."""
    disk = Device(id="disk-0", kind="disk", model="NVMe", address=ADDRESS)
    for unfit in ({"disk-0": "why"}, {ADDRESS: "why"}, {"disk-0": "why" * 200}):
        said = _fit(disk, unfit)
        assert (said.healthy, said.unfit[:3], len(said.unfit) <= 256) == (False, "why", True)
    assert _fit(disk, {"disk-1": "why", "": "why"}) is disk
    assert _fit(disk.model_copy(update={"address": ""}), {"": "why"}).healthy
    assert "unfit" not in disk.dump()

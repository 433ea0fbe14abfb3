"""The Instance's host side on a real guest: up, adopted, killed, up again, stopped, started, gone without a trace."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bessemer.core.clock import SystemClock
from bessemer.core.resource import Done
from bessemer.core.units import MIB
from bessemer.drivers.engine.fake import FakeEngine
from bessemer.drivers.jobs.fake import FakeJobs
from bessemer.drivers.wipe.fake import fake_lending
from bessemer.kinds.compute.instance.host import InstanceHost
from bessemer.kinds.compute.instance.spec import InstanceIntent
from bessemer.kinds.context import HostDrivers
from tests.drivers import micro_guest
from tests.drivers.qemu.rig import RealRig
from tests.kinds.host_bench import RealBench

pytestmark = pytest.mark.real


class GuestBench(RealBench):
    def __init__(self, rig: RealRig) -> None:
        self.rig = rig
        intent = InstanceIntent(
            image=rig.digest, cpus=2, memory_bytes=192 * MIB, disk_bytes=64 * MIB, hostname="vm", running=True
        )
        super().__init__(InstanceHost(), intent.dump(), kind="Instance", content=rig.image)

    def drivers(self) -> HostDrivers:
        return HostDrivers(
            qemu=self.rig.new(),
            disks=self.rig.disks,
            engine=FakeEngine(SystemClock()),
            jobs=FakeJobs(SystemClock()),
            passthrough=fake_lending().passthrough,
        )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[GuestBench]:
    rig = RealRig(tmp_path, await asyncio.to_thread(micro_guest.build, tmp_path / "image.tar"))
    yield GuestBench(rig)
    await rig.close()


async def test_the_life_of_a_real_guest(bench: GuestBench) -> None:
    await bench.until_phase("Running")
    guest = bench.status.detail["guest"]
    assert (guest["cpus"], guest["hostname"]) == (2, "vm")
    pid = bench.status.pid
    assert pid is not None
    bench.forget()
    await bench.until_phase("Running")
    assert bench.status.pid == pid, "an agent that knows nothing adopts what runs"

    os.kill(pid, signal.SIGKILL)
    await bench.until_phase("Lost")
    await bench.until_phase("Running")
    assert bench.status.restarts == 1

    bench.amend(running=False)
    await bench.until_phase("Stopped")
    assert (await bench.rig.disks.paths(bench.claim.uid)).root is not None
    bench.amend(running=True)
    await bench.until_phase("Running")

    assert isinstance(await bench.remove(), Done)
    assert await bench.rig.new().uids() == frozenset()
    assert await bench.rig.disks.uids() == frozenset()

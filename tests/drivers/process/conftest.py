"""A host whose confined processes can be told what to do, fake or real."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from bessemer.core.clock import FakeClock
from bessemer.drivers.process.fake import FakeProcesses
from bessemer.drivers.process.protocol import Confined, End, Processes
from bessemer.drivers.process.real import HostProcesses

MEMORY = 48 << 20


class World(Protocol):
    """A host: its driver, and processes with a known fate."""

    processes: Processes

    def another(self) -> Processes:
        """The driver as a second agent has it, that knows nothing of the first."""
        ...

    async def waits(self, uid: str, *, memory_bytes: int = MEMORY) -> Confined: ...

    async def prints(self, uid: str, text: str) -> None: ...

    async def leaves(self, uid: str, code: int) -> None: ...

    async def exhausts(self, uid: str) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self.processes = FakeProcesses(FakeClock())

    def another(self) -> Processes:
        return self.processes

    async def waits(self, uid: str, *, memory_bytes: int = MEMORY) -> Confined:
        confined = Confined(uid, ("sleep",), cores_milli=500, memory_bytes=memory_bytes)
        await self.processes.start(confined)
        return confined

    async def prints(self, uid: str, text: str) -> None:
        await self.waits(uid)
        self.processes.say(uid, text.encode())

    async def leaves(self, uid: str, code: int) -> None:
        await self.waits(uid)
        self.processes.end(uid, End.CRASHED if code else End.EXITED, code=code)

    async def exhausts(self, uid: str) -> None:
        await self.waits(uid)
        self.processes.end(uid, End.OUT_OF_MEMORY)


class RealWorld:
    def __init__(self, state: Path) -> None:
        self.state = state
        self.processes = HostProcesses(state / "confined", users=state / "users")

    def another(self) -> Processes:
        return HostProcesses(self.state / "confined", users=self.state / "users")

    async def run(self, uid: str, script: str, *, memory_bytes: int = MEMORY, pids_max: int = 32) -> Confined:
        """Run a shell script behind the walls."""
        confined = Confined(
            uid,
            ("/bin/sh", "-c", script),
            cores_milli=1000,
            memory_bytes=memory_bytes,
            pids_max=pids_max,
            env={"PATH": "/bin"},
            binds_ro=((Path("/usr/bin"), "/bin"),),
            tmp_bytes=256 << 20,
        )
        await self.processes.start(confined)
        return confined

    async def waits(self, uid: str, *, memory_bytes: int = MEMORY) -> Confined:
        return await self.run(uid, "exec sleep 600", memory_bytes=memory_bytes)

    async def prints(self, uid: str, text: str) -> None:
        await self.run(uid, f"printf %s {shlex.quote(text)}; exec sleep 600")

    async def leaves(self, uid: str, code: int) -> None:
        await self.run(uid, f"exit {code}")

    async def exhausts(self, uid: str) -> None:
        await self.run(uid, "x=a; while :; do x=$x$x$x; done")


@pytest.fixture
async def host() -> AsyncIterator[RealWorld]:
    """This machine."""
    # 0700, as a checkout in root's home is.
    state = Path(tempfile.mkdtemp(prefix="bsm-"))
    world = RealWorld(state)
    try:
        yield world
    finally:
        names = os.listdir(state / "confined") if (state / "confined").is_dir() else []
        for uid in names:
            await world.processes.remove(uid)
        for folder, _, files in os.walk(state, topdown=False):
            for name in files:
                os.unlink(os.path.join(folder, name))
            os.rmdir(folder)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real)])
def world(request: pytest.FixtureRequest) -> World:
    """A fake host, and this machine."""
    if request.param == "fake":
        return FakeWorld()
    world: World = request.getfixturevalue("host")
    return world

"""What a contract test needs of a host with guests, the same for the fake and the real one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bessemer.core.clock import FakeClock
from bessemer.core.units import MIB
from bessemer.drivers.cgroup import Cgroups
from bessemer.drivers.disks.fake import FakeDisks, FakeDiskWorld
from bessemer.drivers.disks.protocol import Disks
from bessemer.drivers.disks.real import QcowDisks
from bessemer.drivers.guest.protocol import BuiltImage, seed_files
from bessemer.drivers.qemu.confine import Confinement
from bessemer.drivers.qemu.fake import FakeQemu, FakeQemuWorld
from bessemer.drivers.qemu.protocol import Console, MachineSpec, Qemu, Running
from bessemer.drivers.qemu.real import LocalQemu

NONCE = "n0nce-of-this-boot"


class Rig(ABC):
    """A host. ``new`` is an agent's restart: another driver object over the same guests."""

    disks: Disks
    image: Path
    digest: str

    @abstractmethod
    def new(self) -> Qemu: ...

    @abstractmethod
    async def tick(self) -> None:
        """Let a little of the host's time pass."""

    @abstractmethod
    def kill_process(self, guest: Running) -> None:
        """``kill -9``."""

    async def spec(self, **changes: Any) -> MachineSpec:
        uid = str(uuid.uuid4())
        spec = MachineSpec(
            uid=uid,
            name="vm",
            cpus=2,
            memory_bytes=192 * MIB,
            image=self.image,
            image_digest=self.digest,
            disks=(await self.disks.create(uid, 64 * MIB),),
            seed=await self.disks.seed(uid, seed_files(instance_id=uid, hostname="vm", nonce=NONCE)),
        )
        return replace(spec, **changes)

    async def until(self, asked: Callable[[], Awaitable[Any]], *, seconds: float = 180.0) -> Any:
        """The first true answer."""
        async with asyncio.timeout(seconds):
            while not (answer := await asked()):
                await self.tick()
        return answer

    async def during(self, act: Awaitable[None]) -> None:
        """Let an act that takes the host's time end."""
        task = asyncio.ensure_future(act)
        while not task.done():
            await self.tick()
        await task

    async def report(self, qemu: Qemu, uid: str) -> dict[str, Any]:
        raw = await self.until(lambda: qemu.report(uid))
        said: dict[str, Any] = json.loads(raw)
        return said


class FakeRig(Rig):
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.world = FakeQemuWorld()
        self.store = FakeDiskWorld()
        self.disks = FakeDisks(self.store)
        self.image, self.digest = Path("/fake/image"), "sha256:" + "0" * 64

    def new(self) -> Qemu:
        return FakeQemu(self.clock, world=self.world, disks=self.store)

    async def tick(self) -> None:
        await self.clock.advance(0.25)

    def kill_process(self, guest: Running) -> None:
        self.world.kill_process(guest.uid)


class RealRig(Rig):
    def __init__(self, root: Path, image: BuiltImage) -> None:
        self.root = root
        self.disks = QcowDisks(root / "disks")
        self.image, self.digest = image.path, image.digest
        cgroups = Cgroups(f"bessemer-test-{uuid.uuid4().hex[:8]}/guests")
        self.cgroups = cgroups if cgroups.available else None
        self.confinement = Confinement.here(namespaces=True)

    def new(self) -> LocalQemu:
        return LocalQemu(self.root / "guests", confinement=self.confinement, cgroups=self.cgroups)

    async def tick(self) -> None:
        await asyncio.sleep(0.05)

    def kill_process(self, guest: Running) -> None:
        os.kill(guest.pid, signal.SIGKILL)

    async def close(self) -> None:
        """End what a failed test has left."""
        qemu = self.new()
        for uid in await qemu.uids():
            await qemu.remove(uid)


async def read_until(console: Console, words: bytes, *, seconds: float = 120.0) -> bytes:
    """What the console shows, up to and with these words."""
    shown = b""
    async with asyncio.timeout(seconds):
        while words not in shown:
            piece = await console.read()
            assert piece, f"the console ended after {shown!r}"
            shown += piece
    return shown


async def whole_log(qemu: Qemu, uid: str) -> bytes:
    return b"".join([piece async for piece in qemu.log(uid)])

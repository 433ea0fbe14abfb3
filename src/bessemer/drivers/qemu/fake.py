"""Guests that exist only on an injected clock, and misbehave on request.

Nothing runs by itself: what a guest has said or become is worked out from the clock when somebody asks, so a process
can hold tens of thousands of them.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bessemer.core.clock import Clock
from bessemer.core.errors import DriverError
from bessemer.drivers import Hook, no_hook
from bessemer.drivers.disks.fake import FakeDiskWorld
from bessemer.drivers.guest.fake import FAKE_KERNEL
from bessemer.drivers.guest.protocol import parse_meta
from bessemer.drivers.qemu.protocol import REPORT_READ_LIMIT_BYTES, Console, GuestState, MachineSpec, Running

_FIRST_PID = 1 << 23
"""Above any pid that a kernel gives, so that a fake pid never names a process."""

_TICKS_PER_SECOND = 100


class Fault(StrEnum):
    """What a fake guest, or its host, can be told to do wrong."""

    CRASH = "crash"
    """It dies a second after it reported."""
    CRASH_AT_BOOT = "crash-at-boot"
    SILENT = "silent"
    WRONG_CPUS = "wrong-cpus"
    WRONG_MEMORY = "wrong-memory"
    HUGE_REPORT = "huge-report"
    INVALID_UTF8 = "invalid-utf8"
    OTHER_NONCE = "other-nonce"
    DEAF = "deaf"
    """It does not mind the power button."""
    UNRESPONSIVE = "unresponsive"
    """QEMU runs and does not answer."""
    START_FAILS = "start-fails"
    IMAGE_CORRUPTED = "image-corrupted"
    DISK_FULL = "disk-full"
    OUT_OF_MEMORY = "out-of-memory"


_REFUSALS: Mapping[Fault, tuple[str, str]] = {
    Fault.START_FAILS: ("GuestStartFailed", "QEMU ended before the guest ran"),
    Fault.IMAGE_CORRUPTED: ("DigestMismatch", "the image is not the one that was imported"),
    Fault.DISK_FULL: ("DiskFull", "the host's disk is full"),
    Fault.OUT_OF_MEMORY: ("OutOfMemory", "the host has no memory for the guest"),
}


@dataclass(slots=True, kw_only=True)
class _Guest:
    spec: MachineSpec
    process: Running
    nonce: str
    clock: Clock
    started: float
    boot_seconds: float
    fault: Fault | None
    typed: bytearray = field(default_factory=bytearray)
    attached: bool = False
    killed: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def kill(self) -> None:
        self.killed = True
        self.changed.set()

    def age(self) -> float:
        return self.clock.monotonic() - self.started

    def booted(self) -> bool:
        return self.age() >= self.boot_seconds

    def alive(self) -> bool:
        life = math.inf
        if self.fault is Fault.CRASH:
            life = self.boot_seconds + 1
        elif self.fault is Fault.CRASH_AT_BOOT:
            life = self.boot_seconds / 2
        return not self.killed and self.age() < life

    def serial(self) -> bytes:
        text = f"Fake guest {self.spec.name} boots\r\n".encode()
        if self.booted() and self.fault is not Fault.SILENT:
            text += f"Ready after {self.boot_seconds:.1f} s\r\n~ # ".encode()
        return text + bytes(self.typed)


@dataclass(slots=True)
class FakeQemuWorld:
    """What runs on a fake host; it outlives the driver objects that are made on it.

    ``faults`` is by a guest's uid or name, or ``*`` for every guest, and is read when a guest starts.
    """

    boot_seconds: float = 2.0
    faults: dict[str, Fault] = field(default_factory=dict)
    guests: dict[str, _Guest] = field(default_factory=dict)
    starts: int = 0

    def kill_process(self, uid: str) -> None:
        """What ``kill -9`` of the guest's QEMU does."""
        self.guests[uid].kill()

    def fault_of(self, spec: MachineSpec) -> Fault | None:
        for key in (spec.uid, spec.name, "*"):
            if key in self.faults:
                return self.faults[key]
        return None


class FakeQemu:
    """Implements `qemu.protocol.Qemu`. ``disks`` is where the nonce of a guest's seed is found."""

    def __init__(
        self,
        clock: Clock,
        *,
        world: FakeQemuWorld | None = None,
        disks: FakeDiskWorld | None = None,
        on_call: Hook = no_hook,
    ) -> None:
        self.world = world or FakeQemuWorld()
        self._clock = clock
        self._disks = disks or FakeDiskWorld()
        self._on_call = on_call

    async def start(self, spec: MachineSpec) -> Running:
        self._on_call("qemu.start")
        found = self._living(spec.uid)
        if found is None:
            found = self._boot(spec)
        self._on_call("qemu.start.done")
        return found.process

    async def find(self, uid: str) -> Running | None:
        guest = self._living(uid)
        return guest.process if guest else None

    async def running(self) -> tuple[Running, ...]:
        living = (self._living(uid) for uid in sorted(self.world.guests))
        return tuple(guest.process for guest in living if guest)

    async def uids(self) -> frozenset[str]:
        return frozenset(self.world.guests)

    async def report(self, uid: str) -> bytes | None:
        self._on_call("qemu.report")
        guest = self._living(uid)
        if guest is None or not guest.booted():
            return None
        return _report(guest)

    async def state(self, uid: str) -> GuestState | None:
        guest = self._living(uid)
        if guest is None:
            return None
        if guest.fault is Fault.UNRESPONSIVE:
            raise DriverError("GuestUnresponsive", "QEMU does not answer")
        return GuestState("running", guest.age())

    async def shutdown(self, uid: str, grace_seconds: float) -> None:
        self._on_call("qemu.shutdown")
        guest = self._living(uid)
        if guest is not None:
            await self._clock.sleep(grace_seconds if guest.fault is Fault.DEAF else min(1.0, grace_seconds))
            guest.kill()
        self._on_call("qemu.shutdown.done")

    async def kill(self, uid: str) -> None:
        self._on_call("qemu.kill")
        if uid in self.world.guests:
            self.world.kill_process(uid)
        self._on_call("qemu.kill.done")

    async def remove(self, uid: str) -> None:
        self._on_call("qemu.remove")
        guest = self.world.guests.pop(uid, None)
        if guest is not None:
            guest.kill()
        self._on_call("qemu.remove.done")

    async def log(self, uid: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        guest = self.world.guests.get(uid)
        shown = 0
        while guest is not None:
            text = guest.serial()
            if len(text) > shown:
                yield text[shown:]
                shown = len(text)
            if not follow or not guest.alive():
                return
            await self._clock.sleep(1.0)

    async def console(self, uid: str) -> Console:
        guest = self._living(uid)
        if guest is None:
            raise DriverError("GuestNotRunning", "the guest does not run")
        if guest.attached:
            raise DriverError("ConsoleBusy", "somebody else is at the console")
        guest.attached = True
        return _FakeConsole(guest)

    async def last_words(self, uid: str) -> str:
        guest = self.world.guests.get(uid)
        return "" if guest is None or guest.alive() else "fake guest died"

    def _boot(self, spec: MachineSpec) -> _Guest:
        fault = self.world.fault_of(spec)
        if fault is not None and fault in _REFUSALS:
            raise DriverError(*_REFUSALS[fault])
        self.world.starts += 1
        now = self._clock.monotonic()
        process = Running(spec.uid, _FIRST_PID + self.world.starts, int(now * _TICKS_PER_SECOND))
        files = self._disks.seeds.get(spec.seed.parent.name, {}) if spec.seed else {}
        nonce = parse_meta(files.get("meta-data", "")).get("bessemer-nonce", "")
        guest = _Guest(
            spec=spec,
            process=process,
            nonce=nonce,
            clock=self._clock,
            started=now,
            boot_seconds=self.world.boot_seconds,
            fault=fault,
        )
        self.world.guests[spec.uid] = guest
        return guest

    def _living(self, uid: str) -> _Guest | None:
        guest = self.world.guests.get(uid)
        return guest if guest is not None and guest.alive() else None


class _FakeConsole:
    """Echoes what is typed, as a terminal does."""

    def __init__(self, guest: _Guest) -> None:
        self._guest = guest
        self._shown = len(guest.typed)

    async def read(self) -> bytes:
        while self._guest.alive():
            if len(self._guest.typed) > self._shown:
                data = bytes(self._guest.typed[self._shown :])
                self._shown = len(self._guest.typed)
                return data
            self._guest.changed.clear()
            await self._guest.changed.wait()
        return b""

    async def write(self, data: bytes) -> None:
        if not self._guest.alive():
            raise DriverError("GuestNotRunning", "the guest does not run")
        self._guest.typed += data
        self._guest.changed.set()

    async def close(self) -> None:
        self._guest.attached = False
        self._guest.changed.set()


def _report(guest: _Guest) -> bytes | None:
    if guest.fault is Fault.SILENT:
        return None
    if guest.fault is Fault.HUGE_REPORT:
        return b"x" * REPORT_READ_LIMIT_BYTES
    if guest.fault is Fault.INVALID_UTF8:
        return b'{"nonce": "\xff\xfe"}\n'
    spec = guest.spec
    said = {
        "nonce": "another" if guest.fault is Fault.OTHER_NONCE else guest.nonce,
        "kernel": FAKE_KERNEL,
        "cpus": spec.cpus + 1 if guest.fault is Fault.WRONG_CPUS else spec.cpus,
        "memoryBytes": spec.memory_bytes // 2 if guest.fault is Fault.WRONG_MEMORY else spec.memory_bytes - (1 << 20),
        "addresses": ["10.0.2.15"],
        "uptimeSeconds": guest.boot_seconds,
        "hostname": spec.name,
    }
    return json.dumps(said).encode() + b"\n"

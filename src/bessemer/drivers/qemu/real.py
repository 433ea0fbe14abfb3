"""Virtual machines on QEMU below one state directory.

What is known of a guest is asked of the kernel each time: nothing that is remembered here is believed without looking,
so a new object does as well as the one that started the guests.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from bessemer.core.cpus import parse_cpus
from bessemer.core.errors import DriverError
from bessemer.drivers.cgroup import Cgroups, Limits
from bessemer.drivers.disks.header import virtual_size
from bessemer.drivers.qemu import proc, qmp, traces
from bessemer.drivers.qemu.confine import Confinement, bound_files
from bessemer.drivers.qemu.console import attach
from bessemer.drivers.qemu.launch import Home, finish, held, launch
from bessemer.drivers.qemu.nodes import HostNodes, pin_cpus
from bessemer.drivers.qemu.protocol import OVERHEAD_BYTES, Console, GuestState, MachineSpec, Running

_UID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
_QMP_SECONDS = 5.0
_END_SECONDS = 10.0
_LAUNCH_SECONDS = 30.0
_THREADS_BESIDE_CPUS = 128
_POLL_SECONDS = 0.02


class LocalQemu:
    """Implements `qemu.protocol.Qemu` below ``root``. ``cgroups`` is None where the agent may make none."""

    def __init__(
        self, root: Path, *, confinement: Confinement, cgroups: Cgroups | None, nodes: HostNodes | None = None
    ) -> None:
        self._root = root.absolute()
        self._nodes = nodes or HostNodes()
        self._confinement = confinement
        self._cgroups = cgroups
        self._attached: set[str] = set()
        self._seen: dict[str, Running] = {}

    async def start(self, spec: MachineSpec) -> Running:
        deadline = asyncio.get_running_loop().time() + _LAUNCH_SECONDS
        while (found := await self.find(spec.uid)) is None:
            home, enter = self._home(spec.uid), self._group(spec)
            if await launch(self._nodes.laid(spec), home, confinement=self._confinement, enter=enter):
                found = await self.find(spec.uid)
                break
            # The lock is held and no QEMU shows yet: a launch of an agent before us is under way.
            await asyncio.sleep(_POLL_SECONDS)
            if asyncio.get_running_loop().time() > deadline:
                break
        else:
            await finish(self._home(spec.uid))
        if found is None:
            raise DriverError(
                "GuestStartFailed", "the guest's QEMU did not stay", internal=await self.last_words(spec.uid)
            )
        bound_files(found.pid, sum(virtual_size(disk) for disk in spec.disks))
        await pin_cpus(spec, found.pid, socket=self._home(spec.uid).qmp, nodes=self._nodes)
        return found

    async def find(self, uid: str) -> Running | None:
        seen = self._seen.pop(uid, None)
        if seen is None or not proc.alive(seen):
            # Whoever holds the lock may be a guest: only then is it worth to look through all processes.
            seen = proc.find(self._root, uid) if held(self._home(uid)) else None
        if seen is not None:
            self._seen[uid] = seen
        return seen

    async def running(self) -> tuple[Running, ...]:
        return tuple(sorted(proc.guests(self._root), key=lambda guest: guest.uid))

    async def uids(self) -> frozenset[str]:
        homes = {entry.name for entry in self._root.iterdir() if entry.is_dir()} if self._root.is_dir() else set()
        groups = self._cgroups.uids() if self._cgroups else frozenset()
        return frozenset(homes | groups | {guest.uid for guest in proc.guests(self._root)})

    async def report(self, uid: str) -> bytes | None:
        return traces.peek(self._home(uid).report)

    async def state(self, uid: str) -> GuestState | None:
        guest = await self.find(uid)
        if guest is None:
            return None
        home = self._home(uid)
        for file in (home.log, home.errors):
            traces.turn(file)
        try:
            async with qmp.talk(home.qmp, timeout_seconds=_QMP_SECONDS) as monitor:
                status = str((await monitor.execute("query-status")).get("status", ""))
        except OSError:
            return None
        return GuestState(status, proc.uptime_seconds(guest))

    async def shutdown(self, uid: str, grace_seconds: float) -> None:
        guest = await self.find(uid)
        if guest is not None and await _asked(self._home(uid), "system_powerdown"):
            await _gone(guest, grace_seconds)
        if guest is not None and proc.alive(guest) and await _asked(self._home(uid), "quit"):
            await _gone(guest, _END_SECONDS)
        await self.kill(uid)

    async def kill(self, uid: str) -> None:
        while (guest := proc.find(self._root, uid)) is not None:
            _end(guest)
            if not await _gone(guest, _END_SECONDS):
                raise DriverError("GuestUnresponsive", "the guest's process does not end")
        if self._cgroups is not None:
            await self._cgroups.remove(uid)

    async def remove(self, uid: str) -> None:
        await self.kill(uid)
        await asyncio.to_thread(shutil.rmtree, self._home(uid).path, ignore_errors=True)

    async def log(self, uid: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        log = self._home(uid).log
        guest = await self.find(uid) if follow else None
        async for piece in traces.follow(log, until=lambda: guest is None or not proc.alive(guest)):
            yield piece
            traces.turn(log)

    async def console(self, uid: str) -> Console:
        if uid in self._attached:
            raise DriverError("ConsoleBusy", "somebody else is at the console")
        if await self.find(uid) is None:
            raise DriverError("GuestNotRunning", "the guest does not run")
        self._attached.add(uid)
        return await attach(self._home(uid).console, lambda: self._attached.discard(uid))

    async def last_words(self, uid: str) -> str:
        usage = self._cgroups.usage(uid) if self._cgroups else None
        ended = "the kernel ended QEMU for want of memory\n" if usage and usage.oom_kills else ""
        return traces.tail(self._home(uid).errors, 2048 - len(ended)) + ended

    def _home(self, uid: str) -> Home:
        if not _UID.match(uid):
            raise ValueError(f"not a uid: {uid[:40]!r}")
        return Home(self._root / uid)

    def _group(self, spec: MachineSpec) -> tuple[str, ...]:
        if self._cgroups is None:
            return ()
        self._cgroups.create(
            spec.uid,
            Limits(
                # What has threads of its own has all their time, and what QEMU does besides takes none of the guest's.
                milli_cores=1000 * max(spec.cpus, len(parse_cpus(spec.own_cpus))),
                memory_bytes=spec.memory_bytes + OVERHEAD_BYTES,
                pids=spec.cpus + _THREADS_BESIDE_CPUS,
                cpus=spec.own_cpus,
            ),
        )
        return self._cgroups.enter(spec.uid)


async def _asked(home: Home, command: str) -> bool:
    """Tell QEMU; False where it is gone or does not answer."""
    try:
        async with qmp.talk(home.qmp, timeout_seconds=_QMP_SECONDS) as monitor:
            await monitor.execute(command)
    except (OSError, DriverError):
        return False
    return True


def _end(guest: Running) -> None:
    """Kill that very process: the descriptor is taken first, so that the pid cannot be given anew in between."""
    try:
        descriptor = os.pidfd_open(guest.pid)
    except ProcessLookupError:
        return
    try:
        if proc.alive(guest):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


async def _gone(guest: Running, seconds: float) -> bool:
    """Whether the process is gone within that time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while proc.alive(guest):
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True

"""Confined processes on this machine: bubblewrap for the walls, control groups for the limits, a shim for log and end.

    agent ── starts ──► shim (session of its own, outside the cgroup)
                          └► bwrap ─► init of the pid namespace ─► the tenant's process (own user, no capabilities)

Everything about a process is found again by its uid: in its cgroup's name and in the command line of shim and bwrap.
``STATE/UID/`` keeps its log and how it ended. As root with control groups the isolation is strong; without them, or as
an ordinary user, it is weak. `HostParts` are our own processes.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from bessemer.core.errors import DriverError, Invalid
from bessemer.core.units import show_bytes
from bessemer.drivers.process import companions, procfs
from bessemer.drivers.process.kin import WallsHerd
from bessemer.drivers.process.parts import HostParts
from bessemer.drivers.process.protocol import Confined, End, Ended, Isolation, Part, Running, Stats, check_uid
from bessemer.drivers.process.tail import tail
from bessemer.drivers.process.walls import Walls, trial

__all__ = ["HostParts", "HostProcesses"]

USERS_FOLDER = Path("/var/lib/bessemer/users")
_START_SECONDS = 10.0
_STDIN_BYTES_MAX = 1 << 16


class HostProcesses:
    """Confined processes of one state folder. Its path is part of their names: keep it where it is."""

    def __init__(self, state: Path, *, users: Path = USERS_FOLDER) -> None:
        self._walls = Walls(state, users)
        self._isolation: Isolation | None = None

    async def isolation(self) -> Isolation:
        if self._isolation is None:
            await trial(root=self._walls.root)
            self._isolation = Isolation.STRONG if self._walls.strong else Isolation.WEAK
        return self._isolation

    async def start(self, confined: Confined) -> Running:
        _check(confined)
        running = await self.find(confined.uid)
        if running is not None:
            return running
        await self.isolation()
        try:
            pid = await self._walls.build(confined)
        except OSError as error:
            raise _refusal(error) from error
        return await self._started(confined.uid, pid)

    async def find(self, uid: str) -> Running | None:
        main = self._walls.main(uid)
        return None if main is None else Running(uid, main.pid, main.started_ticks, main.user)

    async def running(self) -> tuple[Running, ...]:
        found = [await self.find(uid) for uid in sorted(self._walls.uids())]
        return tuple(one for one in found if one is not None)

    async def uids(self) -> frozenset[str]:
        """Every uid of which anything is left: a process, a folder, a control group."""
        return frozenset(self._walls.uids())

    @property
    def herd(self) -> WallsHerd:
        """All of it, for whoever says on which hardware threads it runs."""
        return WallsHerd(self._walls)

    async def kill(self, uid: str) -> None:
        folder = self._walls.folder(uid)
        if folder.is_dir() and await self.find(uid) is not None:
            (folder / "killed").touch()
        await self._walls.end(uid)

    async def remove(self, uid: str) -> None:
        await self._walls.remove(uid)

    async def stats(self, uid: str) -> Stats | None:
        if await self.find(uid) is None:
            return None
        inside = self._walls.inside(uid)
        usage = self._walls.usage(uid)
        read = sum(procfs.read_bytes(one.pid) for one in inside)
        memory = sum(one.resident_bytes for one in inside)
        if usage is not None:
            return Stats(usage.memory_bytes, usage.memory_peak_bytes, usage.cpu_seconds, len(inside), read, memory)
        ticks = sum(one.cpu_ticks for one in inside)
        return Stats(memory, memory, ticks / os.sysconf("SC_CLK_TCK"), len(inside), read, memory)

    async def ended(self, uid: str) -> Ended | None:
        folder = self._walls.folder(uid)
        if not folder.is_dir() or await self.find(uid) is not None:
            return None
        await self._walls.settled(uid)
        code = _number(folder / "exit")
        if (folder / "killed").exists():
            return Ended(End.KILLED, code, "ended on request")
        usage = self._walls.usage(uid)
        if usage is not None and usage.oom_kills > 0:
            limit = show_bytes(_number(folder / "memory") or 0)
            had = show_bytes(usage.memory_peak_bytes)
            return Ended(End.OUT_OF_MEMORY, code, f"went past its memory limit of {limit} (it had {had})")
        if code is None:
            return Ended(End.CRASHED, None, "ended unseen")
        return Ended(End.EXITED if code == 0 else End.CRASHED, code, f"exit status {code}")

    async def accompany(self, uid: str, argv: Sequence[str], *, keep: Sequence[int] = ()) -> Part:
        if await self.find(uid) is None:
            raise DriverError("ProcessFailed", "there is no process to accompany")
        return companions.accompany(self._walls, uid, argv=argv, keep=keep)

    async def companions(self, uid: str) -> tuple[tuple[Part, tuple[str, ...]], ...]:
        return companions.companions(self._walls, check_uid(uid))

    async def log(self, uid: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        async def living() -> bool:
            return await self.find(uid) is not None

        async for chunk in tail(self._walls.folder(uid) / "log", living=living if follow else None):
            yield chunk

    async def _started(self, uid: str, pid: int) -> Running:
        """Wait until the tenant's process is there, or was."""
        shim = procfs.entry(pid)
        for _ in range(int(_START_SECONDS / 0.01)):
            running = await self.find(uid)
            if running is not None:
                return running
            if procfs.entry(pid) is None:
                break
            await asyncio.sleep(0.01)
        folder = self._walls.folder(uid)
        status = (folder / "status").read_text()
        if '"exit-code"' in status and shim is not None:
            # It ended before it could be looked at: the caller finds it ended, as it would a moment later.
            inner = re.search(r'"child-pid": (\d+)', status)
            return Running(uid, int(inner[1]) if inner else pid, shim.started_ticks, self._walls.user(uid))
        await self._walls.end(uid)
        said = b"".join([chunk async for chunk in self.log(uid)])[-500:].decode("utf-8", "replace")
        raise DriverError("ProcessFailed", "the confined process cannot be started", internal=said)


def _check(confined: Confined) -> None:
    check_uid(confined.uid)
    if not confined.argv or len(confined.stdin) > _STDIN_BYTES_MAX:
        raise Invalid("a confined process needs a command, and at most 64 KiB to read")
    if any("\0" in word for word in (*confined.argv, *confined.env, *confined.env.values())):
        raise Invalid("no word of a confined process holds a NUL")  # which would end it, and begin an option of bwrap
    if min(confined.cores_milli, confined.memory_bytes, confined.pids_max) < 1:
        raise Invalid("a confined process needs cores, memory and room for a process")
    if confined.user is not None and confined.user < 1:
        raise Invalid("a confined process never runs as root")


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _refusal(error: OSError) -> DriverError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DriverError("DiskFull", "no space is left for the process's files", internal=str(error))
    return DriverError("ProcessFailed", "the confined process cannot be started", internal=str(error))

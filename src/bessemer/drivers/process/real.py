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
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

from bessemer.core.errors import DriverError, Invalid
from bessemer.core.units import show_bytes
from bessemer.drivers.cgroup import Cgroups, Limits
from bessemer.drivers.process import procfs, sandbox, seccomp, shim
from bessemer.drivers.process.parts import HostParts, spawn
from bessemer.drivers.process.protocol import Confined, End, Ended, Isolation, Running, Stats
from bessemer.drivers.process.tail import tail
from bessemer.drivers.process.users import Users

__all__ = ["HostParts", "HostProcesses"]

USERS_FOLDER = Path("/var/lib/bessemer/users")
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
_START_SECONDS = 10.0
_END_SECONDS = 10.0
_STDIN_BYTES_MAX = 1 << 16


class HostProcesses:
    """Confined processes of one state folder. Its path, resolved, is part of their names: keep it where it is."""

    def __init__(self, state: Path, *, users: Path = USERS_FOLDER) -> None:
        self._state = state.absolute()
        self._scope = sha256(str(self._state).encode()).hexdigest()[:12]
        self._root = os.geteuid() == 0
        here = procfs.entry(os.getpid())
        self._depth = len(here.depth_pids) if here is not None else 1
        cgroups = Cgroups(f"bessemer/{self._scope}/confined")
        self._cgroups = cgroups if cgroups.available else None
        self._users = Users(users) if self._root else None
        self._children: set[int] = set()
        self._isolation: Isolation | None = None

    async def isolation(self) -> Isolation:
        if self._isolation is None:
            await self._try()
            self._isolation = Isolation.STRONG if self._root and self._cgroups is not None else Isolation.WEAK
        return self._isolation

    async def start(self, confined: Confined) -> Running:
        _check(confined)
        running = await self.find(confined.uid)
        if running is not None:
            return running
        await self.isolation()
        await self._end(confined.uid)
        if self._cgroups is not None:
            await self._cgroups.remove(confined.uid)  # with its count of earlier ends for want of memory
        try:
            self._prepare(confined)
            pid = self._spawn(confined)
        except OSError as error:
            raise _refusal(error) from error
        self._children.add(pid)
        return await self._started(confined.uid, pid)

    async def find(self, uid: str) -> Running | None:
        procfs.reap(self._children)
        main = self._main(_valid(uid))
        return None if main is None else Running(uid, main.pid, main.started_ticks, main.user)

    async def running(self) -> tuple[Running, ...]:
        uids = self._cgroups.uids() if self._cgroups is not None else frozenset()
        if self._state.is_dir():
            uids |= {name for name in os.listdir(self._state) if _UID.fullmatch(name)}
        found = [await self.find(uid) for uid in sorted(uids)]
        return tuple(one for one in found if one is not None)

    async def kill(self, uid: str) -> None:
        folder = self._folder(uid)
        if folder.is_dir() and not (folder / "exit").exists():
            (folder / "killed").touch()
        await self._end(uid)

    async def remove(self, uid: str) -> None:
        await self._end(_valid(uid))
        if self._cgroups is not None:
            await self._cgroups.remove(uid)
        shutil.rmtree(self._folder(uid), ignore_errors=True)
        if self._users is not None:
            self._users.drop(self._owner(uid))

    async def stats(self, uid: str) -> Stats | None:
        if await self.find(uid) is None:
            return None
        inside = self._inside(uid)
        usage = self._cgroups.usage(uid) if self._cgroups is not None else None
        if usage is not None:
            return Stats(usage.memory_bytes, usage.memory_peak_bytes, usage.cpu_seconds, len(inside))
        memory = sum(one.resident_bytes for one in inside)
        ticks = sum(one.cpu_ticks for one in inside)
        return Stats(memory, memory, ticks / os.sysconf("SC_CLK_TCK"), len(inside))

    async def ended(self, uid: str) -> Ended | None:
        folder = self._folder(uid)
        if not folder.is_dir() or await self.find(uid) is not None:
            return None
        code = _number(folder / "exit")
        if (folder / "killed").exists():
            return Ended(End.KILLED, code, "ended on request")
        usage = self._cgroups.usage(uid) if self._cgroups is not None else None
        if usage is not None and usage.oom_kills > 0:
            limit = show_bytes(_number(folder / "memory") or 0)
            had = show_bytes(usage.memory_peak_bytes)
            return Ended(End.OUT_OF_MEMORY, code, f"went past its memory limit of {limit} (it had {had})")
        if code is None:
            return Ended(End.CRASHED, None, "ended unseen")
        return Ended(End.EXITED if code == 0 else End.CRASHED, code, f"exit status {code}")

    async def log(self, uid: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        async def living() -> bool:
            return await self.find(uid) is not None

        async for chunk in tail(self._folder(uid) / "log", living=living if follow else None):
            yield chunk

    # How it is done.

    def _folder(self, uid: str) -> Path:
        return self._state / _valid(uid)

    def _marker(self, uid: str) -> str:
        return f"{self._scope}/{uid}"

    def _owner(self, uid: str) -> str:
        return f"{self._state}\n{uid}"

    def _inside(self, uid: str) -> list[procfs.Entry]:
        """Every living process behind the uid's walls, bwrap's own included, oldest first."""
        if self._cgroups is not None:
            found = map(procfs.entry, self._cgroups.pids(uid))
        else:
            found = map(procfs.entry, _family(procfs.with_argument(self._marker(uid))))
        return sorted((one for one in found if one is not None), key=lambda one: (one.started_ticks, one.pid))

    def _main(self, uid: str) -> procfs.Entry | None:
        """The tenant's process: the second of its pid namespace, whose first is bwrap's."""
        inner = (one for one in self._inside(uid) if len(one.depth_pids) == self._depth + 1)
        return next((one for one in inner if one.depth_pids[-1] == 2), None)

    def _prepare(self, confined: Confined) -> None:
        """Make what must be there before the first process, and forget the last one's end."""
        folder = self._folder(confined.uid)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("exit", "killed", "status"):
            (folder / name).unlink(missing_ok=True)
        (folder / "memory").write_text(str(confined.memory_bytes))
        user = self._user(confined)
        for source, _ in confined.binds_rw:
            source.mkdir(mode=0o700, parents=True, exist_ok=True)
            if user is not None:
                os.chown(source, user, user, follow_symlinks=False)
        if self._cgroups is not None:
            # Two of the processes are bwrap's.
            limits = Limits(confined.cores_milli, confined.memory_bytes, confined.pids_max + 2)
            self._cgroups.create(confined.uid, limits)

    def _user(self, confined: Confined) -> int | None:
        if self._users is None:
            return None
        return confined.user if confined.user is not None else self._users.take(self._owner(confined.uid))

    def _spawn(self, confined: Confined) -> int:
        """Start the shim and everything below it; returns the shim's pid."""
        folder, marker = self._folder(confined.uid), self._marker(confined.uid)
        with ExitStack() as stack:
            options = _memory_file(stack, "\0".join(sandbox.options(confined, root=self._root)).encode())
            denied = _memory_file(stack, seccomp.program())
            status = os.open(folder / "status", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            stack.callback(os.close, status)
            stdin, writer = os.pipe()
            stack.callback(os.close, stdin)
            with open(writer, "wb") as stream:
                stream.write(confined.stdin)
            keep = (options, denied, status)
            bwrap = [sandbox.BWRAP, "--args", str(options), "--seccomp", str(denied), "--json-status-fd", str(status)]
            # The marker is an argument, so that the process is found by it; inside it names the tenant's own claim.
            bwrap += ["--setenv", "BESSEMER_CONFINED", marker, "--"]
            bwrap += sandbox.inside(confined, user=self._user(confined), limited=self._cgroups is not None)
            enter = self._cgroups.enter(confined.uid) if self._cgroups is not None else ()
            python = (sys.executable, "-I", "-S", shim.__file__, marker, str(folder), ",".join(map(str, keep)), "--")
            return spawn((*python, *enter, *bwrap), env=_ENVIRONMENT, output=None, stdin=stdin, keep=keep)

    async def _started(self, uid: str, pid: int) -> Running:
        """Wait until the tenant's process is there, or was."""
        shim_entry = procfs.entry(pid)
        for _ in range(int(_START_SECONDS / 0.01)):
            running = await self.find(uid)
            if running is not None:
                return running
            if procfs.entry(pid) is None:
                break
            await asyncio.sleep(0.01)
        folder = self._folder(uid)
        status = (folder / "status").read_text()
        if '"exit-code"' in status and shim_entry is not None:
            # It ended before it could be looked at: the caller finds it ended, as it would a moment later.
            inner = re.search(r'"child-pid": (\d+)', status)
            user = self._users.find(self._owner(uid)) if self._users is not None else None
            return Running(uid, int(inner[1]) if inner else pid, shim_entry.started_ticks, user or os.geteuid())
        await self._end(uid)
        said = b"".join([chunk async for chunk in self.log(uid)])[-500:].decode("utf-8", "replace")
        raise DriverError("ProcessFailed", "the confined process cannot be started", internal=said)

    async def _end(self, uid: str) -> None:
        """End all that belongs to the uid, and wait until its shim has written down how."""
        marker = self._marker(uid)
        deadline = asyncio.get_running_loop().time() + _END_SECONDS
        while members := procfs.with_argument(marker):
            late = asyncio.get_running_loop().time() > deadline - _END_SECONDS / 2
            if asyncio.get_running_loop().time() > deadline:
                raise DriverError("ProcessFailed", "the confined process does not end")
            if self._cgroups is not None:
                await self._cgroups.kill(uid)
            for pid in members:
                # The shim ends by itself once its child is gone; only one that hangs is ended.
                if late or shim.__file__ not in procfs.arguments(pid):
                    procfs.send(pid, signal.SIGKILL)
            await asyncio.sleep(0.005)
            procfs.reap(self._children)
        if self._cgroups is not None:
            await self._cgroups.kill(uid)

    async def _try(self) -> None:
        """Put a harmless command behind the walls once. Raises DriverError ``IsolationUnavailable``."""
        missing = [tool for tool in sandbox.TOOLS if not os.access(tool, os.X_OK)]
        if missing:
            raise DriverError("IsolationUnavailable", f"{', '.join(missing)} is not installed (bubblewrap, util-linux)")
        trial = Confined("trial", (sandbox.PRLIMIT, "--version"), cores_milli=1000, memory_bytes=64 << 20)
        user = 65534 if self._root else None
        words = (*sandbox.options(trial, root=self._root), "--", *sandbox.inside(trial, user=user, limited=False))
        process = await asyncio.create_subprocess_exec(
            sandbox.BWRAP,
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=_ENVIRONMENT,
        )
        _, said = await process.communicate()
        if process.returncode != 0:
            text = said.decode("utf-8", "replace")[-500:]
            raise DriverError("IsolationUnavailable", "this host gives no namespaces to confine with", internal=text)


def _family(marked: Iterable[int]) -> frozenset[int]:
    """The processes of the namespace that a marked process opened: it and all that descend from it."""
    everyone = [one for one in map(procfs.entry, procfs.pids()) if one is not None]
    members = {one.pid for one in everyone if one.pid in set(marked) and one.depth_pids[-1] == 1}
    grown = True
    while grown:
        more = {one.pid for one in everyone if one.parent in members} - members
        members |= more
        grown = bool(more)
    return frozenset(members)


def _memory_file(stack: ExitStack, data: bytes) -> int:
    """A descriptor from which a child reads the data; nothing of it is on a disk or in a command line."""
    number = os.memfd_create("confined")
    stack.callback(os.close, number)
    os.write(number, data)
    os.lseek(number, 0, os.SEEK_SET)
    return number


def _valid(uid: str) -> str:
    if _UID.fullmatch(uid) is None:
        raise Invalid(f"not a uid of a process: {uid[:63]!r}")
    return uid


def _check(confined: Confined) -> None:
    _valid(confined.uid)
    if not confined.argv or len(confined.stdin) > _STDIN_BYTES_MAX:
        raise Invalid("a confined process needs a command, and at most 64 KiB to read")
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

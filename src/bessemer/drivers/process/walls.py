"""Putting processes behind walls on this machine, and finding, counting and ending what is there. See `real`."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

from bessemer.core.errors import DriverError
from bessemer.drivers.cgroup import Cgroups, Limits, Usage
from bessemer.drivers.process import procfs, sandbox, seccomp, shim
from bessemer.drivers.process.parts import spawn
from bessemer.drivers.process.protocol import Confined, check_uid
from bessemer.drivers.process.users import Users

ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
_END_SECONDS = 10.0
_SETTLE_SECONDS = 2.0


class Walls:
    """The walls of one state folder, whose path is part of what their processes are found by: ``scope`` stands for it.

    ``root``: there is a user to give up. ``strong``: and there are control groups, whose limits hold for all it starts.
    """

    def __init__(self, state: Path, users: Path) -> None:
        self.state = state.absolute()
        self.root = os.geteuid() == 0
        self.scope = sha256(str(self.state).encode()).hexdigest()[:12]
        here = procfs.entry(os.getpid())
        self.depth = len(here.depth_pids) if here is not None else 1
        cgroups = Cgroups(f"bessemer/{self.scope}/confined")
        self.cgroups = cgroups if cgroups.available else None
        self.strong = self.root and self.cgroups is not None
        self._users = Users(users) if self.root else None
        self.children: set[int] = set()

    def folder(self, uid: str) -> Path:
        """Where the uid's log and end are kept."""
        return self.state / check_uid(uid)

    def uids(self) -> frozenset[str]:
        """Every uid that may have a process."""
        grouped = self.cgroups.uids() if self.cgroups is not None else frozenset()
        # A state folder may be taken away under its processes.
        return grouped | frozenset(
            os.listdir(self.state) if self.state.is_dir() else _named(self.marker(""), self.depth)
        )

    def usage(self, uid: str) -> Usage | None:
        """What the uid's cgroup counted, if it has one."""
        return self.cgroups.usage(uid) if self.cgroups is not None else None

    def user(self, uid: str) -> int:
        """The numeric user that the uid's process has, or had."""
        known = self._users.find(_owner(self.state, uid)) if self._users is not None else None
        return os.geteuid() if known is None else known

    def inside(self, uid: str) -> list[procfs.Entry]:
        """Every living process behind the uid's walls, bwrap's own included, oldest first."""
        if self.cgroups is not None:
            found = map(procfs.entry, self.cgroups.pids(uid))
        else:
            found = map(procfs.entry, _family(procfs.with_argument(self.marker(uid))))
        return sorted((one for one in found if one is not None), key=lambda one: (one.started_ticks, one.pid))

    def main(self, uid: str) -> procfs.Entry | None:
        """The tenant's process: the second of its pid namespace, whose first is bwrap's."""
        procfs.reap(self.children)
        inner = (one for one in self.inside(check_uid(uid)) if len(one.depth_pids) == self.depth + 1)
        # While it still belongs to root it is on its way out of bwrap, and no tenant's yet.
        return next((one for one in inner if one.depth_pids[-1] == 2 and (one.user or not self.root)), None)

    async def build(self, confined: Confined) -> int:
        """Start the shim and everything below it; returns the shim's pid. Raises OSError or DriverError."""
        await self.end(confined.uid)
        if self.cgroups is not None:
            await self.cgroups.remove(confined.uid)  # with its count of earlier ends for want of memory
        user = self._take_user(confined)
        self._prepare(confined, user)
        pid = self._spawn(confined, user)
        self.children.add(pid)
        return pid

    async def end(self, uid: str) -> None:
        """End all that belongs to the uid, and wait until its shim has written down how."""
        marker = self.marker(uid)
        deadline = asyncio.get_running_loop().time() + _END_SECONDS
        while members := (*procfs.with_argument(marker), *procfs.with_argument(companion(marker))):
            late = asyncio.get_running_loop().time() > deadline - _END_SECONDS / 2
            if asyncio.get_running_loop().time() > deadline:
                raise DriverError("ProcessFailed", "the confined process does not end")
            if self.cgroups is not None:
                await self.cgroups.kill(uid)
            for pid in members:
                # The shim ends by itself once its child is gone; only one that hangs is ended.
                if late or shim.__file__ not in procfs.arguments(pid):
                    procfs.send(pid, signal.SIGKILL)
            await asyncio.sleep(0.005)
            procfs.reap(self.children)
        if self.cgroups is not None:
            await self.cgroups.kill(uid)

    async def settled(self, uid: str) -> None:
        """Wait a moment for the shim of a process that is gone to write down how it went."""
        for _ in range(int(_SETTLE_SECONDS / 0.01)):
            procfs.reap(self.children)
            if not procfs.with_argument(self.marker(uid)):
                return
            await asyncio.sleep(0.01)

    async def remove(self, uid: str) -> None:
        """End what belongs to the uid and leave nothing of it."""
        await self.end(check_uid(uid))
        if self.cgroups is not None:
            await self.cgroups.remove(uid)
        shutil.rmtree(self.folder(uid), ignore_errors=True)
        if self._users is not None:
            self._users.drop(_owner(self.state, uid))

    def marker(self, uid: str) -> str:
        """The word by which the uid's processes are found."""
        return f"{self.scope}/{uid}"

    def _take_user(self, confined: Confined) -> int | None:
        if self._users is None:
            return None
        return confined.user if confined.user is not None else self._users.take(_owner(self.state, confined.uid))

    def _prepare(self, confined: Confined, user: int | None) -> None:
        """Make what must be there before the first process, and forget the last one's end."""
        folder = self.folder(confined.uid)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("exit", "killed", "status"):
            (folder / name).unlink(missing_ok=True)
        (folder / "memory").write_text(str(confined.memory_bytes))
        for source, _ in confined.binds_rw:
            source.mkdir(mode=0o700, parents=True, exist_ok=True)
            if user is not None:
                os.chown(source, user, user, follow_symlinks=False)
        if self.cgroups is not None:
            # Two of the processes are bwrap's.
            limits = Limits(confined.cores_milli, confined.memory_bytes, confined.pids_max + 2, confined.own_cpus)
            self.cgroups.create(confined.uid, limits)

    def _spawn(self, confined: Confined, user: int | None) -> int:
        folder, marker = self.folder(confined.uid), self.marker(confined.uid)
        with ExitStack() as stack:
            options = _memory_file(stack, "\0".join(sandbox.options(confined, root=self.root)).encode())
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
            bwrap += sandbox.inside(confined, user=user, limited=self.cgroups is not None)
            enter = self.cgroups.enter(confined.uid) if self.cgroups is not None else ()
            if confined.own_cpus:
                enter = (*enter, sandbox.TASKSET, "--cpu-list", confined.own_cpus)
            python = (sys.executable, "-I", "-S", shim.__file__, marker, str(folder), ",".join(map(str, keep)), "--")
            return spawn((*python, *enter, *bwrap), env=ENVIRONMENT, output=None, stdin=stdin, keep=keep)


def _named(prefix: str, depth: int) -> set[str]:
    """The uids in shims' command lines. A tenant that takes a shim's name is in a namespace of its own."""
    shims = (procfs.entry(pid) for pid in procfs.with_argument(shim.__file__))
    words = (word for one in shims if one and len(one.depth_pids) == depth for word in procfs.arguments(one.pid))
    return {word.removeprefix(prefix) for word in words if word.startswith(prefix)}


def companion(marker: str) -> str:
    """The word by which what accompanies the marked process is found."""
    return f"{marker}/beside"


def _owner(state: Path, uid: str) -> str:
    """Who holds a numeric user in the host's registry."""
    return f"{state}\n{uid}"


async def trial(*, root: bool) -> None:
    """Put a harmless command behind the walls once. Raises DriverError ``IsolationUnavailable``."""
    missing = [tool for tool in sandbox.TOOLS if not os.access(tool, os.X_OK)]
    if missing:
        raise DriverError("IsolationUnavailable", f"{', '.join(missing)} is not installed (bubblewrap, util-linux)")
    try:
        denied = seccomp.program()
    except KeyError as error:
        raise DriverError("IsolationUnavailable", f"no system call filter is known for {error}") from error
    harmless = Confined("trial", (sandbox.PRLIMIT, "--version"), cores_milli=1000, memory_bytes=64 << 20)
    user = 65534 if root else None
    words = (*sandbox.options(harmless, root=root), "--", *sandbox.inside(harmless, user=user, limited=False))
    with ExitStack() as stack:
        number = _memory_file(stack, denied)
        process = await asyncio.create_subprocess_exec(
            *(sandbox.BWRAP, "--seccomp", str(number), *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
            pass_fds=(number,),
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

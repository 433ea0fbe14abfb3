"""Control groups of workloads, found by uid: limits on cores, memory and processes, and the sure way to end them all.

A group is a directory ``PARENT/UID`` in each hierarchy that counts here: the version 1 hierarchies of cpu, cpuacct,
cpuset, memory and pids where they are mounted, the version 2 hierarchy where there is one. A pure version 2 machine
and a hybrid one (limits on version 1, ``cgroup.kill`` on version 2) are the same code.

Invariants: the kernel's tree is the only record, so nothing is lost with a process of ours; each call may be repeated.

It is no supervisor: it starts nothing. Only root can use it; for everyone else `Cgroups.available` is False.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bessemer.core.cpus import show_cpus
from bessemer.core.errors import DriverError
from bessemer.drivers import cpuset

_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "pids")
_PERIOD_US = 100_000
_ROUNDS = 50
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
_ENTER = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ >"$1" || exit 126; shift; n=$((n-1)); done; exec "$@"'


@dataclass(frozen=True, slots=True)
class Limits:
    """What a group may use; None is no bound. ``milli_cores`` is a quota of time, not a set of cores; ``cpus`` is such
    a set (as ``2-5,58``), and "" what the process that makes the group may use itself."""

    milli_cores: int | None = None
    memory_bytes: int | None = None
    pids: int | None = None
    cpus: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a group uses now. ``oom_kills`` counts processes that the kernel ended for want of memory."""

    memory_bytes: int
    memory_peak_bytes: int
    cpu_seconds: float
    oom_kills: int


class Cgroups:
    """The groups below one ``parent`` (as ``bessemer/STATE/guests``: whoever shares it sees each other's uids)."""

    def __init__(self, parent: str, *, mounts: Path = Path("/proc/self/mounts")) -> None:
        if not all(_NAME.match(part) for part in parent.split("/")):
            raise ValueError(f"not a path of groups: {parent!r}")
        self._parent = parent
        v1, self._v2 = _hierarchies(mounts.read_text())
        # Sets of threads are more than limits are: where they may not be made (in a container) guests run all the same.
        self._v1 = {name: at for name, at in v1.items() if name != "cpuset" or os.access(at, os.W_OK)}
        self._cpusets = cpuset.hierarchy(self._v1, self._v2)

    @property
    def available(self) -> bool:
        """Whether groups can be made here: a hierarchy with a memory controller that this process may write."""
        memory = self._v1.get("memory") or (self._v2 if self._v2 and _offers(self._v2, "memory") else None)
        return memory is not None and os.geteuid() == 0 and os.access(memory, os.W_OK)

    def create(self, uid: str, limits: Limits) -> None:
        """Make the group, or set other limits on the one that is there.

        Raises DriverError ``CgroupRefused``.
        """
        try:
            for mount in self._mounts():
                self._dir(mount, uid).mkdir(parents=True, exist_ok=True)
            if self._v2 is not None:
                _delegate(self._v2, self._parent)
            self._limit(uid, limits)
            self._hold(uid, limits.cpus or show_cpus(os.sched_getaffinity(0)))
        except OSError as error:
            raise DriverError("CgroupRefused", "the kernel refused a control group", internal=str(error)) from error

    def attach(self, uid: str, pid: int) -> None:
        """Move a process in. What it forked before stays outside: prefer `enter`."""
        try:
            for mount in self._mounts():
                _write(self._dir(mount, uid) / "cgroup.procs", pid)
        except OSError as error:
            raise DriverError("CgroupRefused", "a process could not enter its group", internal=str(error)) from error

    def pin(self, uid: str, cpus: str) -> bool:
        """Hold what is inside on those threads; False where no hierarchy here can, or there is no such group.

        Raises DriverError ``CgroupRefused``.
        """
        if not self.pids(uid) and uid not in self.uids():
            return False
        try:
            return self._hold(uid, cpus)
        except OSError as error:
            raise DriverError("CgroupRefused", "the kernel refused threads to a group", internal=str(error)) from error

    def enter(self, uid: str) -> tuple[str, ...]:
        """Words to put before a command's: it enters the group before its first instruction, and keeps its pid. Of
        threads it inherits no choice: the group's hold."""
        files = [str(self._dir(mount, uid) / "cgroup.procs") for mount in self._mounts()]
        free = cpuset.unbound() if self._cpusets is not None else ()
        return ("/bin/sh", "-c", _ENTER, "sh", str(len(files)), *files, *free)

    def pids(self, uid: str) -> frozenset[int]:
        """The processes inside; empty where there is no such group."""
        found: set[int] = set()
        for mount in self._mounts():
            found.update(_ints(self._dir(mount, uid) / "cgroup.procs"))
        return frozenset(found)

    def uids(self) -> frozenset[str]:
        """Every group below the parent, in whichever hierarchy it is left."""
        found: set[str] = set()
        for mount in self._mounts():
            with suppress(FileNotFoundError):  # it goes with the last group in it, also while it is looked at
                found.update(entry.name for entry in (mount / self._parent).iterdir() if entry.is_dir())
        return frozenset(found)

    def usage(self, uid: str) -> Usage | None:
        """What the group uses, or None where there is none."""
        v1 = self._v1.get("memory")
        if v1 is not None:
            group = self._dir(v1, uid)
            cpu = self._dir(self._v1["cpuacct"], uid) / "cpuacct.usage" if "cpuacct" in self._v1 else None
            names = ("memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control")
            seconds = _number(cpu) / 1e9 if cpu else 0.0
        elif self._v2 is not None:
            group = self._dir(self._v2, uid)
            names = ("memory.current", "memory.peak", "memory.events")
            seconds = _table(group / "cpu.stat").get("usage_usec", 0) / 1e6
        else:
            return None
        if not group.is_dir():
            return None
        current, peak, events = (group / name for name in names)
        return Usage(_number(current), _number(peak), seconds, _table(events).get("oom_kill", 0))

    async def kill(self, uid: str, *, timeout_seconds: float = 5.0) -> None:
        """End every process inside and return when none is left. Raises DriverError ``ProcessesLinger``."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        group = self._dir(self._v2, uid) if self._v2 is not None else None
        while pids := self.pids(uid):
            _signal(group, pids)
            if asyncio.get_running_loop().time() > deadline:
                raise DriverError("ProcessesLinger", "processes of the workload do not end")
            await asyncio.sleep(0.01)

    async def remove(self, uid: str) -> None:
        """Kill what is inside and take the group away, from all hierarchies."""
        await self.kill(uid)
        for mount in self._mounts():
            await _rmdir(self._dir(mount, uid))
            _prune(mount / self._parent, mount)

    def _mounts(self) -> tuple[Path, ...]:
        """Each hierarchy once: controllers may share a mount."""
        return tuple(dict.fromkeys([*self._v1.values(), *([self._v2] if self._v2 else [])]))

    def _dir(self, mount: Path, uid: str) -> Path:
        if not _NAME.match(uid):
            raise ValueError(f"not the name of a group: {uid!r}")
        return mount / self._parent / uid

    def _limit(self, uid: str, limits: Limits) -> None:
        for name, mount in self._v1.items():
            for file, value in _v1_settings(name, limits):
                _set_v1(self._dir(mount, uid) / file, value)
        if self._v2 is None:
            return
        group = self._dir(self._v2, uid)
        for file, words in _v2_settings(limits):
            if (group / file).exists():
                _write(group / file, words)

    def _hold(self, uid: str, cpus: str) -> bool:
        if self._cpusets is None:
            return False
        if self._cpusets == self._v2:
            _delegate(self._v2, self._parent)
        group = self._dir(self._cpusets, uid)
        cpuset.hold(group, cpus, mount=self._cpusets)
        for _ in range(_ROUNDS):  # what an earlier release put into the other hierarchies only, and what that forks
            if not (outside := self.pids(uid) - set(_ints(group / "cgroup.procs")) - {0}):
                break
            for pid in outside:
                with suppress(ProcessLookupError):
                    _write(group / "cgroup.procs", pid)
        return True


def _delegate(mount: Path, parent: str) -> None:
    """Hand the controllers of a version 2 tree down to the groups below the parent: each level must pass them on."""
    wanted = [f"+{name}" for name in ("cpu", "cpuset", "memory", "pids") if _offers(mount, name)]
    level = mount
    for part in (*parent.split("/"), ""):
        if wanted:
            _write(level / "cgroup.subtree_control", " ".join(wanted))
        level = level / part


def _signal(group: Path | None, pids: frozenset[int]) -> None:
    """Kill a group: at once where it is of version 2, else process by process."""
    if group is not None and (group / "cgroup.kill").exists():
        with suppress(OSError):  # it may be gone by now
            _write(group / "cgroup.kill", 1)
    # A process that cannot be seen from here is listed as 0, which to kill means this process's own group.
    for pid in pids - {0}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _hierarchies(mounts: str) -> tuple[Mapping[str, Path], Path | None]:
    """Read ``/proc/mounts``: version 1 mounts by controller, and the version 2 mount."""
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for line in mounts.splitlines():
        _, at, kind, options = line.split()[:4]
        if kind == "cgroup2" and v2 is None:
            v2 = Path(at)
        if kind == "cgroup":
            v1.update({name: Path(at) for name in _CONTROLLERS if name in options.split(",")})
    return v1, v2


def _v1_settings(controller: str, limits: Limits) -> Sequence[tuple[str, int]]:
    memory = -1 if limits.memory_bytes is None else limits.memory_bytes
    quota = -1 if limits.milli_cores is None else max(1000, limits.milli_cores * _PERIOD_US // 1000)
    table: Mapping[str, Sequence[tuple[str, int]]] = {
        "cpu": (("cpu.cfs_period_us", _PERIOD_US), ("cpu.cfs_quota_us", quota)),
        # Memory and memory with swap bound each other: lifting the second bound first lets the first take any value.
        "memory": (
            ("memory.memsw.limit_in_bytes", -1),
            ("memory.limit_in_bytes", memory),
            ("memory.memsw.limit_in_bytes", memory),
        ),
        "pids": (("pids.max", -1 if limits.pids is None else limits.pids),),
    }
    return table.get(controller, ())


def _v2_settings(limits: Limits) -> Sequence[tuple[str, str]]:
    quota = "max" if limits.milli_cores is None else str(max(1000, limits.milli_cores * _PERIOD_US // 1000))
    return (
        ("cpu.max", f"{quota} {_PERIOD_US}"),
        ("memory.max", "max" if limits.memory_bytes is None else str(limits.memory_bytes)),
        ("memory.swap.max", "max" if limits.memory_bytes is None else "0"),
        ("memory.oom.group", "1"),
        ("pids.max", "max" if limits.pids is None else str(limits.pids)),
    )


def _set_v1(file: Path, value: int) -> None:
    """Write a version 1 setting; one that this kernel lacks (swap accounting) is passed over."""
    if file.exists():
        _write(file, "max" if file.name == "pids.max" and value < 0 else value)


def _write(file: Path, value: int | str) -> None:
    with open(file, "w", encoding="ascii") as stream:
        stream.write(str(value))


def _offers(mount: Path, controller: str) -> bool:
    try:
        return controller in (mount / "cgroup.controllers").read_text().split()
    except OSError:
        return False


def _ints(file: Path) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in file.read_text().split())
    except OSError:
        return ()


def _number(file: Path) -> int:
    found = _ints(file)
    return found[0] if found else 0


def _table(file: Path) -> Mapping[str, int]:
    try:
        rows = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


async def _rmdir(group: Path) -> None:
    """Remove an empty group. The kernel may hold it for a moment after its last process is gone."""
    for _ in range(200):
        try:
            os.rmdir(group)
        except FileNotFoundError:
            return
        except OSError:
            await asyncio.sleep(0.01)
        else:
            return
    raise DriverError("ProcessesLinger", "a control group cannot be removed", internal=str(group))


def _prune(directory: Path, mount: Path) -> None:
    """Take away the parents that have become empty, so that an idle machine shows no trace of us."""
    while directory != mount:
        try:
            directory.rmdir()
        except OSError:
            return
        directory = directory.parent

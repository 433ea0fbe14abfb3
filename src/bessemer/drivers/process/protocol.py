"""What can be asked of processes.

Two uses that share nothing but the word. `Parts` are our own processes, supervised by ``bessemer up``: trusted, found
again by a marker in their command line, restarted by the caller. `Processes` are tenants' code on a shared host:
hostile, each under a user of its own with its own namespaces, limits and a bounded log. A confined process outlives
the agent that started it; pid files are never trusted, a process is known by its uid and its start time.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from bessemer.core.errors import Invalid

_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Command:
    """One of our own processes.

    ``marker`` is the last argument of ``argv``, or the last ones joined by blanks (``api --state /var/lib/x``), by
    which the process is found again. ``env`` is the whole environment; without it the caller's is handed on.
    """

    name: str
    argv: tuple[str, ...]
    marker: str
    log_path: Path
    env: Mapping[str, str] | None = None
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A process for certain: a pid together with its start, in clock ticks since the machine's boot."""

    pid: int
    started_ticks: int


class Parts(Protocol):
    """Our own processes. Each method may raise DriverError ``ProcessFailed``."""

    async def start(self, command: Command) -> Part:
        """Start it in a session of its own, output appended to its log. Doing so twice starts two: `find` first."""
        ...

    async def find(self, marker: str) -> tuple[Part, ...]:
        """All living session leaders of this user whose command line ends with the marker, oldest first."""
        ...

    async def alive(self, part: Part) -> bool:
        """Whether that very process still runs; a zombie does not."""
        ...

    async def ended(self, part: Part) -> None:
        """Return once that very process has ended, whoever started it; costs nothing meanwhile."""
        ...

    async def stop(self, part: Part, *, grace_seconds: float = 5.0) -> None:
        """SIGTERM, and after the grace SIGKILL to its whole session. Returns when it is gone; twice is fine."""
        ...


class Companions(Protocol):
    """Processes of ours beside a confined one: trusted, outside its namespaces, and gone when it is killed."""

    async def accompany(self, uid: str, argv: Sequence[str], *, keep: Sequence[int] = ()) -> Part:
        """Start one beside the living process of the uid; it inherits the descriptors. Raises ``ProcessFailed``."""
        ...

    async def companions(self, uid: str) -> tuple[tuple[Part, tuple[str, ...]], ...]:
        """Those that live, with their command lines, oldest first."""
        ...


class Isolation(StrEnum):
    """How strong the walls around a confined process are on this host."""

    STRONG = "strong"
    """A user id that nothing else has, set by root; own namespaces; cgroup limits; seccomp."""
    WEAK = "weak"
    """The agent's own user behind a user namespace; limits as far as the host allows."""


@dataclass(frozen=True, slots=True)
class Confined:
    """A tenant's process.

    It sees ``/usr/lib`` and ``/lib*``, the binds (host path, path inside), a minimal ``/dev``, its own ``/proc`` and a
    private ``/tmp`` of ``tmp_bytes``; it has no network, or with ``network`` its host's. ``env`` is its whole
    environment. ``stdin`` is handed to it once and is the way for secrets, since no other process can read it. A
    directory in ``binds_rw`` that does not exist is made, and given to the process's user. ``user`` fixes its numeric
    user; without it one is allocated that no other process has. ``devices`` are files below ``/dev`` that it may open
    as far as their modes let it. It runs on ``own_cpus`` (threads of the host, as 2-5,58) and on no others; "" wherever
    its host's agent does.
    """

    uid: str
    argv: tuple[str, ...]
    cores_milli: int
    memory_bytes: int
    env: Mapping[str, str] = field(default_factory=dict)
    binds_ro: tuple[tuple[Path, str], ...] = ()
    binds_rw: tuple[tuple[Path, str], ...] = ()
    pids_max: int = 256
    tmp_bytes: int = 64 << 20
    network: bool = False
    devices: tuple[Path, ...] = ()
    user: int | None = None
    own_cpus: str = ""
    stdin: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Running:
    """A confined process that lives: the tenant's own pid as the host sees it, its start in ticks since boot."""

    uid: str
    pid: int
    started_ticks: int
    user: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What a confined process uses now and has used; CPU and peak count from its start. ``read_bytes`` is what those of
    its processes that live have had fetched from disks; 0 where the host does not say. ``resident_bytes`` is what they
    have in memory now, also of files that others had read before and that count as the others': as a sum over them."""

    memory_bytes: int
    memory_peak_bytes: int
    cpu_seconds: float
    pids: int
    read_bytes: int = 0
    resident_bytes: int = 0


class End(StrEnum):
    """Why a confined process is no more."""

    EXITED = "Exited"
    """It left by itself with status 0."""
    CRASHED = "Crashed"
    """A status other than 0, a signal, or an end that nobody saw (the host went down)."""
    OUT_OF_MEMORY = "OutOfMemory"
    """The kernel ended it at its memory limit."""
    KILLED = "Killed"
    """We ended it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended. ``code`` is its exit status, 128 + N after signal N, None where nobody saw it."""

    reason: End
    code: int | None
    message: str


def check_uid(uid: str) -> str:
    """The uid itself. Raises Invalid for what could not stand in a path, a cgroup's name and a command line."""
    if _UID.fullmatch(uid) is None:
        raise Invalid(f"not a uid of a process: {uid[:63]!r} (1 to 63 letters, digits, -, _ and .)")
    return uid


class Processes(Protocol):
    """Confined processes, by the uid of what they are for (1 to 63 letters, digits, ``-``, ``_``, ``.``).

    Raises DriverError: ``ProcessFailed`` (it could not be started), ``IsolationUnavailable`` (this host cannot
    confine), ``DiskFull``.
    """

    async def isolation(self) -> Isolation:
        """What `start` gives here; raises ``IsolationUnavailable`` where it gives nothing."""
        ...

    async def start(self, confined: Confined) -> Running:
        """Start it, or return the one that runs under this uid. Forgets how an earlier one of the uid ended."""
        ...

    async def find(self, uid: str) -> Running | None:
        """The living process of the uid."""
        ...

    async def running(self) -> tuple[Running, ...]:
        """All that live, by uid."""
        ...

    async def kill(self, uid: str) -> None:
        """End it and all it started, at once; returns when they are gone. Its log and its end can still be read."""
        ...

    async def remove(self, uid: str) -> None:
        """`kill`, and leave nothing behind: no log, no cgroup, no user. A uid that never was is fine."""
        ...

    async def stats(self, uid: str) -> Stats | None:
        """What the living process uses; None where none lives."""
        ...

    async def ended(self, uid: str) -> Ended | None:
        """How the last process of the uid ended; None while it lives, or when there never was one."""
        ...

    def log(self, uid: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        """Its output from the oldest byte kept; with ``follow`` also what comes until it ends. Ends at once if unknown.

        The log is bounded: of a chatty process the oldest output goes first, and a slow follower misses some.
        """
        ...

"""What can be asked of a host about the members of jobs.

A member is a confined process that is started once, on its host's network, and ends by itself: `Jobs.ended` says how
until it is removed, whoever asks and however often. It outlives the agent and is found by the Claim's uid.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from bessemer.drivers.process.protocol import Ended

SCRIPT = "/tmp/script"
"""Where a member finds its script, and beside it `HOSTFILE`."""

HOSTFILE = "/tmp/hosts"
SCRIPT_BYTES_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class MemberSpec:
    """One member. ``words`` are its command line, ``env`` its environment but for ``PATH`` and ``HOME``; ``script``
    lies at `SCRIPT` and ``hosts`` at `HOSTFILE`. Of the host's devices it can open those with the ids ``devices``. It
    works in ``/tmp``, which is its own, in memory, and counts as such. It runs on ``own_cpus`` alone, where it
    has some.
    """

    uid: str
    words: tuple[str, ...]
    cores_milli: int
    memory_bytes: int
    script: str = ""
    hosts: str = ""
    devices: tuple[str, ...] = ()
    own_cpus: str = ""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunningMember:
    """A member that lives."""

    uid: str
    pid: int
    started_ticks: int


class Jobs(Protocol):
    """Members of jobs on one host, by Claim uid. Each method may raise what `Processes` raises."""

    async def start(self, member: MemberSpec) -> RunningMember:
        """Start it, or return the one that runs under this uid. One that has ended would be started anew: ask `ended`
        first."""
        ...

    async def find(self, uid: str) -> RunningMember | None:
        """The living member of the uid."""
        ...

    async def running(self) -> tuple[RunningMember, ...]:
        """All that live, by uid."""
        ...

    async def uids(self) -> frozenset[str]:
        """Every uid of which anything is left: a process, its output, how it ended."""
        ...

    async def ended(self, uid: str) -> Ended | None:
        """How it ended; None while it lives, or where there never was one."""
        ...

    def log(self, uid: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        """What it printed, as `Processes.log`."""
        ...

    async def keep(self, uid: str, name: str) -> None:
        """Keep what it printed under that name (as a uid's), also once it is removed; within the host's bounds, the
        oldest goes first. Where nothing is left of it, what was kept stays."""
        ...

    def kept(self, name: str) -> AsyncIterator[bytes]:
        """What was kept. Ends at once if nothing was."""
        ...

    async def kill(self, uid: str) -> None:
        """End it and all it started; its output and its end can still be read."""
        ...

    async def remove(self, uid: str) -> None:
        """`kill`, and leave nothing behind. A uid that never was is fine."""
        ...

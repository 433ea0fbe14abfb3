"""What can be asked of virtual machines: one QEMU process per guest.

Invariants: a guest is known by its uid, which stands in its command line, and by its process's start time; a pid is a
hint. A guest outlives the agent that started it, holds no pipe to it, and a new driver object finds it again. At most
one process of a uid runs at any time, whoever starts it. Each call may be repeated after a crash.

What a guest says (report, log, console) is hostile input: bytes, bounded here, judged elsewhere.

It is no scheduler and keeps no intent: whether a guest should run is decided above.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

REPORT_READ_LIMIT_BYTES = 64 << 10
"""No more of a report is ever read, nor kept."""

OVERHEAD_BYTES = 384 << 20
"""What QEMU may use above the guest's memory: devices, firmware, and translated code where there is no KVM."""

Accel = Literal["kvm", "tcg"]


@dataclass(frozen=True, slots=True)
class NumaCell:
    """A NUMA node of the guest, as a node of the host: its memory lies on ``host_node`` (in huge pages for certain, in
    ordinary ones while there are some) and its CPUs run on ``own_cpus``, or where that node's threads are free for all.
    Not ``bound``, its memory lies anywhere. Either of CPUs and memory may be none."""

    cpus: int
    memory_bytes: int
    host_node: int | None = None
    own_cpus: str = ""
    bound: bool = True


@dataclass(frozen=True, slots=True)
class GuestDevice:
    """A device handed into the guest. ``properties`` are its own words for QEMU, ``driver`` among them. It hangs under
    ``switch`` (whatever that is called on the host; "" from the root) on the root of the host's node ``host_node``."""

    device: str
    properties: Mapping[str, str | int | bool]
    switch: str = ""
    host_node: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """A guest to run. ``image`` is content with digest ``sha256:HEX``; cells of ``numa`` add up to the whole, and have
    the distances of ``distances`` (a row for each cell), or those between their nodes on the host. It runs on
    ``own_cpus`` (threads of the host, as 2-5,58) and on no others; "" wherever there is time. Its memory lies in huge
    pages of ``page_bytes``; 0: in ordinary ones. ``tree`` are devices handed to it; ``nodes`` are the device files by
    which QEMU reaches them, and which its user may open from then on."""

    uid: str
    name: str
    cpus: int
    memory_bytes: int
    image: Path
    image_digest: str
    disks: tuple[Path, ...] = ()
    seed: Path | None = None
    accel: Accel = "tcg"
    numa: tuple[NumaCell, ...] = ()
    distances: tuple[tuple[int, ...], ...] = ()
    own_cpus: str = ""
    page_bytes: int = 0
    tree: tuple[GuestDevice, ...] = ()
    nodes: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Running:
    """A guest's process. ``started_at`` is the kernel's start time in ticks since boot: with the pid it names one
    process for ever."""

    uid: str
    pid: int
    started_at: int


@dataclass(frozen=True, slots=True)
class GuestState:
    """``status`` is QMP's word: running, paused, shutdown, guest-panicked, internal-error, io-error …"""

    status: str
    uptime_seconds: float


class Console(Protocol):
    """The serial console as a duplex stream. Close it: there is one at a time."""

    async def read(self) -> bytes:
        """The next bytes, at most 64 KiB; ``b""`` when the guest is gone."""
        ...

    async def write(self, data: bytes) -> None:
        """Type into it. DriverError ``GuestNotRunning`` once the guest is gone."""
        ...

    async def close(self) -> None:
        """Let go of it, so that the next may attach."""
        ...


class Qemu(Protocol):
    """Guests of one state directory. Where nothing else is said, a uid that does not run is no error."""

    async def start(self, spec: MachineSpec) -> Running:
        """Start the guest, or find the one that runs. Returns when QEMU answers, not when the guest is up.

        Raises DriverError ``DigestMismatch``, ``ImageInvalid``, ``DiskFull``, ``DiskInUse``, ``OutOfMemory``,
        ``CgroupRefused``, ``IsolationUnavailable``, ``PassthroughUnavailable``, ``QemuMissing``,
        ``GuestStartFailed``.
        """
        ...

    async def find(self, uid: str) -> Running | None:
        """The guest's process, or None."""
        ...

    async def running(self) -> tuple[Running, ...]:
        """All guests of this state directory that run, by uid."""
        ...

    async def uids(self) -> frozenset[str]:
        """Every uid of which anything is left: a process, a directory, a control group."""
        ...

    async def report(self, uid: str) -> bytes | None:
        """What the guest has written to its report port since it booted, cut at `REPORT_READ_LIMIT_BYTES`; None for
        nothing yet. Reading takes nothing away: every agent reads the same."""
        ...

    async def state(self, uid: str) -> GuestState | None:
        """How the guest does, or None where it does not run. Raises DriverError ``GuestUnresponsive``."""
        ...

    async def shutdown(self, uid: str, grace_seconds: float) -> None:
        """Press the power button; what has not gone by itself after the grace is ended. Returns when it is gone."""
        ...

    async def kill(self, uid: str) -> None:
        """End the process at once. Returns when it is gone."""
        ...

    async def remove(self, uid: str) -> None:
        """End it and take away all that `uids` would name: log, sockets, control group."""
        ...

    def log(self, uid: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        """The serial log from its oldest kept byte, in pieces; with ``follow`` also what comes, until the guest is
        gone. The kept log survives the guest and a restart of it, until `remove`."""
        ...

    async def console(self, uid: str) -> Console:
        """Attach to the serial console. Raises DriverError ``GuestNotRunning``, ``ConsoleBusy``."""
        ...

    async def last_words(self, uid: str) -> str:
        """The end of what QEMU itself wrote to its error output, for the log: at most 2 KiB, "" for nothing."""
        ...

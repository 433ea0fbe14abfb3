"""Reading ``/proc``: who runs, since when, under which words. A process that ends meanwhile is just not there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Entry:
    """One living process. ``depth_pids`` are its pids from this namespace inwards; ``cpu_ticks`` user and system."""

    pid: int
    parent: int
    session: int
    started_ticks: int
    state: str
    cpu_ticks: int
    resident_bytes: int
    user: int
    depth_pids: tuple[int, ...]


def entry(pid: int) -> Entry | None:
    """The process, or None when it is gone or only a zombie is left of it."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
        status = (_PROC / str(pid) / "status").read_text()
    except OSError:
        return None
    # The command in brackets may hold anything, brackets and blanks included.
    words = stat[stat.rindex(")") + 2 :].split()
    if words[0] in "ZX":
        return None
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return Entry(
        pid=pid,
        parent=int(words[1]),
        session=int(words[3]),
        started_ticks=int(words[19]),
        state=words[0],
        cpu_ticks=int(words[11]) + int(words[12]),
        resident_bytes=int(words[21]) * os.sysconf("SC_PAGE_SIZE"),
        user=int(lines["Uid"].split()[0]),
        depth_pids=tuple(int(number) for number in lines.get("NSpid", str(pid)).split()),
    )


def read_bytes(pid: int) -> int:
    """What the process has had fetched from disks, mapped files included; 0 where that may not be known."""
    try:
        lines = (_PROC / str(pid) / "io").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("read_bytes:")), 0)


def arguments(pid: int) -> tuple[str, ...]:
    """The command line, or nothing."""
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(raw.decode("utf-8", "replace").rstrip("\0").split("\0"))


def pids() -> Iterator[int]:
    """Every process that can be seen."""
    return (int(name) for name in os.listdir(_PROC) if name.isdigit())


def with_argument(word: str) -> tuple[int, ...]:
    """The processes that have the word as one of their arguments."""
    return tuple(pid for pid in pids() if word in arguments(pid))


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process; one that is gone needs none."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def reap(children: set[int]) -> None:
    """Take leave of those of our children that ended, so that no zombie stays."""
    for pid in list(children):
        try:
            done, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            done = pid
        if done:
            children.discard(pid)

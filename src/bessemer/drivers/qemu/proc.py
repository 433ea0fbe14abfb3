"""Guests' processes as the kernel shows them: the truth behind every pid that is written anywhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from bessemer.drivers.qemu.machine import uid_of
from bessemer.drivers.qemu.protocol import Running

_TICKS = os.sysconf("SC_CLK_TCK")
_START, _STATE = 19, 0
"""Fields of ``/proc/PID/stat`` counted behind the command's closing parenthesis."""


def guests(home: Path) -> Iterator[Running]:
    """Every guest whose process works below ``home`` (its directory there is its working directory)."""
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        uid = uid_of(_argv(pid))
        started_at = _started_at(pid) if uid else None
        if uid and started_at is not None and _cwd(pid) == str(home / uid):
            yield Running(uid, pid, started_at)


def find(home: Path, uid: str) -> Running | None:
    """The guest's process below ``home``, or None."""
    return next((guest for guest in guests(home) if guest.uid == uid), None)


def alive(process: Running) -> bool:
    """Whether that very process runs, and is no zombie."""
    return _started_at(process.pid) == process.started_at


def uptime_seconds(process: Running) -> float:
    """Since the process started, whatever the wall clock did meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - process.started_at / _TICKS


def _argv(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read().decode(errors="replace").split("\0")
    except OSError:
        return []


def _started_at(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[_STATE] in {b"Z", b"X"} else int(fields[_START])


def _cwd(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)")
    except OSError:
        return ""

"""The heap lies in huge pages, where the system has them: of pages of 4 KiB a processor knows the places of few.

A control plane that follows a fleet reads here and there in hundreds of megabytes, and on a machine that is a guest
itself each place that is not known costs two dozen reads. So what is in memory as a whole is brought together, two
megabytes at a time, each few seconds; what has holes stays as it is, for then they would be memory, too. It is an
advice (Linux 6.1 and later, madvise(2), MADV_COLLAPSE): nothing of what is there changes, and where the system has none
to give all goes on without.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from bessemer.core.clock import Clock

LOOK_SECONDS = 15.0
_REST = 4
"""Times as long as one took, a millisecond or a few, until the next: who wants new memory waits for each."""

HUGE_BYTES = 2 << 20
_PAGE_BYTES = 4 << 10
_THERE = 15 * (HUGE_BYTES // _PAGE_BYTES) // 16
"""Pages of a huge one that are in memory, for it to be worth the others."""

_COLLAPSE = 25
_MAPS = Path("/proc/self/maps")


async def bring_together(clock: Clock) -> None:
    """For ever, until the system says that it cannot."""
    system = ctypes.CDLL(None, use_errno=True)
    can, end = hasattr(system, "madvise") and hasattr(system, "mincore"), threading.Event()
    try:
        while can:
            await clock.sleep(LOOK_SECONDS)
            can = await asyncio.to_thread(_bring_all, system, end)
    finally:
        end.set()  # else the process would end only after what is under way


def _bring_all(system: ctypes.CDLL, end: threading.Event) -> bool:
    try:
        return bring(system, whole(_MAPS.read_text()), end=end)
    except OSError:  # it does not say what is mapped
        return False


def bring(system: ctypes.CDLL, starts: Iterable[int], *, end: threading.Event) -> bool:
    """What begins there, as far as it is in memory, until it is to end. Whether the system does so at all."""
    there = ctypes.create_string_buffer(HUGE_BYTES // _PAGE_BYTES)
    for start in starts:
        at, size = ctypes.c_void_p(start), ctypes.c_size_t(HUGE_BYTES)
        if system.mincore(at, size, there) or there.raw.count(1) < _THERE:
            continue  # not there any more, or not much of it
        began = time.perf_counter()
        if system.madvise(at, size, _COLLAPSE) and ctypes.get_errno() == errno.EINVAL:
            return False
        if end.wait(_REST * (time.perf_counter() - began)):
            break
    return True


def whole(maps: str) -> Iterator[int]:
    """Where each huge page begins that lies in what the process has for itself, of no file. ``maps`` is as proc(5) has
    it."""
    for line in maps.splitlines():
        span, rights, _, _, inode, *name = line.split(maxsplit=5)
        if rights != "rw-p" or inode != "0" or (name and name[0] != "[heap]"):
            continue
        start, end = (int(one, 16) for one in span.split("-"))
        yield from range(-(-start // HUGE_BYTES) * HUGE_BYTES, end - HUGE_BYTES + 1, HUGE_BYTES)

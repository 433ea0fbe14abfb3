"""Huge pages: what is in memory as a whole is brought together, and nothing of it changes."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from bessemer.core.clock import FakeClock, settle
from bessemer.main import hugepages
from bessemer.main.hugepages import HUGE_BYTES, LOOK_SECONDS, bring, bring_together, whole

_MAPS = """\
000000400000-000000c00000 rw-p 00000000 00:00 0                          [heap]
7f0000100000-7f0000700000 rw-p 00000000 00:00 0
7f0001000000-7f0001400000 r--p 00000000 00:00 0
7f0002000000-7f0002400000 rw-p 00000000 fe:01 4711                       /var/lib/some file
7f0003000000-7f0003400000 rw-s 00000000 00:01 12                         /dev/zero (deleted)
7f0004000000-7f00041ff000 rw-p 00000000 00:00 0
7ffd00000000-7ffd00400000 rw-p 00000000 00:00 0                          [stack]
"""


class System:
    """Of which ``missing`` is not in memory, and which answers an advice with ``error``."""

    def __init__(self, *, missing: int = 0, error: int = 0) -> None:
        self.brought: list[int] = []
        self._missing, self._error = missing, error

    def mincore(self, at: ctypes.c_void_p, size: ctypes.c_size_t, there: Any) -> int:
        pages = len(there.raw)
        there.raw = bytes(self._missing) + b"\1" * (pages - self._missing)
        return 0

    def madvise(self, at: ctypes.c_void_p, size: ctypes.c_size_t, advice: int) -> int:
        assert size.value == HUGE_BYTES
        self.brought.append(at.value or 0)
        ctypes.set_errno(self._error)
        return -1 if self._error else 0


def test_of_what_is_mapped_only_its_own_memory_is_meant() -> None:
    assert [*map(hex, whole(_MAPS))] == [
        *("0x400000", "0x600000", "0x800000", "0xa00000"),
        *("0x7f0000200000", "0x7f0000400000"),
    ]


@pytest.mark.parametrize(("missing", "brought"), [(0, 1), (32, 1), (33, 0), (512, 0)])
def test_what_has_holes_stays_as_it_is(missing: int, brought: int) -> None:
    system: Any = System(missing=missing)
    assert bring(system, [HUGE_BYTES], end=Event())
    assert len(system.brought) == brought


def test_where_one_cannot_be_had_the_next_is_tried_and_where_none_can_it_ends() -> None:
    system: Any = System(error=errno.EAGAIN)
    assert bring(system, [HUGE_BYTES, 2 * HUGE_BYTES], end=Event())
    assert system.brought == [HUGE_BYTES, 2 * HUGE_BYTES]
    system = System(error=errno.EINVAL)
    assert not bring(system, [HUGE_BYTES, 2 * HUGE_BYTES], end=Event())
    assert system.brought == [HUGE_BYTES]


def test_it_ends_where_the_process_does() -> None:
    system: Any = System()
    (end := Event()).set()
    assert bring(system, [HUGE_BYTES, 2 * HUGE_BYTES], end=end)
    assert system.brought == [HUGE_BYTES]


async def test_who_is_cancelled_has_it_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, clock = list[Event](), FakeClock()
    monkeypatch.setattr(hugepages, "bring", lambda system, starts, end: ends.append(end) or end.wait(5))
    task = asyncio.create_task(bring_together(clock))
    await settle()
    await clock.advance(LOOK_SECONDS)
    async with asyncio.timeout(5):
        while not ends:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert ends[0].is_set()


async def test_it_goes_on_for_as_long_as_the_system_can(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, clock = [True, True, False], FakeClock()
    monkeypatch.setattr(hugepages, "bring", lambda system, starts, end: answers.pop(0))
    task = asyncio.create_task(bring_together(clock))
    for left in (2, 1, 0):
        await settle()
        await clock.advance(LOOK_SECONDS)
        async with asyncio.timeout(5):
            while len(answers) > left:
                await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await task
    assert not answers, "and no longer"


def test_memory_is_as_it_was() -> None:
    said = bytes(range(256)) * (4 * HUGE_BYTES // 256)
    with mmap.mmap(-1, len(said), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(said)
        at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        starts = [one for one in whole(Path("/proc/self/maps").read_text()) if at <= one < at + len(said) - HUGE_BYTES]
        assert len(starts) >= 2
        bring(ctypes.CDLL(None, use_errno=True), starts, end=Event())
        assert memory[:] == said

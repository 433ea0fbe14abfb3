"""The log of a process is JSON, line by line, whatever is told in it."""

from __future__ import annotations

import asyncio
import ctypes
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from bessemer.api import requestlog
from bessemer.core.clock import FakeClock, settle
from bessemer.main import process
from bessemer.main.process import set_up_logs
from tests.logs import logs_kept

TELL = r"""
import structlog
from pathlib import Path
from bessemer.main.process import set_up_logs
set_up_logs()
log = structlog.get_logger("test")
log.info("plain", name="é", path=Path("/x"))
log.info("odd", name="file\udcff", big=1 << 70)
try:
    raise ValueError("no \udcff")
except ValueError:
    log.exception("failed")
log.debug("not told")
"""


def test_each_line_is_json_whatever_is_told() -> None:
    said = subprocess.run([sys.executable, "-c", TELL], capture_output=True, check=True, timeout=180)
    plain, odd, failed = [json.loads(line) for line in said.stdout.splitlines()]
    assert (plain["event"], plain["level"], plain["name"], plain["path"]) == ("plain", "info", "é", "PosixPath('/x')")
    assert plain["timestamp"].endswith("Z")
    assert (odd["name"], odd["big"]) == ("file\udcff", 1 << 70)
    assert "ValueError: no" in failed["exception"]
    assert said.stderr == b""


def test_a_process_that_a_test_began_in_ours_leaves_no_log_behind() -> None:
    """What tests capture of a log must not hang on which tests came before in the same process."""
    before = structlog.get_config()
    with logs_kept():
        set_up_logs()
        requestlog.log.info("told")
    assert structlog.get_config() == before
    with capture_logs() as logs:
        requestlog.log.debug("captured")
    assert [line["event"] for line in logs] == ["captured"]


HOLES = r"""
import asyncio, sys
from bessemer.core.clock import FakeClock, settle
from bessemer.main import process
from tests.main.test_process import resident

async def main():
    clock = FakeClock()
    giving = asyncio.create_task(process.give_back(clock))
    await settle()
    rows = [b"%04d" % (n % 9999) * 500 for n in range(40_000)]
    rows = rows[::4000]
    full = resident()
    if "busy" in sys.argv:
        ticks = iter(range(1000))
        process.time.process_time = lambda: float(next(ticks))
    await clock.advance(61)
    await settle()
    await clock.advance(1.1)
    for _ in range(50 if "busy" in sys.argv else 3000):
        await asyncio.sleep(0.01)
        if resident() < full - 60:
            break
    giving.cancel()
    print(int(full - resident()))

asyncio.run(main())
"""


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / (1 << 20)


def test_what_was_freed_is_given_back_while_something_of_it_is_kept() -> None:
    assert given_back() > 60, "of 76 MiB, of which ten small pieces are kept"


def test_while_much_is_asked_of_a_process_it_gives_nothing_back() -> None:
    """Whoever wanted memory would wait for it."""
    assert given_back("busy") < 10


async def test_where_little_was_freed_nothing_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    heap = Heap()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: heap)
    clock, holes = FakeClock(), [100 << 20, 40 << 20, 50 << 20, 57 << 20, 41 << 20]
    monkeypatch.setattr(process, "_holes", lambda _: holes.pop(0))
    monkeypatch.setattr(time, "process_time", lambda: 0.0)
    giving = asyncio.create_task(process.give_back(clock))
    for left, trims in ((3, 1), (2, 1), (0, 2)):
        for seconds in (61, 2):
            await settle()
            await clock.advance(seconds)
        async with asyncio.timeout(60):
            while len(holes) > left:
                await asyncio.sleep(0.001)
        assert heap.trims == trims
    giving.cancel()


class Heap:
    """A C library whose trims are counted."""

    def __init__(self) -> None:
        self.trims = 0

    def malloc_trim(self, _pad: int) -> None:
        self.trims += 1


def given_back(*words: str) -> int:
    """MiB, by a process of which most was freed."""
    root = Path(__file__).parents[2]
    said = subprocess.run([sys.executable, "-c", HOLES, *words], capture_output=True, check=True, timeout=180, cwd=root)
    return int(said.stdout)

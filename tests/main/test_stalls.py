"""Stalls: a turn of the event loop that takes long is told with where it was."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest
from structlog.testing import capture_logs

from bessemer.core.clock import FakeClock, settle
from bessemer.main.stalls import APART_SECONDS, CALLS, LONG_SECONDS, Stalls, calls


class Working(FakeClock):
    """A clock that moves while somebody works."""

    def work(self, seconds: float) -> None:
        self._monotonic += seconds


def held_up(stalls: Stalls, clock: Working, seconds: float) -> None:
    """A turn that takes so long, at which another thread looks twice."""
    clock.work(seconds)
    for _ in range(2):
        looking = threading.Thread(target=stalls.look)
        looking.start()
        looking.join()


def told(stalls: Stalls) -> list[dict[str, object]]:
    with capture_logs() as lines:
        stalls.turned()
    return [dict(line) for line in lines]


@pytest.fixture
def clock() -> Working:
    return Working()


@pytest.fixture
def stalls(clock: Working) -> Stalls:
    made = Stalls(clock)
    made.begin()
    return made


def test_a_long_turn_is_told_with_where_it_was(stalls: Stalls, clock: Working) -> None:
    held_up(stalls, clock, 1.5)
    (line,) = told(stalls)
    assert (line["event"], line["seconds"], line["log_level"]) == ("the event loop was held up", 1.5, "warning")
    at = line["at"]
    assert isinstance(at, list)
    assert len(at) == CALLS
    assert any(call.startswith("test_stalls.py:held_up:") for call in at)
    assert (stalls.number, stalls.seconds) == (1, 1.5)


def test_a_short_turn_is_none(stalls: Stalls, clock: Working) -> None:
    held_up(stalls, clock, LONG_SECONDS * 0.9)
    assert told(stalls) == []
    held_up(stalls, clock, LONG_SECONDS * 0.9)
    assert told(stalls) == []
    assert stalls.number == 0


def test_what_is_told_of_one_turn_is_not_told_of_the_next(stalls: Stalls, clock: Working) -> None:
    held_up(stalls, clock, 1.0)
    assert len(told(stalls)) == 1
    assert told(stalls) == []
    assert stalls.number == 1


def test_many_are_counted_and_few_told(stalls: Stalls, clock: Working) -> None:
    lines = 0
    for _ in range(30):
        held_up(stalls, clock, 1.0)
        lines += len(told(stalls))
    assert lines == 3 == int(30 / APART_SECONDS)
    values = {sample.name: sample.value for metric in stalls.collect() for sample in metric.samples}
    assert values == {"bessemer_event_loop_stalls_total": 30, "bessemer_event_loop_stall_seconds_total": 30.0}


def test_calls_of_ours_are_named_by_their_room() -> None:
    found = list[str]()

    class Asked(FakeClock):
        def monotonic(self) -> float:
            found.extend(calls(sys._getframe().f_back))
            return 0.0

    Stalls(Asked()).begin()
    assert found[0].startswith("main/stalls.py:begin:")
    assert calls(None) == []


async def test_it_looks_on_until_it_is_cancelled(clock: Working) -> None:
    before = {thread.name for thread in threading.enumerate()}
    running = asyncio.create_task(Stalls(clock).run())
    await settle()
    assert "stalls" in {thread.name for thread in threading.enumerate()}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert {thread.name for thread in threading.enumerate()} == before

"""Garbage: each object is looked at once, and all of them seldom."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Iterator

import pytest

from bessemer.core.clock import FakeClock, settle
from bessemer.main import garbage
from bessemer.main.garbage import GROWN_BYTES, LOOK_SECONDS, WALKS, WHOLE_SECONDS, YOUNG_MAX, spare

_LOOK_SECONDS = 2.0


class Circle:
    """What no count of references frees."""

    def __init__(self) -> None:
        self.self = self


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(autouse=True)
def nothing_walks() -> Iterator[None]:
    """Else what a test made beforehand would be walked amid it."""
    before = gc.get_threshold()
    gc.freeze()
    yield
    gc.set_threshold(*before)
    gc.freeze()


@pytest.fixture
async def sparing(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Task[None]]:
    """It runs, in a process that has nothing to do."""
    monkeypatch.setattr(time, "process_time", lambda: 0.0)
    running = asyncio.create_task(spare(clock))
    await settle()
    yield running
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def put_aside() -> weakref.ref[Circle]:
    """A circle that was in use when it was looked at, and is garbage now."""
    circle = Circle()
    gc.collect(0)
    return weakref.ref(circle)


async def test_what_lives_is_looked_at_once(sparing: asyncio.Task[None]) -> None:
    before, kept = WALKS.number["young"], list[list[int]]()
    for _ in range(10 * YOUNG_MAX):
        kept.append([])
    assert 9 <= WALKS.number["young"] - before <= 11
    assert len(gc.get_objects()) < 2 * YOUNG_MAX, "the others are put aside"
    assert gc.get_count()[1:] == (0, 0), "no walk over several thousands comes due"


async def test_garbage_that_is_young_is_found_at_once(sparing: asyncio.Task[None]) -> None:
    found = weakref.ref(Circle())
    gc.collect(0)
    assert found() is None


async def test_circles_that_were_put_aside_are_found_in_a_quiet_second(
    sparing: asyncio.Task[None], clock: FakeClock
) -> None:
    found, walks = put_aside(), WALKS.number["all"]
    gc.collect()
    assert found() is not None
    await clock.advance(WHOLE_SECONDS - 1)
    assert found() is not None
    await clock.advance(1 + _LOOK_SECONDS)
    await settle()
    assert found() is None
    assert WALKS.number["all"] == walks + 2
    assert len(gc.get_objects()) < YOUNG_MAX, "and all is put aside again"


async def test_circles_that_fill_the_machine_are_found_long_before(
    sparing: asyncio.Task[None], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = garbage.resident()
    assert there > 0
    found = put_aside()
    monkeypatch.setattr(garbage, "resident", lambda: there + GROWN_BYTES // 2)
    await clock.advance(10 * LOOK_SECONDS)
    assert found() is not None
    monkeypatch.setattr(garbage, "resident", lambda: 2 * there + GROWN_BYTES)
    await clock.advance(LOOK_SECONDS + _LOOK_SECONDS)
    await settle()
    assert found() is None
    # From there on it would have to grow by as much again.
    found = put_aside()
    await clock.advance(10 * LOOK_SECONDS)
    assert found() is not None


async def test_where_no_second_is_quiet_they_are_found_an_hour_later(
    sparing: asyncio.Task[None], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []

    async def busy(clock: FakeClock) -> bool:
        looks.append(None)
        await clock.sleep(60.0)
        return True

    monkeypatch.setattr(garbage, "busy", busy)
    found = put_aside()
    for _ in range(3):
        await clock.advance(WHOLE_SECONDS / 2)
        await settle()
    assert looks
    assert found() is not None
    await clock.advance(WHOLE_SECONDS)
    await settle()
    assert found() is None


async def test_what_ends_leaves_the_collector_as_it_was(clock: FakeClock) -> None:
    before = gc.get_threshold(), [*gc.callbacks]
    running = asyncio.create_task(spare(clock))
    await settle()
    assert (gc.get_threshold(), gc.callbacks) != before
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (gc.get_threshold(), [*gc.callbacks]) == before


def test_walks_are_told() -> None:
    told = {(sample.name, sample.labels["of"]): sample.value for metric in WALKS.collect() for sample in metric.samples}
    assert told["bessemer_garbage_walks_total", "young"] == WALKS.number["young"]
    assert told["bessemer_garbage_walk_seconds_total", "all"] == WALKS.seconds["all"]

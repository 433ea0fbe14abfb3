"""Work under a pace: a few steps in a turn of the loop, in order, none lost and none held back for ever."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from bessemer.core.clock import FakeClock, settle
from bessemer.core.pace import Pace


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def steps(done: list[str], name: str, count: int) -> str:
    """So many steps, each in a turn of the loop of its own where nothing holds it back."""
    for n in range(count):
        done.append(f"{name}{n}")
        await asyncio.sleep(0)
    return name


async def test_of_many_that_could_go_on_a_few_do_in_one_turn_of_the_loop() -> None:
    """Thirty that waited for one commit do not go on all at once, and nobody passes another."""
    pace, gate, done = Pace(FakeClock(), steps=4), asyncio.Event(), list[int]()

    async def waiter(n: int) -> None:
        await gate.wait()
        done.append(n)

    async def paced(n: int) -> None:
        await pace.run(waiter(n))

    tasks = [asyncio.ensure_future(paced(n)) for n in range(30)]
    await settle(60)
    gate.set()
    most = before = 0
    while len(done) < 30:
        await asyncio.sleep(0)
        most, before = max(most, len(done) - before), len(done)
    assert most <= 4
    assert done == list(range(30))
    await asyncio.gather(*tasks)
    assert pace.waiting == 0


async def test_who_shares_the_loop_waits_for_a_few_steps_of_it() -> None:
    """Beside a hundred tasks, each of which could always go on, another's ten turns cost forty steps of theirs."""
    pace, done = Pace(FakeClock(), steps=4), list[str]()
    tasks = [asyncio.ensure_future(_run(pace, steps(done, f"w{n}-", 50))) for n in range(100)]
    await turns(5)
    before = len(done)
    await turns(10)
    assert 10 <= len(done) - before <= 4 * 11
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_where_turns_are_long_it_has_its_share_of_the_time() -> None:
    """Others take 20 ms of each turn of the loop; steps that take 1 ms each have a quarter of the time all the same."""
    clock = FakeClock()
    pace, done = Pace(clock, steps=1, share=0.25), list[int]()

    async def work() -> None:
        for n in range(1000):
            clock._monotonic += 0.001  # what the step took
            done.append(n)
            await asyncio.sleep(0)

    tasks = [asyncio.ensure_future(_run(pace, work())) for _ in range(40)]
    await turns(100)
    began, before = clock.monotonic(), len(done)
    for _ in range(100):
        clock._monotonic += 0.020
        await asyncio.sleep(0)
    share = (len(done) - before) * 0.001 / (clock.monotonic() - began)
    assert 0.2 < share < 0.3
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_it_answers_and_raises_what_the_work_does() -> None:
    pace = Pace(FakeClock(), steps=1)

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    assert await pace.run(steps([], "a", 3)) == "a"
    with pytest.raises(ValueError, match="no"):
        await pace.run(fails())


async def test_what_is_cancelled_while_it_waits_for_its_step_cleans_up() -> None:
    pace, ended = Pace(FakeClock(), steps=1), list[str]()

    async def work(name: str) -> None:
        try:
            while True:
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    tasks = [asyncio.ensure_future(_run(pace, work(f"{n}"))) for n in range(8)]
    await turns(20)
    assert pace.waiting
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(ended) == [f"{n}" for n in range(8)]
    assert all(task.cancelled() for task in tasks)
    assert await pace.run(steps([], "again", 2)) == "again"


async def test_a_timeout_within_the_work_is_its_own() -> None:
    pace = Pace(FakeClock(), steps=1)

    async def work() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "late"
        return ""

    assert await pace.run(work()) == "late"


async def _run(pace: Pace, work: object) -> object:
    return await pace.run(work)  # type: ignore[arg-type]


async def test_what_it_waited_for_may_fail_and_that_waits_for_a_step_too() -> None:
    pace, told = Pace(FakeClock(), steps=1), list[int]()
    awaited: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work(n: int) -> None:
        with pytest.raises(ValueError, match="no"):
            await awaited
        told.append(n)

    tasks = [asyncio.ensure_future(_run(pace, work(n))) for n in range(5)]
    await settle()
    awaited.set_exception(ValueError("no"))
    await turns(3)
    assert 0 < len(told) < 5
    await asyncio.gather(*tasks)
    assert told == list(range(5))


@pytest.mark.parametrize("error", [asyncio.CancelledError, OSError])
async def test_work_that_was_broken_off_leaves_nothing_for_a_full_collection(error: type[BaseException]) -> None:
    """A thousand watches that end at once have their memory back at once."""

    class Kept:
        """What a work holds."""

    pace, came, kept = Pace(FakeClock()), [asyncio.get_running_loop().create_future()], [Kept()]
    left = weakref.ref(kept[0])

    async def work(held: Kept) -> None:
        await came[0]

    gc.disable()
    try:
        task = asyncio.ensure_future(pace.run(work(kept.pop())))
        await settle()
        if error is OSError:
            came[0].set_exception(OSError())
        else:
            task.cancel()
        await asyncio.wait([task])
        assert isinstance(task.exception(), OSError) if error is OSError else task.cancelled()
        came.clear()
        del task
        await settle()
        assert left() is None
    finally:
        gc.enable()


async def test_apart_a_groups_first_step_in_a_turn_waits_for_nobodys_many() -> None:
    """And no more than its first, nor past who waits of its own; of many groups as many as there are steps."""
    pace, entered = Pace(FakeClock(), steps=4, apart=True), list[str]()

    async def enter(group: str, name: str) -> None:
        await pace.enter(group)
        entered.append(name)

    storm = [asyncio.ensure_future(enter("storm", f"s{n}")) for n in range(40)]
    calm = [asyncio.ensure_future(enter("calm", f"c{n}")) for n in range(2)]
    crowd = [asyncio.ensure_future(enter(f"group{n}", f"g{n}")) for n in range(9)]
    await asyncio.sleep(0)
    assert entered == ["s0", "s1", "s2", "s3", "c0", "g0", "g1"]
    await settle(60)
    assert sorted(entered) == sorted({*entered})
    assert len(entered) == 51
    assert [name for name in entered if name[0] == "s"] == [f"s{n}" for n in range(40)]
    assert entered.index("c1") < entered.index("s10")
    await asyncio.gather(*storm, *calm, *crowd)
    await settle()
    await enter("calm", "again")
    assert pace.waiting == 0

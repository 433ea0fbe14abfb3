"""What confined processes promise, on the fake and on this machine."""

from __future__ import annotations

import asyncio

import pytest

from bessemer.core.errors import BessemerError
from bessemer.drivers.process.protocol import End, Ended, Processes
from tests.drivers.process.conftest import World


async def end_of(processes: Processes, uid: str) -> Ended:
    async with asyncio.timeout(30):
        while (end := await processes.ended(uid)) is None:
            await asyncio.sleep(0.01)
    return end


async def log_of(processes: Processes, uid: str, *, holding: bytes) -> bytes:
    async with asyncio.timeout(30):
        while True:
            text = b"".join([chunk async for chunk in processes.log(uid)])
            if holding in text:
                return text
            await asyncio.sleep(0.01)


async def test_started_twice_is_one_process(world: World) -> None:
    confined = await world.waits("a")
    first = await world.processes.find("a")
    assert first is not None
    assert first == await world.processes.start(confined)
    assert await world.processes.running() == (first,)


async def test_another_agent_finds_the_same_process(world: World) -> None:
    await world.waits("a")
    assert await world.another().find("a") == await world.processes.find("a")
    await world.another().kill("a")
    assert await world.processes.find("a") is None


async def test_no_two_share_a_user(world: World) -> None:
    for uid in ("a", "b", "c"):
        await world.waits(uid)
    users = {one.user for one in await world.processes.running()}
    assert len(users) == 3
    assert min(users) > 65_535


async def test_killed_is_told_apart_from_crashed(world: World) -> None:
    await world.waits("a")
    await world.processes.kill("a")
    await world.processes.kill("a")
    assert (await end_of(world.processes, "a")).reason is End.KILLED
    await world.leaves("b", 3)
    crashed = await end_of(world.processes, "b")
    assert (crashed.reason, crashed.code) == (End.CRASHED, 3)
    await world.leaves("c", 0)
    assert (await end_of(world.processes, "c")).reason is End.EXITED


async def test_past_its_memory_it_is_out_of_memory(world: World) -> None:
    await world.exhausts("a")
    end = await end_of(world.processes, "a")
    assert end.reason is End.OUT_OF_MEMORY
    assert "48 MiB" in end.message


async def test_a_new_start_forgets_the_old_end(world: World) -> None:
    await world.exhausts("a")
    await end_of(world.processes, "a")
    await world.waits("a")
    assert await world.processes.ended("a") is None
    await world.processes.kill("a")
    assert (await end_of(world.processes, "a")).reason is End.KILLED


async def test_what_it_printed_can_be_read_after_its_end(world: World) -> None:
    await world.prints("a", "first words")
    assert await log_of(world.processes, "a", holding=b"first words") == b"first words"
    await world.processes.kill("a")
    assert await log_of(world.processes, "a", holding=b"first words") == b"first words"


async def test_a_follower_is_done_when_the_process_is(world: World) -> None:
    await world.prints("a", "hello")
    heard: list[bytes] = []

    async def follow() -> None:
        async for chunk in world.processes.log("a", follow=True):
            heard.append(chunk)

    follower = asyncio.create_task(follow())
    async with asyncio.timeout(30):
        while not heard:
            await asyncio.sleep(0.01)
        assert not follower.done()
        await world.processes.kill("a")
        await follower
    assert b"".join(heard) == b"hello"


async def test_use_is_known_while_it_lives(world: World) -> None:
    await world.waits("a")
    stats = await world.processes.stats("a")
    assert stats is not None
    assert 0 < stats.memory_bytes <= 48 << 20
    assert stats.pids >= 1
    await world.processes.kill("a")
    assert await world.processes.stats("a") is None


async def test_removed_leaves_nothing(world: World) -> None:
    await world.prints("a", "text")
    await world.processes.remove("a")
    await world.processes.remove("a")
    assert await world.processes.find("a") is None
    assert await world.processes.ended("a") is None
    assert [chunk async for chunk in world.processes.log("a")] == []


async def test_what_never_was_is_no_error(world: World) -> None:
    assert await world.processes.find("nobody") is None
    assert await world.processes.ended("nobody") is None
    assert await world.processes.stats("nobody") is None
    await world.processes.kill("nobody")
    await world.processes.remove("nobody")
    assert await world.processes.running() == ()


@pytest.mark.parametrize("uid", ["", "../up", "a/b", "-x", "x" * 64, "a b", "a\n"])
async def test_a_uid_is_never_a_path(world: World, uid: str) -> None:
    with pytest.raises(BessemerError, match="uid"):
        await world.waits(uid)

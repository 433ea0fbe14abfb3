"""What an engine promises, on the fake and on llama.cpp."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.engine.protocol import EngineMetrics, RunningEngine
from bessemer.drivers.process.protocol import End
from tests.drivers.engine.conftest import ALIAS, SECRET, Host, ready, talk


async def early(host: Host, ask: Callable[[], Awaitable[object]]) -> RunningEngine:
    """An engine that was asked while it loaded, and said so. Where the machine stalls it may have loaded by then: then
    another is started."""
    for _ in range(5):
        running = await host.engine.start(host.spec())
        if await reason_of(ask) == "EngineStarting":
            return running
        await host.engine.stop("a")
    raise AssertionError("no engine says that it loads")


async def reason_of(ask: Callable[[], Awaitable[object]]) -> str:
    """Why it is refused; "" where it is not. No other reason than that it loads is one so early."""
    try:
        await ask()
    except DriverError as error:
        if error.reason != "EngineStarting":
            raise
        return error.reason
    return ""


async def test_it_answers_with_sense(host: Host) -> None:
    running = await early(host, lambda: host.engine.probe("a", SECRET))
    result = await ready(host)
    assert result.model == ALIAS
    assert result.text.strip()
    assert result.prompt_tokens > result.completion_tokens > 0
    assert await host.engine.find("a") == running
    assert running.door == host.engine.door("a")


async def test_started_twice_is_one_engine(host: Host) -> None:
    first = await host.engine.start(host.spec())
    await ready(host)
    assert await host.engine.start(host.spec()) == first
    assert await host.another().find("a") == first
    assert await host.another().running() == (first,)


async def test_only_the_secret_opens(host: Host) -> None:
    await host.engine.start(host.spec())
    await ready(host)
    with pytest.raises(DriverError) as refusal:
        await host.engine.probe("a", "sk-other")
    assert refusal.value.reason == "ProbeFailed"
    reply = await talk(host.engine.door("a"), secret="sk-other")
    assert reply.status == 401
    assert reply.events[0]["error"]["type"] == "authentication_error"


async def test_a_check_costs_no_tokens(host: Host) -> None:
    await early(host, lambda: host.engine.check("a"))
    await ready(host)
    before = await host.engine.metrics("a", SECRET)
    await host.engine.check("a")
    assert await host.engine.metrics("a", SECRET) == before
    await host.crash("a")
    with pytest.raises(DriverError) as late:
        await host.engine.check("a")
    assert late.value.reason == "EngineExited"


async def test_another_model_is_no_success(host: Host) -> None:
    await host.engine.start(host.spec())
    await ready(host)
    with pytest.raises(DriverError, match="instead of 'llama'") as refusal:
        await host.engine.probe("a", SECRET, alias="llama")
    assert refusal.value.reason == "ProbeFailed"


def difference(after: EngineMetrics, before: EngineMetrics) -> tuple[int, int]:
    """Prompt tokens, cached ones included, and completion tokens."""
    had = before.prompt_tokens_total + before.prompt_tokens_cached_total
    have = after.prompt_tokens_total + after.prompt_tokens_cached_total
    return have - had, after.tokens_predicted_total - before.tokens_predicted_total


@pytest.mark.parametrize("stream", [False, True])
async def test_its_counters_are_what_it_tells(host: Host, stream: bool) -> None:
    await host.engine.start(host.spec())
    await ready(host)
    words = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    for _ in range(2):
        before = await host.engine.metrics("a", SECRET)
        reply = await talk(host.engine.door("a"), **words)
        after = await host.engine.metrics("a", SECRET)
        usage, timings = reply.usage, reply.timings
        assert reply.text
        assert reply.done == stream
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == difference(after, before)
        assert usage["prompt_tokens"] == timings["prompt_n"] + timings["cache_n"]
        assert usage["completion_tokens"] == timings["predicted_n"]
    # The second time most of the prompt was known.
    assert timings["cache_n"] > timings["prompt_n"]


async def test_without_asking_a_stream_tells_timings_only(host: Host) -> None:
    await host.engine.start(host.spec())
    await ready(host)
    reply = await talk(host.engine.door("a"), stream=True)
    assert reply.done
    assert not [event for event in reply.events if event.get("usage")]
    assert reply.timings["predicted_n"] > 0


async def test_a_stream_that_is_left_can_still_be_counted(host: Host) -> None:
    await host.engine.start(host.spec())
    await ready(host)
    before = await host.engine.metrics("a", SECRET)
    reply = await talk(
        host.engine.door("a"), stream=True, timings_per_token=True, max_tokens=1500, ignore_eos=True, cut_after=5
    )
    assert not reply.done
    async with asyncio.timeout(60):
        while (count := difference(await host.engine.metrics("a", SECRET), before))[1] == 0:
            await asyncio.sleep(0.05)
    prompt, predicted = count
    assert prompt == reply.timings["prompt_n"] + reply.timings["cache_n"]
    # The engine notices a client that left only when it writes: it has done more than was seen, and far from all.
    assert reply.timings["predicted_n"] <= predicted < 1500


async def test_a_crash_is_told_and_a_new_start_heals(host: Host) -> None:
    first = await host.engine.start(host.spec())
    await ready(host)
    await host.crash("a")
    async with asyncio.timeout(30):
        while await host.engine.find("a") is not None:
            await asyncio.sleep(0.01)
    with pytest.raises(DriverError) as refusal:
        await host.engine.probe("a", SECRET)
    assert refusal.value.reason == "EngineExited"
    end = await host.engine.ended("a")
    assert end is not None
    assert end.reason is End.CRASHED
    second = await host.engine.start(host.spec())
    assert second.pid != first.pid
    await ready(host)
    assert await host.engine.ended("a") is None


async def test_too_little_memory_is_told(host: Host) -> None:
    await host.starve("a")
    with pytest.raises(DriverError, match="memory limit") as refusal:
        await ready(host)
    assert refusal.value.reason == "OutOfMemory"


async def test_a_taken_door_is_told(host: Host) -> None:
    door = Path(host.engine.door("a"))
    door.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(door))
        listener.listen()
        with pytest.raises(DriverError) as refusal:
            await host.engine.start(host.spec())
        assert refusal.value.reason == "PortTaken"
    # Its owner is gone, and left the socket behind.
    await host.engine.start(host.spec())
    await ready(host)


def names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


async def test_stopped_leaves_nothing(host: Host) -> None:
    await host.engine.start(host.spec())
    await ready(host)
    await host.engine.stop("a")
    await host.engine.stop("a")
    assert await host.engine.find("a") is None
    assert await host.engine.ended("a") is None
    assert await host.engine.running() == ()
    assert Path(host.engine.door("a")).name not in names(Path(host.engine.door("a")).parent)
    with pytest.raises(DriverError) as refusal:
        await host.engine.metrics("a", SECRET)
    assert refusal.value.reason == "EngineExited"


async def test_two_engines_have_two_doors(host: Host) -> None:
    for uid in ("a", "b"):
        await host.engine.start(host.spec(uid))
    for uid in ("a", "b"):
        await ready(host, uid)
    await host.engine.stop("a")
    await ready(host, "b")
    assert [one.uid for one in await host.engine.running()] == ["b"]


async def test_its_log_and_use_can_be_seen(host: Host) -> None:
    await host.engine.start(host.spec())
    await ready(host)
    text = b"".join([chunk async for chunk in host.engine.log("a")])
    assert b"loading" in text
    assert SECRET.encode() not in text
    stats = await host.engine.stats("a")
    assert stats is not None
    assert stats.memory_bytes > 0

"""Logs and consoles over the agent's own socket, and nothing but those of this host's Claims."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from bessemer.agent import streams
from bessemer.agent.metrics import AgentMetrics
from bessemer.agent.streams import Relay
from bessemer.core.clock import FakeClock
from bessemer.core.errors import Unavailable
from bessemer.core.frames import WINDOW, Mux
from bessemer.drivers.jobs.fake import FakeJobs
from tests.agent.conftest import Bench
from tests.agent.standin import claim


async def running(bench: Bench) -> None:
    bench.start()
    body = bench.api.put(claim())
    await bench.expect(lambda: bench.api.status(body).get("phase") == "Running" and bench.api.muxes)


async def gather(bench: Bench, work: asyncio.Task[bytes]) -> bytes:
    await bench.expect(work.done)
    return work.result()


async def test_a_log_to_its_end(bench: Bench) -> None:
    await running(bench)
    stream = await bench.api.muxes[0].open({"verb": "log", "claim": "uid-1", "follow": False})
    text = await gather(bench, asyncio.create_task(_all(stream)))
    assert b"boots" in text
    assert b"Ready" in text


async def test_what_is_kept_of_a_claim_that_is_gone(bench: Bench) -> None:
    await running(bench)
    jobs = bench.drivers.host.jobs
    assert isinstance(jobs, FakeJobs)
    jobs.outputs["w-1.0.3"] = b"loss 0.25\n"
    for name, text in (("w-1.0.3", b"loss 0.25\n"), ("w-1.0.4", b"")):
        stream = await bench.api.muxes[0].open({"verb": "log", "kind": "Job", "kept": name})
        assert await gather(bench, asyncio.create_task(_all(stream))) == text


async def test_a_followed_log_ends_with_its_reader(bench: Bench) -> None:
    await running(bench)
    stream = await bench.api.muxes[0].open({"verb": "log", "claim": "uid-1", "follow": True})
    assert b"boots" in await gather(bench, asyncio.create_task(stream.read()))
    await bench.expect(lambda: bench.metrics.streams._value.get() == 1)
    await stream.close()
    await bench.expect(lambda: bench.metrics.streams._value.get() == 0)


async def test_a_followed_log_ends_with_the_guest(bench: Bench) -> None:
    await running(bench)
    stream = await bench.api.muxes[0].open({"verb": "log", "claim": "uid-1", "follow": True})
    reading = asyncio.create_task(_all(stream))
    await bench.clock.advance(0.5)
    await bench.qemu.remove("uid-1")
    assert b"boots" in await gather(bench, reading)


async def test_a_console_both_ways_and_one_at_a_time(bench: Bench) -> None:
    await running(bench)
    stream = await bench.api.muxes[0].open({"verb": "console", "claim": "uid-1"})
    await stream.write(b"uname\n")
    assert b"uname" in await gather(bench, asyncio.create_task(stream.read()))
    second = await bench.api.muxes[0].open({"verb": "console", "claim": "uid-1"})
    with pytest.raises(Unavailable, match="console"):
        await gather(bench, asyncio.create_task(second.read()))
    await stream.close()
    await bench.expect(lambda: bench.metrics.streams._value.get() == 0)
    third = await bench.api.muxes[0].open({"verb": "console", "claim": "uid-1"})
    await third.write(b"id\n")
    assert b"id" in await gather(bench, asyncio.create_task(third.read()))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"verb": "log", "claim": "uid-9"}, "does not run on this host"),
        ({"verb": "log"}, "does not run on this host"),
        ({"verb": "shell", "claim": "uid-1"}, "a log or a console"),
        ({"verb": "log", "kind": "Instance", "kept": "uid-1"}, "nothing of it is kept"),
        ({"verb": "log", "kept": "uid-1"}, "nothing of it is kept"),
    ],
)
async def test_whatever_else_is_refused(bench: Bench, request_: dict[str, str], words: str) -> None:
    await running(bench)
    stream = await bench.api.muxes[0].open(request_)
    with pytest.raises(Unavailable, match=words):
        await gather(bench, asyncio.create_task(stream.read()))


async def test_a_slow_reader_holds_up_its_own_stream_alone(bench: Bench) -> None:
    await running(bench)
    bench.qemu.world.guests["uid-1"].typed.extend(b"x" * (3 * WINDOW))
    slow = await bench.api.muxes[0].open({"verb": "log", "claim": "uid-1", "follow": True})
    await bench.clock.advance(10)
    quick = await bench.api.muxes[0].open({"verb": "log", "claim": "uid-1", "follow": False})
    assert len(await gather(bench, asyncio.create_task(_all(quick)))) > 3 * WINDOW
    assert slow._unread_bytes <= WINDOW


async def test_dials_again(bench: Bench) -> None:
    await running(bench)
    bench.api.cut()
    await bench.expect(lambda: not bench.api.muxes)
    await bench.expect(lambda: bench.api.muxes)
    stream = await bench.api.muxes[0].open({"verb": "log", "claim": "uid-1", "follow": False})
    assert b"boots" in await gather(bench, asyncio.create_task(_all(stream)))


async def _all(stream: object) -> bytes:
    return b"".join([part async for part in stream])  # type: ignore[attr-defined]


# --- the heart, where the socket is in trouble ------------------------------------------------------------------------


class Trouble:
    """The link of an agent that counts what is asked by request."""

    def __init__(self) -> None:
        self.beats = 0
        self.identity = SimpleNamespace(host="h1")
        self.client = SimpleNamespace(agents=self)

    async def heartbeat(self, host: str) -> None:
        self.beats += 1

    @asynccontextmanager
    async def stream(self, host: str) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield


@pytest.fixture
def trouble() -> Trouble:
    return Trouble()


@pytest.fixture
def relay(trouble: Trouble, monkeypatch: pytest.MonkeyPatch) -> Relay:
    monkeypatch.setattr(streams, "ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(streams, "CLOSE_SECONDS", 0.01)
    metrics = AgentMetrics(CollectorRegistry())
    return Relay(trouble, None, sides={}, find=lambda _: None, metrics=metrics)  # type: ignore[arg-type]


async def test_the_heart_does_not_wait_for_a_dialling_that_does_not_end(relay: Relay, trouble: Trouble) -> None:
    running = asyncio.ensure_future(relay.run(FakeClock()))
    async with asyncio.timeout(30):
        await relay.beat()
    assert trouble.beats == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("passes", [0, 1, 2])
async def test_the_heart_does_not_wait_for_a_socket_that_is_dead(relay: Relay, trouble: Trouble, passes: int) -> None:
    """However much of what it says still goes into it: the opening, the beat, the end."""
    sent = 0

    async def send(_: bytes) -> None:
        nonlocal sent
        sent += 1
        if sent > passes:
            await asyncio.Event().wait()

    relay._mux = Mux(send, dialled=True)
    relay._dialled.set()
    async with asyncio.timeout(30):
        await relay.beat()
    assert trouble.beats == 1

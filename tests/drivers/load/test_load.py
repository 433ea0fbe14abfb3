"""What load promises: on the fake, on a fake engine's real sockets, and on llama.cpp."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bessemer.core.clock import SystemClock
from bessemer.core.errors import DriverError
from bessemer.drivers.engine.doors import Doors
from bessemer.drivers.engine.fake import Behaviour, FakeEngine
from bessemer.drivers.engine.protocol import EngineSpec
from bessemer.drivers.load import runner
from bessemer.drivers.load.fake import FakeLoads
from bessemer.drivers.load.protocol import ANSWER_BYTES_MAX, Hit, Loads, Look, Shot, Volley
from bessemer.drivers.load.real import HostLoads
from bessemer.drivers.process import procfs
from bessemer.drivers.process.protocol import End
from tests.drivers.engine.conftest import ALIAS, SECRET, FakeHost, Host, RealHost, model_path, ready, real_host

__all__ = ["model_path", "real_host"]


@dataclass
class Range:
    """An engine ``a`` that answers, and who puts load on it. ``another`` is as a new agent has it."""

    loads: Loads
    another: Callable[[], Loads]
    host: Host
    wait: Callable[[], Any]


@pytest.fixture
async def fake_range(state_dir: Path) -> AsyncIterator[Range]:
    host = FakeHost(state_dir / "doors")
    loads = FakeLoads(host.engine, host.clock)
    await _up(host)

    def another() -> Loads:
        loads.lose()
        return loads

    yield Range(loads, another, host, lambda: host.clock.advance(0.05))
    await host.engine.close()


class LiveHost(FakeHost):
    """Fake engines at real sockets, in real time."""

    def __init__(self, doors: Path) -> None:
        super().__init__(doors)
        self.engine = FakeEngine(SystemClock(), doors=doors, load_seconds=0.0)

    async def wait(self) -> None:
        await asyncio.sleep(0.01)


@pytest.fixture
async def doors_range(state_dir: Path) -> AsyncIterator[Range]:
    host = LiveHost(state_dir / "doors")
    await _up(host)
    host.engine.models["a"].behaviour.seconds_per_token = 0.005
    made: list[HostLoads] = []

    def another() -> Loads:
        made.append(HostLoads(host.engine.processes, Doors(state_dir / "doors")))
        return made[-1]

    yield Range(another(), another, host, lambda: asyncio.sleep(0.02))
    for loads in made:
        await loads.end("a")
    await host.engine.close()


@pytest.fixture
async def real_range(real_host: RealHost) -> AsyncIterator[Range]:
    await _up(real_host)
    made: list[HostLoads] = []

    def another() -> Loads:
        made.append(HostLoads(real_host.processes, Doors(real_host.state / "doors")))
        return made[-1]

    yield Range(another(), another, real_host, lambda: asyncio.sleep(0.05))
    for loads in made:
        await loads.end("a")


async def _up(host: Host) -> None:
    await host.engine.start(host.spec())
    await ready(host)


@pytest.fixture(params=["fake", "doors"])
def here(request: pytest.FixtureRequest) -> Range:
    found: Range = request.getfixturevalue(f"{request.param}_range")
    return found


def body(**words: Any) -> dict[str, Any]:
    said = {"model": ALIAS, "messages": [{"role": "user", "content": "Say hello to Bessemer."}], "max_tokens": 8}
    return {**said, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}, **words}


def volley(number: int = 1, *, count: int = 3, every: float = 0.01, seconds: float = 60.0, **words: Any) -> Volley:
    return Volley(number, [Shot(n * every, body(**words)) for n in range(count)], seconds)


async def hits(here: Range, loads: Loads, number: int = 1) -> Sequence[Hit]:
    async with asyncio.timeout(60):
        while True:
            look = await loads.look("a", number)
            assert look is not None
            if look.hits is not None:
                return look.hits
            assert 0 <= look.share <= 1
            await here.wait()


async def test_each_request_is_timed_and_counted(here: Range) -> None:
    await here.loads.begin("a", SECRET, volley=volley())
    found = await hits(here, here.loads)
    assert [hit.status for hit in found] == [200] * 3
    for number, hit in enumerate(found):
        assert hit.first is not None
        assert number * 0.01 <= hit.sent <= hit.first <= hit.ended
        assert 1 <= hit.written <= 8
        assert 0 <= hit.cached < hit.read
        assert sum(hit.gaps) == pytest.approx(hit.ended - hit.first, abs=0.5)
        assert len(hit.gaps) < 8


async def test_one_after_the_other(here: Range) -> None:
    shots = [Shot(0.0, body(stream=False)) for _ in range(3)]
    await here.loads.begin("a", SECRET, volley=Volley(1, shots, 60.0, serial=True))
    found = await hits(here, here.loads)
    assert found[0].ended <= found[1].sent
    assert found[1].ended <= found[2].sent
    texts = {json.loads(hit.answer)["choices"][0]["message"]["content"] for hit in found}
    assert len(texts) == 1
    assert all(hit.first is None and hit.written for hit in found)


async def test_what_is_not_kept_is_counted_all_the_same(here: Range) -> None:
    shots = [Shot(0.0, body(stream=False), keep=keep) for keep in (True, False)]
    await here.loads.begin("a", SECRET, volley=Volley(1, shots, 60.0, serial=True))
    one, two = await hits(here, here.loads)
    assert (bool(one.answer), two.answer) == (True, "")
    assert (two.status, two.read, two.written) == (200, one.read, one.written)


async def test_texts_are_embedded_and_what_was_read_is_counted(here: Range) -> None:
    model = here.host.engine.models["a"]  # type: ignore[attr-defined]
    asked = {"model": ALIAS, "input": ["iron", "steel rails"], "encoding_format": "base64"}
    for embeds, status in ((False, 501), (True, 200)):
        model.embeds = embeds
        await here.loads.begin("a", SECRET, volley=Volley(status, [Shot(0.0, asked, "/v1/embeddings")], 60.0))
        (hit,) = await hits(here, here.loads, status)
        assert (hit.status, hit.read, hit.written, hit.first) == (status, 5 * embeds, 0, None)
    assert [len(one["embedding"]) for one in json.loads(hit.answer)["data"]] == [88, 88], "16 numbers of four bytes"


async def test_one_that_is_known_is_not_begun_again(here: Range) -> None:
    await here.loads.begin("a", SECRET, volley=volley())
    found = await hits(here, here.loads)
    await here.loads.begin("a", SECRET, volley=volley())
    assert await here.loads.look("a", 1) == Look(1.0, found)
    assert await here.loads.look("a", 2) is None
    await here.loads.begin("a", SECRET, volley=volley(2, count=1))
    assert await here.loads.look("a", 1) is None
    assert len(await hits(here, here.loads, 2)) == 1


async def test_a_new_agent_knows_of_none_and_begins_anew(here: Range) -> None:
    await here.loads.begin("a", SECRET, volley=volley(max_tokens=64))
    loads = here.another()
    assert await loads.look("a", 1) is None
    await loads.begin("a", SECRET, volley=volley())
    assert len(await hits(here, loads)) == 3


async def test_what_is_ended_is_known_no_more(here: Range) -> None:
    await here.loads.begin("a", SECRET, volley=volley(max_tokens=64))
    await here.loads.end("a")
    await here.loads.end("a")
    assert await here.loads.look("a", 1) is None


async def test_without_an_engine_there_is_nothing_to_load(here: Range) -> None:
    await here.host.crash("a")
    with pytest.raises(DriverError) as refusal:
        await here.loads.begin("a", SECRET, volley=volley())
    assert refusal.value.reason == "EngineExited"


async def test_an_engine_that_dies_gives_no_whole_answers(here: Range) -> None:
    await here.loads.begin("a", SECRET, volley=volley(max_tokens=500, ignore_eos=True, count=2))
    await here.host.crash("a")
    found = await hits(here, here.loads)
    assert [hit.status for hit in found] == [0, 0]
    assert all(hit.trouble for hit in found)


@pytest.mark.real
async def test_a_real_engine_keeps_the_same_promises(real_range: Range) -> None:
    """One engine for all of them, since it takes seconds to load."""
    await test_each_request_is_timed_and_counted(real_range)
    for promise in (test_one_after_the_other, test_one_that_is_known_is_not_begun_again):
        await real_range.loads.end("a")
        await promise(real_range)
    await test_a_new_agent_knows_of_none_and_begins_anew(real_range)
    await test_what_is_ended_is_known_no_more(real_range)
    await test_an_engine_that_dies_gives_no_whole_answers(real_range)
    await real_range.loads.end("a")
    with pytest.raises(DriverError) as refusal:
        await real_range.loads.begin("a", SECRET, volley=volley())
    assert refusal.value.reason == "EngineExited"


# --- the process itself -----------------------------------------------------------------------------------------


def runners() -> list[int]:
    return [pid for pid in procfs.with_argument(runner.__file__) if procfs.entry(pid) is not None]


async def test_a_wrong_secret_is_an_answer(doors_range: Range) -> None:
    await doors_range.loads.begin("a", "sk-other", volley=volley(count=1))
    (hit,) = await hits(doors_range, doors_range.loads)
    assert (hit.status, hit.written) == (401, 0)
    assert "Invalid API Key" in hit.answer


async def test_time_is_over_for_what_is_not_answered(doors_range: Range) -> None:
    engine = doors_range.host.engine
    assert isinstance(engine, FakeEngine)
    engine.models["a"].behaviour = Behaviour(mute=True)
    await doors_range.loads.begin("a", SECRET, volley=volley(seconds=0.3))
    found = await hits(doors_range, doors_range.loads)
    assert {hit.trouble for hit in found} == {"no whole answer in time"}


async def test_a_cut_stream_is_no_whole_answer(doors_range: Range) -> None:
    engine = doors_range.host.engine
    assert isinstance(engine, FakeEngine)
    engine.models["a"].behaviour = Behaviour(cut_after_tokens=2)
    await doors_range.loads.begin("a", SECRET, volley=volley(count=1))
    (hit,) = await hits(doors_range, doors_range.loads)
    assert hit.status == 0
    assert hit.first is not None
    assert hit.trouble.startswith("no whole answer")


async def test_nothing_of_it_is_left(doors_range: Range) -> None:
    engine = doors_range.host.engine
    assert isinstance(engine, FakeEngine)
    engine.models["a"].behaviour = Behaviour(mute=True)
    before = set(runners())
    await doors_range.loads.begin("a", SECRET, volley=volley())
    assert len(set(runners()) - before) == 1
    await doors_range.loads.end("a")
    assert set(runners()) <= before


async def test_it_ends_when_nobody_waits_for_it() -> None:
    """An agent that is killed leaves none behind: its end of the pipe is closed by the kernel."""
    said = {"door": "/nowhere", "user": -1, "secret": "", "seconds": 60, "serial": False, "bytesMax": 1, "gapsMax": 1}
    words = json.dumps({**said, "shots": [{"at": 50, "path": "/", "body": {}}]}).encode()
    child = await asyncio.create_subprocess_exec(
        "python3", runner.__file__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdin is not None
    child.stdin.write(len(words).to_bytes(8, "big") + words)
    await child.stdin.drain()
    child.stdin.close()
    async with asyncio.timeout(20):
        assert await child.wait() == 3


COUNTS = b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {"usage": {"%b": %b}}\n\ndata: [DONE]\n'

HOSTILE = [
    b"",
    b"HTTP/1.1 200 OK\r\n",
    b"nonsense\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: [1]\n\n",
    b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {"choices": 7}\n\n',
    b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {"usage": {"prompt_tokens": "x"}}\n\n',
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + b"data: " + b"[" * 60_000 + b"\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + b"x" * (4 * ANSWER_BYTES_MAX),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc",
    b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {"usage": {"prompt_tokens": 1e999}}\n\n',
    COUNTS % (b"prompt_tokens", b"-5"),
    COUNTS % (b"completion_tokens", b"9" * 4000),
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + b"x" * 100,
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * (4 * ANSWER_BYTES_MAX),
]


async def test_whatever_an_engine_says_is_bounded_and_no_answer(state_dir: Path) -> None:
    """One volley, a hostile answer to each of its requests."""
    left = list(HOSTILE)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(left.pop(0))
        writer.close()

    engine = FakeEngine(SystemClock(), doors=state_dir / "doors", load_seconds=0.0)
    doors = Doors(state_dir / "doors")
    await engine.processes.start(_confined())
    doors.clear("a")
    server = await asyncio.start_unix_server(answer, path=str(doors.socket("a")))
    loads = HostLoads(engine.processes, doors)
    try:
        shots = [Shot(0.0, body()) for _ in HOSTILE]
        await loads.begin("a", SECRET, volley=Volley(1, shots, 20.0, serial=True))
        async with asyncio.timeout(30):
            while (look := await loads.look("a", 1)) is None or look.hits is None:
                await asyncio.sleep(0.02)
        assert [hit.status for hit in look.hits] == [0] * len(HOSTILE)
        assert all(hit.trouble.startswith("no whole answer") for hit in look.hits)
    finally:
        await loads.end("a")
        server.close()


async def test_a_process_that_says_nothing_broke(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(SystemClock(), doors=state_dir / "doors", load_seconds=0.0)
    await engine.start(EngineSpec("a", Path("/m"), ALIAS, 2, 4096, 1, 1 << 29, 1000, SECRET))
    monkeypatch.setattr(runner, "__file__", os.devnull)
    loads = HostLoads(engine.processes, Doors(state_dir / "doors"))
    await loads.begin("a", SECRET, volley=volley())

    async def broken() -> None:
        async with asyncio.timeout(20):
            while await loads.look("a", 1) is not None:
                await asyncio.sleep(0.02)

    with pytest.raises(DriverError) as refusal:
        await broken()
    assert refusal.value.reason == "LoadFailed"
    assert await loads.look("a", 1) is None
    await engine.close()


def _confined() -> Any:
    from bessemer.drivers.process.protocol import Confined

    return Confined("a", ("engine",), cores_milli=1000, memory_bytes=1 << 29)


async def test_the_fake_slows_down_under_load(fake_range: Range) -> None:
    await fake_range.loads.begin("a", SECRET, volley=volley(count=2, every=10.0))
    calm = await hits(fake_range, fake_range.loads)
    await fake_range.loads.begin("a", SECRET, volley=volley(2, count=20, every=0.01))
    busy = await hits(fake_range, fake_range.loads, 2)
    assert calm[1].first is not None
    assert busy[19].first is not None
    assert busy[19].first - busy[19].sent > 3 * (calm[1].first - calm[1].sent)
    await fake_range.host.engine.end("a", End.CRASHED)  # type: ignore[attr-defined]

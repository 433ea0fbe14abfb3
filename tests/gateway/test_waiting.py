"""What a client sees where replicas are busy, late or ill: through a gateway, with engines that a test holds back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import orjson
import pytest
from prometheus_client import generate_latest

from bessemer.gateway import waiting
from bessemer.gateway.waiting import WAITING_MAX, Tally, Waiting
from tests.gateway.harness import Rig, api_key, change, claim, rig

WHOLE = orjson.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
EVENT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
Answer = tuple[int, str, int]
"""Status, code of the error, Retry-After."""


@dataclass
class Engine:
    """Answers with ``status``, as many as ``turns`` lets it; a stream that it begins and does not end where
    ``endless``. ``most`` is how many it had at once."""

    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1000))
    status: int = 200
    endless: bool = False
    asked: list[bytes] = field(default_factory=list)
    now: int = 0
    most: int = 0
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.ensure_future(self._serve(reader, writer)))

    async def close(self) -> None:
        for task in self.serving:
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body = await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
        self.asked.append(body)
        self.now += 1
        self.most = max(self.most, self.now)
        await self.turns.acquire()
        self.now -= 1
        if self.endless:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + EVENT)
            await reader.read()
        else:
            writer.write(b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n" % self.status)
            writer.write(b"content-length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE))


class Replicas:
    """Of an endpoint: these engines, while the block lasts."""

    def __init__(self, to: Rig, folder: Path, *engines: Engine, of: str = "words", first: int = 0) -> None:
        self._to, self._folder, self._engines, self._of = to, folder, engines, of
        self._first = first
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> None:
        for number, engine in enumerate(self._engines, self._first):
            door = self._folder / f"{number}.sock"
            self._servers.append(await asyncio.start_unix_server(engine.serve, door))
            self._to.tables.apply(claim(f"c{number}", f"unix:{door}", of=self._of))

    async def __aexit__(self, *_: object) -> None:
        for server, engine in zip(self._servers, self._engines, strict=True):
            server.close()
            await engine.close()
            await server.wait_closed()


@asynccontextmanager
async def gateway(folder: Path, *engines: Engine, slots: int = 1) -> AsyncIterator[Rig]:
    """With an endpoint whose replicas are these."""
    async with rig(doors=folder) as to:
        to.tables.apply(change("Endpoint", "words", {"spec": {"model": "words", "slots": slots}}))
        async with Replicas(to, folder, *engines):
            yield to


async def ask(to: Rig, key: str = "bsk_good", *, headers: dict[str, str] | None = None, stream: bool = False) -> Answer:
    body = orjson.dumps({"model": "words", "stream": stream, "messages": [], "user": key})
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession(headers={"authorization": f"Bearer {key}", **(headers or {})}) as session,
        session.post(f"{to.url}/chat/completions", data=body) as answer,
    ):
        said = await answer.read()
        code = "" if answer.status == 200 and not stream else str(orjson.loads(_last(said))["error"]["code"])
        return answer.status, code, int(answer.headers.get("retry-after", 0))


def _last(said: bytes) -> bytes:
    return said.rstrip().rpartition(b"data: ")[2]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.005)


async def test_a_replica_has_no_more_than_its_slots_and_the_others_wait(tmp_path: Path) -> None:
    engine = Engine(turns=asyncio.Semaphore(0))
    async with gateway(tmp_path, engine, slots=2) as to:
        asked = [asyncio.ensure_future(ask(to)) for _ in range(6)]
        await until(lambda: to.tables.tally.waiting == 4 and engine.now == 2)
        for _ in range(6):
            engine.turns.release()
        assert await asyncio.gather(*asked) == [(200, "", 0)] * 6
        assert engine.most == 2
        assert (to.tables.tally.waiting, to.tables.tally.queued, to.spool.waiting) == (0, 4, 6)


async def test_keys_have_turns_however_many_requests_one_has(tmp_path: Path) -> None:
    engine = Engine(turns=asyncio.Semaphore(0))
    async with gateway(tmp_path, engine) as to:
        to.tables.apply(api_key("calm", "bsk_calm"))
        loud = [asyncio.ensure_future(ask(to)) for _ in range(12)]
        await until(lambda: to.tables.tally.waiting == 11)
        calm = [asyncio.ensure_future(ask(to, "bsk_calm")) for _ in range(3)]
        await until(lambda: to.tables.tally.waiting == 14)
        for number in range(1, 9):
            await until(partial(_asked, engine, number))
            engine.turns.release()
        await until(lambda: len(engine.asked) == 9)
        assert sum(b"bsk_calm" in body for body in engine.asked) == 3
        for _ in range(20):
            engine.turns.release()
        await asyncio.gather(*loud, *calm)


async def test_a_client_that_leaves_waits_no_more(tmp_path: Path) -> None:
    engine = Engine(turns=asyncio.Semaphore(0))
    async with gateway(tmp_path, engine) as to:
        first, second = asyncio.ensure_future(ask(to)), asyncio.ensure_future(ask(to))
        await until(lambda: to.tables.tally.waiting == 1)
        await until(lambda: len(engine.asked) == 1)
        second.cancel()
        await until(lambda: to.tables.tally.waiting == 0)
        engine.turns.release()
        first.cancel()
        [entry] = to.tables.endpoints.values()
        await until(lambda: entry.pool.busy == 0)
        assert len(engine.asked) == 1


async def test_who_finds_no_room_to_wait_is_told_when_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "WAITING_MAX", 1)
    monkeypatch.setattr(waiting, "WAITING_PER_SLOT", 1)
    engine = Engine(turns=asyncio.Semaphore(0))
    async with gateway(tmp_path, engine) as to:
        asked = [asyncio.ensure_future(ask(to)) for _ in range(2)]
        await until(lambda: to.tables.tally.waiting == 1)
        assert await ask(to) == (503, "overloaded", 2)
        for _ in range(2):
            engine.turns.release()
        assert await asyncio.gather(*asked) == [(200, "", 0)] * 2
        assert to.tables.tally.turned_away == 1


async def test_a_wait_ends_and_so_does_patience(tmp_path: Path) -> None:
    """Of who waits for a slot, after a minute; of who said how long, then: waiting, asking or reading."""
    engine = Engine(turns=asyncio.Semaphore(0))
    async with gateway(tmp_path, engine) as to:
        hurried = {"x-request-timeout": "20"}
        asked = asyncio.ensure_future(ask(to, headers={"x-request-timeout": "90"}))
        await until(lambda: len(engine.asked) == 1)
        waits = [asyncio.ensure_future(ask(to)), asyncio.ensure_future(ask(to, headers=hurried))]
        await until(lambda: to.tables.tally.waiting == 2)
        to.clock.skipped += 30
        assert await waits[1] == (504, "deadline_exceeded", 0)
        to.clock.skipped += 40
        assert (await waits[0])[:2] == (503, "overloaded")
        to.clock.skipped += 40
        assert await asked == (504, "deadline_exceeded", 0)
        [only] = to.tables.endpoints["acme--lab", "words"].replicas.values()
        assert (only.busy, only.tokens, only.health.failures) == (0, 0, 0), "nobody is to blame"
        assert to.paid() == []


async def test_a_stream_that_is_wanted_no_more_ends_and_is_metered(tmp_path: Path) -> None:
    engine = Engine(endless=True)
    async with gateway(tmp_path, engine) as to:
        asked = asyncio.ensure_future(ask(to, headers={"x-request-timeout": "20"}, stream=True))
        [entry] = to.tables.endpoints.values()
        await until(lambda: entry.pool.busy == 1 and sum(r.tokens for r in entry.replicas.values()) == 0)
        to.clock.skipped += 30
        assert await asked == (200, "deadline_exceeded", 0)
        assert len(to.paid()) == 1


@pytest.mark.parametrize("said", ["", "soon", "-1", "0", "nan", "inf", "1e9"])
async def test_a_timeout_that_is_none_is_refused(said: str, tmp_path: Path) -> None:
    async with gateway(tmp_path, Engine()) as to:
        assert (await ask(to, headers={"x-request-timeout": said}))[0] == 400


async def test_one_that_cannot_now_is_passed_by_where_there_is_another(tmp_path: Path) -> None:
    """It says 503, nothing of it was sent on; the last one's word is what the client hears."""
    ill, well = Engine(status=503), Engine()
    async with gateway(tmp_path, ill, well) as to:
        assert [await ask(to) for _ in range(4)] == [(200, "", 0)] * 4
        [entry] = to.tables.endpoints.values()
        for one in entry.replicas.values():
            one.health.answered()
        well.status = 503
        assert await _status(to) == 503


async def _status(to: Rig) -> int:
    body = orjson.dumps({"model": "words", "messages": []})
    async with (
        aiohttp.ClientSession(headers={"authorization": "Bearer bsk_good"}) as session,
        session.post(f"{to.url}/chat/completions", data=body) as answer,
    ):
        return answer.status


async def test_one_that_fails_quickly_is_not_the_least_busy_for_ever(tmp_path: Path) -> None:
    ill, well = Engine(status=500), Engine()
    async with gateway(tmp_path, ill, well) as to:
        for _ in range(12):
            await _status(to)
        assert len(ill.asked) == 5
        assert to.tables.tally.ejected == 1
        assert b"bessemer_gateway_ejections_total 1.0" in _told(to)


def _told(to: Rig) -> bytes:
    return generate_latest(to.gateway._metrics.registry)


def _asked(engine: Engine, number: int) -> bool:
    return len(engine.asked) == number


class Nobody:
    """A request that waits."""

    def turn(self) -> None: ...

    def crowded(self) -> None: ...


def test_a_full_line_has_room_for_a_tenant_that_has_less_in_it() -> None:
    line = Waiting(Tally())
    loud = [Nobody() for _ in range(WAITING_MAX)]
    for one in loud:
        assert line.add(one, ("default", "loud", "k"), cost=1, slots=4) == (True, None)
    assert line.add(Nobody(), ("default", "loud", "k"), cost=1, slots=4) == (False, None)
    assert line.add(Nobody(), ("default", "calm", "k"), cost=1, slots=4) == (True, loud[-1])
    assert line.count == WAITING_MAX
    assert line.retry_after(4) == 60

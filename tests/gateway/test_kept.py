"""Connections to replicas: which are kept, which are used again, and what a request does not notice of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson
import pytest
from structlog.testing import capture_logs

from tests.gateway.harness import Rig, claim, rig

USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
WHOLE = orjson.dumps({"choices": [], "usage": USAGE})
EVENT = b"data: " + WHOLE + b"\n\ndata: [DONE]\n\n"


@dataclass
class Engine:
    """Answers as often as it is asked over a connection. ``asked`` counts requests by connection; ``forgets`` closes
    one after an answer without saying so; ``dies``: reads the next request of it before."""

    asked: list[int] = field(default_factory=list)
    extra: bytes = b""
    behind: bytes = b""
    forgets: bool = False
    dies: bool = False
    hold: asyncio.Event | None = None
    open: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.asked)
        self.asked.append(0)
        self.open += 1
        self.writers.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                body = await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
                self.asked[number] += 1
                if self.dies and self.asked[number] > 1:
                    break
                if self.hold is not None:
                    await self.hold.wait()
                stream = b'"stream":true' in body
                said, kind = (EVENT, b"text/event-stream") if stream else (WHOLE, b"application/json")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%b" % (kind, self.extra))
                writer.write(b"content-length: %d\r\n\r\n%b" % (len(said), said) + self.behind)
                if self.forgets:
                    break
        self.open -= 1
        writer.close()


@asynccontextmanager
async def replica(to: Rig, engine: Engine, folder: Path) -> AsyncIterator[None]:
    async with await asyncio.start_unix_server(engine.serve, folder / "c.sock"):
        to.tables.apply(claim("c", f"unix:{folder / 'c.sock'}", of="words"))
        try:
            yield
        finally:
            for writer in engine.writers:
                writer.close()
            async with asyncio.timeout(30):
                while engine.open:
                    await asyncio.sleep(0.01)


async def ask(to: Rig, *, stream: bool = False) -> int:
    body = orjson.dumps({"model": "words", "stream": stream, "messages": []})
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession(headers={"authorization": "Bearer bsk_good"}) as session,
        session.post(f"{to.url}/chat/completions", data=body) as answer,
    ):
        await answer.read()
        return answer.status


async def test_a_connection_is_used_again_but_not_after_a_stream(tmp_path: Path) -> None:
    engine = Engine()
    async with rig(doors=tmp_path) as to, replica(to, engine, tmp_path):
        for stream in (False, False, True, False, True):
            assert await ask(to, stream=stream) == 200
        assert engine.asked == [3, 2]
        assert to.spool.waiting == 5


@pytest.mark.parametrize("engine", [Engine(forgets=True), Engine(dies=True)], ids=["closed", "died when it was asked"])
async def test_one_that_died_meanwhile_is_nobodys_fault(engine: Engine, tmp_path: Path) -> None:
    async with rig(doors=tmp_path) as to, replica(to, engine, tmp_path):
        with capture_logs() as logs:
            assert [await ask(to) for _ in range(4)] == [200] * 4
        assert logs == []
        assert len(engine.asked) == 4
        [only] = to.tables.endpoints["acme--lab", "words"].replicas.values()
        assert (only.health.failures, only.busy) == (0, 0)


async def test_a_server_of_threads_is_left_none_that_waits_while_others_wait_for_it(tmp_path: Path) -> None:
    """llama.cpp has a thread for each connection, and says how long it keeps one."""
    engine = Engine(extra=b"keep-alive: timeout=5, max=100\r\n", hold=asyncio.Event())
    async with rig(doors=tmp_path) as to, replica(to, engine, tmp_path):
        assert engine.hold is not None
        asking = [asyncio.create_task(ask(to)) for _ in range(4)]
        async with asyncio.timeout(30):
            while sum(engine.asked) < 4:
                await asyncio.sleep(0.01)
        engine.hold.set()
        assert [await one for one in asking] == [200] * 4
        [only] = to.tables.endpoints["acme--lab", "words"].replicas.values()
        assert len(only.links) == 1, "that of the last: nobody waits"
        assert await ask(to) == 200
        assert len(engine.asked) == 4


async def test_what_is_said_unasked_ends_the_connection(tmp_path: Path) -> None:
    engine = Engine()
    async with rig(doors=tmp_path) as to, replica(to, engine, tmp_path):
        assert await ask(to) == 200
        [only] = to.tables.endpoints["acme--lab", "words"].replicas.values()
        only.links[0].data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        assert await ask(to) == 200
        assert engine.asked == [1, 1]


async def test_one_that_nobody_uses_is_closed(tmp_path: Path) -> None:
    engine = Engine()
    async with rig(doors=tmp_path) as to, replica(to, engine, tmp_path):
        assert await ask(to) == 200
        assert engine.open == 1
        to.clock.skipped += 10
        async with asyncio.timeout(30):
            while engine.open:
                await asyncio.sleep(0.01)
        [only] = to.tables.endpoints["acme--lab", "words"].replicas.values()
        assert only.links == []


async def test_those_of_a_replica_that_is_gone_are_not_another_ones(tmp_path: Path) -> None:
    engine = Engine()
    async with rig(doors=tmp_path) as to, replica(to, engine, tmp_path):
        assert await ask(to) == 200
        to.tables.apply(claim("c", f"unix:{tmp_path / 'c.sock'}", of="words", gone=True))
        to.tables.apply(claim("d", f"unix:{tmp_path / 'c.sock'}", of="words"))
        assert await ask(to) == 200
        assert engine.asked == [1, 1], "its secret is another"

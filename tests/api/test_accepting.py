"""Connections on their way in: the silent wait without TLS, bounded in number and time, and keep nobody waiting."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bessemer.api import accepting, create_ca, listen, server_tls
from bessemer.api.accepting import Accepting
from bessemer.core.clock import FakeClock
from bessemer.core.pace import Pace


class Greeting(asyncio.Protocol):
    """Says hello to whoever has shaken hands."""

    def connection_made(self, transport: Any) -> None:
        transport.write(b"hello\n")
        transport.close()


class Counted(Pace):
    """Says which networks came to their step, and lets nobody on while it is shut."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.came: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def enter(self, group: str, member: str = "") -> None:
        self.came.append(group)
        await self.open.wait()


class Door:
    """The listening socket's port, the pace, and what a client needs."""

    def __init__(self) -> None:
        ca = create_ca("test")
        self.on = listen("127.0.0.1", 0)
        self.port: int = self.on.getsockname()[1]
        self.pace = Counted()
        self.tls = server_tls(ca.issue("server", sans=["127.0.0.1"]), ca.certificate)
        self.client = ssl.create_default_context(cadata=ca.certificate.decode())

    async def silent(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that says nothing."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def hello(self) -> bytes:
        """What is said to one that shakes hands."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.client)
        said = await reader.readline()
        writer.transport.abort()
        return said


@asynccontextmanager
async def door() -> AsyncIterator[Door]:
    made = Door()
    task = asyncio.ensure_future(Accepting(made.on, Greeting, tls=made.tls, pace=made.pace).run())
    try:
        async with asyncio.timeout(20):
            yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        made.on.close()


async def test_who_says_nothing_comes_to_no_step_and_keeps_nobody_waiting() -> None:
    async with door() as d:
        silent = [await d.silent() for _ in range(40)]
        assert await d.hello() == b"hello\n"
        assert d.pace.came == ["127.0.0.1"]
        for _, writer in silent:
            writer.transport.abort()


async def test_a_handshake_waits_for_its_step() -> None:
    """A thousand that come at once begin at the pace, not in one turn of the loop."""
    async with door() as d:
        d.pace.open.clear()
        asked = [asyncio.ensure_future(d.hello()) for _ in range(5)]
        while len(d.pace.came) < 5:
            await asyncio.sleep(0.001)
        assert not any(task.done() for task in asked)
        d.pace.open.set()
        assert await asyncio.gather(*asked) == [b"hello\n"] * 5


async def test_who_says_nothing_for_long_is_shed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "HANDSHAKE_SECONDS", 0.05)
    async with door() as d:
        reader, writer = await d.silent()
        assert await reader.read() == b""
        writer.close()


async def test_one_that_begins_a_handshake_and_stops_is_shed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "HANDSHAKE_SECONDS", 0.05)
    async with door() as d:
        reader, writer = await d.silent()
        writer.write(b"\x16\x03\x01")
        assert await reader.read() == b""
        writer.close()


async def test_of_those_that_say_nothing_there_are_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four places one address has two; one that it leaves is free."""
    monkeypatch.setattr(accepting, "ARRIVING_MAX", 4)
    async with door() as d:
        first, second, third = [await d.silent() for _ in range(3)]
        assert await third[0].read() == b""
        first[1].close()
        assert await _eventually(d) == b"hello\n"
        second[1].transport.abort()
        third[1].close()


async def _eventually(d: Door) -> bytes:
    """Once the server has heard that another has gone."""
    while True:
        try:
            return await d.hello()
        except OSError:
            await asyncio.sleep(0.001)


async def test_its_end_leaves_no_connection_open() -> None:
    async with door() as d:
        reader, writer = await d.silent()
        await asyncio.sleep(0.01)
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(OSError, match=r"."):
        socket.create_connection(("127.0.0.1", d.port), timeout=1)

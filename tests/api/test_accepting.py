"""Connections on their way in: the silent wait without TLS, bounded in number and time, and keep nobody waiting."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.api import accepting, create_ca, listen, server_tls
from bessemer.api.accepting import Accepting, Room
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

    async def silent(self, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that says nothing."""
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))

    async def hello(self, source: str = "127.0.0.1") -> bytes:
        """What is said to one that shakes hands."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.client, local_addr=(source, 0))
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


async def test_those_that_say_nothing_keep_nobody_out_who_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two addresses fill the room: newcomers are served, and the eldest silence of whoever has most ends for them."""
    monkeypatch.setattr(accepting, "ARRIVING_MAX", 4)
    async with door() as d:
        silent = [await d.silent(f"127.0.0.{2 + n % 2}") for n in range(4)]
        for _ in range(3):
            assert await d.hello("127.0.0.4") == b"hello\n"
        assert await silent[0][0].read() == b""
        more = [await d.silent("127.0.0.3") for _ in range(20)]
        assert await d.hello("127.0.0.4") == b"hello\n"
        assert await more[0][0].read() == b""
        assert not more[-1][0].at_eof()
        for _, writer in [*silent, *more]:
            writer.transport.abort()


async def test_those_that_have_spoken_have_a_room_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there are behind one address, while the room of the silent is small; and in theirs, too, an address
    that has most of it keeps out itself alone."""
    monkeypatch.setattr(accepting, "ARRIVING_MAX", 2)
    monkeypatch.setattr(accepting, "SPEAKING_MAX", 8)
    async with door() as d:
        d.pace.open.clear()
        spoke = []
        for number in range(8):
            spoke.append(await d.silent("127.0.0.2"))
            spoke[-1][1].write(b"\x16")
            while len(d.pace.came) <= number:
                await asyncio.sleep(0.001)
        one_more = await d.silent("127.0.0.2")
        one_more[1].write(b"\x16")
        with pytest.raises(ConnectionResetError):
            await one_more[0].read()
        assert not any(reader.at_eof() or reader.exception() for reader, _ in spoke)
        hello = asyncio.ensure_future(d.hello("127.0.0.3"))
        with pytest.raises(ConnectionResetError):
            await spoke[-1][0].read()
        d.pace.open.set()
        assert await hello == b"hello\n"
        for _, writer in [*spoke, one_more]:
            writer.transport.abort()


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60),
    st.booleans(),
)
async def test_a_room_holds_no_more_than_it_may_and_who_has_least_loses_nothing(
    steps: list[tuple[str, bool]], eldest: bool
) -> None:
    room, inside = Room(6, eldest=eldest), dict[asyncio.Future[None], str]()
    for source, leaves in steps:
        mine = [meeting for meeting, at in inside.items() if at == source]
        if leaves and mine:
            room.leave(source, mine[0])
            del inside[mine[0]]
            continue
        meeting = asyncio.get_running_loop().create_future()
        inside[meeting] = source
        lost = room.enter(source, meeting)
        assert (lost is not None) == (len(inside) > 6)
        if lost is not None:
            counts = Counter(inside.values())
            assert counts[inside.pop(lost)] == max(counts.values())


async def test_its_end_leaves_no_connection_open() -> None:
    async with door() as d:
        reader, writer = await d.silent()
        await asyncio.sleep(0.01)
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(OSError, match=r"."):
        socket.create_connection(("127.0.0.1", d.port), timeout=1)

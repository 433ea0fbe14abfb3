"""Connections on their way in: the silent wait without TLS, bounded in number and time, and keep nobody waiting."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.api import accepting, create_ca, listen, listener, server_tls
from bessemer.api.accepting import Accepting, Room, room_for
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
        self.accepting = Accepting(self.on, Greeting, tls=self.tls, pace=self.pace)

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
    task = asyncio.ensure_future(made.accepting.run())
    try:
        async with asyncio.timeout(60):
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
        with suppress(ConnectionResetError):  # where the machine stalls, what was said is not read before that
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


FEW = """
import asyncio, resource, socket
from bessemer.api import accepting, listen
from bessemer.api.accepting import Accepting
from bessemer.core.descriptors import kept

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
accepting.ROOM_SHARE = 9.0  # as if the rooms had no bound of their own

async def main():
    on = listen("127.0.0.1", 0)
    port = on.getsockname()[1]
    print(port, flush=True)
    task = asyncio.ensure_future(Accepting(on, asyncio.Protocol, tls=None).run())
    await asyncio.get_running_loop().run_in_executor(None, input)
    print(len([open("/dev/null") for _ in range(kept() - 8)]), flush=True)
    task.cancel()

asyncio.run(main())
"""


async def test_the_last_files_are_no_connections() -> None:
    """Of 256, which strangers take, it can still open what it keeps for itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FEW, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(260)]
    await asyncio.sleep(0.3)
    process.stdin.write(b"\n")
    assert int(await process.stdout.readline()) == 32 - 8
    for _, writer in held:
        writer.transport.abort()
    assert await process.wait() == 0


def test_rooms_are_bounded_by_the_files_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "descriptors_max", lambda: 1_024)
    assert (room_for(2_048), room_for(4)) == (128, 4)
    taken = 2 * accepting.ROOM_SHARE + listener.FILES_SHARE
    assert taken * 1_024 + 128 < 1_024


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
        while not d.accepting._meetings:  # until then the kernel alone has it
            await asyncio.sleep(0.001)
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(OSError, match=r"."):
        socket.create_connection(("127.0.0.1", d.port), timeout=1)

"""Streams over one socket: bytes arrive in order, a slow reader stops only its own stream, a broken peer is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core.clock import settle
from bessemer.core.errors import Malformed, NotFound, Unavailable
from bessemer.core.frames import CHUNK, CLOSE, DATA, OPEN, STREAMS_MAX, WINDOW, Frame, Mux, Stream, decode, encode

Accept = Callable[[Stream], Awaitable[None]]


class Wire:
    """Two muxes joined by queues, as by a socket."""

    def __init__(self, accept: Accept | None = None) -> None:
        self.to_host: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.to_server: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.server = Mux(self.to_host.put, dialled=False)
        self.host = Mux(self.to_server.put, dialled=True, accept=accept)
        self.runs = [
            asyncio.ensure_future(self.server.run(drain(self.to_server))),
            asyncio.ensure_future(self.host.run(drain(self.to_host))),
        ]

    async def cut(self) -> None:
        await self.to_host.put(None)
        await self.to_server.put(None)
        await asyncio.gather(*self.runs)


async def drain(queue: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    while (message := await queue.get()) is not None:
        yield message


@given(st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1), st.binary(max_size=CHUNK))
def test_a_frame_survives_the_wire(kind: int, stream: int, payload: bytes) -> None:
    frame = Frame(kind, stream, payload)
    assert decode(encode(frame)) == frame


@given(st.binary(max_size=64))
def test_a_message_is_a_frame_or_malformed(message: bytes) -> None:
    try:
        assert encode(decode(message)) == message
    except Malformed:
        pass


async def test_a_request_is_answered_in_order_and_ends() -> None:
    async def accept(stream: Stream) -> None:
        for part in (b"a", b"b" * 100_000, b"c"):
            await stream.write(part)

    wire = Wire(accept)
    stream = await wire.server.open({"what": "log"})
    assert b"".join([part async for part in stream]) == b"a" + b"b" * 100_000 + b"c"
    assert stream.closed
    await wire.cut()


async def test_bytes_go_both_ways() -> None:
    async def echo(stream: Stream) -> None:
        async for part in stream:
            await stream.write(part.upper())

    wire = Wire(echo)
    stream = await wire.server.open({"what": "console"})
    await stream.write(b"hello")
    assert await stream.read() == b"HELLO"
    await stream.close()
    await wire.cut()


async def test_a_slow_reader_stops_its_own_stream_alone() -> None:
    sent = 0

    async def accept(stream: Stream) -> None:
        nonlocal sent
        if stream.request["what"] == "short":
            await stream.write(b"short")
            return
        for _ in range(64):
            await stream.write(b"x" * CHUNK)
            sent += CHUNK

    wire = Wire(accept)
    slow = await wire.server.open({"what": "long"})
    await settle(200)
    assert sent == WINDOW
    other = await wire.server.open({"what": "short"})
    assert await other.read() == b"short"
    total = 0
    async for part in slow:
        total += len(part)
    assert total == 64 * CHUNK
    await wire.cut()


async def test_an_error_is_told_as_the_reason() -> None:
    async def accept(stream: Stream) -> None:
        raise NotFound("no such claim")

    wire = Wire(accept)
    stream = await wire.server.open({"what": "log"})
    with pytest.raises(Unavailable, match="no such claim"):
        await stream.read()
    with pytest.raises(Unavailable):
        await stream.write(b"x")
    await wire.cut()


async def test_a_lost_socket_ends_every_stream() -> None:
    async def accept(stream: Stream) -> None:
        await stream.read()

    wire = Wire(accept)
    stream = await wire.server.open({"what": "log"})
    await settle()
    await wire.cut()
    with pytest.raises(Unavailable, match="lost"):
        await stream.read()
    with pytest.raises(Unavailable):
        await wire.server.open({"what": "log"})


async def test_a_side_that_accepts_nothing_refuses() -> None:
    wire = Wire()
    stream = await wire.host.open({"what": "log"})
    with pytest.raises(Unavailable, match="refused"):
        await stream.read()
    await wire.cut()


async def test_a_peer_that_ignores_the_window_is_cut_off() -> None:
    wire = Wire()
    stream = await wire.server.open({"what": "log"})
    for _ in range(WINDOW // CHUNK + 1):
        await wire.to_server.put(encode(Frame(DATA, 2, b"x" * CHUNK)))
    await settle()
    assert stream.closed
    await wire.cut()


async def test_frames_of_one_byte_are_kept_in_few_pieces() -> None:
    """Else what waits to be read would take a hundred times what the window says."""

    async def accept(stream: Stream) -> None:
        await stream.read()

    wire = Wire(accept)
    stream = await wire.server.open({"what": "log"})
    for number in range(50_000):
        await wire.to_server.put(encode(Frame(DATA, 2, b"%d" % (number % 10))))
    await settle()
    while not wire.to_server.empty():
        await settle()
    assert len(stream._unread) == 2
    assert await stream.read() + await stream.read() == b"0123456789" * 5000
    assert not stream.closed
    await wire.cut()


async def test_streams_that_are_closed_at_once_are_bounded_too() -> None:
    """Whoever opens and closes, and opens again, has no more served at a time than whoever keeps them open."""
    served, go = 0, asyncio.Event()

    async def accept(stream: Stream) -> None:
        nonlocal served
        served += 1
        await go.wait()

    wire = Wire(accept)
    for number in range(STREAMS_MAX + 50):
        await wire.to_host.put(encode(Frame(OPEN, 2 * number, b"{}")))
        await wire.to_host.put(encode(Frame(CLOSE, 2 * number)))
    while not wire.to_host.empty():
        await settle()
    await settle()
    assert served == STREAMS_MAX
    go.set()
    await settle()
    await wire.to_host.put(encode(Frame(OPEN, 2 * STREAMS_MAX, b"{}")))
    await settle()
    assert served == STREAMS_MAX + 1
    await wire.cut()


async def test_a_stream_whose_opening_is_given_up_is_none() -> None:
    async def stuck(_: bytes) -> None:
        await asyncio.Event().wait()

    mux = Mux(stuck, dialled=True)
    for _ in range(STREAMS_MAX + 1):
        opening = asyncio.ensure_future(mux.open({"what": "log"}))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening


async def test_a_stream_under_the_wrong_number_is_malformed() -> None:
    wire = Wire()
    await wire.to_host.put(encode(Frame(OPEN, 1, b"{}")))
    await settle()
    with pytest.raises(Malformed):
        await wire.runs[1]
    await wire.to_server.put(None)
    await wire.runs[0]

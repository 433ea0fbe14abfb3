"""The one listener: it tells when it serves, ends what would go on for ever, and says where an application does not
start."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from bessemer.api import create_ca, listen, listener, serve, server_tls
from bessemer.api.listener import HELD_BYTES_MAX, BoundedProtocol, Gathering
from bessemer.core.errors import Unavailable
from bessemer.core.tls import show
from tests.api.world import BASE, PATIENCE_SECONDS, served, world

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Application:
    """Answers nothing; ``fails`` at its start where it is told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.ended = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        if self.fails:
            await send({"type": "lifespan.startup.failed"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def end(self) -> None:
        self.ended = True


async def serving(app: Application, stop: asyncio.Event, ready: asyncio.Event) -> None:
    ca = create_ca("test")
    tls = server_tls(ca.issue("server", sans=["127.0.0.1"]), ca.certificate)
    await serve(app, on=listen("127.0.0.1", 0), tls=tls, stop=stop, ready=ready.set, close=app.end)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_it_serves_until_it_is_stopped_or_cancelled(cancelled: bool) -> None:
    app, stop, ready = Application(), asyncio.Event(), asyncio.Event()
    task = asyncio.ensure_future(serving(app, stop, ready))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await ready.wait()
        assert not app.ended
        if cancelled:
            task.cancel()
        else:
            stop.set()
        await asyncio.wait({task})
    assert app.ended
    assert task.cancelled() is cancelled


async def test_it_sleeps_while_nothing_happens_and_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = list[int]()
    tick = uvicorn.Server.on_tick
    monkeypatch.setattr(listener, "TICK_SECONDS", 10 * PATIENCE_SECONDS)

    async def counted(server: uvicorn.Server, counter: int) -> bool:
        ticks.append(counter)
        return await tick(server, counter)

    monkeypatch.setattr(uvicorn.Server, "on_tick", counted)
    app, stop, ready = Application(), asyncio.Event(), asyncio.Event()
    task = asyncio.ensure_future(serving(app, stop, ready))
    await ready.wait()
    await asyncio.sleep(0.3)
    assert len(ticks) == 1
    stop.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await task


class Sink(asyncio.Transport):
    """What went out, call by call."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def test_what_is_written_in_one_turn_goes_out_at_once() -> None:
    sink = Sink()
    gathering = Gathering(sink, asyncio.get_running_loop())
    gathering.write(b"head ")
    gathering.write(b"body")
    assert sink.sent == []
    await asyncio.sleep(0)
    gathering.write(b"next")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sink.sent == [b"head body", b"next"]
    assert gathering.is_closing() is False


async def test_much_goes_out_within_the_turn_and_everything_before_the_end() -> None:
    sink = Sink()
    gathering = Gathering(sink, asyncio.get_running_loop())
    gathering.write(b"x" * HELD_BYTES_MAX)
    gathering.write(b"y")
    assert [len(part) for part in sink.sent] == [HELD_BYTES_MAX + 1]
    gathering.write(b"last")
    gathering.close()
    assert sink.sent[1:] == [b"last"]
    await asyncio.sleep(0)
    assert gathering.is_closing()


async def test_an_application_that_does_not_start_is_no_silent_end() -> None:
    app, ready = Application(fails=True), asyncio.Event()
    with pytest.raises(Unavailable, match="did not start"):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await serving(app, asyncio.Event(), ready)
    assert not ready.is_set()


class Answering(Application):
    """Answers each request with ``size`` bytes in parts, and says how that ended."""

    def __init__(self, size: int = 0) -> None:
        super().__init__()
        self.size = size
        self.over = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"keep-alive")]})
        part = b"x" * (64 << 10)
        for _ in range(self.size // len(part)):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self.over.set()


@asynccontextmanager
async def answering(app: Answering) -> AsyncIterator[Callable[[bool], Awaitable[Stream]]]:
    """The application on a free port; call it for a connection, with a client's certificate or without."""
    ca = create_ca("test")
    on, stop, ready = listen("127.0.0.1", 0), asyncio.Event(), asyncio.Event()
    port = on.getsockname()[1]
    tls = server_tls(ca.issue("server", sans=["127.0.0.1"]), ca.certificate)
    task = asyncio.ensure_future(serve(app, on=on, tls=tls, stop=stop, ready=ready.set, close=app.end))
    open_: list[asyncio.StreamWriter] = []

    async def connect(known: bool) -> Stream:
        context = ssl.create_default_context(cadata=ca.certificate.decode())
        if known:
            issued = ca.issue("client")
            show(context, (issued.certificate, issued.key))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 10)
        open_.append(writer)
        return reader, writer

    async with asyncio.timeout(2 * PATIENCE_SECONDS):
        await ready.wait()
        try:
            yield connect
        finally:
            for writer in open_:
                writer.transport.abort()
            stop.set()
            await task


async def _asked(stream: Stream) -> bytes:
    """The first line of an answer; nothing where the connection was ended."""
    reader, writer = stream
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    try:
        return await reader.readline()
    except (ConnectionError, asyncio.IncompleteReadError):
        return b""


@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: "])
async def test_headers_that_do_not_end_are_given_up(monkeypatch: pytest.MonkeyPatch, before: bytes) -> None:
    """A line now and then keeps nothing open; whoever is in time is served beside it."""
    async with answering(Answering()) as connect:
        in_time = await connect(False)  # which the server has by then: its bound is not that of a handshake, too
        assert await _asked(in_time)
        await in_time[0].readuntil(b"\r\n0\r\n\r\n")
        monkeypatch.setattr(listener, "HEADERS_SECONDS", 0.2)
        reader, writer = await connect(False)
        writer.write(before)

        async def drip() -> None:
            while True:
                await asyncio.sleep(0.02)
                writer.write(b"X-B: c\r\n" if before else b"")

        dripping = asyncio.ensure_future(drip())
        assert (await _asked(in_time)).startswith(b"HTTP/1.1 200")
        try:
            assert await reader.read() == b""
        except ConnectionError:
            pass
        finally:
            dripping.cancel()


async def test_whoever_does_not_read_is_shed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer is more than the sockets hold, and it takes none of it."""
    monkeypatch.setattr(listener, "READ_SECONDS", 0.2)
    app = Answering(size=64 << 20)
    async with answering(app) as connect:
        reader, writer = await connect(False)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await app.over.wait()  # uvicorn lets an answer to nobody run out
        assert len(await reader.read()) < app.size


async def test_a_stranger_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four places one address has two; who shows a certificate needs none; a place is free once it is left."""
    monkeypatch.setattr(listener, "strangers_max", lambda: 4)
    async with answering(Answering()) as connect:
        first, second, third = [await connect(False) for _ in range(3)]
        assert await _asked(first)
        assert await _asked(second)
        assert not await _asked(third)
        assert await _asked(await connect(True))
        first[1].transport.abort()
        while not await _asked(await connect(False)):  # once the server has heard of it
            pass


def test_places_are_bounded_in_all_and_for_each() -> None:
    doors = listener.Doors(4)
    assert [doors.enter(address) for address in ("a", "a", "a", "b", "b", "c")] == [
        True,
        True,
        False,
        True,
        True,
        False,
    ]
    doors.leave("a")
    assert doors.enter("c")
    assert not doors.enter("a")


async def test_of_a_connection_that_breaks_no_buffers_of_tls_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of its request in circles is there until everything is walked."""
    made: list[weakref.ref[Any]] = []
    begin = BoundedProtocol.connection_made

    def noted(self: BoundedProtocol, transport: Any) -> None:
        made.append(weakref.ref(transport._ssl_protocol))
        begin(self, transport)

    monkeypatch.setattr(BoundedProtocol, "connection_made", noted)
    async with world() as w, served(w, tmp_path) as site:
        trust = ssl.create_default_context(cadata=w.ca.certificate.decode())
        show(trust, (site.admin.certificate, site.admin.key))
        port = int(site.url.rpartition(":")[2])
        gc.disable()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
            writer.write(f"GET {BASE}/tenants?watch=1 HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            assert made[0]() is not None
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while made[0]() is not None:
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()

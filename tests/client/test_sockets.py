"""Sockets of the client: one that does not come to stand, and why one that stood has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bessemer.client import Ask, HttpTransport, Socket, transport
from bessemer.core import errors
from tests.api.world import PATIENCE_SECONDS


async def test_a_socket_that_does_not_come_to_stand_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and says nothing."""
    monkeypatch.setattr(transport, "DIAL_SECONDS_MAX", 0.05)
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    made = HttpTransport(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(errors.Unavailable, match="did not answer in time"):
            async with made.socket("/stream", {}):
                pass
        await made.close()
        await gone.wait()
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def _hung_up(ending: Callable[[web.WebSocketResponse, web.Request], Awaitable[object]]) -> AsyncIterator[Socket]:
    """A socket whose server sends one message, then ends it so."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_bytes(b"booting")
        await ending(socket, request)
        return socket

    app = web.Application()
    app.router.add_get("/console", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made = HttpTransport(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), made.socket("/console", {}) as socket:
            yield socket
    finally:
        await made.close()
        await runner.cleanup()


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (lambda socket, _: socket.close(), ""),
        (lambda socket, _: socket.close(code=1008, message=b"somebody else is at the console"), "somebody else is at"),
        (lambda socket, _: socket.close(code=1011), "the connection was lost"),
        (lambda _, request: _torn(request), "the connection was lost"),
    ],
    ids=["in good order", "for a reason", "without words", "torn"],
)
async def test_why_a_socket_was_closed_is_told(ending: Any, said: str) -> None:
    async with _hung_up(ending) as socket:
        shown = aiter(socket)
        assert await anext(shown) == b"booting"
        with pytest.raises(errors.Unavailable, match=said) if said else pytest.raises(StopAsyncIteration):
            await anext(shown)


async def test_a_socket_that_we_close_ends_for_its_reader() -> None:
    async with _hung_up(lambda socket, _: socket.receive()) as socket:
        reading = asyncio.ensure_future(_all(socket))
        await asyncio.sleep(0)
        await socket.close()
        assert await reading in ([], [b"booting"])


async def test_a_socket_whose_wire_is_cut_ends_all_that_was_dialled() -> None:
    """Over the same wire a watch is as silent, and nobody says so; what is asked for next is dialled anew."""
    cut = asyncio.Event()

    async def serve(request: web.Request) -> web.StreamResponse:
        if request.path == "/stream":
            socket = web.WebSocketResponse(autoping=False)  # which answers no ping
            await socket.prepare(request)
            await cut.wait()
            return socket
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"begun")
        if request.path == "/watch":
            await cut.wait()
        return answer

    app = web.Application()
    app.router.add_get("/{any}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made = HttpTransport(f"http://127.0.0.1:{runner.addresses[0][1]}", ping_seconds=0.05)

    async def beat() -> None:
        async with made.socket("/stream", {}) as socket:
            await anext(aiter(socket))

    try:
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            made.stream(Ask(method="GET", path="/watch"), silence=60) as parts,
        ):
            assert await anext(parts) == b"begun"
            more = asyncio.ensure_future(anext(parts))
            with pytest.raises(errors.Unavailable):
                await beat()
            with pytest.raises(aiohttp.ClientConnectionError):
                await more
        assert await made.request(Ask(method="GET", path="/thing")) == b"begun"
    finally:
        cut.set()
        await made.close()
        await runner.cleanup()


async def _torn(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


async def _all(socket: Socket) -> list[bytes]:
    return [message async for message in socket]

"""What hears of it when a client's connections are given up, and what is made anew."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from bessemer.client import Ask, HttpTransport, transport
from bessemer.core import errors
from tests.api.world import PATIENCE_SECONDS

THING = Ask(method="GET", path="/thing")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Begin = Callable[[HttpTransport], Awaitable[object]]


@asynccontextmanager
async def _server(handler: Handler) -> AsyncIterator[str]:
    """Its URL."""
    app = web.Application()
    app.router.add_get("/{any}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _asked(made: HttpTransport) -> object:
    return await made.request(THING)


async def _streamed(made: HttpTransport) -> object:
    async with made.stream(THING) as parts:
        return [part async for part in parts]


async def _dialled(made: HttpTransport) -> object:
    async with made.socket("/thing", {}):
        return None


class Names:
    """A resolver that hangs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = asyncio.Event()
        monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", self._resolve)

    async def _resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        self.asked.set()
        await asyncio.Event().wait()
        return []


@pytest.mark.parametrize("begin", [_asked, _streamed, _dialled])
async def test_who_looks_for_an_address_hears_that_connections_are_given_up(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first looks, the second waits for what it finds. Either hears an error: whoever is cancelled instead is taken
    for done by its group of tasks, and follows nothing any more."""
    names, made, heard = Names(monkeypatch), HttpTransport("http://api.test:1"), []

    async def beat() -> None:
        with pytest.raises(errors.Unavailable, match="cannot be reached"):
            await begin(made)
        heard.append("unavailable")

    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        group.create_task(beat())
        group.create_task(beat())
        await names.asked.wait()
        await asyncio.sleep(0)
        await made.close()
    assert heard == ["unavailable"] * 2


async def test_who_is_cancelled_while_it_looks_for_an_address_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the connections are given up in the same turn of the loop."""
    names, made = Names(monkeypatch), HttpTransport("http://api.test:1")
    asking = asyncio.ensure_future(made.request(THING))
    await names.asked.wait()
    asking.cancel()
    await made.close()
    await asyncio.wait([asking], timeout=PATIENCE_SECONDS)
    assert asking.cancelled()


async def test_a_name_that_is_not_found_is_waited_for_as_a_dial_is(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch)
    monkeypatch.setattr(transport, "CONNECT_SECONDS_MAX", 0.05)
    made = HttpTransport("http://api.test:1")
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(errors.Unavailable, match="in time"):
            await made.request(THING)
        await made.close()


async def test_what_has_no_answer_yet_is_not_asked_again_by_the_session_that_has_ended() -> None:
    """It would dial, and find only then that nothing may be asked over that."""
    dialled: list[None] = []
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.append(None)
        await reader.readline()
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    made = HttpTransport(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with asyncio.timeout(PATIENCE_SECONDS):
        asking = asyncio.ensure_future(made.request(THING))
        await asked.wait()
        await made.close()
        with pytest.raises(errors.Unavailable, match="cannot be reached"):
            await asking
        asked.clear()
        later = asyncio.ensure_future(made.request(THING))
        await asked.wait()
        assert len(dialled) == 2, "once by each who asked"
        later.cancel()
        await asyncio.gather(later, return_exceptions=True)
        await made.close()
        server.close()
        await server.wait_closed()


async def test_a_socket_that_is_left_late_ends_nothing_that_was_dialled_anew() -> None:
    """Its wire was cut, and its reader came to hear of it once the connections had been given up."""
    let = asyncio.Event()

    async def serve(request: web.Request) -> web.StreamResponse:
        if request.path == "/socket":
            dumb = web.WebSocketResponse(autoping=False)
            await dumb.prepare(request)
            await let.wait()
            return dumb
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"begun")
        await let.wait()
        await answer.write(b"done")
        return answer

    async with asyncio.timeout(PATIENCE_SECONDS), _server(serve) as url:
        made = HttpTransport(url, ping_seconds=0.05)
        stream = made.stream(THING)
        async with made.socket("/socket", {}) as dumb:
            with pytest.raises(errors.Unavailable, match="lost"):
                await anext(aiter(dumb))
            await made.close()
            parts = await stream.__aenter__()
            assert await anext(parts) == b"begun"
        let.set()
        assert await anext(parts) == b"done"
        await stream.__aexit__(None, None, None)
        await made.close()


async def test_what_comes_of_an_answer_is_heard_and_not_what_was_begun_since() -> None:
    more = asyncio.Event()

    async def serve(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"begun")
        if request.path == "/watch":
            await more.wait()
            await answer.write(b"more")
        return answer

    async with asyncio.timeout(PATIENCE_SECONDS), _server(serve) as url:
        made = HttpTransport(url)
        async with made.stream(Ask(method="GET", path="/watch")) as parts:
            assert await anext(parts) == b"begun"
            heard = made.listen()
            assert await made.request(THING) == b"begun"
            assert not heard()
            more.set()
            assert await anext(parts) == b"more"
            assert heard()
        await made.close()

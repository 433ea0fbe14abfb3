"""The one listener: it tells when it serves, ends what would go on for ever, and says where an application does not
start."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn

from bessemer.api import create_ca, listen, serve, server_tls
from bessemer.core.errors import Unavailable


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
    async with asyncio.timeout(10):
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
    async with asyncio.timeout(0.6):
        await task


async def test_an_application_that_does_not_start_is_no_silent_end() -> None:
    app, ready = Application(fails=True), asyncio.Event()
    with pytest.raises(Unavailable, match="did not start"):
        async with asyncio.timeout(10):
            await serving(app, asyncio.Event(), ready)
    assert not ready.is_set()

"""One stream of server-sent events for all tabs of a browser: what is new on each page, lines of logs, and a pulse.

The pulse says that the api was heard of within the last seconds; a page that misses it says since when it is old. A
stream ends with its session, which has `STREAMS_MAX` at most. It never waits for a slow browser longer than the
transport does: news are differences, so what was skipped is not missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bessemer.core.errors import BessemerError, NotFound, Unauthenticated, Unavailable
from bessemer.core.resource import Key
from bessemer.core.tasks import first_error, until_first
from bessemer.portal.desk import STREAMS_MAX, Desk
from bessemer.portal.live import Draw, Tab

PULSE_SECONDS = 2.0
GATHER_SECONDS, GATHER_SECONDS_MAX = 0.04, 0.8
"""How long changes are gathered before they are sent together; longer where a page takes long to build, so that a
stream takes a quarter of the process at most."""
LOG_CHUNK_MAX = 4096
_LOG_AGAIN_SECONDS = 1.0
ASK_SECONDS, ASK_SHARE = 0.7, 3.0
"""How long a page that must ask waits before it asks again; longer where the answer takes long, so that it is asked for
a quarter of the time at most."""


class EventStream(Response):
    """Server-sent events. It ends the source as soon as the browser is gone, whatever it waits for."""

    media_type = "text/event-stream"

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._source = source
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        tasks = [asyncio.create_task(self._pass_on(send)), asyncio.create_task(_gone(receive))]
        await until_first(tasks)
        if error := first_error(tasks, but=OSError):
            raise error

    async def _pass_on(self, send: Send) -> None:
        async with aclosing(self._source) as source:  # type: ignore[type-var]
            async for chunk in source:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def told(data: bytes) -> bytes:
    """One event."""
    return b"data: " + data + b"\n\n"


class Stream:
    """The events of some tabs of one desk, each with the number of the last news that its browser saw; ``lost`` are
    tokens that nobody knows any more: such a page comes again, unless the desk let it go. A tab that another stream
    takes over is left to it. Nothing is held before ``events`` begins: the browser may be gone by then."""

    def __init__(self, desk: Desk, tabs: Sequence[tuple[Tab, int]], *, lost: Sequence[str] = (), draw: Draw) -> None:
        self._desk = desk
        self._draw = draw
        self._bell = asyncio.Event()
        self._logs: asyncio.Queue[bytes] = asyncio.Queue(64)
        self._pulse_at = 0.0
        self._gather = GATHER_SECONDS
        self._stale = [*lost, *(tab.token for tab, number in tabs if not tab.resume(number))]
        self._tabs = [tab for tab, _ in tabs if tab.token not in self._stale]

    async def events(self) -> AsyncIterator[bytes]:
        """For ever, or until the session ends. None where the session has as many streams as it may."""
        desk = self._desk
        if desk.streams >= STREAMS_MAX:
            return
        desk.streams += 1
        desk.rings(self._bell)
        pumps = [asyncio.create_task(self._pump(tab)) for tab in self._tabs if tab.log is not None]
        pumps += [asyncio.create_task(self._ask(tab)) for tab in self._tabs if tab.ask is not None]
        for tab in self._tabs:
            tab.owner = self
        try:
            yield b"retry: 1000\n\n"
            for token in self._stale:
                yield told(orjson.dumps({"t": token, "x": "full" if token in desk.let_go else "stale"}))
            while not desk.ended:
                self._bell.clear()
                for message in self._news():
                    yield told(message)
                pulse = await self._pulse()
                if pulse is not None:
                    yield told(pulse)
                await self._wait()
            if desk.refused:
                yield told(orjson.dumps({"x": "signedout"}))
        finally:
            desk.streams -= 1
            desk.silent(self._bell)
            for tab in self._tabs:
                if tab.owner is self:
                    tab.owner = None
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    def _news(self) -> list[bytes]:
        began = self._desk.clock.monotonic()
        found: list[bytes] = []
        for tab in list(self._tabs):
            if tab.owner is not self or tab.forgotten:
                self._tabs.remove(tab)
                if tab.forgotten:
                    found.append(orjson.dumps({"t": tab.token, "x": "full"}))
                continue
            try:
                found += tab.news(self._draw)
            except NotFound:
                self._tabs.remove(tab)
                found.append(orjson.dumps({"t": tab.token, "x": "gone"}))
        took = self._desk.clock.monotonic() - began
        self._gather = min(GATHER_SECONDS_MAX, max(GATHER_SECONDS, 3 * took))
        while not self._logs.empty():
            found.append(self._logs.get_nowait())
        return found

    async def _pulse(self) -> bytes | None:
        """A pulse where one is due and the api answers."""
        now = self._desk.clock.monotonic()
        if now < self._pulse_at:
            return None
        self._pulse_at = now + PULSE_SECONDS
        try:
            await self._desk.check(max_age=PULSE_SECONDS / 2)
        except (Unauthenticated, Unavailable):
            return None
        return orjson.dumps({"b": self._desk.clock.now()})

    async def _wait(self) -> None:
        left = self._pulse_at - self._desk.clock.monotonic()
        try:
            await asyncio.wait_for(self._bell.wait(), max(0.0, left))
        except TimeoutError:
            return
        await self._desk.clock.sleep(self._gather)

    async def _pump(self, tab: Tab) -> None:
        """Follow a workload's log; begin again when it ends or cannot be had yet."""
        while tab.log is not None and tab.owner is self and not tab.forgotten:
            try:
                await self._follow(tab, tab.log)
            except BessemerError as error:
                await self._say(tab, {"w": error.message})
            await self._desk.clock.sleep(_LOG_AGAIN_SECONDS)

    async def _ask(self, tab: Tab) -> None:
        """Ask again and again for what no watch tells of. What cannot be had stays as it was."""
        while tab.ask is not None and tab.owner is self and not tab.forgotten:
            began = self._desk.clock.monotonic()
            try:
                await tab.ask()
            except BessemerError:
                pass  # the pulse says how old the page is
            else:
                self._bell.set()
            took = self._desk.clock.monotonic() - began
            await self._desk.clock.sleep(max(ASK_SECONDS, ASK_SHARE * took))

    async def _follow(self, tab: Tab, log: Key) -> None:
        reset = True
        async with self._desk.client.workloads.log(log, follow=True) as parts:
            async for part in parts:
                await self._log(tab, part, reset=reset)
                reset = False

    async def _log(self, tab: Tab, part: bytes, *, reset: bool) -> None:
        text = part.decode("utf-8", "replace")
        for start in range(0, len(text), LOG_CHUNK_MAX):
            first = reset and start == 0
            await self._say(tab, {"l": text[start : start + LOG_CHUNK_MAX], **({"r": 1} if first else {})})

    async def _say(self, tab: Tab, what: dict[str, object]) -> None:
        await self._logs.put(orjson.dumps({"t": tab.token, **what}))
        self._bell.set()

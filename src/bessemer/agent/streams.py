"""Bytes of workloads, relayed over one socket that the agent dials: logs to follow, consoles to type into.

The api opens a stream with ``{"verb": "log" | "console", "claim": UID, "follow": bool}``, or with ``{"verb": "log",
"kind": KIND, "kept": NAME}`` for what is kept of a claim that is gone; who may see it was decided
there, and here it can reach nothing but the Claims of this host. Windows are bounded (`core.frames`), so a slow reader
holds up its own stream alone. The socket is dialled again for ever. While it stands the heart beats over it too: a
message each way costs a fraction of a request, and says that the socket is alive.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress

import structlog

from bessemer.agent.claims import Sides
from bessemer.agent.link import TROUBLE, Link
from bessemer.agent.metrics import AgentMetrics
from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Malformed, NotFound
from bessemer.core.frames import Mux, Stream
from bessemer.core.resource import Key
from bessemer.core.tasks import first_of
from bessemer.drivers.qemu.protocol import Console
from bessemer.kinds.context import HostContext
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.host_side import HasConsole, HasKept
from bessemer.loop.queue import Backoff

GOOD_SECONDS = 10.0
"""A socket that held for so long was a good one."""

ANSWER_SECONDS = 5.0
"""How long a beat over the socket waits for its answer before it goes another way."""

CLOSE_SECONDS = 1.0
"""How long its stream may take to be closed then: over a socket that is dead, for ever."""

Find = Callable[[str], Claim | None]
"""The Claim of this host with the uid."""

log = structlog.get_logger(__name__)


class Relay:
    """Serves the streams that the api opens."""

    def __init__(self, link: Link, ctx: HostContext, *, sides: Sides, find: Find, metrics: AgentMetrics) -> None:
        self._link = link
        self._ctx = ctx
        self._sides = sides
        self._find = find
        self._metrics = metrics
        self._mux: Mux | None = None
        self._pulse: Stream | None = None
        self._dialled = asyncio.Event()

    async def run(self, clock: Clock) -> None:
        """Dial and serve, for ever."""
        key, backoff = Key("Stream", "", ""), Backoff(0.5, 15.0, random.random)
        host = self._link.identity.host
        while True:
            began = math.inf
            try:
                async with self._link.client.agents.stream(host) as socket:
                    began = clock.monotonic()
                    self._mux = Mux(socket.send, dialled=True, accept=self.serve)
                    self._dialled.set()
                    await self._mux.run(aiter(socket))
            except TROUBLE as error:
                self._link.failed(error)
                log.info("stream socket ended", host=host, error=str(error))
            finally:
                self._mux = self._pulse = None
                self._dialled.set()
            self._metrics.disconnects.labels("stream").inc()
            if clock.monotonic() - began > GOOD_SECONDS:
                backoff.reset(key)
            await clock.sleep(backoff.next(key))

    async def beat(self) -> None:
        """Renew the host's lease, over the socket where one stands and answers, else by a request. Raises what the
        request raises. The first beat waits for the first dialling, but not for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._dialled.wait()
        if self._mux is None or not await self._pulsed(self._mux):
            await self._link.client.agents.heartbeat(self._link.identity.host)

    async def _pulsed(self, mux: Mux) -> bool:
        pulse = self._pulse
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if pulse is None or pulse.closed:
                    pulse = self._pulse = await mux.open({"verb": "heartbeat"})
                await pulse.write(b"\n")
                return bool(await pulse.read())
        except (TimeoutError, BessemerError) as error:
            log.info("heartbeat unanswered", host=self._link.identity.host, error=str(error))
        self._pulse = None  # else a late answer would be taken for the next beat's
        if pulse is not None:
            with suppress(TimeoutError, BessemerError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await pulse.close()
        return False

    async def serve(self, stream: Stream) -> None:
        """Serve one stream to its end. Raises what the other side is told: NotFound, Malformed, DriverError."""
        if "kept" in stream.request:
            await self._serve_kept(stream)
            return
        claim = self._find(str(stream.request.get("claim", "")))
        side = self._sides.get(claim.spec.workload.kind) if claim else None
        if claim is None or side is None:
            raise NotFound("it does not run on this host")
        with self._metrics.streams.track_inprogress():
            verb = stream.request.get("verb")
            if verb == "log":
                follow = stream.request.get("follow") is True
                await first_of(_pump(side.log(self._ctx, claim, follow=follow), stream), _closed(stream))
            elif verb == "console":
                if not isinstance(side, HasConsole):
                    raise Malformed("it has no console")
                await _converse(await side.console(self._ctx, claim), stream)
            else:
                raise Malformed("a stream is a log or a console")

    async def _serve_kept(self, stream: Stream) -> None:
        """What is kept of a claim that is gone, by its workload's kind and the name that this kind gave it."""
        side = self._sides.get(str(stream.request.get("kind", "")))
        if side is None or not isinstance(side, HasKept):
            raise NotFound("nothing of it is kept on this host")
        with self._metrics.streams.track_inprogress():
            await first_of(_pump(side.kept(self._ctx, str(stream.request["kept"])), stream), _closed(stream))


async def _pump(chunks: AsyncIterator[bytes], stream: Stream) -> None:
    async with aclosing(chunks) as open_chunks:  # type: ignore[type-var]
        async for chunk in open_chunks:
            await stream.write(chunk)


async def _closed(stream: Stream) -> None:
    """Return when the reader has left; it has nothing to say in between."""
    while await stream.read():
        pass


async def _converse(console: Console, stream: Stream) -> None:
    async def shown() -> None:
        while data := await console.read():
            await stream.write(data)

    async def typed() -> None:
        while data := await stream.read():
            await console.write(data)

    try:
        await first_of(shown(), typed())
    finally:
        await console.close()

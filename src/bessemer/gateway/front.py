"""The listener's side of HTTP/1.1: requests in, bounded before anything is read of them, and answers out.

A protocol on httptools, without a task for a connection or a request. How long a client may take for its head and its
body, how slowly it may read, and what it may send that is no body, is bounded (`reading` has the rest). Requests of one
connection are answered in their order. One tick looks at who is late, instead of a timer for each.

While much waits behind an answer, or a client does not read what it was answered, nothing is read of it, and that it
goes is noticed after the answer only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import httptools

from bessemer.core.clock import Clock
from bessemer.gateway import errors
from bessemer.gateway.errors import Refused
from bessemer.gateway.large import Large
from bessemer.gateway.reading import HEADERS_BYTES_MAX, HEADERS_SECONDS, SPARED_BYTES_MAX, Held, Reading
from bessemer.gateway.reply import Call, Stamps

KEEP_ALIVE_SECONDS = 75.0
BODY_BYTES_PER_SECOND = 4096
"""How slowly a body may come once it has taken longer than `BODY_SECONDS`."""
READ_SECONDS = 60.0
"""A reader that has not taken what the sockets hold in that time is gone, whatever its TCP says."""
LINGER_SECONDS = 2.0
"""For which what a client still sends is thrown away, so that it reads why nobody wants it."""
TICK_SECONDS = 0.25
"""Between two looks at who is late."""

_NEVER = float("inf")


class Handler(Protocol):
    """What answers requests."""

    def begin(self, call: Call) -> None:
        """The head is there. Raises Refused: who asks for nothing that there is need not send a body."""

    def serve(self, call: Call) -> None:
        """All of it is there: answer it, now or later. Raises Refused."""

    def refused(self, call: Call, status: int) -> None:
        """It was answered with an error."""


class Front:
    """The connections of one listener. ``enter`` says whether there is room for one more of an address, ``leave`` is
    told when it has ended; ``sweep`` is called at each tick with the time. ``held`` are bytes of bodies."""

    def __init__(
        self,
        handler: Handler,
        clock: Clock,
        *,
        enter: Callable[[str], bool] = lambda _: True,
        leave: Callable[[str], None] = lambda _: None,
        sweep: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.handler = handler
        self.clock = clock
        self.enter = enter
        self.leave = leave
        self.stamps = Stamps(clock)
        self.stopping = False
        self.held = 0
        self.large = Large()
        self.now = clock.monotonic()
        """As of the last tick, which is near enough for what may take many of them."""
        self._sweep = sweep
        self._connections: set[Connection] = set()
        self._ticking: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    def connect(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(self)

    @property
    def connections(self) -> int:
        return len(self._connections)

    def add(self, connection: Connection) -> None:
        """It is open."""
        self._connections.add(connection)
        if self._ticking is None:
            self.now = self.clock.monotonic()
            self._ticking = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def remove(self, connection: Connection) -> None:
        """It has ended."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    async def close(self, seconds: float) -> None:
        """Let what is being answered end within ``seconds``, take nothing more, and close all: what is not over by then
        is told why."""
        self.stopping = True
        self._empty.clear()
        for connection in list(self._connections):
            connection.retire()
        if self._connections:
            try:
                async with asyncio.timeout(seconds):
                    await self._empty.wait()
            except TimeoutError:
                pass
        for connection in list(self._connections):
            call = connection.call
            if call is not None and call.work is not None:
                call.leave()
                call.refuse(errors.gateway_stops())
            connection.transport.abort()
        await asyncio.sleep(0)
        if self._ticking is not None:
            self._ticking.cancel()
        self._sweep(_NEVER)

    def _tick(self) -> None:
        # First, so that whatever goes wrong below ends no other's patience.
        self._ticking = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)
        now = self.now = self.clock.monotonic()
        for connection in list(self._connections):
            if now >= connection.deadline:
                connection.late(now)
            call = connection.call
            if call is not None and now >= call.deadline:
                call.deadline = _NEVER
                if call.work is not None:
                    call.work.late()
        self._sweep(now)


class Connection(asyncio.Protocol):
    """One client's. ``call`` is the request that is read or answered, ``deadline`` when something has to have come."""

    __slots__ = (
        "_address",
        "_broken",
        "_front",
        "_reading",
        "_stalled",
        "bodies",
        "call",
        "deadline",
        "stamps",
        "transport",
    )

    def __init__(self, front: Front) -> None:
        self._front = front
        self.bodies: Held = front
        self._address: str | None = None
        self._reading: Reading | None = Reading(self)
        self._broken = False
        """Nothing more is read: it closes when what is being answered is."""
        self._stalled = _NEVER
        self.stamps = front.stamps
        self.call: Call | None = None
        self.deadline = _NEVER
        self.transport: Any = None

    # --- asyncio calls these ------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._front.add(self)
        self.expect(HEADERS_SECONDS)
        peer = transport.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else "local"
        if self._front.stopping or not self._front.enter(address):
            transport.abort()
        else:
            self._address = address

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.remove(self)
        if self._address is not None:
            self._front.leave(self._address)
        self._broken = True
        if self._reading is not None:
            self._reading.close()
            self._reading = None
        if (call := self.call) is not None:
            self.call = None
            self._front.held -= call.size
            self._front.large.ended(call)
            call.leave()
        if exc is not None:
            self.transport.close()  # only who closes lets go of TLS's buffers, a quarter of a megabyte

    def data_received(self, data: bytes) -> None:
        reading = self._reading
        if self._broken or reading is None or (self.call is None and reading.again(data)):
            return
        reading.framing += len(data)
        reading.turn += 1
        between = reading.between
        try:
            reading.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._broken = True  # what was asked is answered over HTTP/1.1, and nothing after it
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, Refused):
                raise
            self.refuse(error.__context__)
        except httptools.HttpParserError as error:
            self.refuse(errors.unreadable(str(error)[:100]))
        else:
            if reading.framing > HEADERS_BYTES_MAX:
                self.refuse(errors.large_head(f"{HEADERS_BYTES_MAX} bytes"))
            elif between and reading.between:
                reading.learn(data)

    def pause_writing(self) -> None:
        self._stalled = self._front.now + READ_SECONDS
        self.deadline = min(self.deadline, self._stalled)
        self.transport.pause_reading()  # else it might ask on, and what it is answered would pile up here
        if self.call is not None and self.call.work is not None:
            self.call.work.flow(True)

    def resume_writing(self) -> None:
        if self.deadline == self._stalled:
            self.deadline = _NEVER
        self._stalled = _NEVER
        reading = self._reading
        if reading is not None and not (self._broken or self.transport.is_closing()):
            if not reading.paused:
                self.transport.resume_reading()
            if self.call is None and reading.waits:
                asyncio.get_running_loop().call_soon(self._next)
        if self.call is not None and self.call.work is not None:
            self.call.work.flow(False)

    # --- Reading and Call call these ----------------------------------------------------------------------------

    def expect(self, seconds: float) -> None:
        self.deadline = self._front.now + seconds

    def begin(self, call: Call) -> None:
        self._front.handler.begin(call)

    def serve(self, call: Call) -> None:
        self.deadline = self._stalled
        try:
            if call.refused is not None:
                raise call.refused
            self._front.handler.serve(call)
        except Refused as refused:
            call.refuse(refused)

    def refused(self, call: Call, status: int) -> None:
        self._front.handler.refused(call, status)

    def done(self, call: Call) -> None:
        if call.size > SPARED_BYTES_MAX:
            self._front.large.ended(call)
        self._front.held -= call.size
        call.size = 0
        if call is not self.call:
            return
        self.call = None
        if not call.keep or self._broken or self._front.stopping:
            self._broken = True
            self.expect(READ_SECONDS if call.whole else LINGER_SECONDS)
            _end(self.transport, whole=call.whole)
        elif self._reading is not None and self._reading.waits:
            self.deadline = self._stalled
            if self._stalled == _NEVER:
                asyncio.get_running_loop().call_soon(self._next)
        else:
            self.deadline = self._front.now + KEEP_ALIVE_SECONDS

    # --- and the rest -------------------------------------------------------------------------------------------

    def refuse(self, refused: Refused) -> None:
        """Answer what cannot be read to its end, and end the connection; what is being answered comes first."""
        self._broken = True
        if self._reading is not None:
            self._reading.stop()
        call = self.call
        if call is None:
            call = self.call = Call(self)
        if not call.whole:
            call.keep = False
            call.refuse(refused)

    def retire(self) -> None:
        """Close it, unless something is being asked."""
        if self.call is None:
            self.transport.close()

    def late(self, now: float) -> None:
        """Something has not come in time."""
        call = self.call
        if now >= self._stalled or self._broken:
            self.transport.abort()
        elif call is None:
            self._broken = True
            self.expect(READ_SECONDS)
            self.transport.close()  # once it has read the answer; if it does not, that ends, too
        elif call.whole:
            self.deadline = self._stalled
        elif now >= self.deadline + call.size / BODY_BYTES_PER_SECOND:
            self.refuse(errors.too_slow())

    def _next(self) -> None:
        if self._reading is not None and self._stalled == _NEVER:
            try:
                self._reading.next()
            except Refused as refused:
                self.refuse(refused)


def _end(transport: Any, *, whole: bool) -> None:
    """Close it; where the client may still be sending, when it has read why nobody wants that."""
    if whole:
        transport.close()
    elif transport.can_write_eof():
        transport.write_eof()

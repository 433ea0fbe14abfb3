"""Serves an application over TLS, stops within a bound, and does not wait for slow strangers: every listener of ours.

uvicorn hands no client certificate to its application: the protocol here reads it once per connection and puts it into
the connection's state, which a WebSocket upgrade inherits. The listening socket is the caller's. It knows none of the
applications that it serves, so that a gateway is spared the api.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bessemer.api.accepting import Accepting
from bessemer.api.ca import Pair, peer_of
from bessemer.api.limit import network
from bessemer.core.descriptors import descriptors_max
from bessemer.core.errors import Unavailable
from bessemer.core.tls import show

Application = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application: ``scope``, ``receive``, ``send``."""

TICK_SECONDS = 1.0
"""Between two looks at what time it is, which answers tell."""

STOP_SECONDS = 5
KEEP_ALIVE_SECONDS = 75
HEADERS_SECONDS = 20.0
HEADERS_BYTES_MAX = 64 << 10
"""Of headers, trailers and chunk extensions in a row; the parser itself would take any number."""

READ_SECONDS = 60.0
"""A reader that has not taken what the sockets hold (some hundred KiB) in that time is gone, whatever its TCP says."""

FILES_SHARE = 0.5
"""Of the files that the process may have open, for connections of those who show no certificate."""

HELD_BYTES_MAX = 64 << 10
SOCKET_MESSAGE_BYTES_MAX = 64 << 10


class Gathering:
    """A transport that sends what is written in one turn of the loop at once: uvicorn writes the head and the body of
    an answer apart, and each would be a record of TLS and a call of the system by itself. A whole answer goes at once:
    beside a storm the end of a turn is far."""

    __slots__ = ("_bytes", "_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._bytes = 0

    def write(self, data: bytes) -> None:
        """Hold it until the turn ends, or until much is held: who writes must hear that the reader is slow."""
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)
        self._bytes += len(data)
        if self._bytes > HELD_BYTES_MAX:
            self.flush()

    def writelines(self, parts: Iterable[bytes]) -> None:
        """Write one after the other."""
        self.write(b"".join(parts))

    def close(self) -> None:
        """What is held goes out before."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def flush(self) -> None:
        """Send what is held."""
        if self._held:
            held, self._held, self._bytes = self._held, [], 0
            self._transport.write(b"".join(held))


class Outlet:
    """Of a connection, as ``state["outlet"]``: for parts of an answer that was begun without a length (`chunk`), where
    many are told the same. What is written goes out in this turn of the loop; uvicorn's way is a coroutine for each
    part of each answer, and puts it into a frame of its own. Not for HEAD."""

    __slots__ = ("_flow", "_gathering", "_transport", "lost", "when_lost")

    def __init__(self, transport: asyncio.Transport, gathering: Gathering, *, flow: FlowControl) -> None:
        self._transport = transport
        self._gathering = gathering
        self._flow = flow
        self.lost = False
        """Of a connection that broke, its transport does not say that it is closing."""
        self.when_lost: Callable[[], None] | None = None
        """Is called then: an application does not hear of it while another request waits behind its answer."""

    @property
    def ready(self) -> bool:
        """Whether what is written is taken: the connection is there, and its reader not slow."""
        return not (self._flow.write_paused or self.lost or self._transport.is_closing())

    @property
    def closed(self) -> bool:
        """Whether nobody reads any more."""
        return self.lost or self._transport.is_closing()

    def lose(self) -> None:
        """The connection is gone."""
        self.lost = True
        if self.when_lost is not None:
            self.when_lost()

    def write(self, part: bytes) -> None:
        """Send it after all that was written before."""
        self._gathering.flush()
        self._transport.write(part)


def chunk(part: bytes) -> bytes:
    """A part of an answer as HTTP/1.1 frames it; none is nothing, for an empty chunk would be the end."""
    return b"%x\r\n%b\r\n" % (len(part), part) if part else b""


def strangers_max() -> int:
    """By the files that this process may have open."""
    return int(descriptors_max() * FILES_SHARE)


class Doors:
    """How many connections of a sort are open: ``most`` in all, of which one address has no more than half, so that no
    stranger keeps everybody else out."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()
        self._all = 0

    def enter(self, address: str) -> bool:
        """Whether there is room for one more; then `leave` it once."""
        if self._all >= self._most or self._open[address] >= self._most // 2:
            return False
        self._open[address] += 1
        self._all += 1
        return True

    def leave(self, address: str) -> None:
        """A connection has ended."""
        self._all -= 1
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]


class BoundedProtocol(HttpToolsProtocol):
    """HTTP with a bound on how long a request's headers may take, how long they may be, how slowly answers may be read,
    and how many a stranger opens; ``state["peer"]`` is who showed a certificate."""

    _slow: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _framing = 0
    _moved = False
    _entered = ""

    def __init__(self, *given: Any, doors: Doors, **more: Any) -> None:
        super().__init__(*given, **more)
        self._doors = doors

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._gathering = Gathering(transport, self.loop)
        super().connection_made(self._gathering)  # type: ignore[arg-type]
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(True) if tls is not None else None
        peer = peer_of(certificate) if certificate else None
        self._outlet = Outlet(transport, self._gathering, flow=self.flow)
        self.app_state = {**self.app_state, "peer": peer, "outlet": self._outlet}
        self._expect_headers()
        if certificate is None:
            address = network(self.client[0]) if self.client else "local"
            if self._doors.enter(address):
                self._entered = address
            else:
                transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self._stalled or self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._go_on()

    def data_received(self, data: bytes) -> None:
        self._moved = False
        super().data_received(data)
        # A read in which a head was completed or a body went on may hold the beginning of the next.
        self._framing = 0 if self._moved else self._framing + len(data)
        if self._framing > HEADERS_BYTES_MAX:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self._moved = True
        self._forget()
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """Another protocol has the connection from here, and bounds it."""
        self._forget()
        self._go_on()
        self._leave()
        super().handle_websocket_upgrade()

    def on_response_complete(self) -> None:
        self._gathering.flush()
        super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        self._moved = True
        super().on_body(body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        self._go_on()
        self._leave()
        self._outlet.lose()
        super().connection_lost(exc)
        if exc is not None:
            # Then uvicorn does not, and only who closes lets go of TLS's buffers, a quarter of a megabyte: what is left
            # of a request in circles may be there for an hour (`main.garbage`).
            self.transport.close()

    def _expect_headers(self) -> None:
        self._forget()
        self._slow = self.loop.call_later(HEADERS_SECONDS, self.transport.close)

    def _forget(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _go_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _leave(self) -> None:
        entered, self._entered = self._entered, ""
        if entered:
            self._doors.leave(entered)


class _Quiet(uvicorn.Server):
    """Says when it listens; signals are the process's own affair, not the server's. Its end is told, not looked for:
    uvicorn looks ten times a second."""

    ready: Callable[[], None] | None = None

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()
        self._accepting: list[asyncio.Task[None]] = []

    def end(self) -> None:
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # which keeps the answers' date
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._ending.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup([])
        except SystemExit as error:  # the process is not the server's to end
            raise Unavailable("the application did not start") from error
        if self.started:
            doors = [Accepting(on, self._protocol, tls=self.config.ssl) for on in sockets or ()]
            self._accepting = [asyncio.ensure_future(door.run()) for door in doors]
            if self.ready is not None:
                self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def server_tls(pair: Pair, ca: bytes | None = None) -> ssl.SSLContext:
    """TLS that shows ``pair`` and verifies client certificates of ``ca`` where one is shown; without it none is asked
    for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    show(context, (pair.certificate, pair.key))
    if ca is not None:
        context.load_verify_locations(cadata=ca.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening TCP socket; port 0 is a free one. Where it is ``shared``, other processes of this user may listen
    there, too, and the kernel deals connections out among them. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    bound.listen(2048)
    return bound


async def serve(
    app: Application,
    *,
    on: socket.socket,
    tls: ssl.SSLContext,
    stop: asyncio.Event,
    ready: Callable[[], None] | None = None,
    close: Callable[[], Awaitable[None] | None] | None = None,
) -> None:
    """Serve until ``stop`` is set or the task is cancelled; then ``close`` ends what would go on for ever, and requests
    are finished within `STOP_SECONDS`. Closes ``on``. Raises Unavailable where the application does not start."""
    server = _Quiet(uvicorn.Config(app, **_options(tls)))
    server.ready = ready
    serving = asyncio.ensure_future(server.serve(sockets=[on]))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        ended = close() if close is not None else None
        if inspect.isawaitable(ended):
            await ended
        server.end()
        try:
            await serving
        finally:
            on.close()


def _options(tls: ssl.SSLContext) -> dict[str, Any]:
    return {
        "http": partial(BoundedProtocol, doors=Doors(strangers_max())),
        "ws": "websockets-sansio",
        "ws_max_size": SOCKET_MESSAGE_BYTES_MAX,
        "ws_per_message_deflate": False,
        "ws_ping_interval": None,  # agents ping; twice would cost each quiet socket double
        "lifespan": "on",
        "ssl_context_factory": lambda config, default: tls,
        "log_config": None,
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": STOP_SECONDS,
    }

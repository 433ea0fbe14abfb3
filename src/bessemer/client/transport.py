"""How requests travel: the `Transport` that a client stands on, and the one over HTTPS (`HttpTransport`).

A transport answers with bytes or raises an error of ``core.errors``, read from the server's ``Status``; a network that
fails is Unavailable. It keeps no state of the caller's and repeats nothing: who may repeat what is known above.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import aiohttp

from bessemer.client.status import error_of
from bessemer.core.errors import BessemerError, Unavailable
from bessemer.core.frames import MESSAGE_BYTES_MAX
from bessemer.core.tls import show

REQUEST_SECONDS_MAX = 60.0
DIAL_SECONDS_MAX = 15.0
"""Until a socket stands. Without it a server that takes the connection and says nothing would hold an agent's
streams for minutes."""

SILENCE_SECONDS_MAX = 90.0
"""The server sends a bookmark on a quiet watch every minute; a stream silent for longer than this is dead."""

CONNECT_SECONDS_MAX = 10.0
"""Until a connection stands, from the look for its address to TLS: a wire that is cut says nothing."""

PING_SECONDS = 60.0
"""After so much silence a socket is asked whether it lives, and has half of that to say so. One over which a heart
beats is never asked."""

_LOST = "the connection was lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request. ``headers`` join those of the transport; ``body`` is sent as ``content_type``."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    body: bytes | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class Socket(Protocol):
    """A WebSocket of binary messages; iterate to receive until either side closes it in good order. Iterating raises
    Unavailable where the server closed it for a reason, which is the message, or where the connection was lost."""

    async def send(self, message: bytes) -> None:
        """Raises Unavailable once closed."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def close(self) -> None: ...


class Transport(Protocol):
    """What `Client` stands on."""

    async def request(self, ask: Ask) -> bytes:
        """The body of a good answer. Raises what the server's Status says."""
        ...

    def stream(self, ask: Ask, *, silence: float | None = None) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The body in parts, as they come; ``silence`` seconds without one raise Unavailable."""
        ...

    def socket(self, path: str, query: Mapping[str, str]) -> AbstractAsyncContextManager[Socket]: ...

    async def close(self) -> None: ...


class _AioSocket:
    """aiohttp's WebSocket as a `Socket`."""

    def __init__(self, inner: aiohttp.ClientWebSocketResponse) -> None:
        self._inner = inner
        self._left = False

    async def send(self, message: bytes) -> None:
        try:
            await self._inner.send_bytes(message)
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Unavailable(_LOST, internal=str(error)) from error

    async def _receive(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._inner.receive()
            if message.type == aiohttp.WSMsgType.BINARY:
                yield message.data
            elif message.type == aiohttp.WSMsgType.TEXT:
                yield message.data.encode()
            elif self._left or (message.type == aiohttp.WSMsgType.CLOSE and message.data == aiohttp.WSCloseCode.OK):
                return
            elif message.type == aiohttp.WSMsgType.CLOSE:
                raise Unavailable(message.extra or _LOST, internal=f"closed with {message.data}")
            else:
                raise Unavailable(_LOST, internal=repr(message.data))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._receive()

    async def close(self) -> None:
        self._left = True
        await self._inner.close()


class Unreachable(Unavailable):
    """No server was found at ``url``, or it was lost."""

    def __init__(self, url: str, *, internal: str = "") -> None:
        super().__init__("the server cannot be reached", internal=internal)
        self.url = url


class HttpTransport:
    """HTTPS with pooled connections. ``tls`` is of `tls_context`; ``token`` a bearer; ``ping_seconds`` the silence of a
    socket after which it is asked whether it lives. Where it does not, the wire is cut, and all connections are given
    up with it: a watch would wait for a minute and a half. Use on one loop."""

    def __init__(
        self, url: str, *, tls: ssl.SSLContext | None = None, token: str = "", ping_seconds: float = PING_SECONDS
    ) -> None:
        self._url = url.rstrip("/")
        self._ssl = tls
        self._ping_seconds = ping_seconds
        self._headers = {"User-Agent": "bessemer", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._session: aiohttp.ClientSession | None = None
        self._answers: set[aiohttp.ClientResponse] = set()
        """Those that are being read. Of the end of a session their readers would not hear."""

        self._begun: set[asyncio.Timeout] = set()
        """Of those who have no answer yet, some of whom look for an address or dial."""

    async def request(self, ask: Ask) -> bytes:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX, connect=CONNECT_SECONDS_MAX)
        try:
            async with self._open(ask, timeout) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error, url=self._url) from error
        if response.status >= 400:
            raise error_of(response.status, body, headers=response.headers)
        return body

    @asynccontextmanager
    async def stream(self, ask: Ask, *, silence: float | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS_MAX, sock_read=silence)
        try:
            async with self._open(ask, timeout) as response:
                if response.status >= 400:
                    raise error_of(response.status, await response.read(), headers=response.headers)
                yield response.content.iter_any()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error, url=self._url) from error

    @asynccontextmanager
    async def socket(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Socket]:
        try:
            async with asyncio.timeout(DIAL_SECONDS_MAX), self._beginning() as session:
                dialled = await session.ws_connect(
                    self._url + path,
                    params=dict(query),
                    headers=self._headers,
                    ssl=self._ssl or True,
                    heartbeat=self._ping_seconds,
                    max_msg_size=MESSAGE_BYTES_MAX,
                )
            async with dialled as inner, self._standing_with(inner, session):
                yield _AioSocket(inner)
        except aiohttp.WSServerHandshakeError as error:
            raise error_of(error.status, b"", headers=error.headers or {}) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error, url=self._url) from error

    async def close(self) -> None:
        """End the connections there are, and what is under way over them, which raises Unavailable; a later request
        dials anew."""
        session, self._session = self._session, None
        now = asyncio.get_running_loop().time()
        for begun in self._begun:
            begun.reschedule(now)
        for answer in self._answers:
            answer.close()
        if session is not None:
            await session.close()

    def listen(self) -> Callable[[], bool]:
        """Whether since this call more has come of an answer that was being read then. One that began later says
        nothing of the connections there were."""
        before = {answer: answer.content.total_bytes for answer in self._answers}
        return lambda: any(answer.content.total_bytes > count for answer, count in before.items())

    @asynccontextmanager
    async def _beginning(self) -> AsyncIterator[aiohttp.ClientSession]:
        """The session, until an answer begins. Of its end whoever waits hears as of a connection that was lost. By
        itself aiohttp cancels whoever looks for an address, which nobody takes for an error: a group of tasks would
        believe that the task was done. And it sends again, by a session that has ended, what has no answer yet."""
        begun = asyncio.timeout(None)
        try:
            async with begun:
                self._begun.add(begun)
                try:
                    yield self._live()
                finally:
                    self._begun.discard(begun)
        except TimeoutError as error:
            if begun.expired():
                raise Unreachable(self._url, internal=_LOST) from error
            raise

    @asynccontextmanager
    async def _standing_with(
        self, socket: aiohttp.ClientWebSocketResponse, session: aiohttp.ClientSession
    ) -> AsyncIterator[None]:
        """All connections end with one that answered no ping, unless they were dialled anew since."""
        try:
            yield
        finally:
            if isinstance(socket.exception(), aiohttp.ServerTimeoutError) and self._session is session:
                await self.close()

    def _live(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Watches hold their connection for ever, so a bound on connections would starve short requests.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60.0)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=True)
        return self._session

    @asynccontextmanager
    async def _open(self, ask: Ask, timeout: aiohttp.ClientTimeout) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {**self._headers, **ask.headers}
        if ask.body is not None:
            headers["Content-Type"] = ask.content_type
        async with self._beginning() as session:
            begun = await session.request(
                ask.method,
                self._url + ask.path,
                params=dict(ask.query),
                data=ask.body,
                headers=headers,
                timeout=timeout,
                ssl=self._ssl or True,
                allow_redirects=False,
            )
        async with begun as answer:
            if self._session is not session:
                raise Unreachable(self._url, internal=_LOST)
            self._answers.add(answer)
            try:
                yield answer
            finally:
                self._answers.discard(answer)


def tls_context(ca: bytes | None, cert: tuple[bytes, bytes] | None) -> ssl.SSLContext:
    """TLS that trusts ``ca`` alone (the machine's authorities where it is None) and shows ``cert``: (certificate, key).
    All are PEM."""
    context = ssl.create_default_context(cadata=ca.decode() if ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        show(context, cert)
    return context


def _unreachable(error: BaseException, *, url: str) -> BessemerError:
    if isinstance(error, asyncio.TimeoutError):
        return Unavailable("the server did not answer in time", internal=repr(error))
    return Unreachable(url, internal=str(error))

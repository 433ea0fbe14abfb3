"""How requests travel: the `Transport` that a client stands on, and the one over HTTPS (`HttpTransport`).

A transport answers with bytes or raises an error of ``core.errors``, read from the server's ``Status``; a network that
fails is Unavailable. It keeps no state of the caller's and repeats nothing: who may repeat what is known above.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

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

PING_SECONDS = 60.0
"""After so much silence a socket is asked whether it lives. One over which a heart beats is never asked."""

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
    """HTTPS with pooled connections. ``tls`` is of `tls_context`; ``token`` a bearer. Use on one loop."""

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None, token: str = "") -> None:
        self._url = url.rstrip("/")
        self._ssl = tls
        self._headers = {"User-Agent": "bessemer", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._session: aiohttp.ClientSession | None = None

    async def request(self, ask: Ask) -> bytes:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX)
        try:
            async with self._open(ask, timeout) as response:
                body: bytes = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error, url=self._url) from error
        if response.status >= 400:
            raise error_of(response.status, body, headers=response.headers)
        return body

    @asynccontextmanager
    async def stream(self, ask: Ask, *, silence: float | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=silence)
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
            async with asyncio.timeout(DIAL_SECONDS_MAX):
                dialled = await self._live().ws_connect(
                    self._url + path,
                    params=dict(query),
                    headers=self._headers,
                    ssl=self._ssl or True,
                    heartbeat=PING_SECONDS,
                    max_msg_size=MESSAGE_BYTES_MAX,
                )
            async with dialled as inner:
                yield _AioSocket(inner)
        except aiohttp.WSServerHandshakeError as error:
            raise error_of(error.status, b"", headers=error.headers or {}) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error, url=self._url) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _live(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Watches hold their connection for ever, so a bound on connections would starve short requests.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60.0)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=True)
        return self._session

    def _open(self, ask: Ask, timeout: aiohttp.ClientTimeout) -> Any:
        headers = {**self._headers, **ask.headers}
        if ask.body is not None:
            headers["Content-Type"] = ask.content_type
        return self._live().request(
            ask.method,
            self._url + ask.path,
            params=dict(ask.query),
            data=ask.body,
            headers=headers,
            timeout=timeout,
            ssl=self._ssl or True,
            allow_redirects=False,
        )


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

"""A raw HTTP/1.1 client for replicas: asyncio and httptools, one connection per request, nothing buffered.

A connection is not used twice: llama.cpp closes each after a streamed answer without saying so, and a unix socket
costs a tenth of a millisecond. Doors of other machines are TLS and admit only the gateway's certificate.

A replica runs hostile code: what it may send that is no body, how long a body at once may be, and how long it may keep
a client waiting for the first byte, is bounded.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httptools

from bessemer.gateway import doors

CONNECT_SECONDS = 5.0
WHOLE_BYTES_MAX = 32 << 20
_READ_BYTES = 1 << 16
_FRAMING_BYTES_MAX = 1 << 17
"""Of headers, trailers and chunk extensions in a row."""


class Lost(Exception):
    """The replica could not be reached, or went before its answer was whole."""


class Silent(Lost):
    """The replica was reached and did not begin its answer in time."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to a replica. ``folder`` holds the doors of its host, if that shares this machine; ``patience_seconds``
    is how long the first byte of the answer's body may take."""

    path: str
    body: bytes
    secret: str
    request_id: str
    server_name: str = ""
    folder: Path | None = None
    patience_seconds: float = 60.0


class Answer:
    """An answer that is being read: status and headers are there, `parts` gives the body as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser: Any = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._complete = False
        self._head = False
        self._framing = 0
        self.headers: dict[bytes, bytes] = {}

    @property
    def status(self) -> int:
        return int(self._parser.get_status_code())

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head:  # else a trailer, which tells us nothing
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._head = True

    def on_body(self, body: bytes) -> None:
        self._framing = 0
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._complete = True

    async def begin(self) -> None:
        """Read until status, headers and the first byte of the body are there. Raises Lost."""
        while not (self._head and (self._parts or self._complete)):
            await self._feed()

    async def parts(self) -> AsyncIterator[bytes]:
        """The body in parts. Raises Lost where it ends too early."""
        while True:
            waiting, self._parts = self._parts, []
            for part in waiting:
                yield part
            if self._complete:
                return
            await self._feed()

    async def whole(self) -> bytes:
        """The body at once. Raises Lost, also past `WHOLE_BYTES_MAX`."""
        body = bytearray()
        async for part in self.parts():
            body += part
            if len(body) > WHOLE_BYTES_MAX:
                raise Lost(f"the answer has more than {WHOLE_BYTES_MAX} bytes")
        return bytes(body)

    async def _feed(self) -> None:
        try:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                raise Lost("the connection ended before the answer did")
            self._framing += len(data)
            self._parser.feed_data(data)
        except (OSError, httptools.HttpParserError) as error:
            raise Lost(str(error)) from error
        if self._framing > _FRAMING_BYTES_MAX:
            raise Lost("the answer has headers without end")

    def close(self) -> None:
        """Let go of the connection; an answer cut short stops the replica's work on it."""
        self._writer.close()


async def ask(address: str, request: Ask, *, tls: ssl.SSLContext | None) -> Answer:
    """Send a request and read the beginning of the answer; ``close`` it. Raises Lost."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await _connect(address, request, tls=tls)
    except (OSError, TimeoutError, ValueError) as error:
        raise Lost(f"cannot connect: {error}") from error
    answer = Answer(reader, writer)
    head = (
        f"POST {request.path} HTTP/1.1\r\nhost: replica\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {request.secret}\r\nx-request-id: {request.request_id}\r\n"
        f"content-length: {len(request.body)}\r\nconnection: close\r\n\r\n"
    )
    try:
        async with asyncio.timeout(request.patience_seconds):
            writer.write(head.encode() + request.body)
            await writer.drain()
            await answer.begin()
    except BaseException as error:
        answer.close()
        if isinstance(error, TimeoutError):
            raise Silent(f"no answer began within {request.patience_seconds:g} s") from error
        if isinstance(error, OSError):
            raise Lost(str(error)) from error
        raise
    return answer


async def _connect(
    address: str, request: Ask, *, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if doors.is_socket(address) and request.folder is not None:
        with doors.opened(address, request.folder) as path:
            return await asyncio.open_unix_connection(path, limit=_READ_BYTES)
    if tls is None or doors.refusal(address, None):
        raise ValueError("the address is no door")
    url = urlsplit(address)
    return await asyncio.open_connection(
        url.hostname, url.port, ssl=tls, server_hostname=request.server_name, limit=_READ_BYTES
    )

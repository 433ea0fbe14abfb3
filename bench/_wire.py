"""A lean HTTPS client, so that the load costs a fraction of what it measures: one request at a time per connection.

Requests are bytes made in advance; answers are status and body. It speaks HTTP/1.1 to our own servers and no more.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httptools

Answer = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Server:
    """Where to connect: a host and a port with the TLS of a client, or a path of a unix socket."""

    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    path: str = ""


def client_tls(ca: Path, cert: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """TLS that trusts ``ca`` and shows ``cert``."""
    context = ssl.create_default_context(cafile=str(ca))
    if cert is not None:
        context.load_cert_chain(*map(str, cert))
    return context


def request(method: str, path: str, body: bytes = b"", *, headers: str = "") -> bytes:
    """A whole request as bytes."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


class Wire(asyncio.Protocol):
    """One kept connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._parts: list[bytes] = []
        self._answer: asyncio.Future[Answer] | None = None
        self._on_part: Callable[[bytes], None] | None = None
        self.first_byte = 0.0

    @classmethod
    async def open(cls, server: Server) -> Wire:
        """Connect. Raises OSError."""
        loop = asyncio.get_running_loop()
        if server.path:
            return (await loop.create_unix_connection(cls, server.path))[1]
        made = await loop.create_connection(
            cls, server.host, server.port, ssl=server.tls, server_hostname="localhost" if server.tls else None
        )
        return made[1]

    async def ask(self, asked: bytes) -> Answer:
        """Send one request; status and body of its answer. Raises ConnectionError."""
        assert self._transport is not None
        self._parser, self._parts, self.first_byte = httptools.HttpResponseParser(self), [], 0.0
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(asked)
        return await self._answer

    async def lines(self, asked: bytes) -> AsyncIterator[bytes]:
        """Send one request whose answer does not end (a watch); its lines as they come."""
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._on_part = queue.put_nowait
        task = asyncio.ensure_future(self.ask(asked))
        rest = b""
        try:
            while True:
                *whole, rest = (rest + await queue.get()).split(b"\n")
                for line in whole:
                    yield line
        finally:
            task.cancel()

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio and httptools call these -----------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.first_byte = self.first_byte or time.perf_counter()
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def on_body(self, part: bytes) -> None:
        if self._on_part is not None:
            self._on_part(part)
        else:
            self._parts.append(part)

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), b"".join(self._parts)))


@dataclass(frozen=True, slots=True)
class Load:
    """What a load came to: requests per second, and each one's seconds."""

    rate: float
    seconds: list[float]


async def load(server: Server, requests: list[bytes], *, clients: int, good: tuple[int, ...] = (200, 201)) -> Load:
    """Send all requests over ``clients`` connections, each its next as soon as it has an answer.
    Raises RuntimeError for an answer that is not ``good``."""
    taken: Iterator[bytes] = iter(requests)
    seconds: list[float] = []

    async def work(wire: Wire) -> None:
        for asked in taken:
            began = time.perf_counter()
            status, body = await wire.ask(asked)
            seconds.append(time.perf_counter() - began)
            if status not in good:
                raise RuntimeError(f"{asked.splitlines()[0].decode()}: {status} {body[:300].decode(errors='replace')}")

    async with AsyncExitStack() as stack:
        wires = [await Wire.open(server) for _ in range(clients)]
        for wire in wires:
            stack.callback(wire.close)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for wire in wires:
                group.create_task(work(wire))
        return Load(len(requests) / (time.perf_counter() - began), seconds)

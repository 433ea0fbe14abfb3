"""Connections to replicas: HTTP/1.1 on asyncio and httptools, answers by callbacks, nothing buffered, kept where that
is safe.

A connection is used again after an answer that was whole and no stream (llama.cpp closes one after a streamed answer
without saying so). A server that has a thread for each connection says how long it keeps one: of such a replica one is
kept only while nobody waits there, for it would hold a thread that somebody waits for. One that is kept may have died
meanwhile: who was given it and hears not a byte may ask once more over a new one. Each is dialled through `doors`.

A replica runs hostile code: what it may send that is no body, how long a body at once may be, and how long it may keep
a client waiting for the first byte, is bounded; what it sends unasked ends the connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, Protocol
from urllib.parse import urlsplit

import httptools

from bessemer.core.hosts import door_name
from bessemer.gateway import doors
from bessemer.gateway.heads import Head
from bessemer.gateway.outer import Outward
from bessemer.gateway.route import Replica

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 4.0
"""Less than llama.cpp keeps a connection (5 s)."""
IDLE_MAX = 64
"""Of one replica."""
WHOLE_BYTES_MAX = 32 << 20
_KEEPALIVE = (
    (socket.TCP_KEEPIDLE, 15),
    (socket.TCP_KEEPINTVL, 5),
    (socket.TCP_KEEPCNT, 3),
    (socket.TCP_USER_TIMEOUT, 30_000),
)
"""Seconds until the first question and between two, how many have no answer, and milliseconds that what was sent may
stand unconfirmed."""
_FRAMING_BYTES_MAX = 1 << 17
"""Of headers, trailers and chunk extensions in a row."""


class Lost(Exception):
    """The replica could not be reached, or went before its answer was whole."""


class Endless(Lost):
    """More of an answer than is taken. A client may have asked for so much: nobody rests for it."""


class Silent(Lost):
    """The replica was reached and did not begin its answer in time."""


class Owner(Protocol):
    """Who asked over a connection."""

    def heard(self, link: Link) -> None:
        """Something of the answer has come."""

    def lost(self, why: str) -> None:
        """The rest of the answer will not come."""


class Link(asyncio.Protocol):
    """A connection to a replica. Of the answer that comes over it: ``status`` 0 until its head is there, ``parts`` of
    the body that nobody has taken, ``size`` of all of it, ``complete``. ``owner`` hears of it, None is nobody.
    ``kept``: it has answered before; ``silent``: not this time. ``keeps``: it may be used again, where it is
    ``frugal`` only while nobody else waits."""

    __slots__ = (
        "_framing",
        "_known",
        "_length",
        "_parser",
        "complete",
        "expires",
        "frugal",
        "keeps",
        "kept",
        "owner",
        "parts",
        "replica",
        "silent",
        "size",
        "status",
        "streaming",
        "transport",
    )

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.transport: Any = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self.owner: Owner | None = None
        self._framing = 0
        self._known: Head | None = None
        self.frugal = self.keeps = False
        self.kept = False
        self.expires = 0.0
        self._begin()

    def _begin(self) -> None:
        self.parts: list[bytes] = []
        self.status = self.size = 0
        self._length = b""
        self.silent = True
        self.streaming = self.complete = False

    def ask(self, data: bytes, owner: Owner) -> None:
        """Send a request; ``owner`` hears of its answer."""
        self._begin()
        self.owner = owner
        self._framing = 0
        self.transport.write(data)

    def take(self) -> bytes:
        """The body as far as it has come since the last time."""
        parts, self.parts = self.parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def drop(self) -> None:
        """Let go of the connection at once; an answer cut short stops the replica's work on it."""
        self.owner = None
        self.complete = False
        self.transport.abort()

    # --- asyncio and httptools call these -----------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._parser = None  # which knows this one: no circle is left behind
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.lost(str(exc) if exc else "the connection ended before the answer did")

    def data_received(self, data: bytes) -> None:
        owner = self.owner
        if owner is None or self.complete:
            self.transport.abort()  # nobody has asked
            return
        fresh, self.silent = self.silent, False
        if fresh and self._known is not None and (body := self._known.body(data)) is not None:
            self.status, self.size, self.complete, self.keeps = 200, len(body), True, True
            self.parts.append(body)
            owner.heard(self)
            return
        self._framing += len(data)
        why = ""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            why = str(error)
        if self._framing > _FRAMING_BYTES_MAX:
            why = "the answer has headers without end"
        if why:
            self.drop()
            owner.lost(why)
        elif self.status and (self.parts or self.complete):
            self._known = Head.read(data, self._length) if fresh and self._length else None
            owner.heard(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return  # a trailer, which tells us nothing
        name = name.lower()
        if name == b"content-type":
            self.streaming = value.startswith(b"text/event-stream")
        elif name == b"content-length":
            self._length = value
        elif name == b"keep-alive":
            self.frugal = True
        elif name == b"transfer-encoding":
            self._length = b""

    def on_headers_complete(self) -> None:
        if self.complete:
            raise Lost("it says more than was asked")
        self.status = self._parser.get_status_code() or -1

    def on_body(self, body: bytes) -> None:
        self._framing = 0
        self.size += len(body)
        self.parts.append(body)

    def on_message_complete(self) -> None:
        self.complete = True
        self.keeps = self._parser.should_keep_alive()  # afterwards it does not know
        if self.streaming or self.status != 200 or not self.keeps:
            self._length = b""


class Links:
    """The connections of one gateway that wait for a request, by replica. What the time is it hears at each `sweep`."""

    def __init__(self, tls: ssl.SSLContext | None, now: float, *, outward: Outward | None = None) -> None:
        self._tls = tls
        self._outward = outward
        self._now = now
        self._idle: dict[Link, None] = {}

    def kept(self, replica: Replica) -> Link | None:
        """A connection that is there."""
        while replica.links:
            link: Link = replica.links.pop()
            self._idle.pop(link, None)
            if not link.transport.is_closing():
                return link
        return None

    async def dial(self, replica: Replica) -> Link:
        """Another connection. Raises Lost."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._connected(replica)
        except (OSError, TimeoutError, ValueError) as error:
            raise Lost(f"cannot connect: {error}") from error

    def give_back(self, link: Link) -> None:
        """Keep a connection whose request is over, where that is safe."""
        replica = link.replica
        whole = link.complete and link.keeps and not link.streaming and not link.transport.is_closing()
        if not whole or (link.frugal and replica.busy) or len(replica.links) >= IDLE_MAX:
            link.drop()
            return
        link.owner = None
        link.kept = True
        link.expires = self._now + IDLE_SECONDS
        replica.links.append(link)
        self._idle[link] = None

    def sweep(self, now: float) -> None:
        """Close what nobody has used for long: those that were put away first stand first."""
        self._now = now
        while self._idle:
            link = next(iter(self._idle))
            if now < link.expires and not link.transport.is_closing():
                return
            del self._idle[link]
            if link in link.replica.links:
                link.replica.links.remove(link)
            link.drop()

    def close(self) -> None:
        """Close all of them."""
        self.sweep(float("inf"))

    async def _connected(self, replica: Replica) -> Link:
        loop, address, folder = asyncio.get_running_loop(), replica.address, replica.folder
        if replica.outer is not None:
            if self._outward is None:
                raise ValueError("this gateway asks nobody elsewhere")
            link: Link = await self._outward.connect(replica.outer, lambda: Link(replica))
            return link
        if doors.is_socket(address) and folder is not None:
            with doors.opened(address, folder) as path:
                return (await loop.create_unix_connection(lambda: Link(replica), path))[1]
        if self._tls is None or doors.refusal(address, None):
            raise ValueError("the address is no door")
        url = urlsplit(address)
        name = door_name(replica.host)
        made = await loop.create_connection(
            lambda: Link(replica), str(url.hostname), int(url.port or 0), ssl=self._tls, server_hostname=name
        )
        watch(made[0].get_extra_info("socket"))
        return made[1]


def watch(connection: socket.socket) -> None:
    """Let the kernel see, in half a minute, that who is at the other end is gone without a word: a host that lost its
    power sends no end of anything. Of a listening socket, for all that come in by it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def head(path: str, secret: str, *, stream: bool) -> bytes:
    """Of a request, up to what differs from one to the next; `ask` puts that behind it."""
    ends = "connection: close\r\n" if stream else ""
    return (
        f"POST {path} HTTP/1.1\r\nhost: replica\r\ncontent-type: application/json\r\n{ends}"
        f"authorization: Bearer {secret}\r\n"
    ).encode()


def ask(head: bytes, request_id: bytes, *, body: bytes) -> bytes:
    """A whole request."""
    return b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (head, request_id, len(body), body)

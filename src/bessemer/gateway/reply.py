"""One request of a client as it was read, and its answer as it is written: whole, or in parts.

An answer's head and body go out in one write. Where a client names its request (`x-request-id`) in characters that
harm nobody, its answer is called so, too; records and logs have an id of our own, which nobody else can choose.
"""

from __future__ import annotations

import itertools
import re
import secrets
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Protocol

import msgspec

from bessemer.core.clock import Clock
from bessemer.gateway.errors import Refused

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"

_NEVER = float("inf")
_SAFE_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class Stamps:
    """What every answer carries: an id of its own, and the date."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._process = secrets.token_hex(8)
        self._count = itertools.count(1)
        self._second, self._date = 0, b""

    def id(self) -> str:
        """Of a request: 32 hexadecimal characters that this process has never given before."""
        return f"{self._process}{next(self._count):016x}"

    def date(self) -> bytes:
        """As HTTP writes it."""
        second = int(self._clock.now())
        if second != self._second:
            self._second, self._date = second, formatdate(second, usegmt=True).encode()
        return self._date


class Work(Protocol):
    """What answers a call later, and hears meanwhile of its client."""

    def gone(self) -> None:
        """The client has left."""

    def late(self) -> None:
        """`Call.deadline` has passed."""

    def flow(self, paused: bool) -> None:
        """The client reads more slowly than it is written to, or has caught up."""


class Carrier(Protocol):
    """The connection of a call."""

    transport: Any
    stamps: Stamps
    bodies: Any
    call: Call | None

    def refuse(self, refused: Refused) -> None:
        """It is not read to its end."""

    def done(self, call: Call) -> None:
        """It is answered."""

    def refused(self, call: Call, status: int) -> None:
        """It is answered with an error of ours."""


class Call(msgspec.Struct, eq=False):
    """A request. ``headers`` have their names in lower case, of each the first; ``size`` is of the body as far as it is
    here, ``whole`` says that this is all of it, ``slow`` that its end came
    after its head was judged. ``keep``: the connection may stay open; ``chunked``: the client reads
    answers whose length nobody knows before."""

    _carrier: Carrier
    _begun: bool = False
    _first: bytes = b""
    method: bytes = b"GET"
    path: str = ""
    headers: dict[bytes, bytes] = msgspec.field(default_factory=dict)
    parts: list[bytes] = msgspec.field(default_factory=list)
    size: int = 0
    whole: bool = False
    slow: bool = False
    keep: bool = True
    chunked: bool = True
    refused: Refused | None = None
    deadline: float = _NEVER
    work: Work | None = None
    key: Any = None
    """Who asks, once that is known."""
    id: str = ""
    shown: bytes = b""

    @property
    def peer(self) -> str:
        """The address of who is connected; of a local door, none."""
        peer = self._carrier.transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    @property
    def bodies(self) -> Any:
        """Those among which what it holds counts (`reading.grow`)."""
        return self._carrier.bodies

    def name(self) -> None:
        """Give it its ids."""
        self.id = self._carrier.stamps.id()
        said = self.headers.get(b"x-request-id")
        self.shown = said if said is not None and _SAFE_ID.fullmatch(said) else self.id.encode()

    def body(self) -> bytes:
        """What was sent, once; it is not kept."""
        parts, self.parts = self.parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def answer(self, status: int, body: bytes, *, kind: bytes = JSON, extra: bytes = b"") -> None:
        """A whole answer, and the end of it. ``extra`` are header lines, each with its end."""
        head = self._head(status, kind, extra=extra)
        parts = head, b"content-length: %d\r\n\r\n" % len(body), b"" if self.method == b"HEAD" else body
        self._carrier.transport.write(b"".join(parts))
        self._end()

    def refuse(self, refused: Refused) -> None:
        """An error in OpenAI's words: as an answer, or the last event where one has begun."""
        self._carrier.refused(self, refused.status)
        if self._begun:
            self.keep = False
            self.finish(b"data: " + refused.body() + b"\n\n")
            return
        seconds = refused.retry_after_seconds
        extra = b"retry-after: %d\r\n" % seconds if seconds else b""
        self.answer(refused.status, refused.body(), extra=extra + refused.lines)

    def give_up(self, refused: Refused) -> None:
        """Refuse it before it was read to its end, where it is its turn."""
        if self._carrier.call is self:
            self._carrier.refuse(refused)

    def start(self, status: int, *, extra: bytes = b"") -> None:
        """Begin an answer of events; its head goes with the first of them."""
        self._begun = True
        if not self.chunked:
            self.keep = False
        ways = b"transfer-encoding: chunked\r\n" if self.chunked else b""
        self._first = b"%bcache-control: no-cache\r\n%b\r\n" % (self._head(status, EVENTS, extra=extra), ways)

    def send(self, part: bytes) -> None:
        """More of it."""
        first, self._first = self._first, b""
        if part or first:
            self._carrier.transport.write(first + self._framed(part))

    def finish(self, part: bytes = b"") -> None:
        """The last of it."""
        last = self._first + self._framed(part) + (b"0\r\n\r\n" if self.chunked else b"")
        if last:
            self._carrier.transport.write(last)
        self._end()

    def leave(self) -> None:
        """The client has gone."""
        work, self.work = self.work, None
        if work is not None:
            work.gone()

    def abandon(self) -> None:
        """Something of ours has failed: the connection ends, so that nobody waits."""
        self.work = None
        self._carrier.transport.abort()

    def _framed(self, part: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(part), part) if part and self.chunked else part

    def _head(self, status: int, kind: bytes, *, extra: bytes) -> bytes:
        if not self.id:
            self.name()
        line = _OK if status == 200 else _line(status)
        ends = b"" if self.keep else b"connection: close\r\n"
        date = self._carrier.stamps.date()
        return b"".join(
            (
                line,
                b"date: ",
                date,
                b"\r\ncontent-type: ",
                kind,
                b"\r\nx-request-id: ",
                self.shown,
                b"\r\n",
                ends,
                extra,
            )
        )

    def _end(self) -> None:
        self.work = None
        self.deadline = _NEVER
        self._carrier.done(self)


_OK = b"HTTP/1.1 200 OK\r\n"


def _line(status: int) -> bytes:
    try:
        words = HTTPStatus(status).phrase
    except ValueError:
        words = ""
    return b"HTTP/1.1 %d %b\r\n" % (status, words.encode())

"""The requests of one connection, as httptools tells of them: bounded, one at a time, the others behind it in order.

What two readers could understand differently (lengths that contradict each other, bare line ends) the parser refuses.
Where a bound is passed, `Refused` goes through the parser to whoever fed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

import httptools

from bessemer.gateway import errors, reply, request
from bessemer.gateway.errors import Refused
from bessemer.gateway.heads import Head, plain
from bessemer.gateway.large import Large
from bessemer.gateway.reply import Call, Carrier

HEADERS_SECONDS = 20.0
HEADERS_MAX = 100
HEADERS_BYTES_MAX = 64 << 10
"""Of headers, trailers and chunk extensions in a row."""
URL_BYTES_MAX = 8 << 10
BODY_SECONDS = 30.0
WAITING_MAX = 64
WAITING_BYTES_MAX = 64 << 10
"""Of requests behind the one that is answered."""
SPARED_BYTES_MAX = 64 << 10
"""What is read of a body that nobody wants, so that its connection may be kept."""
BODIES_BYTES_MAX = 512 << 20
"""Of all requests of a process at once: then none grows beyond `SPARED_BYTES_MAX`, so that a few large ones do not shut
out everybody else's."""

_KNOWN: Mapping[bytes, str] = MappingProxyType({path.encode(): path for path in request.ROUTES})
_RARE = frozenset((b"content-encoding", b"expect"))


class Held(Protocol):
    """Bytes of bodies that a process holds."""

    held: int
    large: Large


def grow(bodies: Held, call: Call, *, size: int) -> None:
    """So many bytes more are held for a call. Raises Refused where that is too much."""
    call.size += size
    bodies.held += size
    if call.size > request.BODY_BYTES_MAX:
        raise errors.too_large(request.BODY_BYTES_MAX)
    if bodies.held > BODIES_BYTES_MAX and call.size > SPARED_BYTES_MAX:
        raise errors.crowded()
    if call.size > SPARED_BYTES_MAX and not bodies.large.grown(call):
        raise errors.crowded()


class Reader(Carrier, Protocol):
    """The connection, as far as reading goes."""

    call: Call | None
    bodies: Held

    def expect(self, seconds: float) -> None:
        """Something has to come within so many."""

    def begin(self, call: Call) -> None:
        """Its head is here, and it is its turn. Raises Refused."""

    def serve(self, call: Call) -> None:
        """All of it is here, and it is its turn."""


class Reading:
    """``framing`` is how much has come since the last head or body; ``paused``: so much waits that nothing is read;
    ``between``: all that has come was whole; ``turn`` counts what came at once. ``call`` of the connection is whose
    turn it is."""

    __slots__ = (
        "_call",
        "_connection",
        "_count",
        "_head",
        "_judged",
        "_known",
        "_url",
        "_waiting",
        "_waits",
        "between",
        "framing",
        "parser",
        "paused",
        "turn",
    )

    def __init__(self, connection: Reader) -> None:
        self._connection = connection
        self.parser: Any = httptools.HttpRequestParser(self)
        self._call = Call(connection)
        self._url = b""
        self._head = self.paused = False
        self._count = self._waits = 0
        self._waiting: list[Call] = []
        self._known: tuple[Head, str, dict[bytes, bytes]] | None = None
        self.between = True
        self.framing = self.turn = self._judged = 0

    def again(self, data: bytes) -> bool:
        """Take a request with the head of the one before, all of it at once; whether it is one."""
        known, connection, bodies = self._known, self._connection, self._connection.bodies
        if known is None or not self.between or self._waiting:
            return False
        head, path, headers = known
        body = head.body(data)
        if body is None or len(body) > SPARED_BYTES_MAX or bodies.held + len(body) > BODIES_BYTES_MAX:
            return False  # of a large one it is asked whose it is
        size = len(body)
        call = self._call = connection.call = Call(connection, False, b"", b"POST", path, headers, [body], size, True)
        bodies.held += size
        try:
            connection.begin(call)
        except Refused as refused:
            call.refused = refused
        connection.serve(call)
        return True

    def learn(self, data: bytes) -> None:
        """Remember the head of a request that was whole, and all that came, where another like it may be read by it."""
        call = self._call
        usual = call.keep and call.chunked and call.method == b"POST" and plain(call.headers)
        head = Head.read(data, call.headers.get(b"content-length", b"")) if usual else None
        self._known = None if head is None else (head, call.path, call.headers)

    def next(self) -> None:
        """Turn to what waits. Raises Refused."""
        if self._connection.call is not None or not self._waiting:
            return
        call = self._connection.call = self._waiting.pop(0)
        self._waits -= call.size
        if self.paused:
            self.paused = False
            self._connection.transport.resume_reading()
        self._connection.expect(HEADERS_SECONDS)
        if call is not self._call or not self._head:
            self._begin(call)
        if call.whole:
            self._connection.serve(call)

    @property
    def waits(self) -> bool:
        """Whether more was asked already."""
        return bool(self._waiting)

    def stop(self) -> None:
        """Nothing more of it is of use."""
        for call in self._waiting:
            self._connection.bodies.held -= call.size
            self._connection.bodies.large.ended(call)
        self._waiting.clear()

    def close(self) -> None:
        """The connection is gone. The parser knows this one, and this one it: no circle is left behind."""
        self.stop()
        self.parser = None

    # --- httptools calls these ----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._head = True
        self.between = False
        self._count = 0
        self._url = b""
        call = self._call = Call(self._connection)
        if self._connection.call is None and not self._waiting:
            self._connection.call = call
            self._connection.expect(HEADERS_SECONDS)
            return
        self._waiting.append(call)
        if len(self._waiting) > WAITING_MAX:
            raise errors.crowded()

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > URL_BYTES_MAX:
            raise errors.long_address(URL_BYTES_MAX)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count += 1
        if self._count > HEADERS_MAX:
            raise errors.large_head(f"{HEADERS_MAX} fields")
        if self._head:  # else a trailer, which tells us nothing
            self._call.headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        self._head = False
        call, parser = self._call, self.parser
        if self.framing > HEADERS_BYTES_MAX and sum(map(len, call.headers.values())) > HEADERS_BYTES_MAX:
            raise errors.large_head(f"{HEADERS_BYTES_MAX} bytes")  # in one read, or there would not be this much
        self.framing = self._count = 0
        call.method = parser.get_method()
        call.path = _KNOWN.get(self._url) or path_of(self._url)
        # After what could become another protocol nothing is read.
        other = b"upgrade" in call.headers or call.method == b"CONNECT"
        call.keep = not other and parser.should_keep_alive()
        version = parser.get_http_version()
        if version != "1.1":
            if version != "1.0" or b"transfer-encoding" in call.headers:
                raise errors.other_version()
            call.chunked = False
        if call is self._connection.call:
            self._begin(call)

    def on_body(self, body: bytes) -> None:
        self.framing = 0
        call = self._call
        if call.refused is not None:
            return
        size = len(body)
        call.parts.append(body)
        grow(self._connection.bodies, call, size=size)
        if call is not self._connection.call:
            self._waits += size
            if self._waits > WAITING_BYTES_MAX and not self.paused:
                self.paused = True
                self._connection.transport.pause_reading()

    def on_message_complete(self) -> None:
        self.framing = 0
        self.between = True
        call = self._call
        call.whole = True
        if call is self._connection.call:
            call.slow = self._judged != self.turn
            self._connection.serve(call)

    def _begin(self, call: Call) -> None:
        """Its head is judged; where its body is short, that is read before it is told. Raises Refused."""
        self._connection.expect(BODY_SECONDS)
        self._judged = self.turn
        headers = call.headers
        try:
            length = headers.get(b"content-length")
            if length is not None and int(length) > request.BODY_BYTES_MAX:
                raise errors.too_large(request.BODY_BYTES_MAX)
            if not _RARE.isdisjoint(headers):
                _check(headers)
            self._connection.begin(call)
        except Refused as refused:
            length = headers.get(b"content-length", b"0")
            long = b"transfer-encoding" in headers or b"expect" in headers or int(length) > SPARED_BYTES_MAX
            if long and not call.whole:
                raise
            call.refused = refused
            return
        if b"expect" in headers and call.chunked and not call.whole:
            self._connection.transport.write(reply.CONTINUE)


def _check(headers: Mapping[bytes, bytes]) -> None:
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise errors.encoded(encoding.decode("latin-1"))
    expected = headers.get(b"expect")
    if expected is not None and expected.lower() != b"100-continue":
        raise errors.unexpected(expected.decode("latin-1"))


def path_of(url: bytes) -> str:
    """The path that a request names, without its query."""
    if url.startswith(b"/") and b"%" not in url:
        return url.partition(b"?")[0].decode("latin-1")
    try:
        path = httptools.parse_url(url).path or b"/"
    except httptools.HttpParserInvalidURLError:
        path = url
    return unquote_to_bytes(path).decode("latin-1")

"""Requests that are two to some reader and one to another: each listener reads each in one way, or ends the connection.

Bytes go over TLS as they stand. What a proxy in front might have let through inside a body must never be carried out as
a request of its own where the framing is in doubt; and no header makes the api, the gateway or the portal believe that
it is somebody else, that it is elsewhere, or that the method is another.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from bessemer.api.listener import HEADERS_BYTES_MAX
from tests.api.doors import Door, doors

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOORS = ("api", "gateway", "portal")
Framing = Callable[[Door], bytes]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def every() -> AsyncIterator[dict[str, Door]]:
    async with doors() as made:
        yield made


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest, every: dict[str, Door]) -> Door:
    return every[request.param]


def chunked(body: bytes, *headers: bytes) -> Framing:
    """Chunks, and behind them what is hidden."""
    return lambda d: d.framed(*headers or (b"Transfer-Encoding: chunked",), body=body + d.hidden)


def lengths(*headers: bytes) -> Framing:
    """Two bytes of body, and behind them what is hidden."""
    return lambda d: d.framed(*headers, body=b"{}" + d.hidden)


END = b"0\r\n\r\n"
DOUBTFUL: dict[str, Framing] = {
    "a length and chunks": chunked(END, b"Content-Length: 4", b"Transfer-Encoding: chunked"),
    "chunks and a length": lambda d: d.framed(
        b"Transfer-Encoding: chunked", b"Content-Length: %d" % (len(d.hidden) + len(END)), body=END + d.hidden
    ),
    "two lengths": lambda d: d.framed(
        b"Content-Length: 2", b"Content-Length: %d" % (2 + len(d.hidden)), body=b"{}" + d.hidden
    ),
    "a length with a sign": lengths(b"Content-Length: +2"),
    "a length in hexadecimal": lengths(b"Content-Length: 0x2"),
    "two lengths in one": lengths(b"Content-Length: 2, 2"),
    "a length past 64 bits": lengths(b"Content-Length: 18446744073709551618"),
    "chunks, as somebody else reads them": chunked(END, b"Transfer-Encoding: xchunked"),
    "chunks before another coding": chunked(END, b"Transfer-Encoding: chunked, gzip"),
    "a name with a blank": chunked(END, b"Transfer-Encoding : chunked"),
    "a folded header": lengths(b"Content-Length:", b" 2", b"X-A: b\r\n c"),
    "a chunk whose size is none": chunked(b"zz\r\n{}\r\n" + END),
    "a chunk larger than any": chunked(b"fffffffffffffffff\r\n{}\r\n" + END),
    "a negative chunk": chunked(b"-2\r\n{}\r\n" + END),
    "a chunk that ends without its line": chunked(b"2\r\n{}" + END),
    "a bare carriage return": chunked(END, b"X-A: b\rTransfer-Encoding: chunked"),
    "a NUL in a header": lengths(b"X-A: b\0c", b"Content-Length: 2"),
}


async def test_framing_in_doubt_ends_the_connection_and_carries_out_nothing_hidden(door: Door) -> None:
    """At most one answer, and it is a refusal; what stood behind is not read as a request."""
    answers = await asyncio.gather(*(door.sent(make(door)) for make in DOUBTFUL.values()), return_exceptions=True)
    for how, answered in zip(DOUBTFUL, answers, strict=True):
        assert isinstance(answered, bytes), how
        assert answered.count(b"HTTP/1.1 ") <= 1, (how, answered)
        assert not re.match(rb"HTTP/1.1 [23]", answered), (how, answered)
    assert not await door.carried()


@pytest.mark.parametrize(
    "headers",
    [
        b"Host: evil.example\r\n",
        b"Host: localhost\r\nHost: evil.example\r\n",
        b"Host: localhost\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: gopher\r\n",
        b"Host: localhost\r\nForwarded: host=evil.example\r\n",
        b"Host: localhost@evil.example:1\r\n",
        b"Host: \r\nX-Original-URL: /metrics\r\nX-Rewrite-URL: https://evil.example/metrics\r\n",
    ],
)
async def test_no_answer_repeats_where_it_was_asked(door: Door, headers: bytes) -> None:
    """A cache, a page or a browser that takes an answer's addresses for true is not led elsewhere."""
    asked = [b"GET " + path + b" HTTP/1.1\r\n" + headers + b"Connection: close\r\n\r\n" for path in door.paths]
    for path, answered in zip(door.paths, await asyncio.gather(*map(door.sent, asked)), strict=True):
        assert answered.startswith(b"HTTP/1.1 "), path
        assert b"evil.example" not in answered, path
        for place in re.findall(rb"(?i)\r\nlocation: *([^\r]*)", answered):
            assert re.match(rb"/(?!/)", place), (path, place)


PRETENCES = (
    b"",
    b"X-HTTP-Method-Override: DELETE\r\n",
    b"X-Method-Override: DELETE\r\n",
    b"X-Remote-User: admin\r\n",
    b"X-Remote-Group: system:masters\r\n",
    b"Impersonate-User: admin\r\nImpersonate-Group: system:masters\r\n",
    b"X-Client-Cert: admin\r\n",
    b"X-SSL-Client-Verify: SUCCESS\r\n",
    b"X-Bessemer-Source: 127.0.0.1\r\n",
    b"X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n",
    b"X-Original-URL: /healthz\r\nX-Rewrite-URL: /healthz\r\n",
    b"Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
)


async def test_no_header_makes_a_stranger_somebody(door: Door) -> None:
    """Without a certificate, a key, a token and a cookie it stays a stranger's GET."""
    head = b"GET " + door.closed + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    asked = [head + pretence + b"\r\n" for pretence in PRETENCES]
    answers = await asyncio.gather(*(door.sent(raw, stranger=True) for raw in asked))
    for pretence, answered in zip(PRETENCES, answers, strict=True):
        assert answered.startswith(door.refusal), pretence
    assert b"HTTP/1.1 200" in await door.sent(head + door.credential + b"\r\n"), "who is somebody gets it"


async def test_heads_and_lines_have_an_end(door: Door) -> None:
    """A head without end, a request line without end: cut, and never in memory as a whole."""
    for raw in (b"GET / HTTP/1.1\r\nX-A: " + b"a" * 4 * HEADERS_BYTES_MAX, b"GET /" + b"a" * 4 * HEADERS_BYTES_MAX):
        answered = await door.sent(raw)
        assert not re.match(rb"HTTP/1.1 [23]", answered)


async def test_two_requests_in_a_row_are_two(door: Door) -> None:
    """The hidden request is one that would be carried out: the tests above look for something that can be found. Last,
    since it is carried out here."""
    answered = await door.sent(door.framed(b"Content-Length: 2", body=b"{}") + door.hidden)
    assert answered.count(b"HTTP/1.1 ") == 2, answered
    assert door.done in answered
    assert await door.carried()

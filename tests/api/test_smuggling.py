"""Requests that are two to some reader and one to another: the api reads each in one way, or ends the connection.

Bytes go over TLS as they stand. What a proxy in front might have let through inside a body must never be carried out as
a request of its own where the framing is in doubt; and no header makes the api believe that it is somebody else, that
it is elsewhere, or that the method is another.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from bessemer.api.listener import HEADERS_BYTES_MAX
from bessemer.core.errors import NotFound
from bessemer.core.resource import Key
from bessemer.core.tls import show
from tests.api.world import BASE, Served, World, served

_BODY = orjson.dumps({"metadata": {"name": "acme--smuggled"}, "spec": {}})
HIDDEN = (
    b"POST %s/projects HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    % (BASE.encode(), len(_BODY), _BODY)
)


@pytest.fixture
async def s(w: World, tmp_path: Path) -> AsyncIterator[Served]:
    async with served(w, tmp_path) as made:
        yield made


async def sent(s: Served, raw: bytes) -> bytes:
    """Everything that is answered to bytes of an administrator, until the server ends the connection or is silent."""
    tls = ssl.create_default_context(cadata=s.world.ca.certificate.decode())
    show(tls, (s.admin.certificate, s.admin.key))
    host, _, port = s.url.removeprefix("https://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
    writer.write(raw)
    answered = b""
    try:
        while part := await asyncio.wait_for(reader.read(1 << 16), 0.3):
            answered += part
    except (TimeoutError, ConnectionError):
        pass
    writer.transport.abort()
    return answered


def framed(*headers: bytes, body: bytes) -> bytes:
    """A create whose framing is what is tried."""
    head = (
        b"POST %s/tenants?dryRun=All HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" % BASE.encode()
    )
    return head + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


DOUBTFUL = {
    "a length and chunks": framed(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
    "chunks and a length": framed(
        b"Transfer-Encoding: chunked", b"Content-Length: %d" % (len(HIDDEN) + 5), body=b"0\r\n\r\n" + HIDDEN
    ),
    "two lengths": framed(b"Content-Length: 2", b"Content-Length: %d" % (2 + len(HIDDEN)), body=b"{}" + HIDDEN),
    "a length with a sign": framed(b"Content-Length: +2", body=b"{}" + HIDDEN),
    "a length in hexadecimal": framed(b"Content-Length: 0x2", body=b"{}" + HIDDEN),
    "two lengths in one": framed(b"Content-Length: 2, 2", body=b"{}" + HIDDEN),
    "a length past 64 bits": framed(b"Content-Length: 18446744073709551618", body=b"{}" + HIDDEN),
    "chunks, as somebody else reads them": framed(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + HIDDEN),
    "chunks before another coding": framed(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n" + HIDDEN),
    "a name with a blank": framed(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + HIDDEN),
    "a folded header": framed(b"Content-Length:", b" 2", b"X-A: b\r\n c", body=b"{}" + HIDDEN),
    "a chunk whose size is none": framed(b"Transfer-Encoding: chunked", body=b"zz\r\n{}\r\n0\r\n\r\n" + HIDDEN),
    "a chunk larger than any": framed(
        b"Transfer-Encoding: chunked", body=b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n" + HIDDEN
    ),
    "a negative chunk": framed(b"Transfer-Encoding: chunked", body=b"-2\r\n{}\r\n0\r\n\r\n" + HIDDEN),
    "a chunk that ends without its line": framed(b"Transfer-Encoding: chunked", body=b"2\r\n{}0\r\n\r\n" + HIDDEN),
    "a bare carriage return": framed(b"X-A: b\rTransfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
    "a NUL in a header": framed(b"X-A: b\0c", b"Content-Length: 2", body=b"{}" + HIDDEN),
}


@pytest.mark.parametrize("raw", DOUBTFUL.values(), ids=DOUBTFUL.keys())
async def test_framing_in_doubt_carries_out_nothing_hidden(s: Served, raw: bytes) -> None:
    """At most one answer, and it is a refusal; what stood behind is not read as a request."""
    answered = await sent(s, raw)
    assert answered.count(b"HTTP/1.1 ") <= 1, answered
    assert b"HTTP/1.1 2" not in answered
    with pytest.raises(NotFound):
        await s.world.store.objects.get(Key("Project", "", "acme--smuggled"))


async def test_two_requests_in_a_row_are_two(s: Served) -> None:
    """The hidden request is one that would be carried out: the tests above look for something that can be found."""
    answered = await sent(s, framed(b"Content-Length: 2", body=b"{}") + HIDDEN)
    assert answered.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 201" in answered


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
async def test_no_answer_repeats_where_it_was_asked(s: Served, headers: bytes) -> None:
    """A cache or a page that takes an answer's addresses for true is not led elsewhere."""
    for path in (b"/api", b"/whoami", b"/openapi/v3", b"/nowhere/", b"//evil.example/%2e%2e"):
        answered = await sent(s, b"GET " + path + b" HTTP/1.1\r\n" + headers + b"Connection: close\r\n\r\n")
        assert b"evil.example" not in answered.replace(path, b"")
        assert b"\r\nlocation:" not in answered.lower()


@pytest.mark.parametrize(
    "header",
    [
        b"X-HTTP-Method-Override: DELETE",
        b"X-Method-Override: DELETE",
        b"X-Remote-User: admin",
        b"X-Remote-Group: system:masters",
        b"Impersonate-User: admin\r\nImpersonate-Group: system:masters",
        b"X-Client-Cert: admin",
        b"X-SSL-Client-Verify: SUCCESS",
        b"X-Bessemer-Source: 127.0.0.1",
        b"Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
    ],
)
async def test_no_header_makes_a_stranger_somebody(w: World, header: bytes) -> None:
    """Without a certificate and a token it stays a stranger's GET."""
    given = dict(line.split(": ", 1) for line in header.decode().split("\r\n"))
    reply = await w.call("GET", f"{BASE}/tenants/acme", peer=None, headers=given)
    assert reply.code == 401
    assert (await w.call("GET", f"{BASE}/tenants/acme")).code == 200


async def test_heads_and_lines_have_an_end(s: Served) -> None:
    """A head without end, a request line without end: cut, and never in memory as a whole."""
    for raw in (b"GET / HTTP/1.1\r\nX-A: " + b"a" * 4 * HEADERS_BYTES_MAX, b"GET /" + b"a" * 4 * HEADERS_BYTES_MAX):
        answered = await sent(s, raw)
        assert b"HTTP/1.1 2" not in answered

"""Clients that do their worst before a request is one: bounded memory, a clear error, and nothing reaches an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from bessemer.core.clock import SystemClock
from bessemer.gateway import Admission, Lending, front, large, reading, request
from bessemer.gateway.front import READ_SECONDS
from tests.gateway.bounded import answers, minute
from tests.gateway.harness import Rig, api_key, claim, endpoint, rig

KEY = b"authorization: Bearer bsk_good\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + KEY
BODY = b'{"model":"words","messages":[{"role":"user","content":"hello"}],"max_tokens":2}'
ASK = POST + b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)


@asynccontextmanager
async def wire(to: Rig) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the gateway, bounded in time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(to.url.split(":")[2].split("/")[0]))
    try:
        async with asyncio.timeout(30):
            yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def answer(reader: asyncio.StreamReader, *, body: bool = True) -> tuple[int, dict[bytes, bytes], bytes]:
    """One whole answer: status, headers, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in head[1:-2])}
    length = int(headers.get(b"content-length", b"0")) if body else 0
    return int(head[0].split()[1]), headers, await reader.readexactly(length)


async def told(to: Rig, sent: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """What is answered to these bytes; the connection ends with it."""
    async with wire(to) as (reader, writer):
        writer.write(sent)
        got = await answer(reader)
        assert await reader.read() == b"", "nothing that follows is read"
        return got


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n", 400),
        (POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n", 400),
        (POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\n", 400),
        (POST + b"content-length: +5\r\n\r\n", 400),
        (POST + b"content-length: 5, 5\r\n\r\n", 400),
        (POST + b"transfer-encoding: xchunked\r\n\r\n", 400),
        (POST + b"transfer-encoding: chunked, identity\r\n\r\n", 400),
        (POST + b"transfer-encoding: chunked\r\n\r\n3\n{}\n\r\n0\r\n\r\n", 400),
        (POST + b"transfer-encoding : chunked\r\n\r\n", 400),
        (POST + b"content-length:\n 5\r\n\r\n", 400),
        (POST + b"x: a\r\n b\r\n\r\n", 400),
        (POST + b"x: a\0b\r\n\r\n", 400),
        (POST.replace(b"\r\n", b"\n") + b"\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),
        (POST.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n", 505),
        (POST.replace(b"1.1", b"2.0") + b"content-length: 0\r\n\r\n", 505),
        (POST + b"".join(b"x-%d: y\r\n" % n for n in range(reading.HEADERS_MAX)) + b"\r\n", 431),
        (POST + b"x: " + b"y" * reading.HEADERS_BYTES_MAX + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * reading.URL_BYTES_MAX + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
        (POST + b"content-length: 99999999999999999999\r\n\r\n", 400),
        (POST + b"content-length: 99999999\r\n\r\n", 413),
        (POST + b"content-length: 99999\r\ncontent-encoding: gzip\r\n\r\n", 415),
        (POST + b"content-length: 9\r\nexpect: 200-ok\r\n\r\n", 417),
    ],
)
async def test_what_two_could_read_differently_is_refused_and_ends_the_connection(sent: bytes, status: int) -> None:
    async with rig() as to:
        uid = await to.replica("r0", of="words")
        got, headers, body = await told(to, sent)
        assert got == status
        assert orjson.loads(body)["error"]["type"] == "invalid_request_error"
        assert headers[b"connection"] == b"close"
        assert to.engine.models[uid].counters.requests == 0


async def test_a_head_without_end_is_bounded() -> None:
    async with rig() as to, wire(to) as (reader, writer):
        writer.write(POST + b"x: ")
        with suppress(OSError):
            for _ in range(64):
                writer.write(b"y" * 65536)
                await writer.drain()
        assert (await answer(reader))[0] == 431


async def test_trailers_without_end_are_bounded() -> None:
    async with rig() as to, wire(to) as (reader, writer):
        writer.write(POST + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
        with suppress(OSError):
            for _ in range(200):
                writer.write(b"x: y\r\n" * 1000)
                await writer.drain()
        assert (await answer(reader))[0] == 431


@pytest.mark.parametrize(
    "sent", [POST, POST + b"content-length: 100000\r\n\r\n" + b"{", POST + b"transfer-encoding: chunked\r\n\r\n"]
)
async def test_who_is_too_slow_is_told_so(sent: bytes) -> None:
    async with rig() as to, wire(to) as (reader, writer):
        writer.write(sent)
        while not to.front.connections:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        to.clock.skipped += reading.BODY_SECONDS + 1
        status, _, body = await answer(reader)
        assert (status, orjson.loads(body)["error"]["code"]) == (408, "request_timeout")


async def test_a_body_that_trickles_is_too_slow_in_the_end() -> None:
    async with rig() as to, wire(to) as (reader, writer):
        writer.write(POST + b"content-length: 100000\r\n\r\n" + b"x" * 40_000)
        async with asyncio.timeout(20):
            while to.front.held < 40_000:
                await asyncio.sleep(0.01)
        to.clock.skipped += reading.BODY_SECONDS + 1
        await asyncio.sleep(0.6)
        assert to.front.connections == 1, "so much may take longer"
        to.clock.skipped += 30
        assert (await answer(reader))[0] == 408
        assert to.front.held == 0


async def test_who_says_nothing_is_let_go() -> None:
    async with rig() as to, wire(to) as (reader, _):
        while not to.front.connections:
            await asyncio.sleep(0.01)
        to.clock.skipped += reading.HEADERS_SECONDS + 1
        assert await reader.read() == b""


async def test_bodies_are_bounded_each_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "BODY_BYTES_MAX", 100_000)
    monkeypatch.setattr(reading, "BODIES_BYTES_MAX", 150_000)
    part = b"2710\r\n" + b" " * 10_000 + b"\r\n"
    async with rig() as to:
        status, _, body = await told(to, POST + b"transfer-encoding: chunked\r\n\r\n" + part * 11)
        assert (status, orjson.loads(body)["error"]["code"]) == (413, "request_too_large")
        async with wire(to) as (_, first), wire(to) as (reader, second):
            first.write(POST + b"transfer-encoding: chunked\r\n\r\n" + part * 9)
            async with asyncio.timeout(20):
                while to.front.held < 90_000:
                    await asyncio.sleep(0.01)
            second.write(POST + b"transfer-encoding: chunked\r\n\r\n" + part * 9)
            status, headers, body = await answer(reader)
            assert (status, orjson.loads(body)["error"]["code"]) == (503, "gateway_busy")
            assert headers[b"retry-after"] == b"1"
            monkeypatch.setattr(reading, "BODIES_BYTES_MAX", 10_000)
            await to.replica("r0", of="words")
            async with wire(to) as (heard, third):
                third.write(ASK)
                assert (await answer(heard))[0] == 200, "a short one has room"
        async with asyncio.timeout(20):
            while to.front.held or to.front.connections:
                await asyncio.sleep(0.01)


async def test_a_tenants_large_bodies_shut_out_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "SHARE_BYTES_MAX", 150_000)
    part = b"2710\r\n" + b" " * 10_000 + b"\r\n"
    rival = POST.replace(b"bsk_good", b"bsk_rival") + b"transfer-encoding: chunked\r\n\r\n" + part * 9
    async with rig() as to:
        to.tables.apply(api_key("rival", "bsk_rival", project="rival--lab"))
        async with wire(to) as (_, first), wire(to) as (reader, second), wire(to) as (_, other):
            first.write(POST + b"transfer-encoding: chunked\r\n\r\n" + part * 9)
            other.write(rival)
            async with asyncio.timeout(20):
                while to.front.held < 180_000:
                    await asyncio.sleep(0.01)
            second.write(POST + b"transfer-encoding: chunked\r\n\r\n" + part * 9)
            status, _, body = await answer(reader)
            assert (status, orjson.loads(body)["error"]["code"]) == (503, "gateway_busy")
        async with asyncio.timeout(20):
            while to.front.held or to.front.connections:
                await asyncio.sleep(0.01)
        await to.replica("r0", of="words")
        async with wire(to) as (heard, writer):
            body = BODY + b" " * 100_000
            writer.write(POST + b"content-length: %d\r\n\r\n%b" % (len(body), body))
            assert (await answer(heard))[0] == 200
            assert len(to.front.large) == 0


async def test_a_large_body_counts_for_its_tenant_on_a_connection_that_is_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(large, "SHARE_BYTES_MAX", 100_000)
    async with rig() as to, wire(to) as (reader, writer):
        await to.replica("r0", of="words")
        monkeypatch.setattr(reading, "SPARED_BYTES_MAX", 2_000)
        monkeypatch.setattr(front, "SPARED_BYTES_MAX", 2_000)
        counted = list[int]()
        grown = to.front.large.grown
        monkeypatch.setattr(large.Large, "grown", lambda self, call: (counted.append(call.size), grown(call))[1])
        for _ in range(3):
            body = BODY + b" " * 10_000
            writer.write(POST + b"content-length: %d\r\n\r\n%b" % (len(body), body))
            assert (await answer(reader))[0] == 200
        assert counted == [len(body)] * 3
        assert len(to.front.large) == 0


async def test_who_has_no_key_need_not_send_a_body() -> None:
    async with rig() as to, wire(to) as (reader, writer):
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 20000000\r\n\r\n")
        assert (await answer(reader))[0] == 401
    async with rig() as to, wire(to) as (reader, writer):
        for _ in range(2):
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
            assert (await answer(reader))[0] == 401, "a short one is read, and the connection kept"


async def test_who_asks_first_is_told_to_go_on_where_it_may() -> None:
    expects = b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(BODY)
    async with rig() as to, wire(to) as (reader, writer):
        await to.replica("r0", of="words")
        writer.write(POST + expects)
        assert (await answer(reader))[0] == 100
        writer.write(BODY)
        assert (await answer(reader))[0] == 200
        writer.write(POST.replace(KEY, b"") + expects)
        assert (await answer(reader))[0] == 401


async def test_requests_of_one_connection_are_answered_in_their_order() -> None:
    async with rig() as to, wire(to) as (reader, writer):
        await to.replica("r0", of="words")
        to.tables.apply(endpoint("other"))
        wrong = ASK.replace(b'"words"', b'"nothi"')
        writer.write(ASK + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" + wrong + ASK + POST)
        assert [(await answer(reader))[0] for _ in range(4)] == [200, 200, 404, 200]
        writer.write(b"content-length: %d\r\n\r\n" % len(BODY) + BODY)
        assert (await answer(reader))[0] == 200


async def test_more_behind_an_answer_than_anybody_needs_is_not_read(tmp_path: Path) -> None:
    async with rig(doors=tmp_path) as to, mute(to, tmp_path), wire(to) as (reader, writer):
        writer.write(ASK + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" * 1000)
        writer.write_eof()
        assert await reader.read() == b""


@pytest.mark.parametrize("stream", [b"", b',"stream":true'])
async def test_requests_with_large_bodies_wait_outside(stream: bytes) -> None:
    large = BODY[:-1] + stream + b',"x":"' + b"y" * 300_000 + b'"}'
    asked = POST + b"content-length: %d\r\n\r\n%b" % (len(large), large)
    async with rig() as to, wire(to) as (reader, writer):
        uid = await to.replica("r0", of="words")
        to.engine.models[uid].behaviour.seconds_per_token = 0.05
        writer.write(asked * 3)
        most = 0
        while to.engine.models[uid].counters.requests < 3:
            most = max(most, to.front.held)
            await asyncio.sleep(0.01)
        assert most < 2 * len(large), "one that is answered, and the beginning of the next"
        if not stream:
            assert [(await answer(reader))[0] for _ in range(3)] == [200, 200, 200]


@asynccontextmanager
async def mute(to: Rig, folder: Path) -> AsyncIterator[None]:
    """A replica that takes requests and answers none."""

    async def listens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(listens, folder / "c.sock"):
        to.tables.apply(claim("c", f"unix:{folder / 'c.sock'}", of="words"))
        yield


async def test_a_client_that_reads_nothing_holds_up_the_replica_and_is_gone_in_the_end(tmp_path: Path) -> None:
    written, left = 0, asyncio.Event()
    event = b"data: " + b"x" * 8192 + b"\n\n"

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        with suppress(OSError):
            while True:
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                await writer.drain()
                written += len(event)
        left.set()
        writer.close()

    asked = BODY[:-1] + b',"stream":true}'
    async with rig(doors=tmp_path) as to, await asyncio.start_unix_server(endless, tmp_path / "c.sock"):
        to.tables.apply(claim("c", f"unix:{tmp_path / 'c.sock'}", of="words"))
        async with wire(to) as (_, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(POST + b"content-length: %d\r\n\r\n%b" % (len(asked), asked))
            before = -1
            while written != before or not written:
                before = written
                await asyncio.sleep(0.3)
            assert written < 32 << 20, "what the sockets hold, and no more"
            to.clock.skipped += READ_SECONDS + 1
            await left.wait()
        assert to.spool.waiting == 1


@pytest.mark.parametrize(
    "name", ["", "x" * 100_000, "wörds", "\u202ewords", "words\x00", "ｗords", "../words", "words\n", '"']
)
async def test_names_of_models_that_are_none(name: str) -> None:
    body = orjson.dumps({"model": name, "messages": []})
    async with rig() as to, wire(to) as (reader, writer):
        uid = await to.replica("r0", of="words")
        writer.write(POST + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        status, _, said = await answer(reader)
        assert status == (404 if name else 400)
        assert len(said) < 1000
        assert orjson.loads(said)["error"]["message"]
        assert to.engine.models[uid].counters.requests == 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"words","model":"other","messages":[]}',
        b'{"model":"words","messages":[],"max_tokens":1,"max_tokens":9}',
        b'{"model":"words","messages":[],"max_tokens":9,"max_tokens":9}',
        b'{"model":"words","n":1,"messages":[], "n":1024}',
        b'{"model":"words","messages":[],"max_tokens":1,"max\\u005ftokens":9}',
        b'{"model":"words","messages":[],"max_tokens":1, "max_tokens" : 19 }',
        b' {"model" :"words","x":{"y":1},"messages":[],"x":{"y":1}}',
        b'{"model":"words","messages":[],"a":1,"a":11,"b":1}',
    ],
)
async def test_a_name_that_is_said_twice(body: bytes) -> None:
    async with rig() as to, wire(to) as (reader, writer):
        uid = await to.replica("r0", of="words")
        writer.write(POST + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        status, _, said = await answer(reader)
        assert status == 400
        assert b"twice" in said
        assert to.engine.models[uid].counters.requests == 0


@pytest.mark.parametrize(
    "body",
    [
        b' {\n  "model": "words",\n  "messages": [{"a": 1, "a": 2}],\n  "x": "\\u00e9 \\"model\\": "\n} \n',
        b'{"messages":[],"model":"words","m\\u00f6del":"x","\xc3\xa9":"\xf0\x9f\x98\x80"}',
        b'{"messages":[],"model":"words","":{},"tools":[%b]}' % b",".join([b'{"type":"function"}'] * 500_000),
    ],
)
async def test_a_body_goes_on_as_it_came(body: bytes, tmp_path: Path) -> None:
    """Spaces, escapes, 10 MB of tools and all."""
    read = bytearray()

    async def takes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % len(body) in head
        read.extend(await reader.readexactly(len(body)))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    async with rig(doors=tmp_path) as to, await asyncio.start_unix_server(takes, tmp_path / "c.sock"):
        to.tables.apply(claim("c", f"unix:{tmp_path / 'c.sock'}", of="words"))
        async with wire(to) as (reader, writer):
            writer.write(POST + b"content-length: %d\r\n\r\n" % len(body) + body)
            assert (await answer(reader))[0] == 200
    assert bytes(read) == body


async def test_a_head_alone_is_answered_with_a_head() -> None:
    async with rig() as to, wire(to) as (reader, writer):
        for path in (b"/healthz", b"/v1/models", b"/v1/models/words"):
            writer.write(b"HEAD " + path + b" HTTP/1.1\r\nhost: x\r\n" + KEY + b"\r\n")
            status, headers, _ = await answer(reader, body=False)
            assert status == 200
            assert int(headers[b"content-length"]) > 0
        writer.write(b"GET /healthz?x=%2e HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await answer(reader))[2] == b"ok\n"


@pytest.mark.parametrize(
    ("said", "kept"),
    [(b"req_1-a.b:c", True), (b"a" * 128, True), (b"a" * 129, False), (b"a b", False), (b"<x>", False)],
)
async def test_a_client_may_name_its_request(said: bytes, kept: bool) -> None:
    async with rig() as to, wire(to) as (reader, writer):
        await to.replica("r0", of="words")
        writer.write(ASK.replace(KEY, KEY + b"x-request-id: " + said + b"\r\n"))
        _, headers, _ = await answer(reader)
        assert (headers[b"x-request-id"] == said) is kept
        pending = to.spool.pending()
        assert pending is not None
        assert pending.records[0].request_id != said.decode(), "nobody chooses what a record is called"
        assert len(pending.records[0].request_id) == 32


async def test_an_old_client_reads_a_stream_to_the_end_of_the_connection() -> None:
    body = BODY[:-1] + b',"stream":true}'
    async with rig() as to, wire(to) as (reader, writer):
        await to.replica("r0", of="words")
        writer.write(POST.replace(b"1.1", b"1.0") + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        head, _, events = (await reader.read()).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert events.startswith(b"data: {")
        assert events.endswith(b"data: [DONE]\n\n")


async def test_who_wants_another_protocol_gets_this_one() -> None:
    async with rig() as to:
        status, _, _ = await told(
            to, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
        )
        assert status == 200


async def test_streams_are_finished_before_it_ends() -> None:
    body = BODY[:-1].replace(b"2", b"8") + b',"stream":true}'
    async with rig() as to, wire(to) as (idle, _), wire(to) as (reader, writer):
        uid = await to.replica("r0", of="words")
        to.engine.models[uid].behaviour.seconds_per_token = 0.02
        writer.write(POST + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        await reader.readuntil(b"data: ")
        closing = asyncio.create_task(to.front.close(20.0))
        assert await idle.read() == b"", "nobody has asked anything there"
        assert (await reader.read()).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        await closing
        assert to.front.connections == 0
        assert to.spool.waiting == 1


async def test_who_leaves_while_the_api_is_asked_holds_nothing() -> None:
    asked, answered = asyncio.Event(), asyncio.Event()

    async def ask(_project: str, *, bounds: Mapping[str, Any]) -> dict[str, Any]:
        asked.set()
        await answered.wait()
        return answers(minute(10_000))

    async with rig(admission=Admission(Lending(ask, clock=SystemClock()))) as to:
        uid = await to.replica("r0", of="words")
        async with wire(to) as (_, writer):
            writer.write(ASK)
            await asked.wait()
            assert to.spool._promised == 1
        async with asyncio.timeout(30):
            while to.spool._promised:
                await asyncio.sleep(0.01)
        answered.set()
        async with wire(to) as (reader, writer):
            writer.write(ASK)
            assert (await answer(reader))[0] == 200
        assert to.engine.models[uid].counters.requests == 1


async def test_a_revoked_key_is_worth_nothing_on_a_connection_that_is_open() -> None:
    async with rig() as to, wire(to) as (reader, writer):
        await to.replica("r0", of="words")
        for status in (200, 401):
            writer.write(ASK)
            assert (await answer(reader))[0] == status
            to.tables.apply(api_key("good", "bsk_good", gone=True))

"""Replicas run hostile code: whatever an engine answers, the gateway stays whole, bounded, and its account true."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import orjson
import pytest
from structlog.testing import capture_logs

from bessemer.core.values import TOKENS_MAX, UsageRecord
from bessemer.gateway import upstream
from bessemer.gateway.meter import EVENT_BYTES_MAX, Counts, EventStream
from tests.gateway.harness import Rig, claim, rig

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\n"
STREAM = HEAD + b"content-type: text/event-stream\r\nconnection: close\r\n\r\n"


def said(body: bytes, *, status: bytes = b"200 OK", kind: bytes = b"application/json") -> Answer:
    """An engine that answers these bytes, whatever it is asked."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (status, kind, len(body)))
        writer.write(body)

    return answer


def usage(**counts: object) -> Answer:
    return said(orjson.dumps({"choices": [], "usage": counts}))


def without_end(head: bytes, part: bytes) -> Answer:
    """An engine that never comes to an end."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(part)
            await writer.drain()

    return answer


@asynccontextmanager
async def engine(to: Rig, answer: Answer, folder: Path, *, name: str = "c") -> AsyncIterator[asyncio.Event]:
    """A replica of ``words``; the event says that somebody who asked it has gone."""
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            await answer(writer)
            await writer.drain()
        left.set()
        writer.close()

    path = folder / f"{name}.sock"
    async with await asyncio.start_unix_server(serve, path):
        to.tables.apply(claim(name, f"unix:{path}", of="words"))
        yield left


async def ask(to: Rig, *, stream: bool = False, raw: bytes = b"") -> tuple[int, bytes]:
    body = raw or orjson.dumps({"model": "words", "stream": stream, "messages": []})
    headers = {"authorization": "Bearer bsk_good"}
    async with (
        asyncio.timeout(60),
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{to.url}/chat/completions", data=body) as answer,
    ):
        return answer.status, await answer.read()


def spooled(to: Rig) -> list[tuple[int, int, int]]:
    return [(r.input_tokens, r.cached_input_tokens, r.output_tokens) for r in to.paid()]


@pytest.mark.parametrize(
    "answer",
    [
        said(b"hello"),
        said(b"[]"),
        said(b'{"a":' * 2000),
        said(b"{}", status=b"999 X"),
        said(b"{}", status=b"101 Switching Protocols"),
        said(b"{}", status=b"401 Unauthorized"),
        without_end(HEAD, b"x-%d: y\r\n" % 1),
        without_end(HEAD + b"x: ", b"y" * 65536),
        without_end(HEAD + b"transfer-encoding: chunked\r\n\r\n1;", b"y" * 65536),
        without_end(HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx: ", b"y" * 65536),
    ],
)
async def test_what_is_no_answer_is_refused_and_not_billed(answer: Answer, tmp_path: Path) -> None:
    async with rig(doors=tmp_path) as to, engine(to, answer, tmp_path):
        status, body = await ask(to)
        assert status == 502
        assert orjson.loads(body)["error"]["code"] in ("replica_failed", "answer_unfit")
        assert spooled(to) == []


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden", b"101 Switching Protocols", b"999 X"])
async def test_one_that_refuses_us_at_once_draws_nothing_from_one_that_answers(status: bytes, tmp_path: Path) -> None:
    """It is always the least busy."""
    bad, good = said(b"{}", status=status), usage(prompt_tokens=1, completion_tokens=1)
    async with rig(doors=tmp_path) as to, engine(to, bad, tmp_path), engine(to, good, tmp_path, name="well"):
        with capture_logs() as logs:
            assert [(await ask(to))[0] for _ in range(3)] == [200, 200, 200]
        [line] = [line for line in logs if line["event"] == "replica lost"]
        assert line["object_uid"] == "uid-acme--lab-c"
        assert len(line["request_id"]) == 32


@pytest.mark.parametrize(
    ("answer", "stream"),
    [(said(b"hello"), False), (without_end(STREAM + b"data: ", b"x" * 65536), True)],
)
async def test_one_that_answers_junk_rests(answer: Answer, stream: bool, tmp_path: Path) -> None:
    good = usage(prompt_tokens=1, completion_tokens=1)
    async with rig(doors=tmp_path) as to, engine(to, answer, tmp_path), engine(to, good, tmp_path, name="well"):
        with capture_logs() as logs:
            assert b"replica_failed" in (await ask(to, stream=stream))[1]
        assert [line["object_uid"] for line in logs if "request_id" in line] == ["uid-acme--lab-c"]
        for _ in range(3):
            assert b"choices" in (await ask(to))[1]


async def test_a_stream_that_is_cut_says_so_in_words_of_its_own(tmp_path: Path) -> None:
    async def cut(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"content-type: text/event-stream\r\ncontent-length: 999\r\n\r\ndata: {}\n\n")

    async with rig(doors=tmp_path) as to, engine(to, cut, tmp_path):
        status, body = await ask(to, stream=True)
        assert status == 200
        assert b"answer_cut" in body
        assert b"Try again" not in body


async def test_an_answer_whose_usage_the_disk_does_not_take_is_delivered_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is recorded when the disk takes it; until then nobody else is served."""

    def fails(*_: object) -> int:
        raise OSError(28, "No space left on device")

    async def late(writer: asyncio.StreamWriter) -> None:
        monkeypatch.setattr("os.pwrite", fails)
        await usage(prompt_tokens=7, completion_tokens=3)(writer)

    async with rig(doors=tmp_path) as to, engine(to, late, tmp_path):
        assert (await ask(to))[0] == 200
        with capture_logs() as logs:
            status, body = await ask(to)
        assert status == 503
        assert b"usage_not_recordable" in body
        [line] = [line for line in logs if line["event"] == "usage cannot be recorded"]
        assert line["object_uid"] == "uid-acme--lab-words"
        assert len(line["request_id"]) == 32
        monkeypatch.undo()
        assert spooled(to) == [(7, 0, 3)]


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (usage(prompt_tokens=7, completion_tokens=3), (7, 0, 3)),
        (usage(prompt_tokens=-7, completion_tokens=3), (0, 0, 3)),
        (usage(prompt_tokens="7", completion_tokens=None), (0, 0, 0)),
        (usage(prompt_tokens=1e300, completion_tokens=[1]), (0, 0, 0)),
        (usage(prompt_tokens=(1 << 63) - 1, completion_tokens=(1 << 64) - 1), (0, 0, 0)),
        (usage(prompt_tokens=7, completion_tokens=True, prompt_tokens_details=[1]), (7, 0, 0)),
        (usage(prompt_tokens=7, completion_tokens=1, prompt_tokens_details={"cached_tokens": 9}), (7, 7, 1)),
        (said(b'{"usage":{"prompt_tokens":1,"completion_tokens":2}}', status=b"206 Partial"), (1, 0, 2)),
    ],
)
async def test_counts_that_are_none_are_not_taken(
    answer: Answer, counted: tuple[int, int, int], tmp_path: Path
) -> None:
    async with rig(doors=tmp_path) as to, engine(to, answer, tmp_path):
        status, _ = await ask(to)
        assert status in (200, 206)
        assert spooled(to) == [counted]


async def test_a_stream_of_nonsense_is_passed_on_and_counted_as_far_as_it_goes(tmp_path: Path) -> None:
    events = [b'{"choices":[1]}', b'{"timings":{"cache_n":[]}}', b'{"usage":{"completion_tokens":-4}}', b"[DONE]"]
    body = b"".join(b"data: %s\n\n" % event for event in events)
    async with rig(doors=tmp_path) as to, engine(to, said(body, kind=b"text/event-stream"), tmp_path):
        status, answer = await ask(to, stream=True)
        assert status == 200
        assert answer.endswith(b"data: [DONE]\n\n")
        assert spooled(to) == [(0, 0, 0)]


async def test_an_event_without_end_ends_the_stream(tmp_path: Path) -> None:
    async with rig(doors=tmp_path) as to, engine(to, without_end(STREAM + b"data: ", b"x" * 65536), tmp_path):
        status, body = await ask(to, stream=True)
        assert status == 200
        assert b"replica_failed" in body
        assert len(body) < 4096


def test_events_are_bounded_in_memory() -> None:
    events = EventStream(show_usage=False, show_timings=False)
    endless = (event for _ in range(1000) for event in events.feed(b"x" * 65536))
    tracemalloc.start()
    with pytest.raises(upstream.Lost):
        list(endless)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * EVENT_BYTES_MAX


async def test_a_whole_answer_is_bounded(tmp_path: Path) -> None:
    head = HEAD + b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    async with (
        rig(doors=tmp_path) as to,
        engine(to, without_end(head, b"10000\r\n" + b" " * 65536 + b"\r\n"), tmp_path),
    ):
        status, _ = await ask(to)
        assert status == 502


@pytest.mark.parametrize(
    "address", ["https://h:99999", "https://h:port", "http://h:1", "https://127.0.0.1:1", "nonsense", "unix:", "https:"]
)
async def test_an_address_that_is_none(address: str) -> None:
    async with rig() as to:
        to.tables.apply(claim("c", address, of="words"))
        status, _ = await ask(to)
        assert status in (502, 503)


async def test_a_request_that_is_nested_too_deep() -> None:
    async with rig() as to:
        await to.replica("r0", of="words")
        status, body = await ask(to, raw=b'{"model":"words","messages":[],"x":' + b"[" * 4000 + b"]" * 4000 + b"}")
        assert status == 400
        assert b"nested too deep" in body


async def test_a_client_that_goes_before_the_answer_begins_is_noticed(tmp_path: Path) -> None:
    """An engine that computes answers nothing for long; nobody pays for what nobody will read."""
    asked, left = asyncio.Event(), asyncio.Event()

    async def computes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()  # until whoever asked goes
        left.set()
        writer.close()

    path = tmp_path / "c.sock"
    async with rig(doors=tmp_path) as to, await asyncio.start_unix_server(computes, path):
        to.tables.apply(claim("c", f"unix:{path}", of="words"))
        asking = asyncio.create_task(ask(to))
        async with asyncio.timeout(30):
            await asked.wait()
            asking.cancel()
            await left.wait()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert spooled(to) == []


async def test_a_replica_is_busy_while_it_has_not_answered_yet(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def late(writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await said(b"{}")(writer)

    async with rig(doors=tmp_path) as to, engine(to, late, tmp_path):
        asking = asyncio.create_task(ask(to))
        replica = next(iter(to.tables.endpoints["acme--lab", "words"].replicas.values()))
        async with asyncio.timeout(30):
            while not replica.busy:
                await asyncio.sleep(0.01)
        release.set()
        assert (await asking)[0] == 200
        assert replica.busy == 0


def test_what_is_counted_can_always_be_recorded() -> None:
    counts = Counts()
    counts.take({"timings": {"prompt_n": TOKENS_MAX, "cache_n": TOKENS_MAX, "predicted_n": TOKENS_MAX}})
    record = UsageRecord(
        at=1,
        request_id="r",
        project="acme--lab",
        endpoint="words",
        endpoint_uid="u",
        api_key="k",
        model="m",
        status=200,
        input_tokens=counts.input_tokens,
        cached_input_tokens=counts.cached_input_tokens,
        output_tokens=counts.output_tokens,
    )
    assert record.input_tokens == TOKENS_MAX


async def test_customers_do_not_see_what_others_use() -> None:
    async with rig() as to, aiohttp.ClientSession(headers={"authorization": "Bearer bsk_good"}) as session:
        answer = await session.get(f"{to.url.removesuffix('/v1')}/metrics")
        assert answer.status == 404

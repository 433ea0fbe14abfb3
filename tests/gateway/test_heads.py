"""Heads that came before: what is told apart by them is a length, and nothing of one request is ever taken for
another's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.gateway.heads import BYTES_MAX, Head
from tests.gateway.harness import api_key, claim, endpoint, rig
from tests.gateway.test_abuse import KEY, answer, wire

LINES = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
FIRST = LINES + b"Content-Length: 5\r\nx-a: 5\r\n\r\nhello"


def test_another_length_is_the_same_head() -> None:
    head = Head.read(FIRST, b"5")
    assert head is not None
    assert head.body(FIRST) == b"hello"
    assert head.body(FIRST.replace(b"Length: 5", b"Length: 11").replace(b"hello", b"hello world")) == b"hello world"
    assert head.body(FIRST.replace(b"Length: 5", b"Length: 0")[:-5]) == b""


@pytest.mark.parametrize(
    "data",
    [
        FIRST[:-1],
        FIRST + b"P",
        FIRST + FIRST,
        FIRST.replace(b"x-a: 5", b"x-a: 6"),
        FIRST.replace(b"Length: 5", b"Length: +5"),
        FIRST.replace(b"Length: 5", b"Length: 5 "),
        FIRST.replace(b"Length: 5", b"Length: "),
        FIRST.replace(b"Length: 5", b"Length: 5\r\nContent-Length: 5"),
        FIRST.replace(b"Length: 5", b"Length: 0000000005"),
        FIRST.replace(b"Length: 5\r\n", b"Length: 5\n"),
        FIRST.lower(),
        b"",
        b"\r\n\r\n",
    ],
)
def test_what_is_not_that_head_is_read_as_ever(data: bytes) -> None:
    head = Head.read(FIRST, b"5")
    assert head is not None
    assert head.body(data) is None


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (FIRST[:-1], b"5"),
        (FIRST + FIRST, b"5"),
        (FIRST, b""),
        (LINES + b"\r\nhello", b"5"),
        (LINES + b"x: " + b"y" * BYTES_MAX + b"\r\ncontent-length: 5\r\n\r\nhello", b"5"),
    ],
)
def test_what_is_not_whole_and_alone_is_not_remembered(data: bytes, length: bytes) -> None:
    assert Head.read(data, length) is None


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_a_body_is_all_that_is_behind_the_head(one: bytes, other: bytes) -> None:
    first, second = (LINES + b"content-length: %d\r\n\r\n" % len(body) + body for body in (one, other))
    head = Head.read(first, b"%d" % len(one))
    assert head is not None
    assert head.body(second) == other


def asked(model: str, path: bytes = b"chat/completions", key: bytes = KEY, more: int = 0) -> bytes:
    body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": "why" * (1 + more)}]})
    return b"POST /v1/%b HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b" % (path, key, len(body), body)


async def test_what_comes_between_leaves_nothing_behind() -> None:
    """A request that is read in parts, of another key and path, is not what the next one is taken for."""
    other = b"authorization: Bearer bsk_other\r\n"
    async with rig() as to, wire(to) as (reader, writer):
        await to.replica("r0", of="words")
        to.tables.apply(endpoint("mine", project="other--lab"))
        to.tables.apply(api_key("o", "bsk_other", project="other--lab"))
        for number in range(3):
            writer.write(asked("words", more=number))
            assert (await answer(reader))[0] == 200
            between = asked("mine", b"completions", other)
            writer.write(between[:-7])
            await asyncio.sleep(0.02)
            writer.write(between[-7:])
            status, _, body = await answer(reader)
            assert (status, orjson.loads(body)["error"]["code"]) == (503, "no_replica_ready")
        writer.write(asked("mine", b"completions", other) + asked("words"))
        assert [(await answer(reader))[0] for _ in range(2)] == [503, 200]
        writer.write(asked("words") + asked("words", key=b"")[:30])
        assert (await answer(reader))[0] == 200
        writer.write(asked("words", key=b"")[30:])
        assert (await answer(reader))[0] == 401
        assert to.front.held == 0


async def test_a_key_that_is_revoked_while_its_body_comes_is_worth_nothing() -> None:
    async with rig() as to, wire(to) as (reader, writer):
        uid = await to.replica("r0", of="words")
        whole = asked("words")
        for _ in range(2):  # also where its head was read before
            to.tables.apply(api_key("good", "bsk_good"))
            writer.write(whole)
            assert (await answer(reader))[0] == 200
            writer.write(whole[:-7])
            while to.front.held == 0:
                await asyncio.sleep(0)
            to.tables.apply(api_key("good", "bsk_good", gone=True))
            writer.write(whole[-7:])
            assert (await answer(reader))[0] == 401
        assert to.engine.models[uid].counters.requests == 2


async def test_answers_of_one_connection_are_each_their_own(tmp_path: Path) -> None:
    """The second and third have the head of the first, the fourth says that it is an error, the last comes in parts."""
    said = [
        (b"200 OK", b"one"),
        (b"200 OK", b"another"),
        (b"200 OK", b""),
        (b"400 Bad", b"four"),
        (b"200 OK", b"five!"),
    ]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, (status, word) in enumerate(said):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            body = orjson.dumps({"word": word.decode(), "usage": {"prompt_tokens": number, "completion_tokens": 1}})
            data = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
                status,
                len(body),
                body,
            )
            cut = len(data) if number < 4 else len(data) - 3
            writer.write(data[:cut])
            await writer.drain()
            await asyncio.sleep(0.02 if cut < len(data) else 0)
            writer.write(data[cut:])
        writer.close()

    async with rig(doors=tmp_path) as to, wire(to) as (reader, writer):
        async with await asyncio.start_unix_server(serve, tmp_path / "e.sock"):
            to.tables.apply(claim("c", f"unix:{tmp_path}/e.sock", of="words"))
            for status, word in said:
                writer.write(asked("words"))
                got = await answer(reader)
                assert (got[0], orjson.loads(got[2])["word"]) == (int(status[:3]), word.decode())
        pending = to.spool.pending()
        assert pending is not None
        assert [one.input_tokens for one in pending.records] == [0, 1, 2, 4]

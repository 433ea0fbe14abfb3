"""What an agent says of its replica is not believed: which doors are dialled, and how long one may be silent."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest
from structlog.testing import capture_logs

from bessemer.gateway import Patience, Tables
from bessemer.gateway.doors import opened, refusal
from bessemer.gateway.front import TICK_SECONDS
from bessemer.gateway.upstream import watch
from tests.gateway.harness import Rig, claim, endpoint, rig

BODY = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
EVENT = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
WHOLE_STREAM = STREAM_HEAD.replace(b"connection: close", b"content-length: %d" % len(EVENT)) + EVENT


@asynccontextmanager
async def listener(path: Path, answer: bytes, *, silent: bool = False) -> AsyncIterator[list[bytes]]:
    """Something that listens at the path; the list fills with what it was asked. ``silent`` keeps the connection."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if silent:
            await reader.read()  # until the other side goes
        writer.close()

    path.parent.mkdir(parents=True, exist_ok=True)
    async with await asyncio.start_unix_server(serve, path):
        yield asked


async def ask(to: Rig, *, stream: bool = False) -> tuple[int, bytes]:
    body = {"model": "words", "stream": stream, "messages": []}
    headers = {"authorization": "Bearer bsk_good"}
    async with (
        asyncio.timeout(60),
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{to.url}/chat/completions", data=orjson.dumps(body)) as answer,
    ):
        return answer.status, await answer.read()


# --- where it is dialled ------------------------------------------------------------------------------------------


async def test_a_socket_outside_the_folder_of_doors_is_never_dialled(tmp_path: Path) -> None:
    """Whatever way its path is written; a door inside it is."""
    doors, private = tmp_path / "doors", tmp_path / "private"
    async with (
        rig(doors=doors) as to,
        listener(doors / "a" / "e.sock", ANSWER) as good,
        listener(private / "e.sock", ANSWER) as secret,
    ):
        (doors / "link.sock").symlink_to(private / "e.sock")
        (doors / "way").symlink_to(private)
        (doors / "file").write_text("no socket")
        for name in (
            f"{private}/e.sock",
            f"{doors}/../private/e.sock",
            f"{doors}/a/../../private/e.sock",
            f"{doors}/link.sock",
            f"{doors}/way/e.sock",
            f"{doors}/file",
            f"{doors}",
            f"{doors}/",
            f"{doors}/a",
            "relative/e.sock",
            f"{doors}/\0",
            f"{doors}-other/e.sock",
        ):
            to.tables.apply(claim("c", f"unix:{name}", of="words"))
            assert (await ask(to))[0] in (502, 503), name
        assert secret == []
        to.tables.apply(claim("c", f"unix:{doors}/a/e.sock", of="words"))
        assert (await ask(to))[0] == 200
        assert len(good) == 1


async def test_a_host_elsewhere_has_no_sockets_here(tmp_path: Path) -> None:
    """Not even in the folder where the doors of a host of this machine are; and the log says why."""
    tables = Tables({"h1": tmp_path}.get)
    tables.apply(endpoint("words"))
    entry = tables.endpoints["acme--lab", "words"]
    with capture_logs() as logs:
        for _ in range(3):
            tables.apply(claim("c", f"unix:{tmp_path}/a/e.sock", of="words", host="h2"))
    assert entry.replicas == {}
    (told,) = [line for line in logs if line["event"] == "replica refused"]
    assert told["reason"] == "its host does not share this machine: only a TLS door is dialled there"
    tables.apply(claim("c", "https://h2:7000", of="words", host="h2"))
    assert [replica.address for replica in entry.replicas.values()] == ["https://h2:7000"]
    tables.apply(claim("c", f"unix:{tmp_path}/a/e.sock", of="words", host="h2"))
    assert entry.replicas == {}, "an address that is not dialled any more takes the good one's place"


def test_a_long_path_can_be_dialled(tmp_path: Path) -> None:
    """A socket's name may have 107 bytes; it is opened step by step and dialled by descriptor."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    assert refusal(f"unix:{deep}/e.sock", tmp_path) == ""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError), opened(f"unix:{deep}/e.sock", tmp_path):
        pass
    with pytest.raises(OSError, match="no socket"), opened(f"unix:{deep}", tmp_path):
        pass
    assert len(os.listdir("/proc/self/fd")) == before


# --- how long it may be silent ------------------------------------------------------------------------------------

HASTE = Patience(streamed_seconds=0.2, whole_seconds=0.3)
SOME = Patience(streamed_seconds=3.0)
"""For one that answers, on a machine that stalls."""


@pytest.mark.parametrize(("stream", "head"), [(False, b""), (True, b""), (True, STREAM_HEAD)])
async def test_a_replica_that_never_answers_is_given_up(tmp_path: Path, stream: bool, head: bytes) -> None:
    """Also one that sends a head and nothing after it: the client has had no byte of an answer."""
    async with rig(patience=HASTE, doors=tmp_path) as to, listener(tmp_path / "e.sock", head, silent=True):
        to.tables.apply(claim("c", f"unix:{tmp_path}/e.sock", of="words"))
        status, body = await ask(to, stream=stream)
        assert status == 504
        error = orjson.loads(body)["error"]
        assert (error["type"], error["code"]) == ("server_error", "replica_timeout")
        assert to.paid() == []


CHUNK = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}],"usage":{"completion_tokens":1}}\n\n'


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_stands_still_ends(tmp_path: Path, stream: bool) -> None:
    """Whoever began it may have died without a word. What came is paid for."""
    begun = STREAM_HEAD + CHUNK if stream else ANSWER[:-9]
    async with (
        rig(patience=Patience(pause_seconds=0.3), doors=tmp_path) as to,
        listener(tmp_path / "e.sock", begun, silent=True),
    ):
        to.tables.apply(claim("c", f"unix:{tmp_path}/e.sock", of="words"))
        status, body = await ask(to, stream=stream)
        code = b'"code":"answer_cut"' if stream else b'"code":"replica_failed"'
        assert (status, code in body) == (200 if stream else 502, True)
        pending = to.spool.pending()
        assert pending is not None
        assert [one.output_tokens for one in pending.records] == [int(stream)]
        (replica,) = to.tables.endpoints["acme--lab", "words"].replicas.values()
        assert replica.health.failures == 1


async def test_an_answer_that_goes_on_may_take_as_long_as_it_likes(tmp_path: Path) -> None:
    async with rig(patience=Patience(pause_seconds=120), doors=tmp_path) as to:

        async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            length = 5 * len(CHUNK) + len(EVENT)
            writer.write(STREAM_HEAD.replace(b"connection: close", b"content-length: %d" % length))
            for _ in range(5):
                writer.write(CHUNK)
                await asyncio.sleep(TICK_SECONDS + 0.05)
                to.clock.skipped += 100
            writer.write(EVENT)
            writer.close()

        async with await asyncio.start_unix_server(slowly, tmp_path / "e.sock"):
            to.tables.apply(claim("c", f"unix:{tmp_path}/e.sock", of="words"))
            status, body = await ask(to, stream=True)
        assert (status, body.endswith(b"data: [DONE]\n\n")) == (200, True)


def test_a_host_that_died_without_a_word_is_noticed_by_the_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        watch(listening)
        with socket.create_connection(listening.getsockname()) as asking, listening.accept()[0] as accepted:
            watch(asking)
            for one in (asking, accepted):
                assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                idle, pause, count = (
                    one.getsockopt(socket.IPPROTO_TCP, option)
                    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                )
                assert idle + pause * count <= 30
                assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


async def test_the_next_replica_is_tried_before_a_streams_first_byte(tmp_path: Path) -> None:
    async with (
        rig(patience=SOME, doors=tmp_path) as to,
        listener(tmp_path / "a.sock", STREAM_HEAD, silent=True) as asked,
        listener(tmp_path / "b.sock", WHOLE_STREAM),
    ):
        for name in "ab":
            to.tables.apply(claim(name, f"unix:{tmp_path}/{name}.sock", of="words"))
        assert (await ask(to, stream=True))[0] == 200
        assert len(asked) == 1
        (silent,) = [r for r in to.tables.endpoints["acme--lab", "words"].replicas.values() if r.health.failures]
        assert silent.address.endswith("a.sock")
        assert (silent.busy, len(to.paid())) == (0, 1)


async def test_an_answer_that_takes_too_long_is_asked_of_nobody_else(tmp_path: Path) -> None:
    """The next replica would take as long for it; and it is no reason to send nobody to this one."""
    async with (
        rig(patience=HASTE, doors=tmp_path) as to,
        listener(tmp_path / "a.sock", b"", silent=True) as first,
        listener(tmp_path / "b.sock", ANSWER) as second,
    ):
        for name in "ab":
            to.tables.apply(claim(name, f"unix:{tmp_path}/{name}.sock", of="words"))
        assert (await ask(to))[0] == 504
        async with asyncio.timeout(30):
            while not first:  # what it was sent it reads when it comes to it
                await asyncio.sleep(0.01)
        assert (len(first), len(second)) == (1, 0)
        replicas = to.tables.endpoints["acme--lab", "words"].replicas.values()
        assert [(r.health.failures, r.busy, r.health.not_before) for r in replicas] == [(0, 0, 0.0)] * 2
        assert to.paid() == []

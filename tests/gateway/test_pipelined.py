"""Clients that ask on without reading, or before they are answered; and what nobody hears in time to act on it."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from bessemer.core.clock import FakeClock
from bessemer.gateway import Admission, Front, Lending, request
from bessemer.gateway.errors import Refused
from bessemer.gateway.reply import Call
from bessemer.gateway.request import NAME_CHARACTERS_MAX, NAMES_MAX, ROUTES
from bessemer.gateway.route import Pool, Replica
from bessemer.gateway.turns import Turns
from bessemer.gateway.upstream import Link
from tests.gateway.harness import Hasty, rig
from tests.gateway.test_abuse import ASK, BODY, POST, answer, wire

ALIVE = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


class Wire:
    """A transport that remembers what was done to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = self.aborted = False
        self.reading = True

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_extra_info(self, _name: str) -> None:
        return None


class Later:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def begin(self, call: Call) -> None:
        """Whoever asks may."""

    def serve(self, call: Call) -> None:
        self.calls.append(call)

    def refused(self, call: Call, status: int) -> None:
        """Nobody counts."""

    @property
    def paths(self) -> str:
        return "".join(call.path for call in self.calls)


def _get(path: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path


async def test_what_comes_between_an_answer_and_the_next_has_its_turn_last() -> None:
    handler, wires = Later(), Wire()
    connection = Front(handler, Hasty()).connect()
    connection.connection_made(wires)
    connection.data_received(_get(b"/a") + _get(b"/b"))
    handler.calls[0].answer(200, b"a")
    connection.data_received(_get(b"/c"))
    for _ in range(2):
        await asyncio.sleep(0)
        handler.calls[-1].answer(200, handler.calls[-1].path.encode())
    assert handler.paths == "/a/b/c"
    connection.connection_lost(None)


async def test_who_does_not_read_is_not_read_and_has_no_turn() -> None:
    handler, wires = Later(), Wire()
    connection = Front(handler, Hasty()).connect()
    connection.connection_made(wires)
    connection.data_received(_get(b"/a") + _get(b"/b"))
    connection.pause_writing()
    handler.calls[0].answer(200, b"a")
    await asyncio.sleep(0)
    assert (handler.paths, wires.reading) == ("/a", False)
    connection.resume_writing()
    await asyncio.sleep(0)
    assert (handler.paths, wires.reading) == ("/a/b", True)
    connection.connection_lost(None)


@pytest.mark.parametrize("keep", [True, False])
async def test_a_connection_whose_last_answer_nobody_reads_ends(keep: bool) -> None:
    handler, wires = Later(), Wire()
    connection = Front(handler, Hasty()).connect()
    connection.connection_made(wires)
    connection.data_received(_get(b"/a") if keep else b"GET /a HTTP/1.1\r\nconnection: close\r\n\r\n")
    handler.calls[0].answer(200, b"a")
    if keep:
        connection.late(connection.deadline)
    assert wires.closed
    assert not wires.aborted
    assert connection.deadline < math.inf
    connection.late(connection.deadline)
    assert wires.aborted
    connection.connection_lost(None)


async def test_who_asks_on_and_reads_nothing_is_held_up() -> None:
    async with rig() as to:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        plain.setblocking(False)
        host, port = to.url.removeprefix("http://").removesuffix("/v1").split(":")
        await asyncio.get_running_loop().sock_connect(plain, (host, int(port)))
        data, most = ALIVE * 2000, 0
        with suppress(TimeoutError):
            for _ in range(40):
                async with asyncio.timeout(1.0):
                    await asyncio.get_running_loop().sock_sendall(plain, data)
                await asyncio.sleep(0.01)  # the gateway reads
                for connection in to.front._connections:
                    most = max(most, connection.transport.get_write_buffer_size())
        assert 0 < most < 4 << 20, "what one read asked for, and no more"
        plain.close()


async def test_a_refused_request_that_is_here_whole_is_answered_in_its_turn() -> None:
    wrong = POST.replace(b"bsk_good", b"bsk_none") + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    async with rig() as to:
        await to.replica("r0", of="words")
        async with wire(to) as (reader, writer):
            writer.write(ASK + wrong + ALIVE)
            assert [(await answer(reader))[0] for _ in range(3)] == [200, 401, 200]


@pytest.mark.parametrize(
    "more",
    [
        b", ".join(b'"%d":1' % n for n in range(NAMES_MAX + 1)),
        b'"%b": 1' % (b"x" * (NAME_CHARACTERS_MAX + 1)),
    ],
)
def test_names_are_bounded(more: bytes) -> None:
    with pytest.raises(Refused, match="name"):
        request.read(BODY[:-1] + b", " + more + b"}", ROUTES["/v1/chat/completions"])


@pytest.mark.parametrize(
    ("prompt", "sequences"),
    [(b"[]", 1), (b"[ 1 , 2]", 1), (b"[7]", 1), (b'["a","b"]', 2), (b"[[1,2],[3],[4]]", 3), (b"[1.5,2]", 2)],
)
def test_inputs_are_counted(prompt: bytes, sequences: int) -> None:
    wanted = request.read(b'{"model":"words","prompt":%b}' % prompt, ROUTES["/v1/completions"])
    assert wanted.sequences == sequences


async def test_a_replica_that_hangs_up_before_it_is_asked_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as to:
        await to.replica("r0", of="words")
        links = to.gateway._links
        dial = links.dial

        async def ended(replica: Replica) -> Link:
            link = await dial(replica)
            link.transport.abort()
            await asyncio.sleep(0.01)
            return link

        monkeypatch.setattr(links, "dial", ended)
        async with wire(to) as (reader, writer):
            writer.write(ASK)
            assert (await answer(reader))[0] == 503


async def test_who_gave_a_time_waits_no_longer_for_the_api() -> None:
    asked = asyncio.Event()

    async def silent(project: str, *, bounds: Mapping[str, Any]) -> dict[str, Any]:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with rig(admission=Admission(Lending(silent, clock=Hasty()))) as to, wire(to) as (reader, writer):
        writer.write(ASK.replace(b"host: x\r\n", b"host: x\r\nx-request-timeout: 5\r\n"))
        await asked.wait()
        to.clock.skipped += 6
        assert (await answer(reader))[0] == 504


def test_who_waits_again_is_not_asked_for_ever() -> None:
    pool = Pool(slots=2)
    probed, resting = Replica("a", "h", ""), Replica("b", "h", "")
    pool.add(probed)
    pool.add(resting)
    probed.busy, resting.busy = 1, 2
    for one, until in ((probed, 5.0), (resting, 10.0)):
        one.health.failures, one.health.not_before = 1, until
    probed.health.probing = True
    turns = Turns(_Steps())

    class Waiter:
        had = 0

        def turn(self) -> None:
            self.had += 1
            assert self.had < 9, "it rests no more, is full, and so has no room"
            pool.waiting.add(self, ("default", "t", "k"), cost=1, slots=2)

        def crowded(self) -> None:
            """There is room."""

    waiter: Any = Waiter()
    pool.waiting.add(waiter, ("default", "t", "k"), cost=1, slots=2)
    turns.add(pool)
    turns.sweep()
    assert waiter.had == 1


class _Steps(FakeClock):
    """A second goes by at each look."""

    def monotonic(self) -> float:
        self.at = getattr(self, "at", 8.0) + 1.0
        return self.at

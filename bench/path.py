"""What the gateway's own code costs of a request and of an event of a stream, without a socket on either side.

A whole gateway (10,000 keys, limits and budgets, bounds of tokens and money, journal and spool on disk, metrics) in
this process; what a client sends and a replica answers is handed to its protocols, as a loop would. No kernel, no
clients and no other core are in the figure, so that it says what a change of the code gives, where `gateway.py` says
what that comes to. Counted are the steps of Python's interpreter (bytecodes), which no other work on the machine
changes, and CPU: the least of many rounds, for whatever else the machine does only adds. --peer DIR is another
checkout: both are measured in turns.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import orjson
import uvloop

from _common import Figure, Options, environment, figure, program, scratch
from _serve import ENDPOINT, TOKEN, TOKENS, given
from _wire import request
from bessemer.gateway import Front, Gateway, Settler
from bessemer.gateway.upstream import Link
from bessemer.main.process import have_read
from bessemer.main.settings import Paths

ROUNDS, REQUESTS, EVENTS = 30, 400, 400
ROOT = Path(__file__).resolve().parents[1]


class Ran(NamedTuple):
    """Microseconds of CPU and bytecodes, of a request and of an event; and what it costs later to settle a request."""

    request_us: float
    event_us: float
    request_steps: float
    event_steps: float
    settle_us: float = 0.0


class Wire:
    """A transport that keeps what was last written."""

    def __init__(self) -> None:
        self.written = b""
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written = data

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 40_000) if name == "peername" else default

    def close(self) -> None:
        self.closing = True

    abort = close

    def pause_reading(self) -> None:
        """Nothing is read."""

    resume_reading = pause_reading


def _asked(**more: object) -> bytes:
    messages = [{"role": "user", "content": "Hello, how are you today? Please answer briefly."}]
    body = orjson.dumps({"model": ENDPOINT, "messages": messages, **more})
    return request("POST", "/v1/chat/completions", body, headers=f"Authorization: Bearer {TOKEN}\r\n")


def _whole() -> bytes:
    usage = {"prompt_tokens": 9, "completion_tokens": 30, "total_tokens": 39}
    message = {"role": "assistant", "content": "word " * TOKENS}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    body = orjson.dumps({"object": "chat.completion", "model": ENDPOINT, "choices": [choice], "usage": usage})
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _event(number: int) -> bytes:
    timings = {"cache_n": 0, "prompt_n": 9, "prompt_ms": 12.5, "predicted_n": number, "predicted_ms": 10.5 * number}
    choice = {"finish_reason": None, "index": 0, "delta": {"content": "word "}}
    names = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "words"}
    event = b"data: %b\n\n" % orjson.dumps({"choices": [choice], **names, "timings": timings})
    return b"%x\r\n%b\r\n" % (len(event), event)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"data: [DONE]\n\n"


class Rig:
    """One client, one gateway, one replica."""

    def __init__(self, gateway: Gateway, replica: Any, front: Front) -> None:
        self._front, self._replica = front, replica
        self.client = front.connect()
        self.client.connection_made(Wire())
        self._events = [_event(number) for number in range(1, EVENTS + 1)]
        self._whole = _whole()
        self._asked, self._streamed = _asked(max_tokens=64), _asked(max_tokens=EVENTS, stream=True)
        self._last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(LAST), LAST)

    def link(self) -> Any:
        """A connection to the replica that waits."""
        link = Link(self._replica)
        link.connection_made(Wire())
        link.expires = float("inf")
        self._replica.links.append(link)
        return link

    async def requests(self, count: int) -> None:
        """So many, one after another. For some the api has to be asked, which takes turns of the loop."""
        link, client, asked, whole = self._replica.links[0], self.client, self._asked, self._whole
        there = link.transport
        for _ in range(count):
            there.written = b""
            client.data_received(asked)
            while not there.written:  # noqa: ASYNC110 - a turn of the loop is what it waits for
                await asyncio.sleep(0)
            link.data_received(whole)
        assert client.transport.written.startswith(b"HTTP/1.1 200 OK"), "it was answered"

    async def stream(self) -> None:
        """One of `EVENTS` events, each read alone."""
        client, kept = self.client, self._replica.links.pop()
        link = self.link()
        client.data_received(self._streamed)
        while not link.transport.written:  # noqa: ASYNC110
            await asyncio.sleep(0)
        link.data_received(STREAM_HEAD + self._events[0])
        for event in self._events[1:]:
            link.data_received(event)
        link.data_received(self._last)
        assert client.transport.written.endswith(b"0\r\n\r\n"), "it was answered"
        self._replica.links[:] = [kept]


async def _sent(batch: Any) -> int:
    """The api has it: what is sent, but for the call."""
    orjson.dumps(batch.dump())
    return int(batch.first_sequence + len(batch.records) - 1)


async def _ran(work: Coroutine[Any, Any, None]) -> float:
    """Microseconds of CPU that it took."""
    before = time.process_time_ns()
    await work
    return (time.process_time_ns() - before) / 1e3


class Steps:
    """Counts the bytecodes that run while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Steps:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        self.count += event == "opcode"
        return self._trace


async def _one(rounds: int) -> Ran:
    """What a request and an event cost."""
    async with scratch() as folder:
        facts, ready = given(Paths(folder), folder / "engine.sock", name="path")
        gateway = Gateway(facts, ready)
        front = Front(gateway, facts.clock)
        (endpoint,) = facts.tables.endpoints.values()
        (replica,) = endpoint.replicas.values()
        rig = Rig(gateway, replica, front)
        rig.link()
        await rig.requests(200)
        gc.collect()
        have_read()
        settler = Settler(facts.spool, _sent, clock=facts.clock, gateway_uid="path", settled=facts.admission.settled)
        request_us = event_us = settle_us = float("inf")
        for _ in range(rounds):
            request_us = min(request_us, await _ran(rig.requests(REQUESTS)) / REQUESTS)
            event_us = min(event_us, await _ran(rig.stream()) / EVENTS)
            waiting, before = facts.spool.waiting, time.thread_time_ns()
            while await settler.once():
                pass
            settle_us = min(settle_us, (time.thread_time_ns() - before) / 1e3 / waiting)
        with Steps() as requests:
            await rig.requests(REQUESTS)
        with Steps() as events:
            await rig.stream()
        await front.close(0.1)
        facts.spool.close()
        return Ran(request_us, event_us, requests.count / REQUESTS, events.count / EVENTS, settle_us)


def _turn(tree: Path, rounds: int) -> Ran:
    argv = [sys.executable, str(tree / "bench" / Path(__file__).name), "one", str(rounds)]
    env = {**environment(), "PYTHONPATH": str(tree / "src")}
    said = subprocess.run(argv, env=env, stdout=subprocess.PIPE, check=True).stdout
    return Ran(*orjson.loads(said))


async def measure(options: Options) -> list[Figure]:
    """Each checkout in a process of its own, in turns."""
    trees = {"": ROOT} | ({"peer": Path(options.peer)} if options.peer else {})
    turns: dict[str, list[Ran]] = {name: [] for name in trees}
    for _ in range(3 if options.quick else 7):
        for name, tree in trees.items():
            turns[name].append(_turn(tree, ROUNDS))
    least = {name: Ran(*map(min, zip(*ran, strict=True))) for name, ran in turns.items()}

    def of(name: str, what: str, unit: str) -> Figure:
        there = getattr(least["peer"], what) if options.peer else None
        peer = (Path(options.peer).name, round(there, 2)) if there is not None else None
        return figure(name, getattr(least[""], what), unit, peer=peer)

    return [
        of("own code of a request", "request_us", "µs"),
        of("own code of an event of a stream", "event_us", "µs"),
        of("to settle a request, in batches", "settle_us", "µs"),
        of("steps of a request", "request_steps", "bytecodes"),
        of("steps of an event of a stream", "event_steps", "bytecodes"),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
        print(orjson.dumps(tuple(uvloop.run(_one(int(sys.argv[2]))))).decode())
    else:
        program(measure, about=__doc__.splitlines()[0], peer="another checkout, to compare with")

"""The processes that `gateway` measures: an engine that answers at once, and a gateway over one hand-fed endpoint.

``_serve.py engine SOCKET PORT`` (where there is no compiler; see `_engine.c`) · ``_serve.py gateway STATE PORT SOCKET
tls|plain|NUMBER`` (certificates and spool in STATE; the processes of one port are plain, and told apart by a number)
· ``_serve.py forward PORT SOCKET``: what it costs to pass bytes on by the same loop, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httptools
import orjson
import uvloop
from prometheus_client import CollectorRegistry

from bessemer.api import listen, server_tls
from bessemer.core.bounds import OF_QUOTA
from bessemer.core.clock import SystemClock
from bessemer.core.resource import Change, Key
from bessemer.gateway import (
    Admission,
    Gateway,
    GatewayFacts,
    Lending,
    Settler,
    Spool,
    Tables,
)
from bessemer.gateway.metrics import GatewayMetrics
from bessemer.gateway.record import Batch
from bessemer.main import identities
from bessemer.main.gateway import serve
from bessemer.main.process import have_read
from bessemer.main.settings import Paths

PROJECT, ENDPOINT, TOKEN = "bench--one", "words", "bsk_bench"
TOKENS = 32
KEYS = 10_000
PLENTY = 1 << 40


class Engine(asyncio.Protocol):
    """llama.cpp's answers, with no model behind them: one JSON body, or a stream of `TOKENS` events."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._begin()

    def _begin(self) -> None:
        self._body, self._keep = b"", True
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"connection":
            self._keep = value.lower() != b"close"

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        self._transport.write(STREAMED if b'"stream":true' in self._body else WHOLE)
        if not self._keep:
            self._transport.close()
        self._begin()


def _whole() -> bytes:
    usage = {"prompt_tokens": 12, "completion_tokens": TOKENS, "total_tokens": 12 + TOKENS}
    message = {"role": "assistant", "content": "word " * TOKENS}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    body = orjson.dumps({"object": "chat.completion", "model": ENDPOINT, "choices": [choice], "usage": usage})
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _streamed() -> bytes:
    choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
    event = b"data: " + orjson.dumps({"object": "chat.completion.chunk", "choices": [choice]}) + b"\n\n"
    usage = {"prompt_tokens": 12, "completion_tokens": TOKENS, "total_tokens": 12 + TOKENS}
    last = b"data: " + orjson.dumps({"object": "chat.completion.chunk", "choices": [], "usage": usage}) + b"\n\n"
    parts = [*[event] * TOKENS, last, b"data: [DONE]\n\n"]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunks
        + b"0\r\n\r\n"
    )


WHOLE, STREAMED = _whole(), _streamed()


async def engine(socket: str, port: int) -> None:
    """Answer at a unix socket and at a port of loopback, for ever."""
    loop = asyncio.get_running_loop()
    await loop.create_server(Engine, "127.0.0.1", port, backlog=1024)
    server = await loop.create_unix_server(Engine, socket, backlog=1024)
    await server.serve_forever()


class Onward(asyncio.Protocol):
    """One side of a connection that is passed on as it comes."""

    def __init__(self, other: Onward | None = None) -> None:
        self.transport: Any = None
        self.other = other

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class Dialling(Onward):
    """A client's side: what comes before the engine's is there waits for it."""

    def __init__(self, door: str) -> None:
        super().__init__()
        self._door, self._early = door, b""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._dialling = asyncio.ensure_future(self._dial())

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early += data
        else:
            self.other.transport.write(data)

    async def _dial(self) -> None:
        other = Onward(self)
        await asyncio.get_running_loop().create_unix_connection(lambda: other, self._door)
        self.other = other
        if self._early:
            other.transport.write(self._early)


async def forward(port: int, door: str) -> None:
    """For ever, from a port of loopback to an engine's socket."""
    server = await asyncio.get_running_loop().create_server(lambda: Dialling(door), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


async def gateway(state: Path, port: int, *, socket: str, way: str) -> None:
    """A gateway as ``up`` runs it, but that its tables are given instead of watched, and that what it asks of the api
    is answered here, at once."""
    paths = Paths(state)
    facts, ready = given(paths, Path(socket), name=f"{port}-{way}")
    clock, spool, admission = facts.clock, facts.spool, facts.admission
    shown = server_tls(identities.pair_of(paths, identities.GATEWAY)) if way == "tls" else None
    settler = Settler(spool, _stored, clock=clock, gateway_uid="bench", settled=admission.settled)
    async with asyncio.TaskGroup() as group:
        group.create_task(settler.run())
        group.create_task(admission.run(_nothing, clock=clock))
        on = listen("127.0.0.1", port, shared=way.isdigit())
        group.create_task(serve(Gateway(facts, ready), clock=clock, on=on, tls=shown, stop=asyncio.Event()))


def given(paths: Paths, socket: Path, *, name: str) -> tuple[GatewayFacts, asyncio.Event]:
    """What a gateway with `KEYS` keys is given, each with limits and a budget, and bounds of tokens and of money above
    them; and that it is ready."""
    ready, clock = asyncio.Event(), SystemClock()
    tables = Tables({"h": socket.parent}.get)
    workload = {"kind": "Endpoint", "name": ENDPOINT, "uid": "e", "replica": 0}
    for number in range(KEYS):
        status = {"digest": hashlib.sha256(TOKEN.encode() + b"%d" % number * (number > 0)).hexdigest()}
        spec = {"limits": {"requestsPerMinute": PLENTY, "tokensPerDay": PLENTY, "concurrent": PLENTY}}
        tables.apply(_change("ApiKey", {"spec": spec, "status": status}, name=f"key-{number}"))
    tables.apply(_change("Endpoint", {"spec": {"model": "words"}}))
    running = {"phase": "Running", "address": f"unix:{socket}"}
    tables.apply(_change("Claim", {"spec": {"host": "h", "workload": workload}, "status": running}))
    secret = paths.keys / identities.GATEWAY_KEY
    facts = GatewayFacts(
        tables=tables,
        spool=Spool(paths.spool.with_name(f"spool-{name}")),
        clock=clock,
        metrics=GatewayMetrics(CollectorRegistry()),
        secret=identities.key_of(paths, identities.GATEWAY_KEY) if secret.exists() else bytes(32),
        admission=Admission(Lending(_lent, clock=clock)),
    )
    ready.set()
    return facts, ready


async def _lent(project: str, *, bounds: Mapping[str, Any]) -> Mapping[str, Any]:
    """There are limits and a budget of the key, bounds of tokens and of money above it, and plenty of each."""
    scope, meters = f"key/{project}/{bounds['key']}", ("requests/minute", "tokens/day", "micro/month", "concurrent")
    places = [*((scope, meter) for meter in meters), *((f"project/{project}", meter) for meter in OF_QUOTA)]
    said = {"bound": PLENTY, "left": PLENTY, "seconds": 60.0}
    return {
        "number": (bounds["after"] or 0) + 1,
        "stands": True,
        "words": "",
        "quota": True,
        "prices": {"currency": "EUR", "input": 1_000_000, "cached": 500_000, "output": 2_000_000},
        "bounds": [{**said, "scope": scope, "meter": meter} for scope, meter in places],
    }


async def _nothing() -> list[str]:
    """What a predecessor left."""
    return []


async def _stored(batch: Batch) -> int:
    """All of it."""
    return batch.first_sequence + len(batch.records) - 1


def _change(kind: str, body: dict[str, Any], *, name: str = ENDPOINT) -> Change:
    metadata = {"name": name, "namespace": PROJECT, "creationTimestamp": "2026-01-01T00:00:00Z"}
    text = orjson.dumps({"kind": kind, "metadata": metadata, **body})
    return Change(1, "ADDED", Key(kind, PROJECT, name), f"uid-{kind}-{name}", "", text)


if __name__ == "__main__":
    if sys.argv[1] == "engine":
        uvloop.run(engine(sys.argv[2], int(sys.argv[3])))
    elif sys.argv[1] == "forward":
        uvloop.run(forward(int(sys.argv[2]), sys.argv[3]))
    else:
        have_read()
        uvloop.run(gateway(Path(sys.argv[2]), int(sys.argv[3]), socket=sys.argv[4], way=sys.argv[5]))

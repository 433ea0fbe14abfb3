"""The processes that `gateway` measures: an engine that answers at once, and a gateway over one hand-fed endpoint.

``_serve.py engine SOCKET`` · ``_serve.py gateway STATE PORT SOCKET`` (certificates and spool in STATE).
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path
from typing import Any

import httptools
import orjson
import uvloop
from prometheus_client import CollectorRegistry

from bessemer.api import listen, server_tls
from bessemer.core.clock import SystemClock
from bessemer.core.resource import Change, Key
from bessemer.gateway import Gateway, GatewayFacts, Spool, Tables
from bessemer.gateway.metrics import GatewayMetrics
from bessemer.main import identities
from bessemer.main.gateway import serve
from bessemer.main.settings import Paths

PROJECT, ENDPOINT, TOKEN = "bench--one", "words", "bsk_bench"
TOKENS = 32


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


async def engine(socket: str) -> None:
    """Answer at a unix socket, for ever."""
    server = await asyncio.get_running_loop().create_unix_server(Engine, socket, backlog=1024)
    await server.serve_forever()


async def gateway(state: Path, port: int, socket: str) -> None:
    """A gateway as ``up`` runs it, but that its tables are given instead of watched."""
    paths, ready = Paths(state), asyncio.Event()
    tables = Tables({"h": Path(socket).parent}.get)
    status = {"digest": hashlib.sha256(TOKEN.encode()).hexdigest()}
    workload = {"kind": "Endpoint", "name": ENDPOINT, "uid": "e", "replica": 0}
    tables.apply(_change("ApiKey", {"spec": {}, "status": status}))
    tables.apply(_change("Endpoint", {"spec": {"model": "words"}}))
    running = {"phase": "Running", "address": f"unix:{socket}"}
    tables.apply(_change("Claim", {"spec": {"host": "h", "workload": workload}, "status": running}))
    facts = GatewayFacts(
        tables=tables,
        spool=Spool(paths.spool),
        clock=SystemClock(),
        metrics=GatewayMetrics(CollectorRegistry()),
        secret=identities.key_of(paths, identities.GATEWAY_KEY),
    )
    ready.set()
    tls = server_tls(identities.pair_of(paths, identities.GATEWAY))
    on = listen("127.0.0.1", port)
    await serve(Gateway(facts, ready), clock=facts.clock, on=on, tls=tls, stop=asyncio.Event())


def _change(kind: str, body: dict[str, Any]) -> Change:
    metadata = {"name": ENDPOINT, "namespace": PROJECT, "creationTimestamp": "2026-01-01T00:00:00Z"}
    text = orjson.dumps({"kind": kind, "metadata": metadata, **body})
    return Change(1, "ADDED", Key(kind, PROJECT, ENDPOINT), f"uid-{kind}", "", text)


if __name__ == "__main__":
    if sys.argv[1] == "engine":
        uvloop.run(engine(sys.argv[2]))
    else:
        uvloop.run(gateway(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))

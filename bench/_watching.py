"""How long a create takes until who watches has read it: in a process of its own, over plain sockets, so that little of
a wait is the client's."""

from __future__ import annotations

import re
import resource
import selectors
import socket
import ssl
import time
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPResponse
from threading import Event, Thread

import orjson

from _common import Target
from _wire import client_tls, request

QUIET_SECONDS = 1.0
"""After so long without an event no more come: a pace is below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is watched by how many; the names of what is made begin with ``stem``."""

    target: Target
    collection: str
    stem: str
    watchers: int


def waits(ask: Ask, creates: list[tuple[str, bytes]], pace: float) -> list[float]:
    """Seconds from sending each create to having read its event, for every watch of it; one create each ``pace``
    seconds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    tls = client_tls(ask.target.ca, ask.target.cert)
    with ExitStack() as stack:
        writer = stack.enter_context(_connect(ask.target, tls))
        listed = _answer(writer, request("GET", f"{ask.collection}?limit=1"))
        since = orjson.loads(listed)["metadata"]["resourceVersion"]
        watching = []
        for _ in range(ask.watchers):
            watching.append(stack.enter_context(_connect(ask.target, tls)))
            watching[-1].sendall(request("GET", f"{ask.collection}?watch=1&resourceVersion={since}"))
            _head(watching[-1])
        time.sleep(0.5)  # each is open by then, and nothing is left of what that cost, here or there
        seen: list[dict[bytes, float]] = [{} for _ in watching]
        ready = Event()
        reading = Thread(target=_read, args=(watching, ask.stem.encode(), seen), kwargs={"ready": ready})
        reading.start()
        ready.wait()
        sent: dict[bytes, float] = {}
        for name, asked in creates:
            began = sent[name.encode()] = time.perf_counter()
            _answer(writer, asked)
            time.sleep(max(0.0, pace - (time.perf_counter() - began)))
        reading.join()
    return [found[name] - began for found in seen for name, began in sent.items()]


def _connect(target: Target, tls: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", target.port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(plain, server_hostname="localhost")


def _answer(on: ssl.SSLSocket, asked: bytes) -> bytes:
    on.sendall(asked)
    answer = HTTPResponse(on)
    answer.begin()
    body = answer.read()
    assert answer.status in (200, 201), body[:200]
    return body


def _head(on: ssl.SSLSocket) -> None:
    """Read an answer's head, and what TLS says beside: of a thousand that takes longer than an event of theirs."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = on.recv(1 << 16)
        assert part, head
        head += part
    assert head.startswith(b"HTTP/1.1 200"), head


def _read(watching: list[ssl.SSLSocket], stem: bytes, seen: list[dict[bytes, float]], *, ready: Event) -> None:
    """Note when each watch first read each name, until nothing has come for a while."""
    name, rests, begun = re.compile(rb'"(%s-[0-9]+)"' % re.escape(stem)), [b""] * len(watching), False
    with selectors.DefaultSelector() as coming:
        for place, each in enumerate(watching):
            each.setblocking(False)
            coming.register(each, selectors.EVENT_READ, place)
        ready.set()
        while (found := coming.select(QUIET_SECONDS)) or not begun:
            for key, _ in found:
                place = key.data
                part = _here(watching[place])
                now = time.perf_counter()
                for one in name.findall(rests[place] + part):
                    seen[place].setdefault(one, now)
                    begun = True
                rests[place] = part[-64:]


def _here(on: ssl.SSLSocket) -> bytes:
    """What has come."""
    parts = []
    while True:
        try:
            part = on.recv(1 << 16)
        except (ssl.SSLWantReadError, BlockingIOError):
            return b"".join(parts)
        if not part:
            raise ConnectionError("a watch has ended")
        parts.append(part)

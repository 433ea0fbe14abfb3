"""The API and the store under load, beside a real kube-apiserver.

Over TLS with a client certificate, RBAC and audit on, SQLite with synchronous=FULL, objects of 1.6 kB. The load and the
control plane (api, controller, portal) are two processes and share the machine's cores. With ``--peer DIR`` a
kube-apiserver and its etcd get the same requests in the same run, one after the other; else its kept figures are shown.

Rates and CPU are medians: of five rounds of creates, three of one client, three of gets, seven lists. The watch is read
in three rounds, by a third process over plain sockets, so that what is waited for is the server: the median of their
medians, and the 99th percentile of all waits together. No event comes before its commit: what the disk takes for one at
that pace is shown beside. After 20 ms without work a machine has put its cores to sleep and given their caches away:
what the same way takes while it is awake, the rounds without a pause tell. Memory is read once, at the end.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from http.client import HTTPResponse
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

import orjson

from _common import Figure, Options, Target, figure, median, percentile, plane, program, scratch
from _kube import binaries, kube
from _wire import Server, Wire, client_tls, load, request
from bessemer.main import identities

CLIENTS = 32
BODY_BYTES = 1600
WATCH_RATE = 50
SYNC_BYTES = 56 << 10
COLLECTION = "/apis/bessemer.dev/v1beta1/flavors"
KEPT = "kept: kube-apiserver 1.20.2 with etcd"

Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class Row:
    """A figure that both are measured by: its goal, and what the peer came to when it was last kept."""

    unit: str
    kept: float | str
    at_least: float | None = None
    at_most: float | None = None


ROWS: Mapping[str, Row] = {
    "create, 32 clients": Row("/s", "507-597", at_least=1600),
    "create, 32 clients, p99": Row("ms", "164-195"),
    "create, CPU of the control plane": Row("µs", 2030),
    "create, 1 client": Row("/s", "169-312"),
    "get, 32 clients": Row("/s", "1,060-2,450", at_least=3200),
    "get, 32 clients, p99": Row("ms", ""),
    "get, CPU of the control plane": Row("µs", "400-700"),
    "list 10,000": Row("s", "4.2-4.9", at_most=0.4),
    "list 10,000, size": Row("MB", ""),
    "longest wait of a neighbour's get meanwhile": Row("ms", "", at_most=60),
    "watch, create to event, p50": Row("ms", 3.8, at_most=2),
    "watch, create to event, p99": Row("ms", "7.9-10.7"),
    "watch, create to event, creates without a pause, p50": Row("ms", ""),
    "control plane, resident after all this": Row("MiB", "1,950-2,260", at_most=350),
}


async def measure(options: Options) -> list[Figure]:
    """Ours, then the peer where it was asked for."""
    programs = binaries(Path(options.peer)) if options.peer else None
    async with plane() as (running, pid):
        cert = running.paths.certificate(identities.ADMIN)
        ca, port = running.paths.ca_certificate, running.settings.api_port
        ours = await _values(Target(port=port, ca=ca, cert=cert, pids=(pid,)), options)
        async with scratch() as folder:
            disk = figure(f"this disk: {SYNC_BYTES >> 10} KiB synced at that pace, p50", _sync(folder), "ms")
    if programs is None:
        kept = {name: row.kept for name, row in ROWS.items() if row.kept != ""}
        return [*_figures(ours, kept, peer=KEPT), disk]
    async with scratch() as folder, kube(programs, folder) as (target, version):
        theirs = await _values(target, options)
    return [*_figures(ours, theirs, peer=f"kube-apiserver {version} with etcd"), disk]


def _sync(folder: Path) -> float:
    """Milliseconds to write and sync about what the commit of one create writes, into a file that has its size."""
    part, took = os.urandom(SYNC_BYTES), []
    with (folder / "sync").open("wb", buffering=0) as file:
        file.write(os.urandom(64 * SYNC_BYTES))
        os.fsync(file.fileno())
        for n in range(2 * WATCH_RATE):
            time.sleep(1 / WATCH_RATE)
            began = time.perf_counter()
            os.pwrite(file.fileno(), part, n % 64 * SYNC_BYTES)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return median(took) * 1e3


def _figures(ours: Values, theirs: Mapping[str, float | str], *, peer: str) -> list[Figure]:
    found = []
    for name, row in ROWS.items():
        there = theirs.get(name)
        if isinstance(there, float):
            there = float(f"{there:.4g}")
        beside = (peer, there) if there is not None else None
        bounds = {"at_least": row.at_least, "at_most": row.at_most}
        found.append(figure(name, ours[name], row.unit, peer=beside, **bounds))
    return found


async def _values(target: Target, options: Options) -> Values:
    """Fill a store with 10,000 objects (3,000 where it must be quick), then read it, list it and watch it."""
    count = 4_000 if options.quick else 10_000
    server = _server(target)
    values = await _creates(server, count, target=target, rounds=4 if options.quick else 5)
    values |= await _gets(server, count, target=target, runs=1 if options.quick else 3)
    if options.quick:
        await load(server, [_create(f"fill-{n}") for n in range(10_000 - count)], clients=CLIENTS)
    values |= await _lists(server, target, runs=3 if options.quick else 7)
    values |= await _watches(target, rounds=3, seconds=2 if options.quick else 8)
    return values | {"control plane, resident after all this": target.rss_mib()}


def _server(target: Target) -> Server:
    return Server(port=target.port, tls=client_tls(target.ca, target.cert))


def _create(name: str) -> bytes:
    """A create whose object has 1.6 kB as it is stored; like the peer's, of a kind that no controller follows up."""
    body = {
        "apiVersion": "bessemer.dev/v1beta1",
        "kind": "Flavor",
        "metadata": {"name": name, "labels": {"app": "bench", "tier": "gold"}, "annotations": {"bench/note": ""}},
        "spec": {"description": "a flavor of the bench", "cores": 2, "memory": "256Mi", "disk": "1Gi"},
    }
    body["metadata"]["annotations"]["bench/note"] = "x" * (BODY_BYTES - 450)  # type: ignore[index]
    return request("POST", COLLECTION, orjson.dumps(body))


async def _creates(server: Server, count: int, *, target: Target, rounds: int) -> Values:
    """In a few rounds, because a shared machine is not the same twice; the median is what counts."""
    await load(server, [_create(f"warm-{n}") for n in range(200)], clients=CLIENTS)
    rates, seconds, cpu = [], [], []
    for turn in range(rounds):
        part = [_create(f"size-{n:05}") for n in range(turn * count // rounds, (turn + 1) * count // rounds)]
        before = target.cpu_seconds()
        done = await load(server, part, clients=CLIENTS)
        cpu.append((target.cpu_seconds() - before) / len(part))
        rates.append(done.rate)
        seconds += done.seconds
    alone = []
    for turn in range(3):
        part = [_create(f"alone-{turn}-{n}") for n in range(count // 40)]
        alone.append((await load(server, part, clients=1)).rate)
    return {
        "create, 32 clients": median(rates),
        "create, 32 clients, p99": percentile(seconds, 0.99) * 1e3,
        "create, CPU of the control plane": median(cpu) * 1e6,
        "create, 1 client": median(alone),
    }


async def _gets(server: Server, count: int, *, target: Target, runs: int) -> Values:
    part = [request("GET", f"{COLLECTION}/size-{n * 7919 % count:05}") for n in range(count)]
    rates, cpu, seconds = [], [], []
    for _ in range(runs):
        before = target.cpu_seconds()
        done = await load(server, part, clients=CLIENTS)
        cpu.append((target.cpu_seconds() - before) / count)
        rates.append(done.rate)
        seconds += done.seconds
    return {
        "get, 32 clients": median(rates),
        "get, 32 clients, p99": percentile(seconds, 0.99) * 1e3,
        "get, CPU of the control plane": median(cpu) * 1e6,
    }


async def _lists(server: Server, target: Target, *, runs: int) -> Values:
    """The list is read by a third process, so that what delays the neighbour is the server and not its own reading."""
    seconds, stalls, sizes = [], [], []
    wire = await Wire.open(server)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(pool, _list, target)
        for _ in range(runs):
            listing = loop.run_in_executor(pool, _list, target)
            longest = 0.0
            while not listing.done():
                began = time.perf_counter()
                await wire.ask(request("GET", f"{COLLECTION}/size-00001"))
                longest = max(longest, time.perf_counter() - began)
                await asyncio.sleep(0.001)
            took, size = await listing
            seconds.append(took)
            stalls.append(longest)
            sizes.append(size)
    wire.close()
    return {
        "list 10,000": median(seconds),
        "list 10,000, size": sizes[0] / 1e6,
        "longest wait of a neighbour's get meanwhile": median(stalls) * 1e3,
    }


def _list(target: Target) -> tuple[float, int]:
    """In its own process: read the whole list once; seconds and bytes."""

    async def read() -> tuple[float, int]:
        wire = await Wire.open(_server(target))
        began = time.perf_counter()
        status, body = await wire.ask(request("GET", COLLECTION))
        took = time.perf_counter() - began
        wire.close()
        assert status == 200, body[:200]
        return took, len(body)

    return asyncio.run(read())


async def _watches(target: Target, *, rounds: int, seconds: int) -> Values:
    """A stall of the machine spoils one round, not the median of three."""
    waits, awake = [], []
    count = seconds * WATCH_RATE
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        loop = asyncio.get_running_loop()
        for turn in range(rounds):
            waits.append(await loop.run_in_executor(pool, _watch, target, f"seen-{turn}", count, 1 / WATCH_RATE))
            awake.append(await loop.run_in_executor(pool, _watch, target, f"fast-{turn}", count, 0.0))
    return {
        "watch, create to event, p50": median(median(found) for found in waits) * 1e3,
        "watch, create to event, p99": percentile([wait for found in waits for wait in found], 0.99) * 1e3,
        "watch, create to event, creates without a pause, p50": median(median(found) for found in awake) * 1e3,
    }


def _watch(target: Target, stem: str, count: int, pace: float) -> list[float]:
    """In its own process: seconds from sending a create to having read its event, one create each ``pace`` seconds. Two
    plain sockets that block, so that hardly any of a wait is the client's."""
    tls = client_tls(target.ca, target.cert)
    with _connect(target, tls) as writer, _connect(target, tls) as watcher:
        listed = _ask(writer, request("GET", f"{COLLECTION}?limit=1"))
        revision = orjson.loads(listed)["metadata"]["resourceVersion"]
        watcher.sendall(request("GET", f"{COLLECTION}?watch=1&resourceVersion={revision}"))
        watcher.settimeout(1.0)
        seen: dict[bytes, float] = {}
        reading = Thread(target=_read_names, args=(watcher, stem.encode(), seen))
        reading.start()
        sent: dict[bytes, float] = {}
        for n in range(count):
            asked = _create(f"{stem}-{n}")
            began = sent[f"{stem}-{n}".encode()] = time.perf_counter()
            _ask(writer, asked)
            time.sleep(max(0.0, pace - (time.perf_counter() - began)))
        reading.join()
    return [seen[name] - began for name, began in sent.items()]


def _connect(target: Target, tls: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", target.port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(plain, server_hostname="localhost")


def _ask(on: ssl.SSLSocket, asked: bytes) -> bytes:
    on.sendall(asked)
    answer = HTTPResponse(on)
    answer.begin()
    body = answer.read()
    assert answer.status in (200, 201), body[:200]
    return body


def _read_names(on: ssl.SSLSocket, stem: bytes, seen: dict[bytes, float]) -> None:
    """Note when each name was first read, until nothing has come for a second."""
    name, rest, begun = re.compile(rb'"(%s-[0-9]+)"' % re.escape(stem)), b"", False
    while True:
        try:
            part = on.recv(1 << 16)
        except TimeoutError:
            if begun:
                return
            continue
        now = time.perf_counter()
        for found in name.findall(rest + part):
            seen.setdefault(found, now)
            begun = True
        rest = part[-64:]


if __name__ == "__main__":
    program(
        measure,
        about=__doc__.splitlines()[0],
        peer="a folder that holds kube-apiserver and etcd: they get the same load",
    )

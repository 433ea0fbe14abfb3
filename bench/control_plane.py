"""The API and the store under load, beside a real kube-apiserver.

Over TLS with a client certificate, RBAC and audit on, SQLite with synchronous=FULL, objects of 1.6 kB. The load and the
control plane (api, controller, portal) are two processes and share the machine's cores. With ``--peer DIR`` a
kube-apiserver and its etcd get the same requests in the same run, one after the other; else its kept figures are shown.

Creates and gets are then asked of one over PostgreSQL, too, whose server has its defaults and the same cores.

Rates and CPU are medians: of five rounds of creates, three of one client, three of gets, seven lists. The watch is read
in three rounds, by a third process over plain sockets, so that what is waited for is the server: the median of their
medians, and the 99th percentile of all waits together, also with 50 watches of the same (at 50 creates a second) and
with a thousand (at two a second: each is a thousand events). A goal beside a peer in the same run is a multiple of its
figure. No event comes before its commit: what the disk takes for one at
that pace is shown beside. After 20 ms without work a machine has put its cores to sleep and given their caches away:
what the same way takes while it is awake, the rounds without a pause tell. Memory is read after the start and at the
end, after twelve and seventy seconds in which nobody asked.

Where a goal is missed: the last rows tell how far a server of this make can come. It has our listener, reads the body
as JSON, and keeps its bytes; what it takes is HTTP, TLS, the event loop and the disk, and nothing of ours. A get of
ours is less than twice that. A create is some four times it, and a profile of it has no peak: the reading and judging
of the body, who set which field, who may, the statements, the row of the trail and the line of the log each have a
part, two thirds of it in the interpreter. Five times the peer's rate would leave for a create, and for the load's own
part of it, less than both cores have. What helped is in ADR 2, 24 and 26 (groups, writes put off, no savepoints), in
`api.paths` and `api.asked`; what did not: the statements in a thread, a router of regular expressions, a commit for
each create, rarer collections of garbage. More in one process would need an interpreter without a global lock; more in
all is what replicas over PostgreSQL are for, each with a core of its own. There the writers of all stand in one line;
what a process writes at once is two round trips (ADR 26), and the server takes its part of the same cores.

A watch's event goes out a tenth of a millisecond after the commit is known in the loop; what comes before is a create
on a machine that slept, and the commit. Each further watch of the same costs one record of TLS and one call of the
system (ADR 25). Of the memory half is there after the start: the interpreter, libraries and the code; most of the
rest are the interpreter's arenas, which it gives back only where nothing in them lives.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import orjson

from _common import (
    READY_SECONDS,
    Figure,
    Options,
    Plane,
    Target,
    figure,
    median,
    percentile,
    plane,
    program,
    scratch,
    start,
    stop,
)
from _kube import binaries, kube
from _postgres import running as postgresql
from _watching import Ask, waits
from _wire import Server, Wire, client_tls, load, request
from bessemer.main import identities

CLIENTS = 32
BODY_BYTES = 1600
QUICK_COUNT = 4_000
WATCH_RATE = 50
MANY_PACE = 0.5
"""Seconds between creates that a thousand watch: each is a thousand events."""
SYNC_BYTES = 56 << 10
COLLECTION = "/apis/bessemer.dev/v1beta1/flavors"
RESIDENT = "control plane, resident "
REST_SECONDS = 12.0
LONG_REST_SECONDS = 70.0
"""Of what was freed the machine has back at most once a minute."""
OVER = "over PostgreSQL: "
LEAST = "a server that only keeps the body: "
BARE = Path(__file__).with_name("_bare.py")
KEPT = "kept: kube-apiserver 1.20.2 with etcd"

Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class Row:
    """A figure that both are measured by: its goal, and what the peer came to when it was last kept."""

    unit: str
    kept: float | str
    at_least: float | None = None
    at_most: float | None = None
    times: float | None = None
    """Beside a peer in the same run the goal is so many times its figure: more of it where that is above 1, else at
    most so much."""


ROWS: Mapping[str, Row] = {
    "create, 32 clients": Row("/s", "507-597", at_least=1600, times=5),
    "create, 32 clients, p99": Row("ms", "164-195"),
    "create, CPU of the control plane": Row("µs", 2030),
    "create, 1 client": Row("/s", "169-312"),
    "get, 32 clients": Row("/s", "1,060-2,450", at_least=3200, times=4),
    "get, 32 clients, p99": Row("ms", ""),
    "get, CPU of the control plane": Row("µs", "400-700"),
    "list 10,000": Row("s", "4.2-4.9", at_most=0.4, times=1 / 10),
    "list 10,000 by a label that ten have": Row("s", "2.6-3.1", times=1 / 50),
    "list 10,000, size": Row("MB", ""),
    "longest wait of a neighbour's get meanwhile": Row("ms", "", at_most=60),
    "watch, create to event, p50": Row("ms", 3.8, at_most=2, times=1 / 2),
    "watch, create to event, p99": Row("ms", "7.9-10.7"),
    "watch, create to event, creates without a pause, p50": Row("ms", ""),
    "50 watches, create to event, p50": Row("ms", 6.9, times=1 / 2),
    "50 watches, create to event, p99": Row("ms", 14),
    "1,000 watches, create to event, p50": Row("ms", ""),
    "1,000 watches, create to event, p99": Row("ms", "", at_most=50),
    RESIDENT + "after its start": Row("MiB", ""),
    RESIDENT + "after all this": Row("MiB", "1,950-2,260", at_most=350, times=1 / 5),
    OVER + "create, 32 clients": Row("/s", "507-597", times=3),
    OVER + "create, 32 clients, p99": Row("ms", "164-195"),
    OVER + "create, CPU of the control plane": Row("µs", 2030),
    OVER + "create, 1 client": Row("/s", "169-312"),
    OVER + "get, 32 clients": Row("/s", "1,060-2,450", times=4),
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
            async with _bare(running, folder) as least:
                floor = [figure(LEAST + name, value, ROWS[name].unit) for name, value in await _floor(least, options)]
    with postgresql() as database:
        async with plane(settings={"store": database.url()}) as (running, pid):
            cert = running.paths.certificate(identities.ADMIN)
            ca, port = running.paths.ca_certificate, running.settings.api_port
            target = Target(port=port, ca=ca, cert=cert, pids=(pid,))
            ours |= {OVER + name: value for name, value in (await _load(target, options)).items()}
    if programs is None:
        kept = {name: row.kept for name, row in ROWS.items() if row.kept != ""}
        return [*_figures(ours, kept, peer=KEPT), *floor, disk]
    async with scratch() as folder, kube(programs, folder) as (target, version):
        theirs = await _values(target, options)
    theirs |= {OVER + name: value for name, value in theirs.items()}
    return [*_figures(ours, theirs, peer=f"kube-apiserver {version} with etcd"), *floor, disk]


@asynccontextmanager
async def _bare(running: Plane, folder: Path) -> AsyncIterator[Target]:
    """A server that only keeps what it is given, at the port that the gateway would have."""
    paths, port = running.paths, running.settings.gateway_port
    argv = [sys.executable, str(BARE), str(paths.state), str(port), str(folder / "bare.db")]
    process = start(argv, log=folder / "bare.log")
    try:
        target = Target(
            port=port, ca=paths.ca_certificate, cert=paths.certificate(identities.ADMIN), pids=(process.pid,)
        )
        async with asyncio.timeout(READY_SECONDS):
            while not await _answers(target):  # noqa: ASYNC110 - another process listens
                await asyncio.sleep(0.05)
        yield target
    finally:
        stop(process)


async def _answers(target: Target) -> bool:
    try:
        (await Wire.open(_server(target))).close()
    except OSError:
        return False
    return True


async def _floor(target: Target, options: Options) -> list[tuple[str, float]]:
    """What of `_load` says how much of a request is HTTP, TLS and the disk."""
    return [(name, value) for name, value in (await _load(target, options)).items() if not name.endswith("p99")]


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
        if row.times is not None and isinstance(theirs.get(name), float):
            bounds = {"at_least" if row.times > 1 else "at_most": float(f"{row.times * float(theirs[name]):.4g}")}
        found.append(figure(name, ours[name], row.unit, peer=beside, **bounds))
    return found


async def _load(target: Target, options: Options) -> Values:
    """Creates, then gets."""
    count, server = QUICK_COUNT if options.quick else 10_000, _server(target)
    values = await _creates(server, count, target=target, rounds=4 if options.quick else 5)
    return values | await _gets(server, count, target=target, runs=1 if options.quick else 3)


async def _values(target: Target, options: Options) -> Values:
    """Fill a store with 10,000 objects (3,000 where it must be quick), then read it, list it and watch it."""
    await asyncio.sleep(REST_SECONDS)
    begun, server = target.rss_mib(), _server(target)
    values = {RESIDENT + "after its start": begun, **await _load(target, options)}
    if options.quick:
        await load(server, [_create(f"fill-{n}") for n in range(10_000 - QUICK_COUNT)], clients=CLIENTS)
    values |= await _lists(server, target, runs=3 if options.quick else 7)
    values |= await _labelled(server, runs=3 if options.quick else 7)
    values |= await _watches(target, options)
    await asyncio.sleep(REST_SECONDS if options.quick else LONG_REST_SECONDS)
    return values | {RESIDENT + "after all this": target.rss_mib()}


def _server(target: Target) -> Server:
    return Server(port=target.port, tls=client_tls(target.ca, target.cert))


def _create(name: str, **labels: str) -> bytes:
    """A create whose object has 1.6 kB as it is stored; like the peer's, of a kind that no controller follows up."""
    body = {
        "apiVersion": "bessemer.dev/v1beta1",
        "kind": "Flavor",
        "metadata": {
            "name": name,
            "labels": {"app": "bench", "tier": "gold", **labels},
            "annotations": {"bench/note": ""},
        },
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


async def _labelled(server: Server, *, runs: int) -> Values:
    """Ten of the ten thousand, by a label that no other has."""
    await load(server, [_create(f"few-{n}", rare="yes") for n in range(10)], clients=1)
    seconds, wire = [], await Wire.open(server)
    for _ in range(runs):
        began = time.perf_counter()
        status, body = await wire.ask(request("GET", f"{COLLECTION}?labelSelector=rare%3Dyes"))
        seconds.append(time.perf_counter() - began)
        assert status == 200, body[:200]
        assert len(orjson.loads(body)["items"]) == 10
    wire.close()
    return {"list 10,000 by a label that ten have": median(seconds)}


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


async def _watches(target: Target, options: Options) -> Values:
    """A stall of the machine spoils one round, not the median of three."""
    paced: dict[int, list[list[float]]] = {1: [], 50: [], 1_000: []}
    awake, seconds = [], 2 if options.quick else 8
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        loop = asyncio.get_running_loop()

        async def look(stem: str, *, count: int, pace: float, watchers: int) -> list[float]:
            asked = [(f"{stem}-{n}", _create(f"{stem}-{n}")) for n in range(count)]
            ask = Ask(target=target, collection=COLLECTION, stem=stem, watchers=watchers)
            return await loop.run_in_executor(pool, waits, ask, asked, pace)

        for turn in range(3):
            for watchers in (1, 50):
                count = seconds * WATCH_RATE // (1 if watchers == 1 else 2)
                stem = f"seen-{watchers}-{turn}"
                paced[watchers].append(await look(stem, count=count, pace=1 / WATCH_RATE, watchers=watchers))
            awake.append(await look(f"fast-{turn}", count=seconds * WATCH_RATE, pace=0.0, watchers=1))
            paced[1_000].append(await look(f"many-{turn}", count=2 * seconds, pace=MANY_PACE, watchers=1_000))
    return {
        "watch, create to event, p50": _middle(paced[1]),
        "watch, create to event, p99": _late(paced[1]),
        "watch, create to event, creates without a pause, p50": _middle(awake),
        "50 watches, create to event, p50": _middle(paced[50]),
        "50 watches, create to event, p99": _late(paced[50]),
        "1,000 watches, create to event, p50": _middle(paced[1_000]),
        "1,000 watches, create to event, p99": _late(paced[1_000]),
    }


def _middle(rounds: list[list[float]]) -> float:
    return median(median(found) for found in rounds) * 1e3


def _late(rounds: list[list[float]]) -> float:
    return percentile([wait for found in rounds for wait in found], 0.99) * 1e3


if __name__ == "__main__":
    program(
        measure,
        about=__doc__.splitlines()[0],
        peer="a folder that holds kube-apiserver and etcd: they get the same load",
    )

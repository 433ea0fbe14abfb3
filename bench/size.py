"""How the control plane grows with objects, agents and watches, in steps, up to 200,000 objects and 2,000 agents.

Over TLS, RBAC and audit on, SQLite with synchronous=FULL; one process is api, controller and portal. It is started over
each number of objects of 1.6 kB; then 32 clients create more, while all but the newest 20,000 changes are dropped.
Agents are those of fake hosts, 500 to a process, each with a certificate, a socket, two watches and a heartbeat each
twenty seconds. Watches are of one kind by one administrator, all of which are told of each of some changes.

At each step, after it has come to rest: resident memory, the share of a core that it takes while nobody asks (agents
go on with what they do), and what a neighbour waits for a get. The line through the steps is what the last rows read.
"""

from __future__ import annotations

import asyncio
import math
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import psutil

from _common import (
    Figure,
    Options,
    Plane,
    Target,
    figure,
    median,
    percentile,
    plane,
    program,
    rss_mib,
    scratch,
    start,
    stop,
)
from _size import AGENTS, GET, IDLE, OBJECTS, RESIDENT, WATCHES, read_off
from _wire import Server, Wire, client_tls, load, request
from bessemer.core.clock import SystemClock
from bessemer.core.ports import Writer
from bessemer.kinds import KINDS
from bessemer.main import identities
from bessemer.main.settings import Paths
from bessemer.store import open_store, store_kinds

CLIENTS = 32
BODY_BYTES = 1600
KEEP_REVISIONS = 20_000
COLLECTION = "/apis/bessemer.dev/v1beta1/flavors"
SYSTEM = Writer("system", "bench")
LATER = 900_000
"""From this number on objects are made over HTTP."""
COMPACTS_SECONDS = 6.0
AGENTS_EACH = 500
EVENTS = 20
JOIN_SECONDS = 600.0
SETTLE_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Steps:
    """How far each goes, and how long a rest is looked at."""

    objects: Sequence[int] = (0, 50_000, 100_000, 150_000, 200_000)
    agents: Sequence[int] = (0, 500, 1_000, 1_500, 2_000)
    watches: Sequence[int] = (0, 500, 1_000, 2_000)
    rest_seconds: float = 20.0
    writes: int = 1_000


QUICK = Steps(objects=(0, 2_000, 4_000), agents=(0, 20, 40), watches=(0, 50, 100), rest_seconds=2.0, writes=100)


async def measure(options: Options) -> list[Figure]:
    """Each of the three on a control plane of its own."""
    steps = QUICK if options.quick else Steps()
    found = await _objects(steps)
    for grow in (_agents, _watches):
        async with _ground() as ground:
            found += await grow(ground, steps)
    return [*found, *read_off(found)]


@dataclass(frozen=True, slots=True)
class Ground:
    """A control plane. A neighbour connects anew for each look: a connection that nobody uses for long is closed."""

    running: Plane
    target: Target
    server: Server

    @asynccontextmanager
    async def neighbour(self) -> AsyncIterator[Wire]:
        wire = await Wire.open(self.server)
        try:
            yield wire
        finally:
            wire.close()

    async def rest(self, count: int, what: str, *, seconds: float) -> list[Figure]:
        """What it takes while nobody asks, but for a neighbour now and then."""
        await self._settled()
        before, began, waits = self.target.cpu_seconds(), time.perf_counter(), list[float]()
        async with self.neighbour() as wire:
            while time.perf_counter() < began + seconds:
                asked = time.perf_counter()
                status, _ = await wire.ask(request("GET", f"{COLLECTION}/size-999999"))
                assert status == 200
                waits.append(time.perf_counter() - asked)
                await asyncio.sleep(0.05)
        share = (self.target.cpu_seconds() - before) / (time.perf_counter() - began)
        at = f"{count:,} {what}"
        return [
            figure(f"{at}: {RESIDENT}", self.target.rss_mib(), "MiB"),
            figure(f"{at}: {IDLE}", share * 100, "%"),
            figure(f"{at}: {GET}", percentile(waits, 0.99) * 1e3, "ms"),
        ]

    async def _settled(self) -> None:
        """Return after a second in which it did next to nothing, or as much as in the one before it."""
        last = math.inf
        for _ in range(SETTLE_SECONDS):
            before = self.target.cpu_seconds()
            await asyncio.sleep(1.0)
            took = self.target.cpu_seconds() - before
            if took < 0.02 or abs(took - last) < 0.2 * last:
                return
            last = took

    async def gauge(self, name: str) -> float:
        """A figure that the control plane tells of itself."""
        async with self.neighbour() as wire:
            _, body = await wire.ask(request("GET", "/metrics"))
        return next(float(line.split()[-1]) for line in body.decode().splitlines() if line.startswith(name))

    async def watched(self, by: float) -> None:
        """Return once so many watches are open."""
        async with asyncio.timeout(JOIN_SECONDS):
            while await self.gauge("bessemer_store_watchers") < by:  # noqa: ASYNC110 - another process has them
                await asyncio.sleep(0.2)


@asynccontextmanager
async def _ground(seed: Callable[[Paths], Awaitable[None]] | None = None) -> AsyncIterator[Ground]:
    async with plane(settings={"keep_revisions": KEEP_REVISIONS}, seed=seed) as (running, pid):
        ca, port = running.paths.ca_certificate, running.settings.api_port
        target = Target(port=port, ca=ca, cert=running.paths.certificate(identities.ADMIN), pids=(pid,))
        server = Server(port=port, tls=client_tls(ca, target.cert))
        await load(server, [_create(999_999)], clients=1)
        yield Ground(running, target, server)


def _create(number: int) -> bytes:
    return request("POST", COLLECTION, orjson.dumps(_flavor(number)))


def _flavor(number: int) -> dict[str, Any]:
    """An object that no controller follows up."""
    return {
        "apiVersion": "bessemer.dev/v1beta1",
        "kind": "Flavor",
        "metadata": {
            "name": f"size-{number:06}",
            "labels": {"of": f"group-{number // 100}", "made": "later" if number >= LATER else "before"},
            "annotations": {"bench/note": "x" * (BODY_BYTES - 450)},
        },
        "spec": {"description": "a flavor of the bench", "cores": 2, "memory": "256Mi", "disk": "1Gi"},
    }


# --- objects ----------------------------------------------------------------------------------------------------


async def _objects(steps: Steps) -> list[Figure]:
    """Each step is a start over a file that has so many; then it is written to, while its history is compacted."""
    found = []
    async with scratch() as folder:
        grown, before = folder / "store.db", 0
        for count in steps.objects:
            await _fill(grown, range(before, count))
            before, began = count, time.perf_counter()
            async with _ground(partial(_laid, grown)) as ground:
                at = f"{count:,} {OBJECTS}"
                found.append(figure(f"{at}: start until it answers", time.perf_counter() - began, "s"))
                if count:
                    found += await _written(ground, at, steps.writes)
                found += await ground.rest(count, OBJECTS, seconds=steps.rest_seconds / 2)
                found += await _reads(ground, count) if count else []
    return found


async def _fill(path: Path, numbers: range) -> None:
    """As the api would, but that nobody asks for it."""
    store = open_store(path, clock=SystemClock(), kinds=store_kinds(KINDS), seal_key=bytes(32))
    try:
        for first in range(numbers.start, numbers.stop, 256):
            part = numbers[first - numbers.start : first - numbers.start + 256]
            await asyncio.gather(*(store.objects.create(_flavor(number), SYSTEM) for number in part))
    finally:
        store.close()


async def _laid(grown: Path, paths: Paths) -> None:
    await asyncio.to_thread(shutil.copyfile, grown, paths.store)


async def _written(ground: Ground, at: str, writes: int) -> list[Figure]:
    """What stands above what is kept of history is dropped five seconds after the start; it is written to until then,
    and until all of that is gone."""
    seconds, rates, number = list[float](), list[float](), LATER
    quiet = time.perf_counter() + COMPACTS_SECONDS
    dropped = -1.0
    while True:
        done = await load(ground.server, [_create(number + n) for n in range(writes)], clients=CLIENTS)
        number += writes
        seconds += done.seconds
        rates.append(done.rate)
        before, dropped = dropped, await ground.gauge("bessemer_store_compacted_total")
        if time.perf_counter() > quiet and before == dropped:
            break
    return [
        figure(f"{at}: creates, 32 clients, while history is dropped", median(rates), "/s"),
        figure(f"{at}: longest of these creates", max(seconds) * 1e3, "ms"),
        figure(f"{at}: changes dropped meanwhile", dropped, ""),
    ]


async def _reads(ground: Ground, count: int) -> list[Figure]:
    """What each list takes, and what a neighbour waits meanwhile for a get."""
    found = []
    asked = {
        "100 by label": (f"{COLLECTION}?labelSelector=of%3Dgroup-7", 100),
        "a page of 500": (f"{COLLECTION}?limit=500", min(500, count)),
        "all listed": (COLLECTION, count),
    }
    for name, (path, expected) in asked.items():
        async with ground.neighbour() as reader, ground.neighbour() as wire:
            began, longest = time.perf_counter(), 0.0
            reading = asyncio.ensure_future(_counted(reader, path))
            while not reading.done():
                waits = time.perf_counter()
                await wire.ask(request("GET", f"{COLLECTION}/size-999999"))
                longest = max(longest, time.perf_counter() - waits)
                await asyncio.sleep(0.001)
            took = reading.result()
        assert took[0] >= expected, (name, took)  # some were added meanwhile
        found.append(figure(f"{count:,} {OBJECTS}: {name}", (took[1] - began) * 1e3, "ms"))
        if name == "all listed":
            found.append(figure(f"{count:,} {OBJECTS}: longest get of a neighbour meanwhile", longest * 1e3, "ms"))
    return found


async def _counted(wire: Wire, path: str) -> tuple[int, float]:
    """How many items a list has, and when it was whole."""
    status, body = await wire.ask(request("GET", path))
    whole = time.perf_counter()
    assert status == 200, body[:200]
    return body.count(b'"kind":"Flavor"'), whole


# --- agents -----------------------------------------------------------------------------------------------------


async def _agents(ground: Ground, steps: Steps) -> list[Figure]:
    found, processes = [], list[subprocess.Popen[bytes]]()
    before = await ground.gauge("bessemer_store_watchers")
    try:
        for previous, count in zip((0, *steps.agents), steps.agents, strict=False):
            began = time.perf_counter()
            for first in range(previous, count, AGENTS_EACH):
                processes.append(_join(ground, first, min(AGENTS_EACH, count - first)))
            await ground.watched(before + 2 * count)
            at = f"{count:,} {AGENTS}"
            if count:
                joined = (count - previous) / (time.perf_counter() - began)
                found.append(figure(f"{at}: joined until there", joined, "/s"))
            found += await ground.rest(count, AGENTS, seconds=steps.rest_seconds)
            found.append(figure(f"{at}: connections", _connections(ground), ""))
        each = sum(rss_mib(one.pid) for one in processes) / steps.agents[-1] * 1024
        return [*found, figure(f"{steps.agents[-1]:,} {AGENTS}: resident of each, where it runs", each, "KiB")]
    finally:
        for one in processes:
            stop(one)


def _join(ground: Ground, first: int, count: int) -> subprocess.Popen[bytes]:
    program = Path(__file__).with_name("_agents.py")
    paths = ground.running.paths
    return start([sys.executable, str(program), str(paths.state), str(first), str(count)], log=paths.logs / "agents")


def _connections(ground: Ground) -> int:
    """TLS connections that the api holds."""
    (pid,) = ground.target.pids
    found = psutil.Process(pid).net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == ground.target.port for one in found)


# --- watches ----------------------------------------------------------------------------------------------------


class Watcher(Wire):
    """A watch that counts the lines that it was told, and keeps none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.told: Callable[[], None] = lambda: None

    def on_body(self, part: bytes) -> None:
        for _ in range(part.count(b"\n")):
            self.told()


async def _watches(ground: Ground, steps: Steps) -> list[Figure]:
    found, wires, made = [], list[Watcher](), 1
    async with ground.neighbour() as wire:
        _, listed = await wire.ask(request("GET", f"{COLLECTION}?limit=1"))
    path = f"{COLLECTION}?watch=1&resourceVersion={orjson.loads(listed)['metadata']['resourceVersion']}"
    before = await ground.gauge("bessemer_store_watchers")
    tasks = set[asyncio.Task[object]]()
    try:
        for count in steps.watches:
            while len(wires) < count:
                watcher = await Watcher.open(ground.server)
                assert isinstance(watcher, Watcher)
                wires.append(watcher)
                tasks.add(asyncio.ensure_future(watcher.ask(request("GET", path))))
            await ground.watched(before + count)
            await asyncio.sleep(1.0)  # what was changed before is told to those who have just come
            found += await ground.rest(count, WATCHES, seconds=steps.rest_seconds / 2)
            if count:
                found += await _tell(ground, wires, first=made)
                made += EVENTS
        return found
    finally:
        for task in tasks:
            task.cancel()
        for watcher in wires:
            watcher.close()


async def _tell(ground: Ground, wires: Sequence[Watcher], *, first: int) -> list[Figure]:
    """Some changes, one after the other, each told to all."""
    waits, before, at = list[float](), ground.target.cpu_seconds(), f"{len(wires):,} {WATCHES}"
    for number in range(first, first + EVENTS):
        left, last = len(wires), asyncio.get_running_loop().create_future()

        def told(last: asyncio.Future[None] = last) -> None:
            nonlocal left
            left -= 1
            if not left:
                last.set_result(None)

        for watcher in wires:
            watcher.told = told
        began = time.perf_counter()
        await load(ground.server, [_create(number)], clients=1)
        await asyncio.wait_for(last, 60)
        waits.append(time.perf_counter() - began)
    cpu = (ground.target.cpu_seconds() - before) / EVENTS / len(wires)
    return [
        figure(f"{at}: create until the last was told, p50", median(waits) * 1e3, "ms"),
        figure(f"{at}: CPU of each event of each watch", cpu * 1e6, "µs"),
    ]


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])

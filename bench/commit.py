"""Durable place and commit, end to end: from a POST of an Instance that asks for a GPU to the commit of its Claim.

A control plane (api and controller in one process, TLS, a client certificate, RBAC and audit on, SQLite with
synchronous=FULL) has 10,000 hosts of eight GPUs. A placement is asked for by a create and is over when a watch of all
Claims has told the client of this one: then its place is decided, quota, devices, cores, memory, ledger and trail are
written with it in one transaction, and the disk has it. At 32 clients each asks for its next once it was told of its
last. At 100/s they are asked for at that pace, whatever becomes of them, and a latency is counted from the moment at
which it was due. CPU is of the control plane, for all that a placement is to it: the create, the turn of its Instance,
the Claim, the status, the event and the watch. What it had of a core tells whether a rate was its own limit, for its
event loop has one, or the machine's, which had others to serve. Rates, CPU and medians are those of five rounds,
percentiles of all waits together. No host has an agent: what agents ask of the control plane is `reconcile`'s.

The peer is OpenStack Placement with PostgreSQL behind it, which has the same hosts as resource providers without a
tree; its placement is what Nova asks of it: ten allocation candidates, then the allocation of the first that was not
taken meanwhile. It knows no topology, no tenant, no quota, no queue and no guest, and keeps no trail. It has as many
processes as there are cores, and as many clients as processes. ``--peer DIR`` (`tools/placement-peer` fills one) runs
it in the same run; else its kept figures are shown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import orjson

from _common import Figure, Options, Target, figure, median, percentile, plane, program
from _declared import FLAVOR, IMAGE, PROJECT, declared, seed
from _placement import placement_peer
from _wire import Server, Wire, client_tls, request
from bessemer.core.resource import API_VERSION
from bessemer.main import identities

HOSTS, HOSTS_QUICK = 10_000, 1_000
CLIENTS = 32
EACH, EACH_QUICK = 2_000, 300
"""Placements of a round."""
PACE = 100
PACED_SECONDS = 10
REST_SECONDS = 5.0
TOLD_SECONDS = 60.0
API = "/apis/bessemer.dev/v1alpha1"
KEPT = "kept: OpenStack Placement 16.0.0 with PostgreSQL 15"

RATE = "placed and committed"
CPU = "CPU for each placement"
HAD = "of a core for the control plane"


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of both: the goal, and what the peer came to when it was last kept."""

    unit: str
    kept: float | str = ""
    at_least: float | None = None
    at_most: float | None = None


ROWS: Mapping[str, Row] = {
    RATE: Row("/s", "1.0-1.3", at_least=500),
    f"{RATE}, p50": Row("ms", "750-940"),
    f"{RATE}, p99": Row("ms", "1,200"),
    CPU: Row("µs", 700_000),
    HAD: Row("%"),
    f"{RATE} at {PACE}/s, p50": Row("ms"),
    f"{RATE} at {PACE}/s, p99": Row("ms", at_most=20),
}

Values = Mapping[str, float]


async def measure(options: Options) -> list[Figure]:
    """Ours, then the peer where it was asked for."""
    hosts = HOSTS_QUICK if options.quick else HOSTS
    ours = await _ours(hosts, options)
    theirs: Mapping[str, float | str] = {name: row.kept for name, row in ROWS.items() if row.kept}
    peer = KEPT
    if options.peer:
        async with placement_peer(Path(options.peer), hosts=hosts) as running:
            waits, rate, cpu = await running.place(20 if options.quick else 60)
            peer = running.version
        theirs = {
            RATE: rate,
            f"{RATE}, p50": median(waits) * 1e3,
            f"{RATE}, p99": percentile(waits, 0.99) * 1e3,
            CPU: cpu * 1e6,
        }
    return [*_figures(ours, theirs, hosts=hosts, peer=peer)]


def _figures(ours: Values, theirs: Mapping[str, float | str], *, hosts: int, peer: str) -> Iterator[Figure]:
    for name, row in ROWS.items():
        there = theirs.get(name, "")
        there = float(f"{there:.4g}") if isinstance(there, float | int) else there
        beside = (peer, there) if there != "" else None
        metric = f"{hosts:,} hosts, {name}" + (f", {CLIENTS} clients" if f"{PACE}/s" not in name else "")
        yield figure(metric, ours[name], row.unit, at_least=row.at_least, at_most=row.at_most, peer=beside)


async def _ours(hosts: int, options: Options) -> Values:
    async with plane(seed=partial(seed, hosts=hosts)) as (running, pid):
        ca, port = running.paths.ca_certificate, running.settings.api_port
        target = Target(port=port, ca=ca, cert=running.paths.certificate(identities.ADMIN), pids=(pid,))
        server = Server(port=port, tls=client_tls(ca, target.cert))
        await declared(server, hosts)
        await asyncio.sleep(REST_SECONDS)
        return await measured(server, target, options)


async def measured(server: Server, target: Target, options: Options) -> Values:
    """Of a control plane whose hosts are ready."""
    rounds, each = options.runs(5), EACH_QUICK if options.quick else EACH
    async with watching(server) as told:
        placing = Placing(server, told)
        await placing.burst(each // 4)
        bursts, cpu = list[list[float]](), list[float]()
        rates = list[float]()
        for _ in range(rounds):
            before, began = target.cpu_seconds(), time.perf_counter()
            bursts.append(await placing.burst(each))
            rates.append(each / (time.perf_counter() - began))
            cpu.append((target.cpu_seconds() - before) / each)
            await asyncio.sleep(REST_SECONDS / 5)
        paced = [await placing.paced(PACED_SECONDS * PACE // (5 if options.quick else 1)) for _ in range(rounds)]
    return {
        RATE: median(rates),
        f"{RATE}, p50": median(map(median, bursts)) * 1e3,
        f"{RATE}, p99": percentile([wait for waits in bursts for wait in waits], 0.99) * 1e3,
        CPU: median(cpu) * 1e6,
        HAD: median(one * rate for one, rate in zip(cpu, rates, strict=True)) * 100,
        f"{RATE} at {PACE}/s, p50": median(map(median, paced)) * 1e3,
        f"{RATE} at {PACE}/s, p99": percentile([wait for waits in paced for wait in waits], 0.99) * 1e3,
    }


# --- being told ---------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Told:
    """Who waits for which Claim, by its name."""

    waiting: dict[bytes, asyncio.Future[float]] = field(default_factory=dict)

    def expect(self, instance: str) -> asyncio.Future[float]:
        """The moment at which its Claim was told of."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.waiting[f"instance-{instance}-0".encode()] = future
        return future

    def hear(self, line: bytes) -> None:
        """One event."""
        if not line.startswith(b'{"type":"ADDED"'):
            return
        name = orjson.loads(line)["object"]["metadata"]["name"].encode()
        future = self.waiting.pop(name, None)
        if future is not None and not future.done():
            future.set_result(time.perf_counter())


@asynccontextmanager
async def watching(server: Server) -> AsyncIterator[Told]:
    """A watch of all Claims, for as long as the block."""
    told, wire = Told(), await Wire.open(server)
    status, body = await wire.ask(request("GET", f"{API}/claims?limit=1"))
    if status != 200:
        raise RuntimeError(f"claims: {status} {body[:300].decode(errors='replace')}")
    since = orjson.loads(body)["metadata"]["resourceVersion"]
    task = asyncio.ensure_future(_follow(wire, since, told))
    try:
        yield told
    finally:
        task.cancel()
        wire.close()


async def _follow(wire: Wire, since: str, told: Told) -> None:
    async for line in wire.lines(request("GET", f"{API}/claims?watch=1&resourceVersion={since}")):
        told.hear(line)


# --- placing ------------------------------------------------------------------------------------------------------


class Placing:
    """Instances, each of another name."""

    def __init__(self, server: Server, told: Told) -> None:
        self._server = server
        self._told = told
        self._numbers = count()

    async def burst(self, number: int) -> list[float]:
        """So many over all clients, each its next once it was told of its last; seconds of each."""
        names, waits = iter([self._name() for _ in range(number)]), list[float]()

        async def work(wire: Wire) -> None:
            for name in names:
                began = time.perf_counter()
                waits.append(await self._place(wire, name) - began)

        wires = [await Wire.open(self._server) for _ in range(CLIENTS)]
        try:
            async with asyncio.timeout(TOLD_SECONDS + number / 5), asyncio.TaskGroup() as group:
                for wire in wires:
                    group.create_task(work(wire))
        finally:
            for wire in wires:
                wire.close()
        return waits

    async def paced(self, number: int) -> list[float]:
        """So many, one each hundredth of a second, whatever becomes of them; seconds from when each was due."""
        free: asyncio.Queue[Wire] = asyncio.Queue()
        wires = [await Wire.open(self._server) for _ in range(CLIENTS)]
        for wire in wires:
            free.put_nowait(wire)
        begun = time.perf_counter()

        async def one(number: int, name: str) -> float:
            due = begun + number / PACE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            wire = await free.get()
            try:
                return await self._place(wire, name) - due
            finally:
                free.put_nowait(wire)

        try:
            async with asyncio.timeout(TOLD_SECONDS + number / PACE):
                return await asyncio.gather(*(one(n, self._name()) for n in range(number)))
        finally:
            for wire in wires:
                wire.close()

    async def _place(self, wire: Wire, name: str) -> float:
        """When it was known that its Claim stands."""
        known = self._told.expect(name)
        status, body = await wire.ask(_create(name))
        if status != 201:
            raise RuntimeError(f"{name}: {status} {body[:300].decode(errors='replace')}")
        return await known

    def _name(self) -> str:
        return f"vm-{next(self._numbers):06}"


def _create(name: str) -> bytes:
    body = {
        "apiVersion": API_VERSION,
        "kind": "Instance",
        "metadata": {"name": name, "namespace": PROJECT},
        "spec": {"flavor": FLAVOR, "image": IMAGE},
    }
    return request("POST", f"{API}/namespaces/{PROJECT}/instances", orjson.dumps(body))


if __name__ == "__main__":
    program(
        measure,
        about=__doc__.splitlines()[0],
        peer="a folder that tools/placement-peer has filled: OpenStack Placement gets the same hosts",
    )

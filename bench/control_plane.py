"""The API and the store under load, beside a real kube-apiserver.

Over TLS with a client certificate, RBAC and audit on, SQLite with synchronous=FULL, objects of 1.6 kB. The load and the
control plane (api, controller, portal) are two processes and share the machine's cores.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import orjson

from _common import Figure, Options, Plane, cpu_seconds, figure, median, percentile, plane, program, rss_mib
from _wire import Server, Wire, client_tls, load, request
from bessemer.main import identities
from bessemer.main.settings import Paths

CLIENTS = 32
BODY_BYTES = 1600
COLLECTION = "/apis/bessemer.dev/v1alpha1/flavors"
APISERVER = "kept: kube-apiserver 1.20.2"


async def measure(options: Options) -> list[Figure]:
    """Fill a store with 10,000 objects (3,000 where it must be quick), then read it, list it and watch it."""
    count = 4_000 if options.quick else 10_000
    async with plane() as (running, pid):
        server = _server(running.paths, running.settings.api_port)
        made = await _creates(server, count, pid=pid, rounds=4 if options.quick else 5)
        rows = [*made, *await _gets(server, count, pid=pid, runs=1 if options.quick else 3)]
        if options.quick:
            await load(server, [_create(f"fill-{n}") for n in range(10_000 - count)], clients=CLIENTS)
        rows += await _lists(running, server, runs=3 if options.quick else 7)
        rows += await _watch(server, seconds=6 if options.quick else 20)
        memory = rss_mib(pid)
    peer = ("kept: kube-apiserver 1.20.2 with etcd: 1,700-1,900 + 250-360", "1,950-2,260")
    return [*rows, figure("control plane, resident after all this", memory, "MiB", at_most=350, peer=peer)]


def _server(paths: Paths, port: int) -> Server:
    return Server(port=port, tls=client_tls(paths.ca_certificate, paths.certificate(identities.ADMIN)))


def _create(name: str) -> bytes:
    """A create whose object has 1.6 kB as it is stored; like the peer's, of a kind that no controller follows up."""
    body = {
        "apiVersion": "bessemer.dev/v1alpha1",
        "kind": "Flavor",
        "metadata": {"name": name, "labels": {"app": "bench", "tier": "gold"}, "annotations": {"bench/note": ""}},
        "spec": {"description": "a flavor of the bench", "cpus": 2, "memory": "256Mi", "disk": "1Gi"},
    }
    body["metadata"]["annotations"]["bench/note"] = "x" * (BODY_BYTES - 450)  # type: ignore[index]
    return request("POST", COLLECTION, orjson.dumps(body))


async def _creates(server: Server, count: int, *, pid: int, rounds: int) -> list[Figure]:
    """In a few rounds, because a shared machine is not the same twice; the median is what counts."""
    await load(server, [_create(f"warm-{n}") for n in range(200)], clients=CLIENTS)
    rates, seconds, cpu = [], [], []
    for turn in range(rounds):
        part = [_create(f"size-{n:05}") for n in range(turn * count // rounds, (turn + 1) * count // rounds)]
        before = cpu_seconds(pid)
        done = await load(server, part, clients=CLIENTS)
        cpu.append((cpu_seconds(pid) - before) / len(part))
        rates.append(done.rate)
        seconds += done.seconds
    alone = await load(server, [_create(f"alone-{n}") for n in range(count // 20)], clients=1)
    return [
        figure("create, 32 clients", median(rates), "/s", at_least=1600, peer=(APISERVER, "507-597")),
        figure("create, 32 clients, p99", percentile(seconds, 0.99) * 1e3, "ms", peer=(APISERVER, "164-195")),
        figure("create, CPU of the control plane", median(cpu) * 1e6, "µs", peer=(APISERVER + " with etcd", 2030)),
        figure("create, 1 client", alone.rate, "/s", peer=(APISERVER, "169-312")),
    ]


async def _gets(server: Server, count: int, *, pid: int, runs: int) -> list[Figure]:
    part = [request("GET", f"{COLLECTION}/size-{n * 7919 % count:05}") for n in range(count)]
    rates, cpu, seconds = [], [], []
    for _ in range(runs):
        before = cpu_seconds(pid)
        done = await load(server, part, clients=CLIENTS)
        cpu.append((cpu_seconds(pid) - before) / count)
        rates.append(done.rate)
        seconds += done.seconds
    return [
        figure("get, 32 clients", median(rates), "/s", at_least=3200, peer=(APISERVER, "1,060-2,450")),
        figure("get, 32 clients, p99", percentile(seconds, 0.99) * 1e3, "ms"),
        figure("get, CPU of the control plane", median(cpu) * 1e6, "µs", peer=(APISERVER + " with etcd", "400-700")),
    ]


async def _lists(running: Plane, server: Server, *, runs: int) -> list[Figure]:
    """The list is read by a third process, so that what delays the neighbour is the server and not its own reading."""
    seconds, stalls, sizes = [], [], []
    paths, port = running.paths, running.settings.api_port
    wire = await Wire.open(server)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(pool, _list, paths.state, port)
        for _ in range(runs):
            listing = loop.run_in_executor(pool, _list, paths.state, port)
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
    return [
        figure("list 10,000", median(seconds), "s", at_most=0.4, peer=(APISERVER, "4.2-4.9")),
        figure("list 10,000, size", sizes[0] / 1e6, "MB"),
        figure("longest wait of a neighbour's get meanwhile", median(stalls) * 1e3, "ms", at_most=60),
    ]


def _list(state: Path, port: int) -> tuple[float, int]:
    """In its own process: read the whole list once; seconds and bytes."""

    async def read() -> tuple[float, int]:
        wire = await Wire.open(_server(Paths(state), port))
        began = time.perf_counter()
        status, body = await wire.ask(request("GET", COLLECTION))
        took = time.perf_counter() - began
        wire.close()
        assert status == 200, body[:200]
        return took, len(body)

    return asyncio.run(read())


async def _watch(server: Server, *, seconds: int, rate: int = 50) -> list[Figure]:
    """From sending a create to reading its event, on two connections, at a pace that leaves the server idle."""
    watcher, writer = await Wire.open(server), await Wire.open(server)
    sent: dict[str, float] = {}
    waits: list[float] = []

    async def read() -> None:
        async for line in watcher.lines(request("GET", f"{COLLECTION}?watch=1&resourceVersion={revision}")):
            name = orjson.loads(line)["object"]["metadata"]["name"]
            if name in sent:
                waits.append(time.perf_counter() - sent[name])

    _, body = await writer.ask(request("GET", f"{COLLECTION}?limit=1"))
    revision = orjson.loads(body)["metadata"]["resourceVersion"]
    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0.5)
    for n in range(seconds * rate):
        sent[f"seen-{n}"] = time.perf_counter()
        await writer.ask(_create(f"seen-{n}"))
        await asyncio.sleep(max(0.0, 1 / rate - (time.perf_counter() - sent[f"seen-{n}"])))
    await asyncio.sleep(0.2)
    reading.cancel()
    watcher.close()
    writer.close()
    return [
        figure("watch, create to event, p50", median(waits) * 1e3, "ms", at_most=2, peer=(APISERVER, 3.8)),
        figure("watch, create to event, p99", percentile(waits, 0.99) * 1e3, "ms", peer=(APISERVER, "7.9-10.7")),
    ]


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])

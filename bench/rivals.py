"""Several schedulers at once over one store: how many decisions are lost because another was faster.

Each scheduler keeps arrays of its own from the change feed, which reaches it a while after the commit, and decides with
several workers; what it decided it takes in the store's transaction, where the first wins. Who lost decides anew. They
place until nine tenths of the devices are taken. A decision costs a fraction of a millisecond, a take some; so what is
lost is what others took within the lag.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from _common import Figure, Options, figure, program
from bessemer.core.asking import Decision, Request
from bessemer.core.clock import SystemClock
from bessemer.core.errors import Taken
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.ports import CONTROLLER, Scope, Writer
from bessemer.core.resource import Key
from bessemer.core.units import GIB
from bessemer.core.values import Asked, ClaimSpec, WorkloadRef
from bessemer.kinds import KINDS
from bessemer.kinds.fleet.host import REACHABLE
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.placement.demand import Mix, Outlook
from bessemer.placement.shape import Shape
from bessemer.store import Store, open_store, store_kinds

SEED = 42
WORKERS = 8
LAG_SECONDS = 0.05
"""From a commit to the arrays of another process: two hops and a poll."""

FULL = 0.9
GOALS = {1: 0.0, 2: 5.0, 4: 10.0}
PROJECT, SINCE = "bench--one", "2026-01-01T00:00:00Z"
MIX = ((0.15, 0, 4), (0.5, 1, 6), (0.2, 2, 12), (0.1, 4, 24), (0.05, 8, 48))
"""Share of requests, devices, cores."""

ADMIN = Writer("user", "admin")


class _Late:
    """The store's objects, of which a watch hears late."""

    def __init__(self, objects: Any) -> None:
        self._objects = objects

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    async def watch(self, scope: Scope, *, since: int | None = None) -> AsyncIterator[Any]:
        queue: asyncio.Queue[tuple[float, Any]] = asyncio.Queue()
        now = asyncio.get_running_loop().time

        async def hear() -> None:
            async for item in self._objects.watch(scope, since=since):
                queue.put_nowait((now() + LAG_SECONDS, item))

        task = asyncio.create_task(hear())
        try:
            while True:
                due, item = await queue.get()
                await asyncio.sleep(max(0.0, due - now()))
                yield item
        finally:
            task.cancel()


@dataclass(slots=True)
class _Yard:
    """What the schedulers share. ``left``: devices until it is full enough."""

    store: Store
    requests: Iterator[Request]
    left: int
    numbers: Any = field(default_factory=count)
    placed: int = 0
    lost: int = 0
    refused: int = 0


async def measure(options: Options) -> list[Figure]:
    """One, two and four schedulers over as many hosts."""
    hosts = 40 if options.quick else 250
    found = []
    for schedulers, most in GOALS.items():
        yard = await _run(schedulers, hosts=hosts)
        decided = yard.placed + yard.lost
        where = f"{schedulers} schedulers of {WORKERS} workers, {hosts} hosts to {100 * FULL:.0f} %"
        goal = None if options.quick else most
        found.append(figure(f"decisions lost, {where}", 100 * yard.lost / decided, "%", at_most=goal))
        found.append(figure(f"refused before it was full, {where}", 100 * yard.refused / decided, "%"))
    return found


async def _run(schedulers: int, *, hosts: int) -> _Yard:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "store.db", clock=SystemClock(), kinds=store_kinds(KINDS), seal_key=bytes(32))
        try:
            await _furnish(store, hosts)
            yard = _Yard(store, _drawn(), int(FULL * 8 * hosts))
            feeds = [FleetFeed(_Late(store.objects), SystemClock(), order=str(n)) for n in range(schedulers)]
            tasks = [asyncio.create_task(feed.run()) for feed in feeds]
            await asyncio.gather(*map(_ready, feeds))
            for feed in feeds:
                # As they would have learned it.
                feed.demand.own.foresee(Outlook.derive(Mix.of(_wanted()), {}))
            await asyncio.gather(*(_work(yard, feed) for feed in feeds for _ in range(WORKERS)))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return yard
        finally:
            store.close()


async def _ready(feed: FleetFeed) -> None:
    for _ in range(3000):
        if feed.ready():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError("the fleet was not read in time")


async def _work(yard: _Yard, feed: FleetFeed) -> None:
    """One after the other until the fleet is full enough; a lost decision is made anew at once."""
    while yard.left > 0:
        request, number = next(yard.requests), next(yard.numbers)
        yard.left -= request.device_count
        while True:
            decision = feed.decide(request)
            if not isinstance(decision, Decision):
                yard.refused += 1
                break
            held = f"w-{number}/0"
            feed.assume(decision, held)
            try:
                await yard.store.capacity.take([_claim(number, decision)], CONTROLLER)
            except Taken:
                feed.forget(held, lost=True)
                yard.lost += 1
                # As a workload does.
                await asyncio.sleep(0.2)
                continue
            yard.placed += 1
            break


def _claim(number: int, decision: Decision) -> tuple[Key, ClaimSpec, dict[str, Any]]:
    assert decision.request is not None
    spec = ClaimSpec(
        host=decision.host,
        tenant="bench",
        workload=WorkloadRef(kind="Instance", name=f"i{number}", uid=f"w-{number}"),
        devices=list(decision.devices),
        allocations=list(decision.allocations),
        asked=Asked.of(decision.request),
    )
    return Key("Claim", PROJECT, f"instance-i{number}-0"), spec, {}


def _drawn() -> Iterator[Request]:
    generator = np.random.default_rng(SEED)
    shares = [share for share, _, _ in MIX]
    while True:
        _, devices, cores = MIX[int(generator.choice(len(MIX), p=shares))]
        yield _request(devices, cores)


def _request(devices: int, cores: int) -> Request:
    return Request(tenant="bench", milli_cores=1000 * cores, memory_bytes=4 * GIB * cores, device_count=devices)


def _wanted() -> Mapping[Shape, float]:
    return {Shape.of(_request(devices, cores)): share for share, devices, cores in MIX}


async def _furnish(store: Store, hosts: int) -> None:
    """Hosts that have joined, are heard of and declared."""
    for n in range(hosts):
        name, machine = f"host-{n:04}", _machine()
        meta = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "Host", "metadata": {"name": name}, "spec": {}}
        await store.objects.create(meta, ADMIN)
        heard = {
            "type": REACHABLE,
            "status": "True",
            "reason": "Heard",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        status = {"phase": "Ready", "keyFingerprint": "ab", "conditions": [heard]}
        await store.objects.replace({**meta, "status": status}, CONTROLLER, part="status")
        await store.objects.replace(
            {**meta, "status": {"report": machine.dump()}}, Writer("agent", name), part="report"
        )
        await store.capacity.declare(name, machine)


def _machine() -> Inventory:
    devices = [
        Device(id=f"gpu{n}", kind="gpu", model="G3", numa_node=n // 4, pcie_switch=f"sw{n // 2}") for n in range(8)
    ]
    numa = [NumaNode(id=n, cores=64, threads=64, memory_bytes=512 * GIB) for n in range(2)]
    return Inventory(numa=numa, devices=devices, virtualization="kvm", isolation="strong")


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])

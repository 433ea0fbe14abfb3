"""A yard of hosts for tests of the kinds of fleet: a real store, the real loop and feed, agents that only say things.

A crash loses the process (loop, feed); the store's file, the clock and what the agents said stay.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import orjson

from bessemer.client.paths import api_version
from bessemer.core.asking import Allocation
from bessemer.core.clock import FakeClock
from bessemer.core.errors import NotFound
from bessemer.core.hosts import Inventory
from bessemer.core.ports import CONTROLLER, Scope, Writer
from bessemer.core.resource import Key, Kind
from bessemer.core.values import ClaimSpec, WorkloadRef
from bessemer.drivers.oidc.fake import FakeIssuers
from bessemer.kinds.context import Context, Imported, Progress
from bessemer.kinds.fleet import claim, flavor, host, image
from bessemer.kinds.fleet.heartbeats import Heartbeats
from bessemer.kinds.fleet.host import Host
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.loop import Loop
from bessemer.store import open_store, store_kinds
from tests.kinds.fleet.outlooks import at_once
from tests.kinds.points import EVERYTHING, Points, Stop, Tap

KINDS: Sequence[Kind[Any, Any]] = (host.KIND, claim.KIND, flavor.KIND, image.KIND)
PROJECT = "acme--research"
ADMIN = Writer("user", "admin")
HEARTBEAT_SECONDS = 45.0
TAKEOVER_SECONDS = 20
"""After a crash the lease of the process that died must run out first."""

CALLS = frozenset({"declare", "withdraw", "release", "held", "image"})
WRITES = frozenset({"create", "replace", "delete", "emit", "tell"})


class Builder:
    """An importer that takes its time, and refuses when told to."""

    def __init__(self) -> None:
        self.refuse: list[Exception] = []
        self.steps: list[Progress] = []
        """Looks at which it is still at work."""
        self.now = Progress()
        self.digest = "sha256:" + "ab" * 32
        self.held: set[str] = set()
        self.built = 0

    async def image(self, builtin: str) -> Imported | None:
        if self.refuse:
            raise self.refuse.pop(0)
        if self.steps:
            self.now = self.steps.pop(0)
            return None
        self.built += 1
        self.held.add(self.digest)
        return Imported(self.digest, 30_000_000, {"kernel": "6.1.0"})

    async def wheel(
        self, package: str, version: str, *, member: str, sha256: str, size_bytes: int = 0
    ) -> Imported | None:
        raise AssertionError("no model is imported here")

    async def holds(self, digest: str) -> bool:
        return digest in self.held

    def progress(self, name: str) -> Progress:
        assert name == "image/micro-guest"
        return self.now


class Yard:
    """``async with Yard() as yard``: booted, and taken down at the end."""

    def __init__(self, stop: Any = None) -> None:
        self.clock = FakeClock()
        self.points = Points()
        self.points.arm(stop)
        self.importer = Builder()
        self.silent: set[str] = set()
        self.crashes = 0
        shared = "/dev/shm"
        self._folder = tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None)

    async def __aenter__(self) -> Self:
        self.boot()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()
        self._folder.cleanup()

    def boot(self) -> None:
        """Everything that the process holds, from nothing."""
        path = Path(self._folder.name) / "store.db"
        self.store = open_store(path, clock=self.clock, kinds=store_kinds(KINDS), seal_key=bytes(32))

        def tapped(inner: Any, prefix: str, sort: Any, only: frozenset[str]) -> Any:
            return Tap(inner, self.points, sort=sort, prefix=prefix, only=only)

        objects = tapped(self.store.objects, "objects", "commit", WRITES)
        self.fleet = FleetFeed(self.store.objects, self.clock, derive=at_once)
        ctx = Context(
            objects=objects,
            capacity=tapped(self.store.capacity, "capacity", "driver", CALLS),
            ledger=self.store.ledger,
            leases=tapped(self.store.leases, "leases", "driver", CALLS),
            fleet=self.fleet,
            importer=tapped(self.importer, "importer", "driver", CALLS),
            issuers=FakeIssuers(),
            clock=self.clock,
        )
        self.loop: Loop[Any] = Loop(
            KINDS,
            ctx,
            objects=objects,
            leases=self.store.leases,
            events=tapped(self.store.events, "events", "commit", WRITES),
            clock=self.clock,
            writer=CONTROLLER,
            workers=4,
            jitter=lambda: 1.0,
        )
        heartbeats = Heartbeats(self.store.leases, self.clock, wake=self.loop.wake)
        self._tasks = [asyncio.create_task(part.run()) for part in (self.loop, self.fleet, heartbeats)]

    async def crash(self) -> None:
        """The process is gone; a new one finds what it left."""
        self.crashes += 1
        await self.down()
        self.up()

    def up(self) -> None:
        """A process again, where there was none."""
        self.points.dead, self.points.stop = frozenset(), None
        self.boot()

    async def down(self) -> None:
        self.points.dead = EVERYTHING
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.store.close()

    # --- time ---

    async def quiet(self) -> None:
        """Until nothing moves by itself any more. A process that was stopped is started again."""
        revision = -1
        while revision != self.store.revision:
            revision = self.store.revision
            # What was handed to the writer's thread before this is answered before it.
            await self.store.leases.acquire("barrier", "test", 1.0)
            await self.fleet_read()
            idle = asyncio.create_task(self.loop.idle())
            await asyncio.wait([idle, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
            idle.cancel()
            await self.clock.advance(0)
            if self._tasks[0].done():
                _expect_stop(self._tasks[0])
                await self.crash()
                revision = -1

    async def fleet_read(self) -> None:
        while not self.fleet.ready() and not any(task.done() for task in self._tasks):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Let time pass, a second at a time; agents that are not silent are heard."""
        for _ in range(max(1, int(seconds))):
            for name in await self.joined():
                if name not in self.silent:
                    await self.heartbeat(name)
            await self.clock.advance(min(1.0, seconds))
            await self.quiet()

    # --- what people and agents do ---

    async def create(self, kind: str, name: str, spec: Mapping[str, Any] | None = None) -> None:
        body = {"apiVersion": api_version(kind), "kind": kind, "metadata": {"name": name}, "spec": dict(spec or {})}
        await self.store.objects.create(body, ADMIN)
        await self.quiet()

    async def patch(self, kind: str, name: str, **spec: Any) -> None:
        body = await self.body(kind, name)
        del body["metadata"]["resourceVersion"]
        await self.store.objects.replace({**body, "spec": {**body["spec"], **spec}}, ADMIN)
        await self.quiet()

    async def delete(self, kind: str, name: str) -> None:
        await self.store.objects.delete(Key(kind, "", name), ADMIN)
        await self.quiet()

    async def join(self, name: str, report: Inventory) -> None:
        """What the api does for a join, and what the agent then says."""
        body = await self.body("Host", name)
        del body["metadata"]["resourceVersion"]
        said = {**body, "status": {**body.get("status", {}), "keyFingerprint": "ab" * 32}}
        await self.store.objects.replace(said, CONTROLLER, part="status")
        await self.heartbeat(name)
        await self.report(name, report)
        await self.advance(1)

    async def report(self, name: str, report: Inventory) -> None:
        body = await self.body("Host", name)
        del body["metadata"]["resourceVersion"]
        said = {**body, "status": {**body.get("status", {}), "report": report.dump()}}
        await self.store.objects.replace(said, Writer("agent", name), part="report")
        await self.quiet()

    async def heartbeat(self, name: str) -> None:
        await self.store.leases.acquire(f"host/{name}", name, HEARTBEAT_SECONDS)

    async def host(self, name: str, report: Inventory, **spec: Any) -> None:
        """A Host that has joined."""
        await self.create("Host", name, spec)
        await self.join(name, report)

    async def take(
        self, name: str, on: str, *, devices: Sequence[str] = (), milli_cores: int = 1000, **part: Any
    ) -> str:
        """A Claim, as a workload's control side takes it; answers its uid."""
        spec = ClaimSpec(
            host=on,
            tenant="acme",
            workload=WorkloadRef(kind="Instance", name=name, uid=f"w-{name}"),
            devices=list(devices),
            allocations=[Allocation(numa_node=0, milli_cores=milli_cores, memory_bytes=1 << 30)],
            **part,
        )
        (stored,) = await self.store.capacity.take([(Key("Claim", PROJECT, name), spec, {})], CONTROLLER)
        await self.quiet()
        return stored.uid

    async def end(self, name: str, on: str) -> None:
        """The agent says Gone, and the workload lets go."""
        key = Key("Claim", PROJECT, name)
        body = orjson.loads((await self.store.objects.get(key)).body)
        await self.store.objects.replace({**body, "status": {"phase": "Gone"}}, Writer("agent", on), part="status")
        await self.store.capacity.release(key, CONTROLLER)
        await self.quiet()

    # --- what there is ---

    async def joined(self) -> list[str]:
        page = await self.store.objects.list(Scope(kind="Host"))
        return [stored.key.name for stored in page.items if b'"keyFingerprint":"ab' in stored.body]

    async def body(self, kind: str, name: str) -> dict[str, Any]:
        namespace = PROJECT if kind == "Claim" else ""
        found: dict[str, Any] = orjson.loads((await self.store.objects.get(Key(kind, namespace, name))).body)
        return found

    async def there(self, kind: str, name: str) -> bool:
        try:
            await self.body(kind, name)
        except NotFound:
            return False
        return True

    async def load(self, name: str) -> Host:
        return Host.load((await self.store.objects.get(Key("Host", "", name))).body)

    async def ready(self, kind: str, name: str) -> tuple[str, str, str]:
        """Phase, status and reason of Ready."""
        status = (await self.body(kind, name)).get("status", {})
        ready = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})
        return status.get("phase", ""), ready.get("status", ""), ready.get("reason", "")

    async def stuck(self, kind: str, name: str) -> str:
        """What the condition Stuck says; "" where it does not hold."""
        conditions = (await self.body(kind, name)).get("status", {}).get("conditions", ())
        return next((c["message"] for c in conditions if c["type"] == "Stuck" and c["status"] == "True"), "")

    async def events(self) -> list[str]:
        page = await self.store.objects.list(Scope(kind="Event"))
        return [orjson.loads(stored.body)["reason"] for stored in page.items]


def _expect_stop(task: asyncio.Task[None]) -> None:
    error = task.exception()
    stopped = isinstance(error, Stop) or (isinstance(error, BaseExceptionGroup) and error.split(Stop)[1] is None)
    if error is not None and not stopped:
        raise error

"""A small cloud in one process for tests of kinds: a real store, the real loop and kinds, hosts on fake drivers.

What a crash leaves alone is the world: the store's file, the fake hosts and the clock. All else is built anew by `boot`
and lost by `crash`, which may end the control plane or the agents alone. `Points` counts every driver call and every
commit on the way, and can end a part before or after one of them. Between two steps of time everything that can move
has moved (`Traffic`), so that one life is like the other.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bessemer.agent.claims import claim_kind
from bessemer.client.paths import api_version
from bessemer.core.clock import FakeClock
from bessemer.core.errors import NotFound, Unavailable
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.inference import AdapterFacts, ModelFile
from bessemer.core.ports import CONTROLLER, Bookmark, Lease, Part, Scope, Stored, Writer
from bessemer.core.resource import Change, Key
from bessemer.core.units import GIB
from bessemer.core.values import LedgerEntry
from bessemer.drivers.disks.fake import FakeDisks, FakeDiskWorld
from bessemer.drivers.engine.fake import FakeEngine
from bessemer.drivers.fetch.protocol import Place, RoomWanted
from bessemer.drivers.inspect.tables import known
from bessemer.drivers.jobs.fake import FakeJobs
from bessemer.drivers.load.fake import FakeLoads
from bessemer.drivers.oidc.fake import FakeIssuer, FakeIssuers
from bessemer.drivers.passthrough.fake import FakePciWorld
from bessemer.drivers.qemu.fake import FakeQemu, FakeQemuWorld
from bessemer.drivers.weights.fake import SMALL
from bessemer.drivers.wipe.fake import FakeMediaWorld, fake_lending
from bessemer.kinds import HOST_SIDES, KINDS
from bessemer.kinds.context import Context, HostContext, HostDrivers, Imported, Progress
from bessemer.kinds.fleet.heartbeats import Heartbeats
from bessemer.kinds.fleet.host import FAKE_TAINT
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.kinds.fleet.queueing import Queueing
from bessemer.kinds.inference.loads import LoadFeed
from bessemer.loop.loop import Loop
from bessemer.store import open_store
from bessemer.store.kinds import store_kinds
from tests.kinds.fleet.outlooks import at_once
from tests.kinds.host_bench import DIGEST, SECRET, BenchContent
from tests.kinds.points import EVERYTHING, WRITES, PartName, Point, Points, Stop, Tap
from tests.sim.clock import Traffic, drained

PROJECT = "acme--research"
USER = Writer("user", "alice")
MODEL_SHA = "cd" * 32
HEARTBEAT_SECONDS = 60.0

ISSUER = "https://id.example.org/realm"


@dataclass
class WorldHost:
    """A host that outlives every agent."""

    name: str
    clock: FakeClock
    inventory: Inventory
    qemu: FakeQemuWorld = field(default_factory=FakeQemuWorld)
    disks: FakeDiskWorld = field(default_factory=FakeDiskWorld)
    content: BenchContent = field(default_factory=BenchContent)
    silent: bool = False
    """Its agent is not heard: no heartbeat comes, and its loop does not run."""

    def __post_init__(self) -> None:
        self.engine = FakeEngine(self.clock)
        self.loads = FakeLoads(self.engine, self.clock)
        self.jobs = FakeJobs(self.clock)
        self.pci = FakePciWorld()
        self.media = FakeMediaWorld(pci=self.pci)

    def context(self, points: Points) -> HostContext:
        def tapped(inner: Any, prefix: str) -> Any:
            return Tap(inner, points, sort="driver", prefix=prefix, part="agent")

        return HostContext(
            secrets=_Secrets(),
            content=tapped(self.content, "content"),
            clock=self.clock,
            drivers=HostDrivers(
                qemu=tapped(FakeQemu(self.clock, world=self.qemu, disks=self.disks), "qemu"),
                disks=tapped(FakeDisks(self.disks), "disks"),
                engine=tapped(self.engine, "engine"),
                jobs=tapped(self.jobs, "jobs"),
                loads=tapped(self.loads, "loads"),
                passthrough=tapped(fake_lending(self.media).passthrough, "passthrough"),
            ),
            virtualization="tcg",
            threads=4,
        )

    async def residue(self) -> list[str]:
        """What of anybody is left on the host."""
        left = [*self.qemu.guests, *self.disks.sizes, *self.disks.seeds, *self.content.pins]
        return [*left, *self.pci.handed, *self.jobs.specs, *(engine.uid for engine in await self.engine.running())]


class _Secrets:
    async def get(self, claim_uid: str) -> Mapping[str, str]:
        return {"replica": SECRET}


class _Always:
    """Leases for a loop that competes with nobody."""

    async def acquire(
        self, name: str, holder: str, ttl_seconds: float, *, note: str = "", patience: float = 0.0
    ) -> Lease:
        return Lease(name, holder, 1, float("inf"))

    async def release(self, name: str, holder: str) -> None: ...

    async def held(self, prefix: str) -> list[Lease]:
        return []

    async def ending(self, prefix: str, within: float) -> list[Lease]:
        return []


class _AgentObjects:
    """A host's Claims, as its agent sees and reports them at whatever control plane there is."""

    def __init__(self, world: World, host: str) -> None:
        self._world = world
        self._host = host

    async def get(self, key: Key) -> Stored:
        stored: Stored = await self._objects().get(key)
        return stored

    async def replace(
        self, body: Mapping[str, Any], writer: Writer, *, part: Part = "main", dry_run: bool = False
    ) -> Stored:
        stored: Stored = await self._objects().replace(body, writer, part=part, dry_run=dry_run)
        return stored

    async def watch(self, scope: Scope, *, since: int | None = None) -> AsyncIterator[Change | Bookmark]:
        changes = self._objects().watch(Scope(kind=scope.kind, host=self._host), since=since)
        items: asyncio.Queue[Any] = asyncio.Queue()
        pump = asyncio.create_task(drained(changes, items.put_nowait))
        self._world.watches.add(items)
        try:
            while True:
                item = await items.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self._world.watches.discard(items)
            pump.cancel()

    def _objects(self) -> Any:
        if "control" in self._world.points.dead:
            raise Unavailable("the server cannot be reached")
        return self._world.tapped(self._world.store.objects, "objects", "agent")


@dataclass
class WorldImporter:
    """Imports what it is asked for at once, or refuses, or is still at it while there is something in ``steps``."""

    refuse: BaseException | None = None
    digest: str = ""
    calls: int = 0
    steps: list[Progress] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    sizes: list[int] = field(default_factory=list)
    """What each call expected."""
    places: list[tuple[Place, str]] = field(default_factory=list)
    files: dict[type, tuple[ModelFile, ...]] = field(default_factory=dict)
    adapter: AdapterFacts | None = None
    gated: bool = False
    size_bytes: int = 98_000_000
    exact: bool = True
    rooms: list[int | None] = field(default_factory=list)
    released: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    """The format of what comes from elsewhere than wheels."""
    format: str = "gguf"

    async def image(self, builtin: str) -> Imported | None:
        if self.steps:
            self._now = self.steps.pop(0)
            return None
        self.lost.discard(DIGEST)
        return Imported(DIGEST, 28 << 20, {"kernel": "6.1.0-fake"})

    async def wheel(
        self, package: str, version: str, *, member: str, sha256: str, size_bytes: int = 0
    ) -> Imported | None:
        self.calls += 1
        self.sizes.append(size_bytes)
        if self.refuse is not None:
            raise self.refuse
        if self.steps:
            self._now = self.steps.pop(0)
            return None
        digest = self.digest or f"sha256:{sha256}"
        self.lost.discard(digest)
        facts = SMALL.model_copy(update={"format": self.format, "adapter": self.adapter})
        return Imported(digest, 98_000_000, {"format": self.format}, facts)

    async def model(self, uid: str, place: Place, *, revision: str = "", room: int | None = None) -> Imported | None:
        self.places.append((place, revision))
        self.rooms.append(room)
        if room is not None and room < self.size_bytes:
            raise RoomWanted(self.size_bytes, exact=self.exact)
        if self.refuse is not None:
            raise self.refuse
        if self.steps:
            self._now = self.steps.pop(0)
            return None
        files = self.files.get(type(place), ())
        for digest in (self.digest or DIGEST, *(file.digest for file in files)):
            self.lost.discard(digest)
        facts = SMALL.model_copy(update={"adapter": self.adapter, "format": self.format})
        return Imported(
            self.digest or DIGEST,
            self.size_bytes,
            {"format": self.format},
            facts,
            files,
            revision or "c" * 40,
            self.gated,
        )

    async def release(self, uid: str, *, named: Collection[str]) -> None:
        self.released.append((uid, frozenset(named)))

    async def holds(self, digest: str, *parts: str) -> bool:
        return self.lost.isdisjoint((digest, *parts))

    def progress(self, name: str) -> Progress:
        return self._now

    _now: Progress = field(default_factory=Progress)


class World:
    """``async with World(...) as world``: booted, and taken down at the end with nothing left running."""

    def __init__(
        self,
        *,
        hosts: int = 1,
        gpus: int = 0,
        fake: bool = False,
        isolation: str = "strong",
        stop: Point | None = None,
        victims: frozenset[PartName] = EVERYTHING,
    ) -> None:
        self.clock = FakeClock()
        self.points = Points()
        self.watches: set[asyncio.Queue[Any]] = set()
        """Agents' connections to the control plane."""
        self._traffic = Traffic()
        self._stop = stop
        self._victims = victims
        self.importer = WorldImporter()
        self.issuer = FakeIssuer(ISSUER, self.clock)
        self.crashes = 0
        devices = [Device(id=f"gpu-{i}", kind="gpu", model="H100") for i in range(gpus)]
        numa = [NumaNode(id=0, cores=8, threads=16, memory_bytes=64 * GIB)]
        found = Inventory(
            fake=fake,
            numa=numa,
            devices=devices,
            virtualization="tcg",
            isolation=isolation,
            engines=["llamacpp", "vllm"],
            sharing="time" if gpus else "none",
            partitions={"H100": known()["H100-80GB"]} if gpus else {},
        )
        here = {f"h{i}": found.model_copy(update={"addresses": [f"192.0.2.{i}"]}) for i in range(1, hosts + 1)}
        self.hosts = {name: WorldHost(name, self.clock, machine) for name, machine in here.items()}
        shared = "/dev/shm"
        self._folder = tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None)
        self._tasks: dict[PartName, list[asyncio.Task[None]]] = {"control": [], "agent": []}
        self.kinds = store_kinds(KINDS)

    async def __aenter__(self) -> Self:
        self.boot()
        await self._furnish()
        await self.until_ready("Model", "smol", namespace="")
        await self.until_ready("Image", "micro", namespace="")
        for host in self.hosts:
            await self.until_ready("Host", host, namespace="")
        await self.until_ready("Project", PROJECT, namespace="")
        self.points.arm(self._stop, self._victims)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._down()
        self._folder.cleanup()

    async def silence(self, host: str) -> None:
        """The host's agent falls silent: from here on its part of the process is not there."""
        self.hosts[host].silent = True
        await self.crash()

    async def hear(self, host: str) -> None:
        """The host's agent is back."""
        self.hosts[host].silent = False
        await self.crash()

    # --- the process ---

    def tapped(self, inner: Any, prefix: str, part: PartName) -> Any:
        """A port of the store, as a part of the process reaches it."""
        return Tap(self._traffic.counted(inner), self.points, sort="commit", prefix=prefix, only=WRITES, part=part)

    def boot(self, parts: frozenset[PartName] = EVERYTHING) -> None:
        """Everything that these parts hold, from nothing."""
        if "control" in parts:
            self._boot_control()
        if "agent" in parts:
            loops = [self._agent(host) for host in self.hosts.values() if not host.silent]
            self._tasks["agent"] = [asyncio.create_task(loop.run()) for loop in loops]

    def _boot_control(self) -> None:
        store = self.store = open_store(
            Path(self._folder.name) / "store.db", clock=self.clock, kinds=self.kinds, seal_key=bytes(32)
        )
        objects, leases = self.tapped(store.objects, "objects", "control"), self._traffic.counted(store.leases)
        feed = FleetFeed(store.objects, self.clock, derive=at_once)
        fleet = self.fleet = Queueing(feed, store.objects, clock=self.clock)
        ctx = Context(
            objects=objects,
            capacity=self.tapped(store.capacity, "capacity", "control"),
            ledger=store.ledger,
            leases=leases,
            fleet=fleet,
            importer=self.importer,
            issuers=FakeIssuers(self.issuer),
            clock=self.clock,
        )
        events = self.tapped(store.events, "events", "control")
        loop: Loop[Any] = Loop(
            KINDS, ctx, objects=objects, leases=leases, events=events, writer=CONTROLLER, **self._common
        )
        heartbeats = Heartbeats(leases, self.clock, wake=loop.wake)
        self.loads = LoadFeed(ctx.scalers, leases, clock=self.clock, wake=loop.wake)
        self._tasks["control"] = [asyncio.create_task(part.run()) for part in (loop, fleet, heartbeats)]

    def _agent(self, host: WorldHost) -> Loop[Any]:
        return Loop(
            [claim_kind(HOST_SIDES)],
            host.context(self.points),
            objects=_AgentObjects(self, host.name),
            leases=_Always(),
            events=None,
            writer=Writer("agent", host.name),
            **self._common,
        )

    @property
    def starts(self) -> list[int]:
        """By host: true starts of guests, engines and members of jobs."""
        return [host.qemu.starts + host.engine.starts + host.jobs.starts for host in self.hosts.values()]

    @property
    def _common(self) -> dict[str, Any]:
        return {"clock": self.clock, "jitter": lambda: 0.5, "workers": 4}

    async def crash(self, parts: frozenset[PartName] = EVERYTHING) -> None:
        """What these parts held is gone; new ones find the world as it was left."""
        self.crashes += 1
        await self._down(parts)
        self.points.dead, self.points.stop = frozenset(), None
        self.boot(parts)

    async def _down(self, parts: frozenset[PartName] = EVERYTHING) -> None:
        self.points.dead |= parts
        if "control" in parts:
            for watch in self.watches:
                watch.put_nowait(Unavailable("the connection was lost"))
        tasks = [task for part in parts for task in self._tasks[part]]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if "control" in parts:
            self.store.close()

    async def until(self, holds: Callable[[], Awaitable[Any]], *, seconds: float = 900.0) -> None:
        """Let time pass until ``holds`` answers something true; what was stopped is started again."""
        end = self.clock.monotonic() + seconds
        while True:
            await self._traffic.settle()
            self._raise_defects()
            if self.points.dead:
                await self.crash(self.points.dead)
                continue
            if await holds():
                return
            assert self.clock.monotonic() < end, await self.explain()
            await self.clock.advance(self._step())
            await self._beat()

    def _raise_defects(self) -> None:
        """A part of the process ends by a stop alone."""
        for task in (task for tasks in self._tasks.values() for task in tasks):
            error = task.exception() if task.done() and not task.cancelled() else None
            rest = error.split(Stop)[1] if isinstance(error, BaseExceptionGroup) else error
            if rest is not None and not isinstance(rest, Stop):
                raise rest

    def _step(self) -> float:
        """As far as the next sleeper, within bounds."""
        now = self.clock.monotonic()
        times = [at - now for at, _, future in self.clock._sleepers if not future.done()]
        return min(5.0, max(0.001, min(times, default=1.0)))

    async def explain(self) -> str:
        """What every object says, for a test that waits in vain."""
        lines = [f"t={self.clock.monotonic():.0f}s after {self.crashes} crashes"]
        for kind in ("Instance", "Endpoint", "Vetting", "Job", "Model", "Claim", "Project", "Tenant"):
            for body in await self.bodies(kind):
                status = body.get("status", {})
                lines.append(f"{kind} {body['metadata']['name']}: {json.dumps(status)[:600]}")
        return "\n".join(lines)

    # --- what is in it ---

    async def _furnish(self) -> None:
        """Hosts, a tenant with a project, flavors, an image and a model."""
        for host in self.hosts.values():
            await self._join(host)
        await self.create("Tenant", "acme", {"tolerations": [{"key": FAKE_TAINT}]}, namespace="")
        await self.create("Project", PROJECT, {}, namespace="")
        await self.create("Flavor", "small", {"cores": 2, "memory": "256Mi", "disk": "1Gi"}, namespace="")
        await self.create("Flavor", "serve", {"cores": 1, "memory": "1Gi"}, namespace="")
        await self.create("Image", "micro", {}, namespace="")
        wheel = {"package": "m", "version": "1.0", "member": "m/m.gguf"}
        await self.create("Model", "smol", {"source": {"wheel": wheel}, "sha256": MODEL_SHA}, namespace="")

    async def _join(self, host: WorldHost) -> None:
        """What enrolment, inspection and the heartbeat of a host leave in the store."""
        objects = self.store.objects
        await objects.create(body("Host", host.name, namespace="", spec={}), USER)
        said = body("Host", host.name, namespace="", spec={})
        await objects.replace({**said, "status": {"keyFingerprint": "ab"}}, CONTROLLER, part="status")
        report = {**said, "status": {"report": host.inventory.dump()}}
        await objects.replace(report, Writer("agent", host.name), part="report")
        await self._beat()

    async def _beat(self) -> None:
        """The heartbeats of all hosts that are not silent."""
        for host in self.hosts.values():
            if not host.silent:
                await self.store.leases.acquire(f"host/{host.name}", "agent", HEARTBEAT_SECONDS)

    async def create(self, kind: str, name: str, spec: Mapping[str, Any], *, namespace: str = PROJECT) -> None:
        """As a user does; outside of the process, so never stopped."""
        await self.store.objects.create(body(kind, name, namespace=namespace, spec=spec), USER)

    async def patch(self, kind: str, name: str, *, namespace: str = PROJECT, **spec: Any) -> None:
        """Change fields of a spec, as a user does."""
        found = await self.object(kind, name, namespace=namespace)
        assert found is not None
        found["spec"] = {**found["spec"], **spec}
        del found["metadata"]["resourceVersion"]
        await self.store.objects.replace(found, USER)

    async def delete(self, kind: str, name: str, *, namespace: str = PROJECT) -> None:
        await self.store.objects.delete(Key(kind, namespace, name), USER)

    async def object(self, kind: str, name: str, *, namespace: str = PROJECT) -> dict[str, Any] | None:
        try:
            stored = await self.store.objects.get(Key(kind, namespace, name))
        except NotFound:
            return None
        found: dict[str, Any] = json.loads(stored.body)
        return found

    async def bodies(self, kind: str) -> list[dict[str, Any]]:
        page = await self.store.objects.list(Scope(kind=kind))
        return [json.loads(stored.body) for stored in page.items]

    async def condition(self, kind: str, name: str, *, namespace: str = PROJECT) -> dict[str, Any]:
        """The Ready condition of the object, with its phase; empty where there is none."""
        found = await self.object(kind, name, namespace=namespace) or {}
        status = found.get("status", {})
        ready = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})
        current = status.get("observedGeneration") == found.get("metadata", {}).get("generation")
        return {**ready, "phase": status.get("phase", ""), "current": current}

    async def until_ready(self, kind: str, name: str, *, namespace: str = PROJECT, seconds: float = 900.0) -> None:
        async def holds() -> bool:
            found = await self.condition(kind, name, namespace=namespace)
            return found.get("status") == "True" and found["current"]

        await self.until(holds, seconds=seconds)

    async def until_reason(self, kind: str, name: str, reason: str, *, namespace: str = PROJECT) -> dict[str, Any]:
        """Wait for a reason of Ready; answers the condition."""

        async def holds() -> bool:
            return (await self.condition(kind, name, namespace=namespace)).get("reason") == reason

        await self.until(holds)
        return await self.condition(kind, name, namespace=namespace)

    async def until_gone(self, kind: str, name: str, *, namespace: str = PROJECT) -> None:
        async def holds() -> bool:
            return await self.object(kind, name, namespace=namespace) is None

        await self.until(holds)

    # --- what must hold at the end ---

    async def check_clean(self) -> None:
        """Nothing runs, nothing is held, and every interval was closed once."""
        assert await self.bodies("Claim") == []
        for host in self.hosts.values():
            assert await host.residue() == [], host.name
        assert [use for use in await self.store.capacity.devices() if use.claim] == []
        for scope in ("tenant/acme", f"project/{PROJECT}"):
            left = [use.meter for use in await self.store.capacity.use(scope) if use.used]
            assert set(left) <= {"projects"}, "but the project itself"
        check_intervals(list(await self.store.ledger.entries()), closed=True)
        assert await self.store.audit.verify() is None


def check_intervals(rows: list[LedgerEntry], *, closed: bool) -> None:
    """Each claim has one open row first, no state twice in a row, and with ``closed`` one close row last."""
    claims: dict[str, list[LedgerEntry]] = {}
    for row in rows:
        if row.claim_uid:
            claims.setdefault(row.claim_uid, []).append(row)
    for uid, history in claims.items():
        kinds = [row.kind for row in history]
        assert kinds[0] == "open", (uid, kinds)
        assert kinds.count("open") == 1, (uid, kinds)
        assert kinds.count("close") == (1 if closed else kinds.count("close")), (uid, kinds)
        assert "close" not in kinds[:-1], (uid, kinds)
        assert [row.at for row in history] == sorted(row.at for row in history)
        states = [row.state for row in history if row.kind != "close"]
        assert all(a != b for a, b in pairwise(states)), (uid, states)


def body(kind: str, name: str, *, namespace: str = PROJECT, spec: Mapping[str, Any]) -> dict[str, Any]:
    """An object as a user writes it."""
    place = {"namespace": namespace} if namespace else {}
    return {"apiVersion": api_version(kind), "kind": kind, "metadata": {"name": name, **place}, "spec": dict(spec)}

"""A shelf: what a loop needs of storage, in memory, and a kind to run over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from bessemer.core.clock import FakeClock, rfc3339
from bessemer.core.errors import Conflict, Expired, NotFound
from bessemer.core.notices import Happening
from bessemer.core.ports import Bookmark, Lease, Part, Scope, Stored, Writer
from bessemer.core.resource import ApiModel, Change, Done, Key, Kind, Outcome, Resource, Status
from bessemer.loop import Granted, Loop, Metrics


class PotSpec(ApiModel):
    size: int = 1


class PotStatus(Status):
    heat: int = 0


class Pot(Resource[PotSpec, PotStatus]):
    KIND = "Pot"
    status: PotStatus = PotStatus()


class Lid(Pot):
    KIND = "Lid"


class Shelf:
    """Objects in memory, with revisions, finalizers, history that can be cut short, and faults on demand."""

    def __init__(self) -> None:
        self.revision = 0
        self.bodies: dict[Key, dict[str, Any]] = {}
        self.history: list[Change] = []
        self.oldest = 0
        self.writes: list[tuple[Key, Part]] = []
        self.before_replace: Callable[[Key, Part], Awaitable[None]] | None = None
        self._news = asyncio.Event()

    def put(self, key: Key, *, finalizers: tuple[str, ...] = (), **spec: Any) -> Stored:
        """Create, or replace the spec."""
        old = self.bodies.get(key)
        meta = {
            "name": key.name,
            "namespace": key.namespace,
            "uid": old["metadata"]["uid"] if old else f"uid-{self.revision + 1}",
            "generation": old["metadata"]["generation"] + 1 if old else 1,
            "finalizers": list(finalizers),
        }
        body = {"kind": key.kind, "metadata": meta, "spec": spec, "status": old["status"] if old else {}}
        return self._keep("MODIFIED" if old else "ADDED", key, body)

    def delete(self, key: Key) -> None:
        body = self.bodies[key]
        if not body["metadata"]["finalizers"]:
            self._keep("DELETED", key, body)
        else:
            self._keep("MODIFIED", key, {**body, "metadata": {**body["metadata"], "deletionTimestamp": rfc3339(1.0)}})

    def status(self, key: Key) -> Any:
        return PotStatus.model_validate(self.bodies[key]["status"])

    async def get(self, key: Key) -> Stored:
        await asyncio.sleep(0)
        if key not in self.bodies:
            raise NotFound("gone")
        return self._stored(key)

    async def replace(
        self, body: Mapping[str, Any], writer: Writer, *, part: Part = "main", dry_run: bool = False
    ) -> Stored:
        meta = body["metadata"]
        key = Key(body["kind"], meta.get("namespace", ""), meta["name"])
        if self.before_replace is not None:
            await self.before_replace(key, part)
        old = self.bodies.get(key)
        if old is None:
            raise NotFound("gone")
        if meta["resourceVersion"] != old["metadata"]["resourceVersion"]:
            raise Conflict("changed")
        self.writes.append((key, part))
        if part == "status":
            return self._keep("MODIFIED", key, {**old, "status": body["status"]})
        kept = {**old, "metadata": {**old["metadata"], "finalizers": meta["finalizers"]}}
        gone = "deletionTimestamp" in kept["metadata"] and not kept["metadata"]["finalizers"]
        return self._keep("DELETED" if gone else "MODIFIED", key, kept)

    async def watch(self, scope: Scope, *, since: int | None = None) -> AsyncIterator[Change | Bookmark]:
        if since is None:
            since = self.revision
            for key in [k for k in self.bodies if k.kind == scope.kind]:
                stored = self._stored(key)
                yield Change(stored.revision, "ADDED", key, stored.uid, "", stored.body)
            yield Bookmark(since)
        while True:
            if since < self.oldest:
                raise Expired("list again")
            for change in [c for c in self.history if c.revision > since]:
                since = change.revision
                if change.key.kind == scope.kind:
                    yield change
            await self._news.wait()

    def cut_history(self) -> None:
        """Forget every change so far and end each watch with Expired."""
        self.revision += 1
        self.oldest = self.revision
        self.history.clear()
        self._tell()

    def vanish(self, key: Key) -> None:
        """Remove an object of which no watch hears."""
        del self.bodies[key]

    def _keep(self, type_: Any, key: Key, body: dict[str, Any]) -> Stored:
        self.revision += 1
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.revision)}}
        self.bodies[key] = body
        stored = self._stored(key)
        self.history.append(Change(self.revision, type_, key, stored.uid, "", stored.body))
        if type_ == "DELETED":
            del self.bodies[key]
        self._tell()
        return stored

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _stored(self, key: Key) -> Stored:
        body = self.bodies[key]
        meta = body["metadata"]
        return Stored(key, meta["uid"], int(meta["resourceVersion"]), meta["generation"], "", orjson.dumps(body))


@dataclass
class Said:
    """What was told, with the status that told it."""

    shelf: Shelf
    all: list[tuple[str, str, bool]] = field(default_factory=list)

    async def emit(self, key: Key, uid: str, reason: str, message: str, *, warning: bool = False) -> None:
        self.all.append((reason, message, warning))

    async def tell(self, body: Mapping[str, Any], writer: Writer, *, happenings: Sequence[Happening]) -> Stored:
        stored = await self.shelf.replace(body, writer, part="status")
        self.all += [(one.reason, one.message, one.warning) for one in happenings]
        return stored

    @property
    def reasons(self) -> list[str]:
        return [reason for reason, _, _ in self.all]


class OneLease:
    """Leases that a test grants and takes away."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.holders: dict[str, tuple[str, float]] = {}
        self.fence = 0

    async def acquire(
        self, name: str, holder: str, ttl_seconds: float, *, note: str = "", patience: float = 0.0
    ) -> Lease | None:
        now = self.clock.now()
        known = self.holders.get(name)
        if known is not None and known[0] != holder and known[1] > now:
            return None
        if known is None or known[0] != holder:
            self.fence += 1
        self.holders[name] = (holder, now + ttl_seconds)
        return Lease(name, holder, self.fence, now + ttl_seconds)

    async def release(self, name: str, holder: str) -> None:
        if self.holders.get(name, ("", 0))[0] == holder:
            del self.holders[name]

    async def held(self, prefix: str) -> list[Lease]:
        return []

    async def ending(self, prefix: str, within: float) -> list[Lease]:
        return []


Reconcile = Callable[[Any, Any], Awaitable[Outcome]]


async def done(ctx: Any, obj: Any) -> Outcome:
    return Done(status=obj.status.model_copy(update={"phase": "Ready"}))


def pots(reconcile: Reconcile = done, **more: Any) -> Kind[Any, Pot]:
    return Kind(resource=Pot, plural="pots", namespaced=True, rights={}, reconcile=reconcile, **more)


@dataclass
class Bench:
    """A loop over a shelf on a clock that stands still."""

    loop: Loop[Any]
    shelf: Shelf
    clock: FakeClock
    said: Said
    registry: CollectorRegistry
    task: asyncio.Task[None]

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"bessemer_loop_{name}", labels) or 0.0

    async def idle(self) -> None:
        await self.clock.advance(0)
        await self.loop.idle()
        await self.clock.advance(0)

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        await self.idle()


def start(*kinds: Kind[Any, Any], shelf: Shelf | None = None, clock: FakeClock | None = None, **more: Any) -> Bench:
    """Run ``kinds``; the caller stops the loop."""
    shelf, clock, registry = shelf or Shelf(), clock or FakeClock(), CollectorRegistry()
    said = Said(shelf)
    options: dict[str, Any] = {"leases": Granted(), "ctx": None, "jitter": lambda: 1.0, **more}
    ctx = options.pop("ctx")
    loop: Loop[Any] = Loop(
        kinds,
        ctx,
        objects=shelf,
        events=said,
        clock=clock,
        writer=Writer("controller", "test"),
        metrics=Metrics(registry),
        **options,
    )
    return Bench(loop, shelf, clock, said, registry, asyncio.create_task(loop.run()))

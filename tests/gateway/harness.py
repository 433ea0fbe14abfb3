"""A gateway on loopback over hand-fed tables, with fake engines behind real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from bessemer.core.clock import SystemClock
from bessemer.core.resource import Change, Key
from bessemer.core.values import UsageRecord
from bessemer.drivers.engine.fake import FakeEngine
from bessemer.drivers.engine.protocol import EngineSpec
from bessemer.gateway import Admission, CutOff, Front, Gateway, GatewayFacts, Logbook, Patience, Spool, Tables
from bessemer.gateway.metrics import GatewayMetrics
from bessemer.gateway.outer import Outward, Services
from bessemer.gateway.people import Vouch

SECRET = b"gateway key of the tests"
PROJECT = "acme--lab"
NO_INTENT: Mapping[str, Any] = MappingProxyType({})


def change(kind: str, name: str, body: dict[str, Any], *, gone: bool = False, project: str = PROJECT) -> Change:
    """A committed change as a watch brings it."""
    metadata = {"name": name, "namespace": project, "creationTimestamp": "2026-01-01T00:00:00Z"}
    text = orjson.dumps({"kind": kind, "metadata": {**metadata, **body.pop("metadata", {})}, **body})
    return Change(1, "DELETED" if gone else "ADDED", Key(kind, project, name), f"uid-{project}-{name}", "", text)


def api_key(name: str, token: str, *, project: str = PROJECT, gone: bool = False, **spec: Any) -> Change:
    """An ApiKey with that token."""
    status = {"digest": hashlib.sha256(token.encode()).hexdigest()}
    return change("ApiKey", name, {"spec": spec, "status": status}, project=project, gone=gone)


def endpoint(name: str, *, project: str = PROJECT, gone: bool = False, **spec: Any) -> Change:
    return change("Endpoint", name, {"spec": {"model": "words", **spec}}, project=project, gone=gone)


def claim(
    name: str, address: str, *, of: str, gone: bool = False, host: str = "h1", intent: Mapping[str, Any] = NO_INTENT
) -> Change:
    """A replica that runs, and has the adapters that ``intent`` says."""
    spec = {
        "host": host,
        "workload": {"kind": "Endpoint", "name": of, "uid": "u", "replica": 0},
        "intent": dict(intent),
    }
    adapters = {one["name"]: one["digest"] for one in intent.get("adapters", ())}
    status = {"phase": "Running", "address": address, "detail": {"adapters": adapters or None}}
    return change("Claim", name, {"spec": spec, "status": status}, gone=gone)


class Hasty(SystemClock):
    """The machine's clock, and what a test has skipped."""

    skipped = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.skipped


@dataclass(slots=True)
class Rig:
    """A running gateway. ``url`` ends in /v1."""

    url: str
    tables: Tables
    spool: Spool
    engine: FakeEngine
    ready: asyncio.Event
    gateway: Gateway
    front: Front
    clock: Hasty

    def paid(self) -> list[UsageRecord]:
        """What waits to be settled of requests that pay for something."""
        pending = self.spool.pending()
        return [one for one in pending.records if one.ended != "unpaid"] if pending is not None else []

    async def replica(self, name: str, *, of: str, intent: Mapping[str, Any] = NO_INTENT) -> str:
        """Start a fake engine and make it a replica; its claim's uid."""
        uid = f"uid-{PROJECT}-{name}"
        secret = hmac.new(SECRET, uid.encode(), hashlib.sha256).hexdigest()
        spec = EngineSpec(
            uid=uid,
            model_path=Path("/fake/model"),
            alias=of,
            slots=4,
            context_tokens=8192,
            threads=1,
            memory_bytes=1 << 30,
            cores_milli=1000,
            secret=secret,
            task=intent.get("task", "generate"),
        )
        running = await self.engine.start(spec)
        async with asyncio.timeout(30):
            while not os.path.exists(running.door):  # noqa: ASYNC240 - a loopback test, a local socket
                await asyncio.sleep(0.01)
        self.tables.apply(claim(name, f"unix:{running.door}", of=of, intent=intent))
        return uid


@asynccontextmanager
async def rig(
    *,
    patience: Patience | None = None,
    doors: Path | None = None,
    admission: Admission | None = None,
    cut_off: CutOff | None = None,
    vouch: Vouch | None = None,
    services: Services | None = None,
    outward: Outward | None = None,
    logbook: Logbook | None = None,
) -> AsyncIterator[Rig]:
    """A gateway that is ready, with one endpoint ``words`` and a key ``bsk_good``; nothing outlives the block. Host
    ``h1`` shares its machine, with its doors in a folder of the rig's or in ``doors``."""
    folder = Path(tempfile.mkdtemp(prefix="bg", dir="/tmp"))
    clock, ready = Hasty(), asyncio.Event()
    tables = Tables({"h1": doors or folder}.get, services, logbook=logbook)
    spool = Spool(folder / "spool", segment_bytes=1 << 20)
    engine = FakeEngine(clock, doors=folder, load_seconds=0.0)
    facts = GatewayFacts(
        tables,
        spool,
        clock,
        GatewayMetrics(CollectorRegistry()),
        SECRET,
        patience=patience or Patience(),
        admission=admission or Admission(),
        cut_off=cut_off or CutOff(),
        vouch=vouch,
        outward=outward,
    )
    gateway = Gateway(facts, ready)
    front = Front(gateway, clock, sweep=gateway.sweep)
    server = await asyncio.get_running_loop().create_server(front.connect, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        tables.apply(api_key("good", "bsk_good"))
        tables.apply(endpoint("words"))
        ready.set()
        yield Rig(f"http://127.0.0.1:{port}/v1", tables, spool, engine, ready, gateway, front, clock)
    finally:
        server.close()
        await front.close(1.0)
        for _ in range(5):  # what was abandoned hears of it in the next turns
            await asyncio.sleep(0)
        kept = (front.connections, front.held + len(front.large), facts.metrics.busy, spool._promised)
        await engine.close()
        spool.close()
        shutil.rmtree(folder, ignore_errors=True)
    assert kept == (0, 0, 0, 0), "whatever was done to it, nothing is held any more"
    assert all(r.busy == 0 for e in tables.endpoints.values() for r in e.replicas.values())

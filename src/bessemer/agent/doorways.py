"""Doorways before the engines of this host, for a gateway on another machine.

An `Engine` like the one it is given, which also keeps a doorway open before each engine that answers, with the host's
newest certificate. It holds no record: each look at an engine opens its doorway again, or finds it open, after a
restart of the agent and after a renewal too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import structlog

from bessemer.core.errors import DriverError
from bessemer.drivers.engine.protocol import (
    Doorway,
    Engine,
    EngineMetrics,
    EngineSpec,
    Listen,
    ProbeResult,
    RunningEngine,
    Task,
)
from bessemer.drivers.process.protocol import Ended, Stats

log = structlog.get_logger(__name__)


class OpenEngine:
    """Implements `drivers.engine.protocol.Engine`. ``listen`` says where doorways listen and what they show."""

    def __init__(self, engine: Engine, doorway: Doorway, *, listen: Callable[[], Listen]) -> None:
        self._engine = engine
        self._doorway = doorway
        self._listen = listen
        self._addresses: dict[str, str] = {}

    def advertise(self, uid: str, _door: str) -> str:
        """Where the gateway reaches the engine; "" while its doorway is not open."""
        address = self._addresses.get(uid, "")
        return f"https://{address}" if address else ""

    def installed(self) -> tuple[str, ...]:
        return self._engine.installed()

    async def start(self, spec: EngineSpec) -> RunningEngine:
        return await self._engine.start(spec)

    async def find(self, uid: str) -> RunningEngine | None:
        found = await self._engine.find(uid)
        if found is not None:
            await self._open(uid)
        return found

    async def running(self) -> tuple[RunningEngine, ...]:
        return await self._engine.running()

    async def probe(self, uid: str, secret: str, *, alias: str | None = None, task: Task = "generate") -> ProbeResult:
        answered = await self._engine.probe(uid, secret, alias=alias, task=task)
        await self._open(uid)
        return answered

    async def check(self, uid: str) -> None:
        await self._engine.check(uid)

    async def metrics(self, uid: str, secret: str) -> EngineMetrics:
        return await self._engine.metrics(uid, secret)

    async def stats(self, uid: str) -> Stats | None:
        return await self._engine.stats(uid)

    async def ended(self, uid: str) -> Ended | None:
        return await self._engine.ended(uid)

    def log(self, uid: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        return self._engine.log(uid, follow=follow)

    async def stop(self, uid: str) -> None:
        self._addresses.pop(uid, None)
        await self._doorway.close(uid)
        await self._engine.stop(uid)

    def door(self, uid: str) -> str:
        return self._engine.door(uid)

    async def _open(self, uid: str) -> None:
        """An engine without a doorway is told of by its address, "", not by its phase: it runs."""
        try:
            self._addresses[uid] = await self._doorway.open(uid, self._listen())
        except DriverError as error:
            self._addresses.pop(uid, None)
            if error.reason not in ("EngineStarting", "EngineExited"):
                log.warning("doorway not open", object_uid=uid, reason=error.reason, internal=error.internal)

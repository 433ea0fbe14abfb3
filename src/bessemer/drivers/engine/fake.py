"""Engines of a fake host: the same promises on an injected clock, and, where a folder for doors is given, a real socket
at which the official clients can talk to a model made of words.

The object stands for the host and outlives the fake agent. Trouble is made by setting `Trouble` before a start, by the
`Behaviour` of a running engine's model in ``models``, and by `end`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from bessemer.core.clock import Clock
from bessemer.core.errors import DriverError
from bessemer.drivers import Hook, no_hook
from bessemer.drivers.engine.doors import Doors
from bessemer.drivers.engine.fake_server import Behaviour, Counters, FakeModel, FakeServer
from bessemer.drivers.engine.protocol import (
    Adapter,
    EngineMetrics,
    EngineSpec,
    Listen,
    ProbeResult,
    RunningEngine,
    Task,
)
from bessemer.drivers.engine.sense import EMBED_BODY, PROBE_BODY, engine_ended, judge, judge_vector
from bessemer.drivers.process.fake import FakeProcesses
from bessemer.drivers.process.protocol import Confined, End, Ended, Stats

__all__ = ["Behaviour", "Counters", "FakeAdapters", "FakeDoorway", "FakeEngine", "FakeModel", "Trouble"]


@dataclass(slots=True)
class Trouble:
    """What goes wrong at the next starts of one uid."""

    port_taken: bool = False
    ends: End | None = None
    """How it dies while it loads: of memory, by a crash."""


@dataclass(slots=True)
class _Fake:
    spec: EngineSpec
    ready_at: float
    server: FakeServer | None = None


class FakeEngine:
    """Engines in memory. With ``doors`` each also listens at its `door`; ``close`` ends those sockets."""

    def __init__(
        self, clock: Clock, *, on_call: Hook = no_hook, doors: Path | None = None, load_seconds: float = 0.5
    ) -> None:
        self._clock = clock
        self._on_call = on_call
        self._doors = Doors(doors or Path("/fake/doors"))
        self._listens = doors is not None
        self._load_seconds = load_seconds
        self._engines: dict[str, _Fake] = {}
        self.processes = FakeProcesses(clock)
        self.trouble: dict[str, Trouble] = {}
        self.models: dict[str, FakeModel] = {}
        self.starts = 0
        """True ones: of an engine that did not run."""
        self.sorts: tuple[str, ...] = ("llamacpp",)

    def installed(self) -> tuple[str, ...]:
        return self.sorts

    async def start(self, spec: EngineSpec) -> RunningEngine:
        self._on_call("engine.start")
        running = await self.find(spec.uid) or await _spawn(self, spec)
        self._on_call("engine.start.done")
        return running

    async def find(self, uid: str) -> RunningEngine | None:
        self._on_call("engine.find")
        process = await self.processes.find(uid)
        return RunningEngine(uid, process.pid, process.started_ticks, self.door(uid)) if process else None

    async def running(self) -> tuple[RunningEngine, ...]:
        self._on_call("engine.running")
        return tuple(
            RunningEngine(p.uid, p.pid, p.started_ticks, self.door(p.uid)) for p in await self.processes.running()
        )

    async def probe(self, uid: str, secret: str, *, alias: str | None = None, task: Task = "generate") -> ProbeResult:
        self._on_call("engine.probe")
        model = await _answering(self, uid, secret=secret)
        if model.behaviour.status != 200:
            raise DriverError("ProbeFailed", f"the engine answered with status {model.behaviour.status}")
        if task == "embed":
            return judge_vector(model.embed(dict(EMBED_BODY)), alias=alias, seconds=0.1)
        answer = model.answer(dict(PROBE_BODY))
        model.counters.tokens_predicted += len(answer.words)
        usage = answer.usage(len(answer.words))
        message = {"content": "".join(answer.words)}
        reply = {"model": answer.model, "choices": [{"message": message}], "usage": usage}
        return judge(reply, alias=alias, seconds=0.1)

    async def check(self, uid: str) -> None:
        self._on_call("engine.check")
        await _answering(self, uid)

    async def metrics(self, uid: str, secret: str) -> EngineMetrics:
        self._on_call("engine.metrics")
        counters = (await _answering(self, uid, secret=secret)).counters
        tokens = (counters.prompt_tokens, counters.prompt_tokens_cached, counters.tokens_predicted)
        return EngineMetrics(*tokens, kv_used=counters.kv_used)

    async def stats(self, uid: str) -> Stats | None:
        self._on_call("engine.stats")
        return await self.processes.stats(uid)

    async def ended(self, uid: str) -> Ended | None:
        self._on_call("engine.ended")
        return await self.processes.ended(uid)

    async def log(self, uid: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        self._on_call("engine.log")
        async for chunk in self.processes.log(uid, follow=follow):
            yield chunk

    async def stop(self, uid: str) -> None:
        self._on_call("engine.stop")
        await _shut(self._engines.get(uid))
        self._engines.pop(uid, None)
        self.models.pop(uid, None)
        await self.processes.remove(uid)
        if self._listens:
            self._doors.remove(uid)
        self._on_call("engine.stop.done")

    def door(self, uid: str) -> str:
        return str(self._doors.socket(uid))

    async def end(self, uid: str, reason: End, *, code: int | None = None) -> None:
        """End the engine's process as the world would; its socket dies with it."""
        self.processes.end(uid, reason, code=code)
        await _shut(self._engines.get(uid))

    async def close(self) -> None:
        """End every socket; for the end of a test."""
        for engine in self._engines.values():
            await _shut(engine)


async def _spawn(host: FakeEngine, spec: EngineSpec) -> RunningEngine:
    host.starts += 1
    if spec.engine not in host.sorts:
        raise DriverError("EngineMissing", f"no engine {spec.engine} is installed on this host")
    trouble = host.trouble.get(spec.uid, Trouble())
    if trouble.port_taken:
        raise DriverError("PortTaken", "something else sits at the engine's door")
    await _shut(host._engines.get(spec.uid))
    if host._listens:
        host._doors.clear(spec.uid)
    model = host.models[spec.uid] = FakeModel(
        spec.alias,
        adapters=[one.name for one in spec.adapters],
        slots=spec.slots,
        embeds=spec.task == "embed" or "pooling" in spec.arguments,
    )
    engine = _Fake(spec, host._clock.monotonic() + host._load_seconds)
    host._engines[spec.uid] = engine
    process = await host.processes.start(
        Confined(spec.uid, ("engine",), cores_milli=spec.cores_milli, memory_bytes=spec.memory_bytes)
    )
    host.processes.say(spec.uid, b"fake engine: loading " + spec.alias.encode() + b"\n")
    if host._listens:
        engine.server = FakeServer(model, secret=spec.secret, clock=host._clock)
        await engine.server.open(host._doors.socket(spec.uid))
    if trouble.ends is not None:
        await host.end(spec.uid, trouble.ends)
    return RunningEngine(spec.uid, process.pid, process.started_ticks, host.door(spec.uid))


async def _answering(host: FakeEngine, uid: str, *, secret: str | None = None) -> FakeModel:
    """The engine, if it would answer. Raises what `Engine.probe` raises for one that would not."""
    if await host.processes.find(uid) is None:
        raise engine_ended(await host.processes.ended(uid))
    engine, model = host._engines[uid], host.models[uid]
    if host._clock.monotonic() < engine.ready_at:
        raise DriverError("EngineStarting", "the engine loads its model")
    if model.behaviour.mute:
        raise DriverError("ProbeFailed", "the engine gave no answer in time")
    if secret is not None and secret != engine.spec.secret:
        raise DriverError("ProbeFailed", "the engine refused the replica's secret")
    return model


class FakeAdapters:
    """The adapters of the engines of a `FakeEngine`; those that it calls vllm take more while they run."""

    def __init__(self, engine: FakeEngine, *, on_call: Hook = no_hook) -> None:
        self._engine = engine
        self._on_call = on_call

    async def names(self, uid: str, secret: str) -> tuple[str, ...]:
        self._on_call("adapters.names")
        return tuple((await _answering(self._engine, uid, secret=secret)).adapters)

    async def load(self, uid: str, secret: str, *, adapter: Adapter) -> None:
        self._on_call("adapters.load")
        model = await self._loading(uid, secret)
        if adapter.name not in model.adapters:
            model.adapters.append(adapter.name)
        self._on_call("adapters.load.done")

    async def unload(self, uid: str, secret: str, *, name: str) -> None:
        self._on_call("adapters.unload")
        model = await self._loading(uid, secret)
        if name in model.adapters:
            model.adapters.remove(name)
        self._on_call("adapters.unload.done")

    async def _loading(self, uid: str, secret: str) -> FakeModel:
        model = await _answering(self._engine, uid, secret=secret)
        if self._engine._engines[uid].spec.engine != "vllm":
            raise DriverError("AdaptersFixed", "it gets its adapters when it starts")
        return model


async def _shut(engine: _Fake | None) -> None:
    """End the engine's socket, if it has one."""
    if engine is not None and engine.server is not None:
        await engine.server.close()
        engine.server = None


class FakeDoorway:
    """Doorways to the engines of a `FakeEngine`: addresses that nothing listens at, from port 40000 on."""

    def __init__(self, engine: FakeEngine, *, on_call: Hook = no_hook) -> None:
        self._engine = engine
        self._on_call = on_call
        self._open: dict[str, tuple[int, str]] = {}
        self._next_port = 40_000
        self.taken: set[int] = set()

    async def open(self, uid: str, listen: Listen) -> str:
        self._on_call("doorway.open")
        running = await self._engine.processes.find(uid)
        if running is None:
            raise engine_ended(await self._engine.processes.ended(uid))
        if listen.port in self.taken:
            raise DriverError("PortTaken", f"port {listen.port} of {listen.host} is in use")
        known = self._open.get(uid)
        if known is None or known[0] != running.pid:
            self._next_port += 1
            self._open[uid] = known = (running.pid, f"{listen.host}:{listen.port or self._next_port}")
        self._on_call("doorway.open.done")
        return known[1]

    async def find(self, uid: str) -> str | None:
        self._on_call("doorway.find")
        running = await self._engine.processes.find(uid)
        known = self._open.get(uid)
        return known[1] if running is not None and known is not None and known[0] == running.pid else None

    async def close(self, uid: str) -> None:
        self._on_call("doorway.close")
        self._open.pop(uid, None)
        self._on_call("doorway.close.done")

"""Engines of this machine: confined processes, each made as the `Recipe` of its sort says.

Behind the walls are an interpreter, the engine's library, the model and a runner, all read-only, and the folder of its
door. None has a network: the unix socket is its only way to the world, and the replica's secret the key to it. Of which
sort a process is, is read off its command line, so that an agent that knows nothing can ask it in its own words.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import orjson

from bessemer.core.errors import DriverError
from bessemer.drivers.engine.adapters import HostAdapters
from bessemer.drivers.engine.asking import Asking
from bessemer.drivers.engine.doors import Doors
from bessemer.drivers.engine.loaded import Loaded
from bessemer.drivers.engine.protocol import EngineMetrics, EngineSpec, ProbeResult, RunningEngine, Task
from bessemer.drivers.engine.recipe import Recipe, present
from bessemer.drivers.engine.sense import EMBED_BODY, PROBE_BODY, judge, judge_vector, plausible, series
from bessemer.drivers.process.protocol import Ended, Processes, Running, Stats

_PROBES = {
    "generate": ("/v1/chat/completions", PROBE_BODY, judge),
    "embed": ("/v1/embeddings", EMBED_BODY, judge_vector),
}


class HostEngines:
    """Engines as confined processes. ``processes`` should hold engines alone: `running` lists all of it. ``state`` is a
    folder for what they are given while they run."""

    def __init__(
        self, processes: Processes, doors: Path, *, state: Path, recipes: Sequence[Recipe], probe_seconds: float = 30.0
    ) -> None:
        self._processes = processes
        self._doors = Doors(doors)
        self._loaded = Loaded(state)
        self._recipes = {recipe.sort.name: recipe for recipe in recipes}
        self._asking = Asking(processes, self._doors, recipes=recipes, seconds=probe_seconds)
        self.adapters = HostAdapters(self._asking, self._loaded)

    def installed(self) -> tuple[str, ...]:
        return tuple(name for name, recipe in self._recipes.items() if recipe.installed())

    async def start(self, spec: EngineSpec) -> RunningEngine:
        running = await self._processes.find(spec.uid)
        if running is None:
            recipe = self._recipes.get(spec.engine)
            if recipe is None or not recipe.installed():
                raise DriverError("EngineMissing", f"no engine {spec.engine} is installed on this host")
            present(spec)
            self._doors.clear(spec.uid)
            folder = self._loaded.renew(spec) if recipe.sort.loads else None
            confined = recipe.confined(spec, door=self._doors.folder(spec.uid), adapters=folder)
            running = await self._processes.start(confined)
        return self._engine(running)

    async def find(self, uid: str) -> RunningEngine | None:
        running = await self._processes.find(uid)
        return None if running is None else self._engine(running)

    async def running(self) -> tuple[RunningEngine, ...]:
        return tuple(self._engine(one) for one in await self._processes.running())

    async def probe(self, uid: str, secret: str, *, alias: str | None = None, task: Task = "generate") -> ProbeResult:
        began = time.monotonic()
        path, body, judged = _PROBES[task]
        raw = await self._asking.ask(uid, path, secret=secret, body=dict(body))
        try:
            reply = orjson.loads(raw)
        except ValueError as error:
            raise DriverError("ProbeFailed", "the answer is no JSON", internal=repr(raw[:200])) from error
        return judged(reply, alias=alias, seconds=time.monotonic() - began)

    async def check(self, uid: str) -> None:
        # Not /metrics: that waits for the batch that is being computed, which takes a slow machine a minute.
        await self._asking.ask(uid, "/health", secret="")

    async def metrics(self, uid: str, secret: str) -> EngineMetrics:
        recipe = await self._asking.recipe(uid)
        raw = await self._asking.ask(uid, "/metrics", secret=secret)
        try:
            return plausible(recipe.counters(series(raw)))
        except (KeyError, ValueError, OverflowError) as error:
            raise DriverError("ProbeFailed", "the engine's counters cannot be read", internal=repr(error)) from error

    async def stats(self, uid: str) -> Stats | None:
        return await self._processes.stats(uid)

    async def ended(self, uid: str) -> Ended | None:
        return await self._processes.ended(uid)

    def log(self, uid: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        return self._processes.log(uid, follow=follow)

    async def stop(self, uid: str) -> None:
        await self._processes.remove(uid)
        self._doors.remove(uid)
        self._loaded.remove(uid)

    def door(self, uid: str) -> str:
        return str(self._doors.socket(uid))

    def _engine(self, running: Running) -> RunningEngine:
        return RunningEngine(running.uid, running.pid, running.started_ticks, self.door(running.uid))

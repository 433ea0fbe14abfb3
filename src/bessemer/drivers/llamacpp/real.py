"""llama.cpp on this machine: ``xllamacpp``'s server in a confined process.

Behind the walls are the interpreter, the library, the model file and the runner, all read-only, and the folder of its
door. It has no network: the unix socket is its only way to the world, and the replica's secret the key to it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from bessemer.core.errors import DriverError
from bessemer.drivers.llamacpp import runner
from bessemer.drivers.llamacpp.doors import SOCKET, Doors
from bessemer.drivers.llamacpp.protocol import EngineMetrics, EngineSpec, ProbeResult, RunningEngine
from bessemer.drivers.llamacpp.sense import PROBE_BODY, engine_ended, judge
from bessemer.drivers.process.protocol import Confined, Ended, Processes, Running, Stats

_ANSWER_BYTES_MAX = 1 << 20
_PYTHON, _LIBRARIES, _RUNNER, _MODEL, _DOOR = (
    "/opt/python",
    "/opt/engine",
    "/opt/runner.py",
    "/opt/model.gguf",
    "/run/door",
)


class LlamaCpp:
    """Engines as confined processes. ``processes`` should hold engines alone: `running` lists all of it."""

    def __init__(self, processes: Processes, doors: Path, *, probe_seconds: float = 30.0) -> None:
        self._processes = processes
        self._doors = Doors(doors)
        self._probe_seconds = probe_seconds

    async def start(self, spec: EngineSpec) -> RunningEngine:
        running = await self._processes.find(spec.uid)
        if running is None:
            self._doors.clear(spec.uid)
            running = await self._processes.start(self._confined(spec))
        return self._engine(running)

    async def find(self, uid: str) -> RunningEngine | None:
        running = await self._processes.find(uid)
        return None if running is None else self._engine(running)

    async def running(self) -> tuple[RunningEngine, ...]:
        return tuple(self._engine(one) for one in await self._processes.running())

    async def probe(self, uid: str, secret: str, *, alias: str | None = None) -> ProbeResult:
        began = time.monotonic()
        raw = await self._ask(uid, "/v1/chat/completions", secret=secret, body=dict(PROBE_BODY))
        try:
            reply = orjson.loads(raw)
        except ValueError as error:
            raise DriverError("ProbeFailed", "the answer is no JSON", internal=repr(raw[:200])) from error
        return judge(reply, alias=alias, seconds=time.monotonic() - began)

    async def check(self, uid: str) -> None:
        # Not /metrics: that waits for the batch that is being computed, which takes a slow machine a minute.
        await self._ask(uid, "/health", secret="")

    async def metrics(self, uid: str, secret: str) -> EngineMetrics:
        raw = await self._ask(uid, "/metrics", secret=secret)
        rows = (line.split() for line in raw.decode("utf-8", "replace").splitlines() if line.startswith("llamacpp:"))
        numbers = {row[0].removeprefix("llamacpp:"): row[1] for row in rows if len(row) == 2}
        try:
            names = ("prompt_tokens_total", "prompt_tokens_cached_total", "tokens_predicted_total")
            prompt, cached, predicted = (int(float(numbers[name])) for name in names)
        except (KeyError, ValueError) as error:
            raise DriverError("ProbeFailed", "the engine's counters cannot be read", internal=repr(error)) from error
        return EngineMetrics(prompt, cached, predicted)

    async def stats(self, uid: str) -> Stats | None:
        return await self._processes.stats(uid)

    async def ended(self, uid: str) -> Ended | None:
        return await self._processes.ended(uid)

    def log(self, uid: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        return self._processes.log(uid, follow=follow)

    async def stop(self, uid: str) -> None:
        await self._processes.remove(uid)
        self._doors.remove(uid)

    def door(self, uid: str) -> str:
        return str(self._doors.socket(uid))

    def _engine(self, running: Running) -> RunningEngine:
        return RunningEngine(running.uid, running.pid, running.started_ticks, self.door(running.uid))

    def _confined(self, spec: EngineSpec) -> Confined:
        """The engine's walls, and what it is told behind them."""
        if not spec.model_path.is_file():
            raise DriverError("ContentMissing", "the model's file is not on this host", internal=str(spec.model_path))
        python, prefix = _interpreter()
        settings = {
            "model": _MODEL,
            "alias": spec.alias,
            "door": f"{_DOOR}/{SOCKET}",
            "secret": spec.secret,
            "slots": spec.slots,
            "context_tokens": spec.context_tokens,
            "threads": max(1, spec.threads),
        }
        return Confined(
            uid=spec.uid,
            argv=(python, "-I", "-S", "-B", _RUNNER, _LIBRARIES),
            cores_milli=spec.cores_milli,
            own_cpus=spec.own_cpus,
            memory_bytes=spec.memory_bytes,
            # Spinning threads on a shared machine cost up to sixty times the throughput.
            env={"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "LD_LIBRARY_PATH": f"{_PYTHON}/lib"},
            binds_ro=(
                prefix,
                (_library(), f"{_LIBRARIES}/xllamacpp"),
                (Path(runner.__file__), _RUNNER),
                (spec.model_path, _MODEL),
            ),
            binds_rw=((self._doors.folder(spec.uid), _DOOR),),
            stdin=orjson.dumps(settings),
        )

    async def _ask(self, uid: str, path: str, *, secret: str, body: dict[str, Any] | None = None) -> bytes:
        """One request at the door. The engine is hostile: its answer is bounded in time and in size."""
        if await self._processes.find(uid) is None:
            raise engine_ended(await self._processes.ended(uid))
        if not self._doors.seal(uid):
            raise DriverError("EngineStarting", "the engine has not opened its door yet")
        try:
            async with asyncio.timeout(self._probe_seconds):
                status, raw = await _request(self.door(uid), path, secret=secret, body=body)
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise DriverError("ProbeFailed", f"no answer within {self._probe_seconds:.0f} s") from error
            if await self._processes.find(uid) is None:
                raise engine_ended(await self._processes.ended(uid)) from error
            if isinstance(error, aiohttp.ClientConnectorError):
                raise DriverError("EngineStarting", "the engine's door is not open yet", internal=str(error)) from error
            raise DriverError("ProbeFailed", "the engine broke off its answer", internal=repr(error)) from error
        if status == 503:
            raise DriverError("EngineStarting", "the engine loads its model")
        if status != 200 or len(raw) > _ANSWER_BYTES_MAX:
            raise DriverError("ProbeFailed", f"the engine answered with status {status}", internal=repr(raw[:200]))
        return raw


async def _request(door: str, path: str, *, secret: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {secret}"}
    connector = aiohttp.UnixConnector(path=door)
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        session.request("GET" if body is None else "POST", f"http://engine{path}", json=body) as response,
    ):
        raw = b""
        async for chunk in response.content.iter_any():
            raw += chunk
            if len(raw) > _ANSWER_BYTES_MAX:
                break
        return response.status, raw


def _interpreter() -> tuple[str, tuple[Path, str]]:
    """The interpreter behind the walls, and the bind that brings it there: a whole prefix, or one file of ``/usr``."""
    real, base = Path(sys.executable).resolve(), Path(sys.base_prefix).resolve()
    if base == Path("/usr") or not real.is_relative_to(base):
        return str(real), (real, str(real))
    return f"{_PYTHON}/{real.relative_to(base)}", (base, _PYTHON)


def _library() -> Path:
    """The folder of ``xllamacpp``, found without importing it: what it loads is for the confined process alone."""
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise DriverError("EngineMissing", "no engine is installed on this host (package xllamacpp)")
    return Path(spec.origin).parent

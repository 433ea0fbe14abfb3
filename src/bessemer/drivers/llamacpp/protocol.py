"""What can be asked of an inference engine on a host.

An engine is a confined process that serves the OpenAI API on a unix socket, its *door*, which only its own user and
root can reach; every request must also carry the replica's secret. It outlives the agent and is found by the Claim's
uid. It does no metering: `metrics` are its own counters, against which what the gateway billed can be checked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bessemer.drivers.process.protocol import Ended, Stats


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One replica. ``context_tokens`` is divided over ``slots``; ``alias`` is the model's name in its API. It
    runs on ``own_cpus`` alone, where it has some."""

    uid: str
    model_path: Path
    alias: str
    slots: int
    context_tokens: int
    threads: int
    memory_bytes: int
    cores_milli: int
    secret: str = field(repr=False)
    own_cpus: str = ""


@dataclass(frozen=True, slots=True)
class RunningEngine:
    """An engine that lives; whether it answers is what `Engine.probe` tells."""

    uid: str
    pid: int
    started_ticks: int
    door: str


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """A real completion that made sense."""

    model: str
    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """The engine's own counters since its start. Cached prompt tokens are counted apart."""

    prompt_tokens_total: int
    prompt_tokens_cached_total: int
    tokens_predicted_total: int


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a doorway listens and whom it believes: PEM files of the host's certificate and key, and of the CA.

    ``port`` 0 takes a free one.
    """

    host: str
    port: int
    certificate: Path
    key: Path
    authority: Path


class Doorway(Protocol):
    """The way to an engine's door for a gateway on another machine: TLS that only ``system:gateway`` may enter.

    It lives beside the engine and dies with it; open it again after each start.
    """

    async def open(self, uid: str, listen: Listen) -> str:
        """Open it, or keep the one that is open; the address as ``HOST:PORT``.

        With a renewed certificate a new one takes over the port, and the old one stays for the streams it has.
        Raises DriverError: ``EngineExited`` (no engine runs), ``EngineStarting`` (it has no door yet), ``PortTaken``.
        """
        ...

    async def find(self, uid: str) -> str | None:
        """The address of the one that is open."""
        ...

    async def close(self, uid: str) -> None:
        """Close it at once, streams included. One that is closed is fine."""
        ...


class Engine(Protocol):
    """Engines of one host, by Claim uid. Each method may raise what `Processes` raises; those named raise more."""

    async def start(self, spec: EngineSpec) -> RunningEngine:
        """Start it, or return the one that runs under this uid. Returns before the model is loaded.

        Raises DriverError: ``PortTaken`` (something else sits at its door), ``ContentMissing`` (no such model file),
        ``EngineMissing`` (the engine is not installed here).
        """
        ...

    async def find(self, uid: str) -> RunningEngine | None:
        """The living engine of the uid."""
        ...

    async def running(self) -> tuple[RunningEngine, ...]:
        """All that live, by uid."""
        ...

    async def probe(self, uid: str, secret: str, *, alias: str | None = None) -> ProbeResult:
        """Ask it for a short completion and judge the answer: the model called ``alias``, text, counts that add up.

        Raises DriverError: ``EngineStarting`` (alive, the model still loads: ask again), ``EngineExited`` or
        ``OutOfMemory`` (with what was asked and had), ``ProbeFailed`` (the answer is wrong or too late).
        """
        ...

    async def check(self, uid: str) -> None:
        """Return if its door answers; it costs no tokens, needs no secret, and an engine that is busy answers too.

        Raises DriverError: ``EngineStarting``, ``EngineExited``, ``OutOfMemory``, ``ProbeFailed``.
        """
        ...

    async def metrics(self, uid: str, secret: str) -> EngineMetrics:
        """Its counters. Raises DriverError ``EngineExited`` or ``ProbeFailed``."""
        ...

    async def stats(self, uid: str) -> Stats | None:
        """What its process uses; None where none lives."""
        ...

    async def ended(self, uid: str) -> Ended | None:
        """How the last engine of the uid ended; None while one lives, or when there never was one."""
        ...

    def log(self, uid: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        """What it printed, as `Processes.log`."""
        ...

    async def stop(self, uid: str) -> None:
        """End it and leave nothing behind. A uid that never was is fine."""
        ...

    def door(self, uid: str) -> str:
        """The path of its unix socket, whether or not it runs."""
        ...

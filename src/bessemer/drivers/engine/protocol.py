"""What can be asked of an inference engine on a host, whichever it is.

An engine is a confined process that serves the OpenAI API on a unix socket, its *door*, which only its own user and
root can reach; every request must also carry the replica's secret. It outlives the agent and is found by the Claim's
uid. It does no metering: `metrics` are its own counters, against which what the gateway billed can be checked.

What an engine is called, what it can serve and which arguments it takes are a `Sort`, a constant of the ``protocol`` of
its own driver (`drivers.llamacpp`, `drivers.vllm`), so that an argument can be refused before there is any engine.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

from bessemer.drivers.process.protocol import Ended, Stats

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

Argument = bool | int | float | str
"""The value of an engine's argument."""

Task = Literal["generate", "embed"]
"""What an engine is for: it writes answers, or makes texts into vectors and writes nothing."""

OURS = "the platform sets it"
FILES = "it names a file or an address, and an engine reads none but its model's"
CODE = "it has the engine load code"
"""Why arguments are refused that an engine itself would take."""


@dataclass(frozen=True, slots=True)
class Option:
    """One argument that may be given: of which type, and within what. ``choices`` are the words that it knows."""

    type: Literal["bool", "int", "float", "word"]
    doc: str
    least: float = 0
    most: float = 0
    choices: tuple[str, ...] = ()

    def wrong(self, value: Argument) -> str:
        """What is wrong with the value, as "must be …"; "" where nothing is."""
        if self.type == "bool":
            return "" if isinstance(value, bool) else "must be true or false"
        if self.type == "word":
            known = isinstance(value, str) and value in self.choices
            return "" if known else f"must be one of {', '.join(self.choices)}"
        right: tuple[type, ...] = (int,) if self.type == "int" else (int, float)
        # True is an int to Python, and NaN within no bounds.
        if isinstance(value, right) and not isinstance(value, bool | str) and self.least <= value <= self.most:
            return ""
        noun = "a whole number" if self.type == "int" else "a number"
        return f"must be {noun} from {self.least:g} to {self.most:g}"


@dataclass(frozen=True, slots=True)
class Sort:
    """One sort of engine. ``formats`` are those of models that it serves, as `Model.status.format` names them;
    ``options`` what may be given it, and ``refused`` what it would take and may not be given, with the reason.

    ``picks``: how a request names an adapter. "number": by its place among the engine's adapters, in the field
    ``lora``; "model": as ``ALIAS:ADAPTER`` in the field ``model``. ``loads``: whether adapters come and go while it
    runs. ``salts``: whether a request's ``cache_salt`` keeps its prompt apart from those that others left in the cache.
    ``caches``: whether it says how full its cache of keys and values is, which it shares among all that it answers.
    """

    name: str
    formats: tuple[str, ...]
    options: Mapping[str, Option]
    refused: Mapping[str, str]
    picks: Literal["number", "model"]
    loads: bool = False
    salts: bool = False
    caches: bool = False

    def wrong(self, arguments: Mapping[str, Argument]) -> Iterator[tuple[str, str]]:
        """What is wrong with an engine's arguments: the name of each that is, and why."""
        for name, value in arguments.items():
            option = self.options.get(name)
            if option is not None:
                words = option.wrong(value)
            elif name in self.refused:
                words = f"may not be given to {self.name}: {self.refused[name]}"
            else:
                near = get_close_matches(name, self.options, n=1)
                words = f"is no argument of {self.name}" + (f"; did you mean {near[0]}?" if near else "")
            if words:
                yield name, words


def check_adapter(name: str) -> None:
    """Raises ValueError for what is no name of an adapter: it becomes a folder's, which is made and removed."""
    if _LABEL.fullmatch(name) is None:
        raise ValueError(f"no name of an adapter: {name[:63]!r}")


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter of a replica's model, by the ``name`` that requests choose it by: a GGUF file for llama.cpp, for
    vLLM ``adapter_config.json`` and ``adapter_model.safetensors``, in a folder or as ``files`` by their names."""

    name: str
    path: Path
    files: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        check_adapter(self.name)


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One replica. ``context_tokens`` is divided over ``slots``; ``alias`` is the model's name in its API. A model of
    several files has them in ``files`` by their paths within it, or in the folder that ``model_path`` is. It runs on
    ``own_cpus`` alone, where it has some, and sees no ``devices`` but those that it names by the ids of its host's
    report. ``engine`` is the name of its `Sort`, whose ``wrong`` finds nothing in its ``arguments``."""

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
    engine: str = "llamacpp"
    arguments: Mapping[str, Argument] = field(default_factory=lambda: MappingProxyType({}))
    adapters: tuple[Adapter, ...] = ()
    devices: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    task: Task = "generate"


@dataclass(frozen=True, slots=True)
class RunningEngine:
    """An engine that lives; whether it answers is what `Engine.probe` tells."""

    uid: str
    pid: int
    started_ticks: int
    door: str


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """A real completion that made sense; or a vector, which has no text and no completion."""

    model: str
    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """The engine's own counters since its start. Cached prompt tokens are counted apart.

    ``running`` and ``waiting`` are requests at this moment, ``kv_used`` the part of its cache of keys and values that
    is taken, from 0 to 1; None where it does not say.
    """

    prompt_tokens_total: int
    prompt_tokens_cached_total: int
    tokens_predicted_total: int
    running: int = 0
    waiting: int = 0
    kv_used: float | None = None


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

    def installed(self) -> tuple[str, ...]:
        """The sorts of engines that this host has, by name."""
        ...

    async def start(self, spec: EngineSpec) -> RunningEngine:
        """Start it, or return the one that runs under this uid. Returns before the model is loaded.

        Raises DriverError: ``PortTaken`` (something else sits at its door), ``ContentMissing`` (no such model or
        adapter), ``EngineMissing`` (an engine of that sort is not installed here).
        """
        ...

    async def find(self, uid: str) -> RunningEngine | None:
        """The living engine of the uid."""
        ...

    async def running(self) -> tuple[RunningEngine, ...]:
        """All that live, by uid."""
        ...

    async def probe(self, uid: str, secret: str, *, alias: str | None = None, task: Task = "generate") -> ProbeResult:
        """Ask it for a short completion, or for a text's vector, and judge the answer: the model called ``alias``, text
        or numbers that say something, counts that add up.

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


class Adapters(Protocol):
    """What adapters the engines of a host have, and those that come and go while an engine runs.

    Each raises DriverError ``EngineStarting``, ``EngineExited``, ``OutOfMemory``, ``ProbeFailed``, as `Engine.check`.
    """

    async def names(self, uid: str, secret: str) -> tuple[str, ...]:
        """Those that the engine has, in the order of their numbers."""
        ...

    async def load(self, uid: str, secret: str, *, adapter: Adapter) -> None:
        """Give it one; one of that name that it has stays. Raises ``AdaptersFixed`` (engines of this sort get theirs at
        the start), ``ContentMissing``, ``DiskFull``."""
        ...

    async def unload(self, uid: str, secret: str, *, name: str) -> None:
        """Take one from it; one that it has not is fine. Raises ``AdaptersFixed``."""
        ...

"""A model of one replica: an engine that batches continuously (Yu et al.: Orca, OSDI 2022) and reads prompts in chunks
beside what it writes (Agrawal et al.: Sarathi-Serve, OSDI 2024), as vLLM does. Pure.

At each step every running request writes a token, and as much of prompts is read as `CHUNK` allows. A step takes
``alone`` seconds, ``batch`` more for each request that runs, and ``1 / reading`` for each token that is read.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from types import MappingProxyType

from bessemer.kinds.inference.replay.trace import Asked

CHUNK = 2048
"""Tokens of prompts that one step reads at most: vLLM's ``max_num_batched_tokens`` for what is served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Of one replica: tokens of prompts it reads a second, seconds of a step, and how many it answers at a time.
    ``start_seconds`` pass before it answers; it has so many ``devices``. ``source`` says where that is from."""

    reading: float
    alone: float
    batch: float
    slots: int
    start_seconds: float
    devices: int = 1
    source: str = ""


@dataclass(slots=True, eq=False)
class Request:
    """One of a trace on its way; -1 is not yet."""

    asked: Asked
    first: float = -1.0
    done: float = -1.0
    unread: int = 0

    @property
    def first_seconds(self) -> float:
        return self.first - self.asked.at

    @property
    def pace(self) -> float:
        """Seconds from token to token, the mean."""
        return (self.done - self.first) / (self.asked.writes - 1) if self.asked.writes > 1 else 0.0


@dataclass(slots=True, eq=False)
class Replica:
    """``began`` when it was asked for, ``ready`` when it answers first; ``leaving`` ones get nothing new. ``told``
    hears of each first token and each end."""

    speed: Speed
    began: float
    ready: float
    leaving: bool = False
    now: float = 0.0
    steps: int = 0
    unread: deque[Request] = field(default_factory=deque)
    running: list[tuple[int, int, Request]] = field(default_factory=list)
    """A heap: at which step each ends."""
    begun: list[Request] = field(default_factory=list)
    """That got their first token since somebody looked; likewise ``ended``."""
    ended: list[Request] = field(default_factory=list)
    _number: int = 0

    @property
    def busy(self) -> int:
        return len(self.unread) + len(self.running)

    def take(self, request: Request, now: float) -> None:
        """One more to answer."""
        if not self.busy:
            self.now = max(self.now, now)
        request.unread = max(1, request.asked.reads)
        self.unread.append(request)

    def advance(self, until: float) -> None:
        """Go on as far as that; a step that was begun ends."""
        while self.busy and self.now < until:
            self._step(until)

    def free(self, until: float, *, now: float) -> float | None:
        """When there is a slot for one more, from ``now`` on; it goes on as far as that. None where it is full until
        then."""
        while self.busy >= self.speed.slots:
            if self.now >= until:
                return None
            self._step(until)
        return max(now, self.now) if self.busy else now

    def _step(self, until: float) -> None:
        if self.unread:
            self._read()
        else:
            self._write(until)

    def _read(self) -> None:
        left, got = CHUNK, []
        while left > 0 and self.unread:
            request = self.unread[0]
            part = min(left, request.unread)
            request.unread -= part
            left -= part
            if not request.unread:
                got.append(self.unread.popleft())
        speed = self.speed
        self._pass(1, speed.alone + speed.batch * (len(self.running) + len(got)) + (CHUNK - left) / speed.reading)
        for request in got:
            request.first = self.now
            self.begun.append(request)
            self._number += 1
            heappush(self.running, (self.steps + request.asked.writes - 1, self._number, request))
        self._end()

    def _write(self, until: float) -> None:
        speed = self.speed
        step = speed.alone + speed.batch * len(self.running)
        count = max(1, min(self.running[0][0] - self.steps, math.ceil((until - self.now) / step)))
        self._pass(count, step * count)
        self._end()

    def _pass(self, steps: int, seconds: float) -> None:
        self.steps += steps
        self.now += seconds

    def _end(self) -> None:
        while self.running and self.running[0][0] <= self.steps:
            request = heappop(self.running)[2]
            request.done = self.now
            self.ended.append(request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """``parameters`` of two bytes each; ``cache_bytes`` of keys and values for each token of context."""

    parameters: float
    cache_bytes: float


H100 = (3.35e12, 989e12)
"""Bytes and operations (BF16, dense) a second: NVIDIA H100 SXM data sheet."""
_BYTES_SHARE, _OPERATIONS_SHARE = 0.6, 0.5
"""Of these that engines reach."""
_CONTEXT = 1400
"""Tokens of which a request that runs has keys and values, about."""


def derived(model: Model, *, devices: int, start_seconds: float, slots: int) -> Speed:
    """By the roofline (Williams, Waterman, Patterson, 2009; for transformers Pope et al.: Efficiently Scaling
    Transformer Inference, 2023): a step reads all weights once, and of each request its keys and values; a token costs
    two operations for each parameter."""
    reads, computes = H100[0] * _BYTES_SHARE * devices, H100[1] * _OPERATIONS_SHARE * devices
    token = 2 * model.parameters / computes
    return Speed(
        reading=1 / token,
        alone=2 * model.parameters / reads,
        batch=model.cache_bytes * _CONTEXT / reads + token,
        slots=slots,
        start_seconds=start_seconds,
        devices=devices,
        source=f"roofline of {devices} H100 at {_BYTES_SHARE:.0%} of its bytes and {_OPERATIONS_SHARE:.0%} of its "
        "operations a second",
    )


PRESETS: Mapping[str, Speed] = MappingProxyType(
    {
        # Llama 3's sizes: 32 layers of 8 heads of keys and values of 128; 80 of them.
        "8b": derived(Model(parameters=8e9, cache_bytes=131_072), devices=1, start_seconds=45.0, slots=128),
        "70b": derived(Model(parameters=70e9, cache_bytes=327_680), devices=4, start_seconds=90.0, slots=128),
    }
)

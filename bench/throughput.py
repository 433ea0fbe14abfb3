"""Whether a real engine writes as many tokens a second behind the gateway as it does alone.

An installation of its own with the real llama.cpp and SmolLM2-135M, one replica on one core. The same client asks it in
turns (A B B A …): at the engine's own door, with the replica's secret; and at the gateway, by TLS, with a key that has
limits and a budget. Twice as many ask at a time as the engine has slots, each its next as soon as it has an answer, so
that the engine always has something to do, and who waits waits in the engine's queue or in the gateway's.

With two cores or more the engine has one for itself, and the client, the gateway and all other parts share another, in
both arms: the engine has as much of the machine with the gateway as without. So the figure says what the gateway costs
the engine in tokens that it could have written (gaps between requests, chunks that are read too late), not what CPU the
gateway takes: that is in `gateway.py`. With one core all share it, and its CPU is in the figure, too. Every answer has
the same length, and is counted by the engine's own usage; each prompt is its own, so that nothing is cached.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import aiohttp
import orjson

from _common import Figure, Options, figure, median, of_state, percentile, program
from _serving import Serving, answering, serving
from bessemer.core.tokens import replica_secret
from bessemer.main import identities

NAME, SLOTS, CLIENTS, TOKENS = "smol", 4, 8, 32
WORDS = "The night train crosses the plain while a baker, a nurse and an old sailor talk about rain, bread and tides."


@dataclass(slots=True)
class Arm:
    """One way to the engine; of each turn the tokens a second, the same without the time for which the engine waited
    for its core, and the share of the time in which it had something to do; of each answer the milliseconds to its
    first token."""

    session: aiohttp.ClientSession
    url: str
    rates: list[float] = field(default_factory=list)
    undisturbed: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)


async def measure(options: Options) -> list[Figure]:
    """In turns, each pair of them as near in time as may be."""
    rounds, answers = (2, 16) if options.quick else (12, 32)
    numbers = itertools.count()
    async with serving() as here:
        await here.create(NAME, {"slots": SLOTS})
        status = await here.until(NAME, answering)
        claim = await here.claim(status["replicas"][0]["claim"])
        pid = claim["status"]["pid"]
        with Pinned(here, pid):
            async with _arms(here, claim["metadata"]["uid"], claim["status"]["address"]) as (alone, through):
                for arm in (alone, through):
                    await _turn(arm, numbers, answers=CLIENTS, pid=pid, kept=False)
                for number in range(rounds):
                    for arm in (alone, through) if number % 2 == 0 else (through, alone):
                        await _turn(arm, numbers, answers=answers, pid=pid)
    return _figures(alone, through)


@asynccontextmanager
async def _arms(here: Serving, uid: str, address: str) -> AsyncIterator[tuple[Arm, Arm]]:
    secret = replica_secret(identities.key_of(here.paths, identities.GATEWAY_KEY), uid)
    # llama.cpp closes a connection after each stream and does not say so: each request has its own.
    door = aiohttp.UnixConnector(address.removeprefix("unix:"), force_close=True)
    tls = aiohttp.TCPConnector(ssl=here.trust)
    async with (
        aiohttp.ClientSession(connector=door, headers={"authorization": f"Bearer {secret}"}) as engine,
        aiohttp.ClientSession(connector=tls, headers={"authorization": f"Bearer {here.token}"}) as gateway,
    ):
        yield Arm(engine, "http://engine/v1/chat/completions"), Arm(gateway, f"{here.url}/chat/completions")


class Pinned:
    """The engine on the first core, all else on the last, while the block lasts."""

    def __init__(self, here: Serving, pid: int) -> None:
        self._engine, self._state = pid, here.paths.state

    def __enter__(self) -> None:
        self._cores = sorted(os.sched_getaffinity(0))
        if len(self._cores) > 1:
            _pin(self._engine, {self._cores[0]})
            for process in of_state(self._state):
                if process.pid != self._engine:
                    _pin(process.pid, {self._cores[-1]})
            _pin(os.getpid(), {self._cores[-1]})

    def __exit__(self, *_: object) -> None:
        _pin(os.getpid(), set(self._cores))


def _pin(pid: int, cores: set[int]) -> None:
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)


async def _turn(arm: Arm, numbers: Iterator[int], *, answers: int, pid: int, kept: bool = True) -> None:
    """So many answers. Raises RuntimeError for any that is not whole."""
    left = iter(range(answers))
    first: list[float] = []
    tokens = 0

    async def client() -> None:
        nonlocal tokens
        for _ in left:
            seconds, count = await _ask(arm, next(numbers))
            first.append(1000 * seconds)
            tokens += count

    before, began = _threads(pid), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())
    took = time.perf_counter() - began
    if kept:
        ran, waited = max(one - before.get(thread, Ran()) for thread, one in _threads(pid).items())
        arm.rates.append(tokens / took)
        arm.undisturbed.append(tokens / (took - waited))
        arm.busy.append((ran + waited) / took)
        arm.first_ms += first


class Ran(NamedTuple):
    """Seconds that a thread ran, and that it waited for a core that others had."""

    ran: float = 0.0
    waited: float = 0.0

    def __sub__(self, other: Ran) -> Ran:
        return Ran(self.ran - other.ran, self.waited - other.waited)


def _threads(pid: int) -> dict[str, Ran]:
    """Of each thread, by the scheduler's own account."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            ran, waited, _ = (thread / "schedstat").read_text().split()
            found[thread.name] = Ran(int(ran) / 1e9, int(waited) / 1e9)
    return found


async def _ask(arm: Arm, number: int) -> tuple[float, int]:
    """Seconds to the first token, and how many there were by the engine's own count."""
    body = {
        "model": NAME,
        "messages": [{"role": "user", "content": f"{number}. {WORDS} Go on."}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began, first, counted = time.perf_counter(), 0.0, 0
    async with arm.session.post(arm.url, json=body) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {(await answer.read())[:500]!r}")
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            event = orjson.loads(line[6:])
            counted = (event.get("usage") or {}).get("completion_tokens", counted)
            if not first and any((one.get("delta") or {}).get("content") for one in event["choices"]):
                first = time.perf_counter() - began
    if counted != TOKENS:
        raise RuntimeError(f"an answer of {counted} tokens, where {TOKENS} were asked for")
    return first, counted


def _figures(alone: Arm, through: Arm) -> list[Figure]:
    # Of neighbours in time: what else the machine does falls on both.
    ratios = [one / other for one, other in zip(through.rates, alone.rates, strict=True)]
    undisturbed = [one / other for one, other in zip(through.undisturbed, alone.undisturbed, strict=True)]
    cores = len(os.sched_getaffinity(0))
    return [
        figure("output tokens a second through the gateway", median(through.rates), "/s"),
        figure("output tokens a second of the engine alone", median(alone.rates), "/s"),
        figure("through the gateway against alone, median of pairs", 100 * median(ratios), "%", at_least=98),
        figure(
            "the same, a quarter of the pairs is below",
            100 * percentile(ratios, 0.25),
            "%",
            peer=("a quarter is above", round(100 * percentile(ratios, 0.75), 1)),
        ),
        figure("the same, without the time in which others had the engine's core", 100 * median(undisturbed), "%"),
        figure(
            "of the time, that the engine computes or waits for its core",
            100 * median(through.busy),
            "%",
            peer=("alone", round(100 * median(alone.busy), 2)),
        ),
        figure(
            "first token through the gateway, p50",
            median(through.first_ms),
            "ms",
            peer=("alone", round(median(alone.first_ms))),
        ),
        figure(
            "first token through the gateway, p95",
            percentile(through.first_ms, 0.95),
            "ms",
            peer=("alone", round(percentile(alone.first_ms, 0.95))),
        ),
        figure("cores that engine, gateway and client had", min(2, cores), ""),
    ]


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])

"""How much of its prompts a replica has read before, by who chooses the replica, and what a choice costs.

A trace of prompts in blocks of 512 tokens that say which of them are the same (the Mooncake conversation trace, by
``--data``; without it a small one is generated: conversations that grow, under a few beginnings that all share) is
replayed against replicas that are modelled: each reads prompts one after the other at 20,000 tokens a second, writes
50 tokens a second to each of its requests, and keeps its last million tokens. What chooses is the gateway's own code,
on the bytes of the prompts; the peers are turns, the least busy, and a hash of a prompt's first four kilobytes, and the
ideal is one cache of all that the replicas have. Then a choice by itself, in microseconds of one core.
"""

from __future__ import annotations

import heapq
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from _common import Figure, Options, figure, percentile, program
from bessemer.gateway import prefix
from bessemer.gateway.route import Pool, Replica, Sought

REPLICAS = 8
BLOCK_TOKENS, BLOCK_BYTES = 512, 2048
KEPT_BLOCKS = 2000
READS, WRITES = 20_000.0, 50.0
"""Tokens a second: of prompts by a replica, of an answer by a request."""
HASTE = 2.0
"""The trace is told so many times as fast."""
GATEWAYS = 4
SHARE_GOAL, COST_GOAL_US = 0.9, 3.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the trace: when, which blocks, how long its answer is."""

    at: float
    blocks: tuple[int, ...]
    writes: int


class Cache:
    """What was read last, in blocks."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[int, None] = {}

    def read(self, blocks: Sequence[int]) -> int:
        """How many blocks of the beginning were there; afterwards all are."""
        known = 0
        while known < len(blocks) and blocks[known] in self._kept:
            known += 1
        for block in reversed(blocks):  # the end is forgotten before what it stands on
            self._kept.pop(block, None)
            self._kept[block] = None
        while len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
        return known


@dataclass(slots=True)
class Told:
    """What came of a replay."""

    hit: int = 0
    all: int = 0
    waits: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return 100 * self.hit / self.all


Hooks = tuple[Callable[[], None], Callable[[], None]]
Choose = Callable[[int, Asked], tuple[int, Hooks]]
"""The number of a request → a replica, and what to call when its prompt is read and when its answer is over."""


def replay(trace: Sequence[Asked], choose: Choose, *, caches: Sequence[Cache]) -> Told:
    """The trace, with the replicas modelled."""
    told, free, ends = Told(), [0.0] * REPLICAS, list[tuple[float, int, Callable[[], None]]]()
    for number, asked in enumerate(trace):
        while ends and ends[0][0] <= asked.at:
            heapq.heappop(ends)[2]()
        at, (was_read, over) = choose(number, asked)
        known = caches[at % len(caches)].read(asked.blocks)
        begins = max(asked.at, free[at])
        free[at] = first = begins + (len(asked.blocks) - known) * BLOCK_TOKENS / READS
        told.hit += known
        told.all += len(asked.blocks)
        told.waits.append(first - asked.at)
        heapq.heappush(ends, (first, 2 * number, was_read))
        heapq.heappush(ends, (first + asked.writes / WRITES, 2 * number + 1, over))
    return told


# --- who chooses ------------------------------------------------------------------------------------------------------


def turns() -> Choose:
    """One after the other."""
    return lambda number, _: (number % REPLICAS, (_nothing, _nothing))


def least_busy() -> Choose:
    """Who has least to do."""
    busy = [0] * REPLICAS

    def choose(number: int, _: Asked) -> tuple[int, Hooks]:
        at = min(range(REPLICAS), key=lambda one: (busy[one], (one - number) % REPLICAS))
        busy[at] += 1

        def over() -> None:
            busy[at] -= 1

        return at, (_nothing, over)

    return choose


def hashed() -> Choose:
    """By the first four kilobytes, whatever there is to do."""
    return lambda _, asked: (crc32(text(asked.blocks[:2])) % REPLICAS, (_nothing, _nothing))


def routed(gateways: int = 1) -> Choose:
    """By the gateway's own code; of several, each knows what it sent itself."""
    pools = [pool() for _ in range(gateways)]

    def choose(number: int, asked: Asked) -> tuple[int, Hooks]:
        mine = pools[number % gateways]
        sought = Sought(marks=marks(asked.blocks), cost=len(asked.blocks) * BLOCK_TOKENS)
        there = mine.choose(sought, asked.at)
        assert isinstance(there, Replica), "no slots are told, so nobody waits"
        probe = mine.began(there, sought.cost)

        def was_read() -> None:
            there.tokens -= sought.cost

        def over() -> None:
            mine.ended(there, 0, probe=probe)

        return int(there.claim_uid), (was_read, over)

    return choose


def _nothing() -> None:
    """Nobody counts."""


def pool(replicas: int = REPLICAS) -> Pool:
    """Of replicas that are called by their numbers."""
    made = Pool()
    for number in range(replicas):
        made.add(Replica(str(number), "h", "https://10.0.0.1:1"))
    return made


def text(blocks: Sequence[int]) -> bytes:
    """A prompt whose blocks differ where theirs do."""
    return b"".join([block.to_bytes(8, "big") * (BLOCK_BYTES // 8) for block in blocks])


def marks(blocks: Sequence[int]) -> prefix.Marks:
    return prefix.marks(memoryview(text(blocks[: prefix.READ_BYTES // BLOCK_BYTES])))


# --- the trace --------------------------------------------------------------------------------------------------------


def read(folder: str, *, most: int) -> list[Asked]:
    """The Mooncake conversation trace, or the generated one."""
    if not folder:
        return list(generated(most))
    found = next(Path(folder).glob("*conversation*.jsonl"))
    rows = [json.loads(line) for line in found.read_text().splitlines()[:most]]
    return [Asked(row["timestamp"] / 1000 / HASTE, tuple(row["hash_ids"]), row["output_length"]) for row in rows]


def generated(most: int) -> Iterator[Asked]:
    """Conversations of up to eight turns under one of four beginnings, at the pace of the other trace."""
    draw, now, fresh = random.Random(7), 0.0, 1000
    going: list[list[int]] = []
    for _ in range(most):
        now += draw.expovariate(3.4 * HASTE)
        if not going or draw.random() < 0.35:
            going.append([draw.randrange(4)])
        at = draw.randrange(max(0, len(going) - 200), len(going))
        grown = draw.randint(2, 12)
        going[at] = [*going[at], *range(fresh, fresh + grown)]
        fresh += grown
        yield Asked(now, tuple(going[at]), draw.randint(20, 700))
        if len(going[at]) > 60:
            del going[at]


# --- and what is told -------------------------------------------------------------------------------------------------


async def measure(options: Options) -> list[Figure]:
    """Hits and waits by who chooses; then the cost of a choice."""
    return [*_hits(options), *_costs(options)]


def _hits(options: Options) -> Iterator[Figure]:
    trace = read(options.data, most=4_000 if options.quick else 1_000_000)
    ideal = replay(trace, turns(), caches=[Cache(KEPT_BLOCKS * REPLICAS)])
    yield figure("ideal: one cache, of the tokens of prompts", ideal.rate, "%")
    rows: Sequence[tuple[str, Callable[[], Choose]]] = (
        ("turns", turns),
        ("least busy", least_busy),
        ("hash of the first blocks alone", hashed),
        ("routed", routed),
        (f"routed by {GATEWAYS} gateways that know nothing of each other", lambda: routed(GATEWAYS)),
    )
    for name, make in rows:
        told = replay(trace, make(), caches=[Cache(KEPT_BLOCKS) for _ in range(REPLICAS)])
        goal = SHARE_GOAL * ideal.rate if name == "routed" else None
        yield figure(f"{name}: known of prompts", told.rate, "%", at_least=goal and float(f"{goal:.3g}"))
        yield figure(f"{name}: until the first token, median", 1000 * percentile(told.waits, 0.5), "ms")
        yield figure(f"{name}: until the first token, 99 %", 1000 * percentile(told.waits, 0.99), "ms")


def _costs(options: Options) -> Iterator[Figure]:
    cases = (("one replica", 1, 1, COST_GOAL_US), ("8 replicas, a prompt of 1 KiB", 8, 1, COST_GOAL_US))
    more = (("8 replicas, a prompt of 32 KiB", 8, 32, None), ("64 replicas, a prompt of 1 KiB", 64, 1, None))
    for name, replicas, kib, goal in (*cases, *more):
        spent = min(_cost(replicas, kib) for _ in range(9))  # what else the machine does is not its cost
        yield figure(f"a choice: {name}", spent, "µs", at_most=goal)


def _cost(replicas: int, kib: int) -> float:
    """Microseconds of a choice, with the marks that are wanted where there are several."""
    draw, mine = random.Random(3), pool(replicas)
    for one in mine.replicas.values():
        mine.began(one, 100)
    prompts = [memoryview(draw.randbytes(kib << 10)) for _ in range(2000)]
    began = time.process_time()
    for turn in range(2):
        for prompt in prompts:
            sought = Sought(marks=prefix.marks(prompt) if replicas > 1 else (), cost=256 * kib)
            mine.choose(sought, float(turn))
    return (time.process_time() - began) * 1e6 / (2 * len(prompts))


if __name__ == "__main__":
    program(measure, about=__doc__ or "", data="the folder of the Mooncake conversation trace")

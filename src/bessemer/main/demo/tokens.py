"""Tokens of one request by three accounts: the ledger, the answer's own timings, the engine's counters.

They must be equal request by request: over several, errors of opposite sign would cancel.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bessemer.core.tokens import replica_secret
from bessemer.main import identities
from bessemer.main.demo import scene
from bessemer.main.demo.checks import failed
from bessemer.main.demo.stage import Stage

_SETTLED_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens in and out; those that came from the engine's cache are among those in."""

    input: int = 0
    output: int = 0

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(self.input - other.input, self.output - other.output)

    def apart(self, other: Tokens) -> int:
        """How far apart two counts are, in and out each for itself."""
        return abs(self.input - other.input) + abs(self.output - other.output)

    def __str__(self) -> str:
        return f"{self.input} in, {self.output} out"


@dataclass(frozen=True, slots=True)
class Request:
    """One that was answered. ``timed`` is what the answer said, ``counted`` by how much the engine's counters rose."""

    billed: Tokens
    timed: Tokens
    counted: Tokens

    @property
    def difference(self) -> int:
        """Tokens by which the bill is not what the engine says; nothing in it cancels."""
        return self.billed.apart(self.timed) + self.billed.apart(self.counted)


def verdict(requests: Sequence[Request]) -> str:
    """What was compared, for a person. Raises DriverError with every request that differs."""
    wrong = [
        f"request {number}: billed {one.billed}; timed {one.timed}; counted {one.counted}"
        for number, one in enumerate(requests, 1)
        if one.difference
    ]
    difference = sum(one.difference for one in requests)
    if wrong or not requests:
        raise failed(f"tokens billed and counted differ by {difference}: {'; '.join(wrong) or 'nothing was asked'}")
    each = "; ".join(str(one.billed) for one in requests)
    return f"{len(requests)} requests, billed as timed and as counted ({each}); difference {difference}"


def timed(answer: Mapping[str, Any] | None) -> Tokens:
    """What an answer's timings say: cached tokens of the prompt stand beside those that were computed. Raises
    DriverError where it has none."""
    timings = (answer or {}).get("timings")
    if timings is None:
        raise failed("the engine told no timings with its answer")
    return Tokens(int(timings["prompt_n"]) + int(timings["cache_n"]), int(timings["predicted_n"]))


class Meter:
    """Reads ledger and engine around each request of one key. Nothing else may ask that engine meanwhile."""

    def __init__(self, stage: Stage, *, claim_uid: str, api_key: str) -> None:
        self._stage = stage
        self._claim_uid = claim_uid
        self._api_key = api_key
        self.requests: list[Request] = []

    async def measure(self, answer: Callable[[], Awaitable[Tokens]]) -> None:
        """Have one request answered, which tells its timings, and settled. Raises DriverError where it is not."""
        counted, billed = await self.counted(), await self._billed(len(self.requests))
        said = await answer()
        counted = await self.counted() - counted
        billed = await self._billed(len(self.requests) + 1) - billed
        self.requests.append(Request(billed, said, counted))

    async def counted(self) -> Tokens:
        """The engine's own counters, asked at its door with the replica's secret. Its prompt counter leaves cached
        tokens out: they have one of their own."""
        key = identities.key_of(self._stage.factory.paths, identities.GATEWAY_KEY)
        found = await self._stage.drivers.engine.metrics(self._claim_uid, replica_secret(key, self._claim_uid))
        return Tokens(found.prompt_tokens_total + found.prompt_tokens_cached_total, found.tokens_predicted_total)

    async def _billed(self, requests: int) -> Tokens:
        """What the ledger has for the key, once it has as many requests. The gateway settles within a second."""
        deadline = time.monotonic() + _SETTLED_SECONDS
        while True:
            ledger = await self._stage.client.projects.ledger(scene.PROJECT, self._stage.began, int(time.time()) + 1)
            # An earlier demo's usage may be settled only now, by the gateway that found it: that was another key's.
            rows = [row for row in ledger["rows"] if row["kind"] == "tokens" and row["apiKey"] == self._api_key]
            had = sum(row["requests"] for row in rows)
            if had == requests:
                return Tokens(sum(row["inputTokens"] for row in rows), sum(row["outputTokens"] for row in rows))
            if had > requests or time.monotonic() > deadline:
                raise failed(f"the ledger has {had} requests of {requests} that were answered")
            await asyncio.sleep(0.1)

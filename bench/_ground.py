"""The control plane that `size` grows, what is made on it, and how long anything may take.

Nothing waits for ever: what is not done in its time ends the program with a sentence that says what, and how far it
came. Progress goes to stderr, figures alone to stdout.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import psutil

from _common import Figure, Plane, Target, figure, percentile, plane
from _size import GET, IDLE, RESIDENT
from _wire import Server, Wire, client_tls, load, request
from bessemer.main import identities
from bessemer.main.settings import Paths

BODY_BYTES = 1600
COLLECTION = "/apis/bessemer.dev/v1beta1/flavors"
NEIGHBOURS = 999_999
"""The number of the object that a neighbour reads."""
LATER = 900_000
"""From this number on objects are made over HTTP."""
SETTLE_SECONDS = 15
ANSWER_SECONDS = 120.0
JOIN_SECONDS = 900.0


class Failed(Exception):
    """What was to be measured did not come to be."""


@asynccontextmanager
async def within(seconds: float, what: str, far: Callable[[], str] = str) -> AsyncIterator[None]:
    """Raise `Failed` where it takes longer; ``far`` says how far it came."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        said = far()
        raise Failed(f"{what}: not done in {seconds:,.0f} s{said and f', {said}'}") from None


def say(words: str) -> None:
    """How far it is, for whoever waits."""
    print(f"{datetime.now(UTC):%H:%M:%S} {words}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Ground:
    """A control plane. A neighbour connects anew for each look: a connection that nobody uses for long is closed."""

    running: Plane
    target: Target
    server: Server
    started_seconds: float
    """From the start of its process until it answered."""

    @asynccontextmanager
    async def neighbour(self) -> AsyncIterator[Wire]:
        wire = await Wire.open(self.server)
        try:
            yield wire
        finally:
            wire.close()

    async def rest(self, count: int, what: str, *, seconds: float) -> list[Figure]:
        """What it takes while nobody asks, but for a neighbour now and then."""
        await self._settled(min(SETTLE_SECONDS, math.ceil(seconds)))
        waits = list[float]()
        async with within(seconds + ANSWER_SECONDS, "a neighbour's gets"), self.neighbour() as wire:
            before, began = self.target.cpu_seconds(), time.perf_counter()
            while not waits or time.perf_counter() < began + seconds:
                asked = time.perf_counter()
                status, _ = await wire.ask(request("GET", f"{COLLECTION}/size-{NEIGHBOURS}"))
                if status != 200:
                    raise Failed(f"a neighbour's get: {status}")
                waits.append(time.perf_counter() - asked)
                await asyncio.sleep(0.05)
            share = (self.target.cpu_seconds() - before) / (time.perf_counter() - began)
        at = f"{count:,} {what}"
        say(f"{at}: {self.target.rss_mib():,.0f} MiB, {share:.1%} of a core")
        return [
            figure(f"{at}: {RESIDENT}", self.target.rss_mib(), "MiB"),
            figure(f"{at}: {IDLE}", share * 100, "%"),
            figure(f"{at}: {GET}", percentile(waits, 0.99) * 1e3, "ms"),
        ]

    async def _settled(self, most: int) -> None:
        """Return after a second in which it did next to nothing, or as much as in the one before it, or after so
        many."""
        last = math.inf
        for _ in range(most):
            before = self.target.cpu_seconds()
            await asyncio.sleep(1.0)
            took = self.target.cpu_seconds() - before
            if took < 0.02 or abs(took - last) < 0.2 * last:
                return
            last = took

    async def read(self, path: str) -> bytes:
        """The body of an answer that is there in time."""
        async with within(ANSWER_SECONDS, f"GET {path}"), self.neighbour() as wire:
            status, body = await wire.ask(request("GET", path))
        if status != 200:
            raise Failed(f"GET {path}: {status} {body[:300].decode(errors='replace')}")
        return body

    async def gauge(self, *names: str) -> float:
        """A figure that the control plane tells of itself: what begins with these, together."""
        body = await self.read("/metrics")
        return sum(float(line.split()[-1]) for line in body.decode().splitlines() if line.startswith(names))

    async def watched(self, by: int, names: Sequence[str], fault: Callable[[], str]) -> None:
        """Return once so many watches are open, of what these gauges count. Raises Failed where they are not in time,
        or where ``fault`` says why they will not be."""
        found = 0.0
        async with within(JOIN_SECONDS, f"{by:,} watches", lambda: f"{found:,.0f} are open"):
            while (found := await self.gauge(*names)) < by:
                if words := fault():
                    raise Failed(f"{found:,.0f} of {by:,} watches are open, and {words}")
                await asyncio.sleep(0.2)

    async def made_later(self) -> int:
        """How many objects stand that were made over HTTP by number."""
        return (await self.read(f"{COLLECTION}?labelSelector=made%3Dlater")).count(b'"kind":"Flavor"')


@asynccontextmanager
async def ground(keep: int, seed: Callable[[Paths], Awaitable[None]] | None = None) -> AsyncIterator[Ground]:
    """A control plane that keeps so many changes, and answers."""
    async with plane(settings={"keep_revisions": keep}, seed=seed) as (running, pid):
        started = time.time() - psutil.Process(pid).create_time()
        ca, port = running.paths.ca_certificate, running.settings.api_port
        target = Target(port=port, ca=ca, cert=running.paths.certificate(identities.ADMIN), pids=(pid,))
        server = Server(port=port, tls=client_tls(ca, target.cert))
        await load(server, [create(NEIGHBOURS)], clients=1)
        yield Ground(running, target, server, started)


def create(number: int) -> bytes:
    return request("POST", COLLECTION, orjson.dumps(flavor(number)))


def flavor(number: int) -> dict[str, Any]:
    """An object that no controller follows up."""
    return {
        "apiVersion": "bessemer.dev/v1beta1",
        "kind": "Flavor",
        "metadata": {
            "name": f"size-{number:06}",
            "labels": {
                "of": f"group-{number // 100}",
                "made": "later" if LATER <= number < NEIGHBOURS else "before",
            },
            "annotations": {"bench/note": "x" * (BODY_BYTES - 450)},
        },
        "spec": {"description": "a flavor of the bench", "cores": 2, "memory": "256Mi", "disk": "1Gi"},
    }

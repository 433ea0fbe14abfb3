"""Two hundred clients of an endpoint, while gateways and engines are killed, clocks jump and the api is away: none
fails that could be tried again, what is billed is what engines wrote down, and nobody's memory grows.

``BESSEMER_SOAK_SECONDS`` is how long the long form takes: an hour, where it is not said.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests.soak.clients import FAILED, converse
from tests.soak.plant import Plant, compare, plant

LONG_SECONDS = int(os.environ.get("BESSEMER_SOAK_SECONDS", "3600"))
CLIENTS = 200
AWAY_SECONDS = 3.0
MIB = 1 << 20


@pytest.mark.parametrize(
    ("seconds", "pause"),
    [
        pytest.param(40, 4.0, id="short", marks=pytest.mark.real),
        pytest.param(LONG_SECONDS, 2.0, id="long", marks=pytest.mark.long),
    ],
)
async def test_clients_notice_nothing_and_pay_for_what_was_made(
    seconds: int, pause: float, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async with plant(tmp_path, gateways=3, engines=3, keys=CLIENTS // 2) as made:
        over, memory = asyncio.Event(), list[int]()
        connector = aiohttp.TCPConnector(ssl=made.tls, limit=0)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
            clients = [
                group.create_task(converse(made, session, seed=seed, until=over, pause=pause))
                for seed in range(CLIENTS)
            ]
            try:
                await _trouble(made, session, seconds=seconds, memory=memory)
            finally:
                over.set()
            await asyncio.gather(*clients)
        billed = await made.settled()
    exact, cost = compare(made, billed)
    statuses = Counter(one.status for one in made.asked)
    assert not {status: many for status, many in statuses.items() if status in FAILED}, statuses
    assert statuses[200] > CLIENTS
    assert exact > 0
    assert set(made.befell) >= {"gateway", "engine", "clock", "api"}
    quarter = len(memory) // 4
    early, late = (statistics.median(part) for part in (memory[quarter : 2 * quarter], memory[-quarter:]))
    assert late < early * 1.15 + 8 * MIB, "memory grows"
    record_property("answers", str(dict(statuses)))
    record_property("befell", str(dict(made.befell)))
    record_property("keys compared to the token", exact)
    record_property("cost", cost)
    record_property("memory", f"{early / MIB:.0f} to {late / MIB:.0f} MiB")


async def _trouble(made: Plant, session: aiohttp.ClientSession, *, seconds: int, memory: list[int]) -> None:
    """One thing after the other; the first gateway is spared, and its memory is looked at."""
    dice, ends, turns = random.Random(7), time.monotonic() + seconds, 0
    while time.monotonic() < ends or turns < 4:
        match turns % 4:
            case 0:
                number = dice.randrange(1, len(made.gateways))
                await made.gateways[number].restart(signal.SIGKILL)
                await made.ready(made.urls[number], session)
                made.befell["gateway"] += 1
            case 1:
                await dice.choice(made.engines).restart(signal.SIGKILL)
                made.befell["engine"] += 1
            case 2:
                dice.choice(made.gateways[1:]).tell(dice.choice([signal.SIGUSR1, signal.SIGUSR2]))
                made.befell["clock"] += 1
            case _:
                made.api.tell(signal.SIGSTOP)
                await asyncio.sleep(AWAY_SECONDS)
                made.api.tell(signal.SIGCONT)
                made.befell["api"] += 1
        turns += 1
        for _ in range(3):
            await asyncio.sleep(dice.uniform(0.4, 1.0))
            memory.append(made.gateways[0].rss)

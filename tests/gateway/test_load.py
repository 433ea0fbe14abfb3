"""Clients that do their worst against gateways over one store, with a budget that is too small for them, while gateways
and engines are killed: not a millionth more is spent than there is, and what is billed is what engines wrote down.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests.soak.clients import bother
from tests.soak.comparing import compare
from tests.soak.plant import Plant, plant

SPENT_SECONDS = 60.0
"""At most, until the budget is spent."""


@pytest.mark.parametrize(
    ("kills", "clients", "budget"),
    [
        pytest.param(1, 16, 100_000, id="short", marks=pytest.mark.real),
        pytest.param(40, 48, 6_000_000, id="long", marks=pytest.mark.long),
    ],
)
async def test_a_budget_is_never_passed_and_each_token_is_billed_once(
    kills: int, clients: int, budget: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Clients at their worst spend a budget through gateways that are killed, and not a millionth more."""
    async with plant(tmp_path, gateways=3 if clients > 16 else 2, budget=budget) as made:
        over = asyncio.Event()
        connector = aiohttp.TCPConnector(ssl=made.tls, limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
            for seed in range(clients):
                group.create_task(bother(made, session, seed=seed, until=over))
            try:
                await _kill(made, session, kills=kills)
            finally:
                over.set()
        billed = await made.settled()
    compared = compare(made, billed)
    bound, used, _ = made.bound()
    cost = compared.cost
    assert (bound, used) == (budget, cost), "what counts on the budget is what is billed"
    assert budget * 9 // 10 <= cost <= budget, "it was spent, and not passed"
    assert sum(one.whole for one in made.asked) > 10
    for name, number in {
        "requests": len(made.asked),
        "whole answers to the token": compared.whole,
        "that their clients left or that were cut": compared.parts,
        "micro spent": cost,
        "micro of budget": budget,
        **{f"times {what}": many for what, many in made.befell.items()},
    }.items():
        record_property(name, number)


async def _kill(made: Plant, session: aiohttp.ClientSession, *, kills: int) -> None:
    """Kill one after the other, each once the last gateway is back; then go on until the budget is all but spent. The
    budget is looked at again and again."""
    dice = random.Random(kills)
    ends = time.monotonic() + SPENT_SECONDS + 20.0 * kills
    while min(made.befell["gateway"], made.befell["engine"]) < kills or _left(made) > made.bound()[0] // 10:
        assert time.monotonic() < ends, "it is not spent"
        await asyncio.sleep(dice.uniform(0.2, 0.8))
        what = "gateway" if made.befell["gateway"] <= made.befell["engine"] else "engine"
        if made.befell[what] < kills:
            number = dice.randrange(len(made.gateways if what == "gateway" else made.engines))
            await (made.gateways if what == "gateway" else made.engines)[number].restart(signal.SIGKILL)
            made.befell[what] += 1
            if what == "gateway":
                await made.ready(made.urls[number], session)


def _left(made: Plant) -> int:
    bound, used, held = made.bound()
    assert used + held <= bound, "what is used and held passes the budget"
    return bound - used

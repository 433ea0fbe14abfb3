"""A simulated day in a minute: hundreds of hosts, everybody's comings and goings, and every part of it dying."""

from __future__ import annotations

import random

import pytest

from tests.sim.cloud import Cloud
from tests.sim.day import WEIGHTS, Day


async def live(seed: int, *, hosts: int, happenings: int, seconds: float = 86_400.0) -> Day:
    async with Cloud(seed, hosts=hosts) as cloud:
        day = Day(cloud, random.Random(seed), seconds=seconds, happenings=happenings)
        await day.live()
        await day.end()
        print(  # noqa: T201 - a figure for whoever runs with -s
            f"seed {seed}: {cloud.clock.wakings} wakings, {day.invariants.checks} checks, {cloud.restarts} restarts, "
            f"{day.invariants.stuck} times stuck and said so, {dict(day.seen)}"
        )
        return day


async def test_a_day() -> None:
    day = await live(1, hosts=100, happenings=200)
    assert set(WEIGHTS) <= set(day.seen), "a day on which everything happened"


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 10))
async def test_other_days(seed: int) -> None:
    await live(seed, hosts=200, happenings=600)

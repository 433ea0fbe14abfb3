"""A simulated day in a minute: two hundred hosts, everybody's comings and goings, and every part of it dying: control
plane, agents, hosts, guests, engines and the gateway with its spool."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from bessemer.core.resource import Done, Outcome, Wait
from bessemer.kinds.context import HostContext
from bessemer.kinds.fleet.claim import Claim
from bessemer.loop import work
from bessemer.loop.fold import fold
from tests.sim.cloud import TOLERATE, Calm, Cloud
from tests.sim.day import WEIGHTS, Day
from tests.sim.invariants import Invariants
from tests.sim.rivals import RIVALRY

Count = Callable[[str, object], None]


async def check_day(seed: int, *, hosts: int, happenings: int, seconds: float = 86_400.0, controllers: int = 1) -> Day:
    async with Cloud(seed, hosts=hosts, controllers=controllers) as cloud:
        weights = RIVALRY if controllers > 1 else WEIGHTS
        day = Day(cloud, random.Random(seed), seconds=seconds, happenings=happenings, weights=weights)
        await day.live()
        await day.end()
        print(  # noqa: T201 - a figure for whoever runs with -s
            f"seed {seed}: {cloud.clock.wakings} wakings, {day.invariants.checks} checks, {cloud.restarts} restarts, "
            f"{day.invariants.stuck} times stuck and said so, {dict(day.seen)}"
        )
        return day


def count(record_property: Count, day: Day, *happenings: str) -> None:
    """Say what the day came to."""
    record_property("happenings", day.seen.total())
    record_property("checks", day.invariants.checks)
    record_property("restarts of the control plane", day.cloud.restarts)
    for name in happenings:
        record_property(f"times a {name}", day.seen[name])
    record_property("waits past a deadline, all said", day.invariants.stuck)


async def test_a_morning() -> None:
    await check_day(7, hosts=30, happenings=40, seconds=14_400.0)


async def test_a_morning_of_rivals() -> None:
    """Two controllers over one store, each with real leases; one is held up past its own and wakes amid its work."""
    await check_day(11, hosts=20, happenings=40, seconds=14_400.0, controllers=2)


@pytest.mark.long
async def test_a_day() -> None:
    """A day of 200 hosts on which everything happens at least once; a morning of it is in every run."""
    day = await check_day(1, hosts=200, happenings=90)
    assert set(WEIGHTS) <= set(day.seen), "a day on which everything happened"
    assert day.cloud.gateway.starts > 1, "the gateway died too"
    assert day.cloud.gateway.metered, "and what it metered was billed"


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 6))
async def test_other_days(seed: int, record_property: Count) -> None:
    """A day of 200 hosts on which every part dies: capacity, quota, ledger and deadlines hold after each step."""
    count(record_property, await check_day(seed, hosts=200, happenings=400))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20, 23))
async def test_days_of_rivals(seed: int, record_property: Count) -> None:
    """The same with two controllers, real leases and fences; one is held up past its lease and wakes amid its work."""
    day = await check_day(seed, hosts=40, happenings=300, controllers=2)
    count(record_property, day, "controller is held up", "controller loses leases")


async def silence(cloud: Cloud, image: str, *, seconds: float) -> Invariants:
    """An instance whose silence is no offence in half a minute, and the invariants so many seconds after that."""
    invariants = Invariants(cloud)
    spec = {"flavor": "small", "image": image, "tolerations": TOLERATE}
    await cloud.create("Instance", "vm", spec, project="acme--lab")
    await cloud.clock.pass_time(30)
    await invariants.check()
    await cloud.clock.pass_time(seconds)
    return invariants


async def test_who_waits_in_silence_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The invariants see something: a loop that never says Stuck does not get past them."""

    def mute(*arguments: Any, overdue_after: float | None = None, **more: Any) -> Any:
        return fold(*arguments, overdue_after=None, **more)

    monkeypatch.setattr(work, "fold", mute)
    async with Cloud(1, hosts=2) as cloud:
        invariants = await silence(cloud, "none-of-this-name", seconds=700)
        with pytest.raises(AssertionError, match="waits in Pending and says nothing"):
            await invariants.check()


async def test_a_claim_that_waits_in_silence_on_a_host_that_is_heard_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though whoever holds it says that it waits."""

    class Waits(Calm):
        async def converge(self, ctx: HostContext, claim: Claim) -> Outcome:
            return Wait(reason="Never", message="it does not begin", again=10.0)

    def mute(obj: Any, *arguments: Any, overdue_after: float | None = None, **more: Any) -> Any:
        return fold(obj, *arguments, overdue_after=None if obj.key.kind == "Claim" else overdue_after, **more)

    monkeypatch.setattr(work, "fold", mute)
    async with Cloud(1, hosts=2, side=Waits) as cloud:
        invariants = await silence(cloud, "micro", seconds=200)
        with pytest.raises(AssertionError, match="Claim acme--lab/instance-vm-0 waits in Pending and says nothing"):
            await invariants.check()


async def test_what_is_left_behind_is_found_out() -> None:
    """A host side that says Gone and leaves its guest running does not get past the end of the day."""

    class Leaves(Calm):
        async def remove(self, ctx: HostContext, claim: Claim) -> Outcome:
            return Done(status=claim.status)

    async with Cloud(1, hosts=2, side=Leaves) as cloud:
        day = Day(cloud, random.Random(1))
        spec = {"flavor": "small", "image": "micro", "tolerations": TOLERATE}
        await cloud.create("Instance", "vm", spec, project="acme--lab")
        await cloud.clock.pass_time(60)
        with pytest.raises(AssertionError, match="fake-00"):
            await day.end()

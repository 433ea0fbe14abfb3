"""What of the fleet serves nothing: told to who may read hosts, and to Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bessemer.core.clock import FakeClock
from bessemer.kinds.fleet.figures import KEPT_SECONDS
from bessemer.kinds.fleet.inventory import FleetFeed
from tests.api.test_planning import furnished
from tests.api.world import ADMIN, GATEWAY, World, world


@pytest.fixture
async def clock() -> FakeClock:
    return FakeClock(1_750_000_000)


@pytest.fixture
async def w(clock: FakeClock) -> AsyncIterator[World]:
    async with world(clock) as made:
        yield made


@pytest.fixture
async def fleet(w: World) -> AsyncIterator[FleetFeed]:
    async with furnished(w) as feed:
        yield feed


async def test_it_says_what_there_is_and_what_it_idles(w: World, fleet: FleetFeed) -> None:
    reply = await w.call("GET", "/fleet")
    assert reply.code == 200
    (one,) = reply.json["models"]
    assert (reply.json["hosts"], reply.json["currency"], one["model"], one["devices"]) == (4, "EUR", "H100", 18)
    # To a quarter of what is asked for the two devices of h1 are none; pairs fit everywhere.
    assert (one["freeMilli"], one["uselessMilli"], one["strandedMilli"]) == (18_000, 500, 0)
    assert one["money"] == {"price": 2_500_000, "idle": 45_000_000, "useless": 1_250_000}
    assert (one["whole"], one["largest"], one["largestShape"]) == (18, 8, "4 devices, 4 cores, 4 GiB")


async def test_it_is_for_who_may_read_hosts(w: World, fleet: FleetFeed) -> None:
    agent = await w.host("h9")
    for user in ("ann", "mia", "rob", "new"):
        assert (await w.call("GET", "/fleet", token=await w.login(user))).code == 403, user
    assert (await w.call("GET", "/fleet", peer=None)).code == 401
    assert [(await w.call("GET", "/fleet", peer=peer)).code for peer in (agent, GATEWAY, ADMIN)] == [403, 403, 200]


async def test_it_is_measured_once_for_many(w: World, fleet: FleetFeed, clock: FakeClock) -> None:
    before = (await w.call("GET", "/fleet")).json
    fleet.arrays.remove_host("h3")
    assert (await w.call("GET", "/fleet")).json == before
    await clock.advance(KEPT_SECONDS)
    told = await asyncio.gather(*(w.call("GET", "/fleet") for _ in range(3)))
    assert {one.json["models"][0]["devices"] for one in told} == {14}


async def test_gauges_say_the_same(w: World, fleet: FleetFeed) -> None:
    text = (await w.call("GET", "/metrics")).body.decode()
    assert 'bessemer_fleet_devices{fake="false",model="H100"} 18.0' in text
    assert 'bessemer_fleet_useless_devices{fake="false",model="H100"} 0.5' in text
    assert 'bessemer_fleet_useless_micro_per_hour{fake="false",model="H100"} 1.25e+06' in text


async def test_before_the_fleet_is_read_nothing_is_said(w: World) -> None:
    assert (await w.call("GET", "/fleet")).code == 503
    metrics = await w.call("GET", "/metrics")
    assert (metrics.code, b"bessemer_fleet_devices{" in metrics.body) == (200, False)

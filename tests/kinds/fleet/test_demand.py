"""What the fleet learns from claims, and what decides by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields, replace

import numpy as np
import orjson
import pytest
from hypothesis import given
from structlog.testing import capture_logs

from bessemer.core.asking import Asker, Gang, Request
from bessemer.core.clock import FakeClock
from bessemer.core.resource import Change, Key
from bessemer.core.values import Asked
from bessemer.kinds.fleet.demand import OTHERS_SECONDS, PACE_SECONDS, Demand, Derive
from bessemer.kinds.fleet.holds import hold_of
from bessemer.placement import FleetArrays, Hold
from bessemer.placement.demand import Mix, Outlook
from bessemer.placement.demand.unplaced import FADES, OFFERED
from bessemer.placement.facts import Tenure
from bessemer.placement.hostclass import HostClass
from bessemer.placement.queue import Pending
from bessemer.placement.shape import Shape
from tests.kinds.fleet.outlooks import at_once
from tests.kinds.fleet.test_queueing import furnish, make, status
from tests.kinds.fleet.yard import Yard
from tests.kinds.world import World
from tests.placement.hosts import ask, fleet, host, inventory
from tests.placement.test_properties import requests

THIRD, TWO = ask(1, device_count=1, device_milli=300), ask(2, device_count=2)


@given(requests)
def test_a_claim_keeps_what_was_asked_for(request: Request) -> None:
    kept = Asked.model_validate(Asked.of(request).dump())
    # The engine that every release has is not named: an older one would not read it.
    named = "" if request.engine == "llamacpp" else request.engine
    assert kept.request(request.tenant) == replace(request, engine=named)
    assert Asked.of(replace(request, engine=named)) == kept


def test_nothing_of_a_request_is_lost() -> None:
    assert {field.name for field in fields(Request)} - {"tenant"} == set(Asked.model_fields)


@pytest.mark.parametrize("more", [{"ofANewerRelease": 1}, {"deviceMilli": 0}, {"pageBytes": 3}])
def test_a_claim_counts_though_what_was_asked_for_makes_no_sense(more: dict[str, int]) -> None:
    asked = Asked.of(ask(device_count=1)).dump()
    for said, known in ((asked, True), (asked | more, False)):
        spec = {"host": "h0", "tenant": "acme", "devices": ["gpu0"], "asked": said}
        body = orjson.dumps({"metadata": {}, "spec": spec})
        hold = hold_of(Change(1, "ADDED", Key("Claim", "acme--lab", "c"), "u", "h0", body))
        assert (hold.host, hold.devices, hold.request is not None) == ("h0", ("gpu0",), known)


class Counted:
    """Derives, and counts how often; or does what a test says."""

    def __init__(self) -> None:
        self.times = 0
        self.fails: Exception | None = None
        self.prices = True

    async def __call__(self, mix: Mix, hosts: Mapping[HostClass, int]) -> Outlook:
        self.times += 1
        if self.fails is not None:
            raise self.fails
        outlook = await at_once(mix, hosts)
        return outlook if self.prices else replace(outlook, waste=np.zeros_like(outlook.waste))


@asynccontextmanager
async def learning(clock: FakeClock, derive: Derive, *, arrays: FleetArrays) -> AsyncIterator[Demand]:
    demand = Demand(arrays, clock, derive=derive)
    task = asyncio.create_task(demand.run())
    try:
        yield demand
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def held(request: Request) -> Hold:
    return Hold("h0", (), (), shape=Shape.of(request), request=request)


async def test_an_outlook_is_derived_when_something_else_is_asked_for_and_not_before() -> None:
    clock, derive = FakeClock(), Counted()
    async with learning(clock, derive, arrays=fleet(host("h0", gpus=4))) as demand:
        await clock.advance(10 * PACE_SECONDS)
        assert derive.times == 0, "nothing was asked for yet"
        demand.began(held(THIRD))
        assert demand.own.outlook.mix.shapes == ()
        await clock.advance(PACE_SECONDS)
        assert demand.own.outlook.mix.shapes == (Shape.of(THIRD),)
        assert demand.own.outlook.waste[100] == pytest.approx(100), "which is too little for another"
        demand.began(held(THIRD))
        await clock.advance(PACE_SECONDS)
        assert derive.times == 1, "more of the same is nothing new"
        for _ in range(5):
            demand.began(held(TWO))
        await clock.advance(PACE_SECONDS)
        assert (derive.times, demand.own.outlook.mix.shapes[0]) == (2, Shape.of(TWO))


async def test_hosts_of_another_class_are_something_else_too() -> None:
    clock, derive, arrays = FakeClock(), Counted(), fleet(host("h0", gpus=4))
    async with learning(clock, derive, arrays=arrays) as demand:
        demand.began(held(TWO))
        await clock.advance(PACE_SECONDS)
        demand.hosts_changed()
        await clock.advance(PACE_SECONDS)
        assert derive.times == 1
        arrays.set_host(host("h1", gpus=8))
        demand.hosts_changed()
        await clock.advance(PACE_SECONDS)
        assert derive.times == 2


@pytest.mark.parametrize("error", [ValueError("no"), RuntimeError("HiGHS"), ImportError("highspy")])
async def test_where_none_can_be_derived_the_last_is_kept_and_decisions_go_on(error: Exception) -> None:
    clock, derive, arrays = FakeClock(), Counted(), fleet(host("h0", gpus=4))
    async with learning(clock, derive, arrays=arrays) as demand:
        demand.began(held(THIRD))
        await clock.advance(PACE_SECONDS)
        last, derive.fails = demand.own.outlook, error
        demand.began(held(TWO))
        with capture_logs() as logs:
            await clock.advance(PACE_SECONDS)
        assert demand.own.outlook is last
        assert [line["event"] for line in logs] == ["no outlook could be derived"]
        assert demand.own.place(TWO) is not None
        derive.fails = None
        demand.began(held(TWO))
        await clock.advance(PACE_SECONDS)
        assert len(demand.own.outlook.mix.shapes) == 2


async def test_where_a_program_has_no_answer_the_last_prices_are_kept() -> None:
    clock, derive = FakeClock(), Counted()
    async with learning(clock, derive, arrays=fleet(host("h0", gpus=4))) as demand:
        demand.began(held(THIRD))
        await clock.advance(PACE_SECONDS)
        waste, derive.prices = demand.own.outlook.waste, False
        demand.began(held(replace(THIRD, device_milli=450)))
        with capture_logs() as logs:
            await clock.advance(PACE_SECONDS)
        assert "prices of shares could not be derived" in {line["event"] for line in logs}
        assert len(demand.own.outlook.mix.shapes) == 2
        assert (demand.own.outlook.waste == waste).all()


async def test_what_was_held_before_says_nothing_of_what_is_given_back() -> None:
    clock = FakeClock()
    async with learning(clock, at_once, arrays=fleet(host("h0", gpus=4))) as demand:
        for _ in range(100):
            demand.began(held(TWO), before=True)
        await clock.advance(PACE_SECONDS)
        assert demand.own.turnover.ratio == 0
        for _ in range(4):
            demand.began(held(TWO))
            demand.ended(held(TWO))
        assert demand.own.turnover.ratio > 0.7


async def test_decisions_are_by_what_was_learned() -> None:
    """A third stays off a half, once halves are asked for; before that, nobody knows that they are."""
    clock = FakeClock()
    arrays = fleet(*(host(f"h{n}", gpus=1) for n in range(6)))
    for n in range(6):
        arrays.hold(f"u{n}", Hold(f"h{n}", ("gpu0",), (), device_milli=700 if n == 4 else 500))
    async with learning(clock, at_once, arrays=arrays) as demand:
        before = demand.own.place(THIRD)
        assert before is not None
        assert before.host != "h4"
        for _ in range(20):
            demand.began(held(replace(THIRD, device_milli=500)))
        demand.began(held(THIRD))
        await clock.advance(PACE_SECONDS)
        decision = demand.own.place(THIRD)
        assert decision is not None
        assert decision.host == "h4"
        assert decision.request == THIRD


async def test_the_policy_follows_the_turnover_without_anything_being_solved_again() -> None:
    clock, derive = FakeClock(), Counted()
    async with learning(clock, derive, arrays=fleet(host("h0", gpus=4))) as demand:
        demand.began(held(TWO))
        await clock.advance(PACE_SECONDS)
        filling = demand.own.policy
        for _ in range(20):
            demand.began(held(TWO))
            demand.ended(held(TWO))
        assert demand.own.behind
        assert demand.own.place(TWO) is not None
        assert demand.own.policy is filling, "who decides does not wait for another"
        await clock.advance(PACE_SECONDS)
        assert not demand.own.behind
        assert demand.own.policy is not filling
        assert derive.times == 1


# --- who has no place -------------------------------------------------------------------------------------------------


def pending(wants: Request | Gang, uid: str = "u", *, tenant: str = "acme") -> Pending:
    return Pending(Asker(uid=uid, project=f"{tenant}--lab", priority=0, since=0), wants)


def counts(demand: Demand) -> dict[Shape, float]:
    """By which it is decided now."""
    return dict(zip(demand.own.outlook.mix.shapes, demand.own.outlook.mix.counts, strict=True))


async def test_who_waits_counts_until_its_claim_does_and_never_twice() -> None:
    clock = FakeClock()
    async with learning(clock, at_once, arrays=fleet(host("h0", gpus=4))) as demand:
        demand.waits("u", pending(Gang(member=TWO, count=2)))
        demand.waits("u", pending(Gang(member=TWO, count=2)))
        demand.waits("v", pending(THIRD, "v"))
        await clock.advance(PACE_SECONDS)
        assert counts(demand) == {Shape.of(TWO): 2, Shape.of(THIRD): 1}
        for _ in range(2):
            demand.began(replace(held(TWO), tenure=Tenure(workload="u")))
        # What it says comes later.
        await clock.advance(PACE_SECONDS)
        assert counts(demand) == {Shape.of(TWO): pytest.approx(2, rel=1e-3), Shape.of(THIRD): 1}
        demand.waits("u", None)
        demand.waits("v", None)
        await clock.advance(OTHERS_SECONDS + PACE_SECONDS)
        assert counts(demand) == {Shape.of(TWO): pytest.approx(2, rel=1e-3)}


@pytest.mark.parametrize(
    "more", [{"device_profile": "1g.10gb", "device_milli": 1000}, {"device_bytes": 20 << 30, "device_milli": 1}]
)
async def test_a_part_of_which_nobody_knows_how_much_it_is_counts_once_it_is_placed(more: dict[str, int]) -> None:
    clock = FakeClock()
    async with learning(clock, at_once, arrays=fleet(host("h0", gpus=4))) as demand:
        demand.offers("part", replace(THIRD, **more))
        demand.waits("u", pending(replace(THIRD, **more)))
        await clock.advance(PACE_SECONDS)
        assert counts(demand) == {}
        demand.offers("part", THIRD)
        demand.offers("part", replace(THIRD, **more))
        demand.waits("u", pending(TWO))
        await clock.advance(PACE_SECONDS)
        assert counts(demand) == {Shape.of(TWO): 1}


async def test_who_comes_and_goes_has_nothing_derived_more_often() -> None:
    clock, derive = FakeClock(), Counted()
    async with learning(clock, derive, arrays=fleet(host("h0", gpus=4))) as demand:
        for _ in range(20):
            demand.began(held(THIRD))
        await clock.advance(PACE_SECONDS)
        assert derive.times == 1
        start = clock.monotonic()
        while clock.monotonic() < start + 3 * OTHERS_SECONDS:
            demand.waits("u", pending(Gang(member=TWO, count=4)) if derive.times % 2 else None)
            demand.offers("one", TWO if derive.times % 2 else None)
            await clock.advance(PACE_SECONDS)
        assert 3 <= derive.times <= 4
        demand.waits("u", None)
        for _ in range(20):
            demand.began(held(replace(THIRD, device_milli=500)))
        times = derive.times
        await clock.advance(PACE_SECONDS)
        assert derive.times == times + 1, "what is placed is learned as soon as ever"


async def test_after_a_start_flavors_say_what_may_come() -> None:
    async with Yard() as yard:
        gpu = {"cores": 1, "memory": "1Gi", "devices": {"count": 1, "model": "H100"}}
        await yard.create("Flavor", "third", gpu | {"devices": {"count": 1, "share": "0.3"}})
        await yard.create("Flavor", "four", gpu | {"devices": {"count": 4}})
        await yard.create("Flavor", "more", gpu | {"devices": {"count": 5}})
        await yard.create("Flavor", "withdrawn", gpu | {"offered": False})
        await yard.create("Flavor", "gone", gpu | {"devices": {"count": 2}})
        await yard.delete("Flavor", "gone")
        await yard.host("h1", inventory(gpus=4))
        await yard.advance(2 * PACE_SECONDS)
        third, four = counts(yard.fleet.demand).items()
        assert {third[0].device_milli, four[0].device_milli} == {300, 1000}
        assert third[1] == four[1] == OFFERED / 2
        assert yard.fleet.own.outlook.waste[100] == pytest.approx(100)
        before = counts(yard.fleet.demand)
        await yard.crash()
        await yard.advance(2 * PACE_SECONDS)
        assert counts(yard.fleet.demand) == before


async def test_what_does_not_fit_is_learned_while_it_waits() -> None:
    async with World(hosts=1, gpus=2) as world:
        await furnish(world)
        await make(world, "runs", flavor="one")
        await world.until_ready("Instance", "runs")
        await make(world, "waits", flavor="two")

        def known() -> dict[str, float]:
            mix = world.fleet._feed.own.outlook.mix
            shapes = [
                (f"{one.device_count}/{one.milli_cores}", n) for one, n in zip(mix.shapes, mix.counts, strict=True)
            ]
            return dict(shapes)

        async def learned() -> bool:
            return known().get("2/1000", 0) > OFFERED / 3

        await world.until(learned, seconds=OTHERS_SECONDS + 60)
        assert (await status(world, "waits"))["waitingSince"]
        offered = (OFFERED - 2 * FADES) / 4
        assert known() == pytest.approx(
            {"1/1000": 1 + offered, "2/1000": 1 + offered, "0/1000": offered, "0/2000": offered}
        )
        await world.delete("Instance", "runs")
        await world.until_ready("Instance", "waits")
        end = world.clock.monotonic() + OTHERS_SECONDS + 60

        async def later() -> bool:
            return world.clock.monotonic() > end

        await world.until(later)
        assert known()["2/1000"] == pytest.approx(1 + offered, rel=1e-3), "the claim counts in its place"

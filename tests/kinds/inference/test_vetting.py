"""Vetting, both sides together: placed, asked, measured, priced, and let go whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from bessemer.core.resource import Metadata
from bessemer.drivers.engine.fake import Behaviour
from bessemer.drivers.process.protocol import End
from bessemer.kinds.inference.vetting import measuring, report
from bessemer.kinds.inference.vetting.report import Point
from bessemer.kinds.inference.vetting.spec import Vetting, VettingSpec, validate
from tests.kinds.five import (
    Case,
    check_converges,
    check_converges_after_a_crash_at_every_call,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
)
from tests.kinds.world import PROJECT, World

SPEC: dict[str, Any] = {
    "model": "smol",
    "flavor": "serve",
    "load": {"rates": [4.0], "seconds": 1},
    "target": {"ttftMs": 60_000},
}
CASE = Case("Vetting", "v", SPEC, reason="Succeeded")


async def test_converges() -> None:
    found = await check_converges(CASE)
    status = found["status"]
    assert status["phase"] == "Succeeded"
    assert [point["rate"] for point in status["points"]] == [4.0]
    assert {one["name"]: one["verdict"] for one in status["checks"]} == dict.fromkeys(
        ("answers", "template", "deterministic", "length", "tools", "schema", "stop", "target"), "Passed"
    )
    assert "claim" not in status or not status["claim"]
    assert 0 < status["vetted"]["rate"] <= 4.0


async def test_converges_when_run_twice() -> None:
    await check_converges_when_run_twice(CASE)


def firsts(names: Sequence[str]) -> Sequence[int]:
    """The first call of each name: later ones of a measurement are as the first."""
    return sorted({names.index(name) for name in names})


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await check_converges_after_a_crash_at_every_call(CASE, chosen=firsts)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(CASE)


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE)


# --- what it says at its end ------------------------------------------------------------------------------------


async def vetted(world: World, **spec: Any) -> dict[str, Any]:
    """One that has ended."""
    await world.create("Vetting", "v", {**SPEC, **spec})

    async def over() -> bool:
        found = await world.condition("Vetting", "v")
        return found["phase"] in ("Succeeded", "Failed")

    await world.until(over, seconds=9000)
    found = await world.object("Vetting", "v")
    assert found is not None
    return found


async def test_prices_cover_what_the_claim_costs_and_the_model_says_what_was_found() -> None:
    async with World() as world:
        rates = {"coreHour": 40_000, "memoryGibHour": 5_000}
        await world.create("PricePlan", "dear", {"rates": rates}, namespace="")
        await world.patch("Tenant", "acme", namespace="", pricePlan="dear")
        await world.patch("Model", "smol", namespace="", vettedIn=PROJECT)
        status = (await vetted(world, marginPercent=20, targetLoadPercent=50))["status"]
        prices, found = status["prices"], status["vetted"]
        assert prices["claimHourMicro"] == 45_000
        assert prices["hourMicro"] == pytest.approx(54_000, abs=2)
        assert 0 < prices["millionCachedInputTokens"] <= prices["millionInputTokens"]
        assert prices["millionInputTokens"] < prices["millionOutputTokens"]
        # A million tokens by their time of the claim, in money with the margin.
        of_time = found["outputSeconds"] / 3600 * 45_000 * 1.2
        assert prices["millionOutputTokens"] == pytest.approx(of_time, rel=0.001)
        assert status["estimateBytes"] == found["estimateBytes"] > 0
        assert status["memoryBytes"] == found["memoryBytes"] > 0

        async def told() -> bool:
            model = await world.object("Model", "smol", namespace="")
            return model is not None and model["status"].get("vetted") == found

        await world.until(told)
        await world.delete("Vetting", "v")
        await world.until_gone("Vetting", "v")

        async def forgotten() -> bool:
            model = await world.object("Model", "smol", namespace="")
            return model is not None and "vetted" not in model["status"]

        await world.until(forgotten)


async def test_a_project_that_the_model_does_not_name_says_nothing_of_it() -> None:
    async with World() as world:
        await vetted(world)
        model = await world.object("Model", "smol", namespace="")
        assert model is not None
        assert "vetted" not in model["status"]


async def heedless(world: World) -> None:
    """Its engine passes over words to stop at, tools and schemas."""
    model = None
    for host in world.hosts.values():
        for model in host.engine.models.values():
            model.behaviour = Behaviour(heedless=True)
    assert model is not None


async def test_what_it_cannot_do_is_said_and_fails_it() -> None:
    async with World() as world:
        await world.create("Vetting", "v", SPEC)
        await until_phase(world, "Starting")
        await world.until(lambda: _running(world))
        await heedless(world)
        ready = await world.until_reason("Vetting", "v", "ChecksFailed")

        async def over() -> bool:
            return (await world.condition("Vetting", "v"))["phase"] == "Failed"

        await world.until(over)
        assert ready["message"] == "measured; it failed: tools, schema, stop"
        found = await world.object("Vetting", "v")
        assert found is not None
        seen = {one["name"]: one["seen"] for one in found["status"]["checks"] if one["verdict"] == "Failed"}
        assert "no call of the tool that must be called" in seen["tools"]
        assert found["status"]["points"], "it is measured all the same"
        assert await world.bodies("Claim") == []


async def test_what_it_need_not_do_does_not_fail_it() -> None:
    async with World() as world:
        await world.create("Vetting", "v", {**SPEC, "mayFail": ["tools", "schema", "stop"]})
        await world.until(lambda: _running(world))
        await heedless(world)
        await world.until_ready("Vetting", "v")
        found = await world.object("Vetting", "v")
        assert found is not None
        assert found["status"]["vetted"]["failed"] == ["tools", "schema", "stop"]


async def test_a_target_that_no_rate_holds_fails_it() -> None:
    async with World() as world:
        status = (await vetted(world, target={"ttftMs": 1}))["status"]
        assert (status["phase"], status["trouble"]) == ("Failed", "ChecksFailed")
        assert "vetted" not in status
        assert status["checks"][-1]["seen"] == "at no rate are all answered in time"


async def test_one_that_takes_longer_than_it_may_is_given_up() -> None:
    async with World() as world:
        load = {"rates": [0.001], "seconds": 600}
        status = (await vetted(world, load=load, deadlineMinutes=1))["status"]
        assert (status["phase"], status["trouble"]) == ("Failed", "TooLate")
        assert await world.bodies("Claim") == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"read": -1},
        {"seconds": 1e308, "busySeconds": 1e308},
        {"busySeconds": 1e300},
        {"read": 0, "cached": 0, "written": 0},
    ],
)
async def test_what_cannot_have_been_measured_holds_nothing(
    wrong: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host may say anything, and an engine count more as cached than it read."""

    def point(*args: Any, **more: Any) -> Point:
        return Point.model_validate({**report.point(*args, **more).dump(), **wrong})

    monkeypatch.setattr(measuring, "point", point)
    async with World() as world:
        status = (await vetted(world))["status"]
        assert (status["phase"], status["trouble"]) == ("Failed", "MeasuredNonsense")
        assert "vetted" not in status
        assert await world.bodies("Claim") == []


async def test_an_engine_that_does_not_come_up_is_given_up() -> None:
    async with World() as world:

        async def dies() -> bool:
            for host in world.hosts.values():
                for engine in await host.engine.running():
                    await host.engine.end(engine.uid, End.CRASHED)
            return (await world.condition("Vetting", "v"))["phase"] == "Failed"

        await world.create("Vetting", "v", SPEC)
        await world.until(dies)
        found = await world.object("Vetting", "v")
        assert found is not None
        assert found["status"]["trouble"] == "EngineExited"


async def test_without_end_it_finds_where_more_gives_no_more() -> None:
    async with World() as world:
        status = (await vetted(world, load={"seconds": 4}, target={}))["status"]
        points = status["points"]
        assert len(points) >= 4
        assert [one["rate"] for one in points] == sorted(one["rate"] for one in points)
        last = [one["written"] / one["seconds"] for one in points[-2:]]
        best = max(points, key=lambda one: one["held"] * one["written"] / one["seconds"])
        assert max(last) <= best["written"] / best["seconds"] * 1.2
        assert status["vetted"]["rate"] < points[-1]["rate"]


async def until_phase(world: World, phase: str) -> None:
    async def holds() -> bool:
        return (await world.condition("Vetting", "v"))["phase"] == phase

    await world.until(holds)


async def _running(world: World) -> bool:
    return any(claim.get("status", {}).get("phase") == "Running" for claim in await world.bodies("Claim"))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [({"flavor": "none"}, "FlavorNotFound"), ({"model": "none"}, "ModelNotFound"), ({"slots": 256}, "FlavorTooSmall")],
)
async def test_it_says_what_it_waits_for(spec: dict[str, Any], reason: str) -> None:
    async with World() as world:
        await world.create("Vetting", "v", {**SPEC, **spec})
        assert (await world.until_reason("Vetting", "v", reason))["phase"] == "Pending"
        assert await world.bodies("Claim") == []


def made(**spec: Any) -> Vetting:
    said = {"model": "m", "flavor": "f", **spec}
    return Vetting(metadata=Metadata(name="v", namespace=PROJECT), spec=VettingSpec.model_validate(said))


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"load": {"inputTokens": [5]}}, "spec.load.inputTokens"),
        ({"load": {"outputTokens": [5, 4]}}, "spec.load.outputTokens"),
        ({"load": {"rates": [2.0, 1.0]}}, "spec.load.rates"),
        ({"engine": {"name": "auto", "arguments": {"keep": 1}}}, "spec.engine.name"),
        ({"engine": {"name": "llamacpp", "arguments": {"model": "x"}}}, "spec.engine.arguments.model"),
        ({"mayFail": ["tools", "tools"]}, "spec.mayFail[1]"),
    ],
)
def test_what_makes_no_sense_is_refused(spec: dict[str, Any], field: str) -> None:
    assert [cause.field for cause in validate(made(**spec), None)] == [field]


def test_nothing_of_it_changes() -> None:
    assert not validate(made(), made())
    assert [cause.field for cause in validate(made(slots=8), made())] == ["spec.slots"]

"""PricePlan: prices in one currency for good, kept while somebody is billed by them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bessemer.core.resource import Metadata
from bessemer.kinds.billing.priceplan import PricePlan, PricePlanSpec, Rates, validate
from bessemer.metering import Plan
from tests.kinds.five import (
    Case,
    check_converges,
    check_converges_after_a_crash_at_every_call,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
)
from tests.kinds.world import World

CASE = Case("PricePlan", "premium", {"rates": {"coreHour": 20_000, "deviceHour": {"*": 1}}}, namespace="")


async def test_converges() -> None:
    found = await check_converges(CASE)
    assert found["status"]["phase"] == "Active"


async def test_converges_when_run_twice() -> None:
    await check_converges_when_run_twice(CASE)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await check_converges_after_a_crash_at_every_call(CASE)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(CASE)


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE)


async def test_it_stays_while_a_tenant_is_billed_by_it() -> None:
    async with World() as world:
        await world.create("PricePlan", "standard", {}, namespace="")
        await world.until_ready("PricePlan", "standard", namespace="")
        await world.delete("PricePlan", "standard", namespace="")
        said = await world.until_reason("PricePlan", "standard", "InUse", namespace="")
        assert said["message"] == "1 tenant is billed by it"  # and not which: each of them reads it
        await world.patch("Tenant", "acme", namespace="", pricePlan="premium")
        await world.until_gone("PricePlan", "standard", namespace="")


def plan(**spec: object) -> PricePlan:
    return PricePlan(metadata=Metadata(name="p"), spec=PricePlanSpec.model_validate(spec))


def test_what_invoices_of_the_past_are_derived_with_is_kept() -> None:
    """Currency, each rate, what is billed; what describes the plan may change."""
    old = plan(currency="EUR", rates={"coreHour": 5, "deviceHour": {"H100": 1}}, billedStates=["running", "lost"])
    assert [c.field for c in validate(plan(currency="SEK"), plan(currency="EUR"))] == ["spec.currency"]
    assert [c.field for c in validate(plan(), old)] == [
        "spec.rates.coreHour",
        "spec.rates.deviceHour",
        "spec.billedStates",
    ]
    dearer = old.model_copy(update={"spec": old.spec.model_copy(update={"rates": Rates(core_hour=6)})})
    (core, _) = validate(dearer, old)
    assert core.message == (
        "cannot change from '5': invoices of the past are derived with it; make another plan and name it in the Tenant"
    )
    same = {"rates": {"coreHour": 5, "deviceHour": {"H100": 1}}, "billedStates": ["lost", "running"]}
    assert validate(plan(description="For universities.", **same), old) == []


def test_rates_of_a_model_are_kept_and_none_joins() -> None:
    """Its tokens were billed by the general ones until then."""
    rates = {"millionInputTokens": 1, "millionCachedInputTokens": 0, "millionOutputTokens": 3}
    old = plan(models={"llama": rates, "acme--lab/mine": rates})
    assert validate(plan(models={"acme--lab/mine": rates, "llama": rates}), old) == []
    assert [c.field for c in validate(plan(models={"llama": rates}), old)] == ["spec.models.acme--lab/mine"]
    dearer = {"llama": {**rates, "millionOutputTokens": 4}, "acme--lab/mine": rates, "new": rates}
    assert [c.field for c in validate(plan(models=dearer), old)] == ["spec.models.llama", "spec.models.new"]
    assert "models" not in plan().spec.dump(), "an older release refuses what it does not know"
    for wrong in ({"llama": {"millionInputTokens": 1}}, {"": rates}, {"a\n": rates}):
        with pytest.raises(ValidationError):
            plan(models=wrong)


def test_a_state_is_billed_once() -> None:
    assert [c.field for c in validate(plan(billed_states=["lost", "lost"]), None)] == ["spec.billedStates[1]"]


def test_prices_are_bounded_integers() -> None:
    for wrong in (-1, 10**16, 1.5):
        with pytest.raises(ValidationError):
            Rates.model_validate({"coreHour": wrong})
        with pytest.raises(ValidationError):
            Rates.model_validate({"deviceHour": {"*": wrong}})


def test_a_spec_is_a_plan_that_metering_takes() -> None:
    assert isinstance(plan().spec, Plan)
    assert plan().spec.billed_states == ["running", "stopped"]

"""Tenant: a colour once, a quota that holds, and no end before its projects'."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import QuotaExceeded
from bessemer.core.quota import Quota
from bessemer.core.resource import Key, Metadata
from bessemer.core.units import GIB
from bessemer.kinds.tenancy.tenant import KIND, Member, Tenant, TenantSpec, TenantStatus, bearable, colour_for, validate
from tests.kinds.five import (
    Case,
    check_converges,
    check_converges_after_a_crash_at_every_call,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
)
from tests.kinds.world import PROJECT, World
from tests.store import test_money as money
from tests.store.test_quota import opened

CASE = Case("Tenant", "globex", {"quota": {"instances": 3}}, namespace="")


async def test_converges() -> None:
    found = await check_converges(CASE)
    assert (found["status"]["phase"], found["status"]["colour"]) == ("Active", 2)


async def test_converges_when_run_twice() -> None:
    await check_converges_when_run_twice(CASE)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await check_converges_after_a_crash_at_every_call(CASE)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(CASE)


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE)


def tenant(name: str, colour: int = 0, created: str = "2025-06-15T15:06:40Z", **spec: object) -> Tenant:
    return Tenant(
        metadata=Metadata(name=name, creation_timestamp=created),
        spec=TenantSpec.model_validate(spec),
        status=TenantStatus(colour=colour),
    )


def test_colours_are_the_smallest_free_and_differ_though_asked_for_at_once() -> None:
    tenants = [tenant("a", 1), tenant("c", 3), tenant("n1"), tenant("n2"), tenant("n3")]
    assert [colour_for(name, tenants) for name in ("n1", "n2", "n3")] == [2, 4, 5]


def test_an_eleventh_tenant_shares_a_colour() -> None:
    tenants = [tenant(f"t{n}", n) for n in range(1, 11)]
    assert colour_for("late", [*tenants, tenant("late")]) == 1


async def test_it_goes_after_its_projects_and_says_so() -> None:
    async with World() as world:
        await world.delete("Tenant", "acme", namespace="")
        said = await world.until_reason("Tenant", "acme", "ProjectsRemain", namespace="")
        assert PROJECT in said["message"]
        await world.delete("Project", PROJECT, namespace="")
        await world.until_gone("Tenant", "acme", namespace="")


async def test_a_quota_below_use_stops_what_is_new_and_touches_nothing() -> None:
    async with World() as world:
        await world.create("Instance", "vm", {"flavor": "small", "image": "micro"})
        await world.until_ready("Instance", "vm")
        await world.patch("Tenant", "acme", namespace="", quota={"milliCores": 1000, "memoryBytes": GIB})
        over = await world.until_reason("Tenant", "acme", "OverQuota", namespace="")
        assert over["status"] == "True"
        assert "2 of 1 cores" in over["message"]
        await world.create("Instance", "second", {"flavor": "small", "image": "micro"})
        said = await world.until_reason("Instance", "second", "QuotaExceeded")
        assert "acme" in said["message"]
        assert (await world.condition("Instance", "vm"))["status"] == "True"
        await world.patch("Tenant", "acme", namespace="", quota={})
        await world.until_ready("Instance", "second")


async def test_what_can_be_counted_is_refused_at_once() -> None:
    async with World() as world:
        await world.patch("Tenant", "acme", namespace="", quota={"instances": 1})
        await world.until_ready("Tenant", "acme", namespace="")
        await world.create("Instance", "vm", {"flavor": "small", "image": "micro"})
        with pytest.raises(QuotaExceeded):
            await world.create("Instance", "second", {"flavor": "small", "image": "micro"})


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (tenant("a--b"), "metadata.name"),
        (tenant("Acme"), "metadata.name"),
        (tenant("x" * 61), "metadata.name"),
        (tenant("ok", members=[Member(user="ann"), Member(user="ann", role="reader")]), "spec.members[1].user"),
        (tenant("ok", quota=Quota(milli_cores=-1)), "spec.quota.milliCores"),
        (tenant("ok", quota=Quota(devices={"H100": -1})), "spec.quota.devices[H100]"),
    ],
)
def test_what_is_wrong_is_said_by_field(given: Tenant, field: str) -> None:
    assert field in [cause.field for cause in validate(given, None)]
    assert validate(tenant("fine"), None) == []


def test_tolerations_are_words_and_no_master_key() -> None:
    keys = ["ok", "ok", "*", "a b", ""]
    said = tenant("t", tolerations=[{"key": key} for key in keys])
    assert [c.field for c in validate(said, None)] == [f"spec.tolerations[{n}].key" for n in (1, 2, 3, 4)]
    assert bearable(tenant("t", tolerations=[{"key": "a"}]).dump()) == {"a"}
    assert bearable({"spec": {}}) == frozenset()


async def test_what_was_spent_this_month_is_told_out_of_the_ledger() -> None:
    async with World() as world:
        rates = {"coreHour": 36_000_000}  # a core costs ten thousand millionths a second
        await world.create("PricePlan", "standard", {"currency": "EUR", "rates": rates}, namespace="")
        await world.create("Instance", "vm", {"flavor": "small", "image": "micro"})
        await world.until_ready("Instance", "vm")
        await world.patch("Tenant", "acme", namespace="", quota={"spendMicro": 2_000_000})
        await world.patch("Project", PROJECT, namespace="", quota={"spendMicro": 1_000_000})
        over = await world.until_reason("Project", PROJECT, "OverQuota", namespace="")
        assert "of 1.00 spend this month" in over["message"]
        with pytest.raises(QuotaExceeded, match=f"project {PROJECT}: EUR 0.00 of EUR 1.00 left for this month"):
            await world.create("Instance", "vm2", {"flavor": "small", "image": "micro"})
        await world.until_reason("Tenant", "acme", "OverQuota", namespace="")
        assert (await world.condition("Instance", "vm"))["status"] == "True"
        uses = {use.meter: use for use in await world.store.capacity.use("tenant/acme")}
        assert 70_000_000 < uses["spend_micro"].used < 73_000_000, "its first hour counts at once"
        await world.patch("Tenant", "acme", namespace="", quota={})
        await world.patch("Project", PROJECT, namespace="", quota={})
        await world.create("Instance", "vm2", {"flavor": "small", "image": "micro"})
        await world.until_ready("Instance", "vm2")


async def test_a_project_whose_first_row_comes_while_the_ledger_is_looked_at_is_counted() -> None:
    clock = FakeClock()
    store = opened(":memory:", clock)
    await money.furnish(store)

    async def projects(tenant_uid: str) -> list[str]:
        found = list(await store.ledger.projects(tenant_uid))
        await money.Holder(store, "g").spend(100)
        return found

    ledger = SimpleNamespace(last=store.ledger.last, window=store.ledger.window, projects=projects)
    parts = SimpleNamespace(note=lambda *_, **__: None)
    ctx: Any = SimpleNamespace(clock=clock, objects=store.objects, capacity=store.capacity, ledger=ledger, parts=parts)
    await KIND.reconcile(ctx, Tenant.load((await store.objects.get(Key("Tenant", "", "acme"))).body))
    assert (await money.money(store)).used == 100
    store.close()

"""A tenant's walls in the transaction: whoever lost a race finds them closed, whatever was decided before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bessemer.core.errors import Forbidden, Taken, Walled
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from bessemer.store import Store
from tests.store.make import ALICE, PROJECT, SYSTEM, body, claim, inventory, read

HOSTS = ("h1", "h2", "h3")


async def furnished(store: Store, **spec: Any) -> None:
    for number, name in enumerate(HOSTS):
        await store.capacity.declare(name, inventory())
        host = body("Host", name, spec={"site": f"site-{number}"}, namespace="", labels={"pool": f"p{number}"})
        await store.objects.create(host, ALICE)
    await store.objects.create(body("Tenant", "acme", spec=spec, namespace=""), ALICE)
    await store.objects.create(body("Project", PROJECT, spec={}, namespace=""), ALICE)


async def change(store: Store, name: str = "acme", **spec: Any) -> None:
    await store.objects.replace(body("Tenant", name, spec=spec, namespace=""), ALICE)


async def lands(store: Store) -> list[str]:
    """The hosts that take a claim now; what was taken is given back."""
    found = []
    for host in HOSTS:
        try:
            (taken,) = await store.capacity.take([claim("probe", host=host)], CONTROLLER)
        except Taken:
            continue
        await store.capacity.release(taken.key, CONTROLLER, fenced=True)
        found.append(host)
    return found


@pytest.mark.parametrize(
    ("mine", "theirs", "where"),
    [
        ({}, {}, ["h1", "h2", "h3"]),
        ({}, {"names": ["h1"]}, ["h2", "h3"]),
        ({}, {"matchLabels": {"pool": "p1"}}, ["h1", "h3"]),
        ({}, {"matchLabels": {"pool": "p1", "rack": "r"}}, ["h1", "h2", "h3"]),
        ({"hosts": {"names": ["h1"]}}, {"names": ["h1", "h2"]}, ["h1", "h3"]),
        ({"hosts": {"names": ["h2"], "only": True}}, {}, ["h2"]),
        ({"hosts": {"only": True}}, {}, []),
        ({"sites": ["site-0", "site-2"]}, {"names": ["h1"]}, ["h3"]),
    ],
)
async def test_a_claim_lands_where_its_tenant_may_be(
    store: Store, mine: dict[str, Any], theirs: dict[str, Any], where: list[str]
) -> None:
    await furnished(store, **mine)
    await store.objects.create(body("Tenant", "rival", spec={"hosts": theirs}, namespace=""), ALICE)
    assert await lands(store) == where
    await store.objects.delete(Key("Tenant", "", "rival"), ALICE)
    await change(store)
    await store.objects.replace(body("Tenant", "rival", spec={}, namespace="", finalizers=[]), CONTROLLER)
    assert await lands(store) == list(HOSTS), "a tenant that is gone has no hosts"


async def test_the_words_name_no_other_tenant(store: Store) -> None:
    await furnished(store)
    await store.objects.create(body("Tenant", "rival", spec={"hosts": {"names": ["h1"]}}, namespace=""), ALICE)
    with pytest.raises(Taken) as caught:
        await store.capacity.take([claim("a")], CONTROLLER)
    assert str(caught.value) == "host h1 is dedicated to another tenant"


async def test_a_label_that_a_host_gets_walls_it_at_once(store: Store) -> None:
    await furnished(store)
    await store.objects.create(
        body("Tenant", "rival", spec={"hosts": {"matchLabels": {"own": "yes"}}}, namespace=""), ALICE
    )
    assert "h1" in await lands(store)
    host = body("Host", "h1", spec={"site": "site-0"}, namespace="", labels={"own": "yes"})
    await store.objects.replace(host, ALICE)
    assert "h1" not in await lands(store)


async def test_of_64_who_decided_before_the_wall_stood_none_lands_after(store: Store) -> None:
    await furnished(store)
    tenant = await store.objects.get(Key("Tenant", "", "acme"))
    terms = str(tenant.revision)
    takes = [store.capacity.take([claim(f"w{n}", cores=100)], CONTROLLER, terms=terms) for n in range(32)]
    late = [store.capacity.take([claim(f"w{n}", cores=100)], CONTROLLER, terms=terms) for n in range(32, 64)]
    found = await asyncio.gather(*takes, change(store, state="Suspended"), *late, return_exceptions=True)
    landed = [one for one in found if isinstance(one, list)]
    refused = [one for one in found if isinstance(one, BaseException)]
    assert len(landed) + len(refused) == 64
    suspended = (await store.objects.get(Key("Tenant", "", "acme"))).revision
    assert all(one[0].revision < suspended for one in landed)
    assert {type(one) for one in refused} <= {Taken, Walled}
    with pytest.raises(Walled, match="suspended"):
        await store.capacity.take([claim("late")], CONTROLLER)


async def test_older_terms_are_decided_anew(store: Store) -> None:
    await furnished(store)
    terms = str((await store.objects.get(Key("Tenant", "", "acme"))).revision)
    await store.capacity.take([claim("a", cores=100)], CONTROLLER, terms=terms)
    await change(store, flavors={"names": ["small"]})
    with pytest.raises(Taken, match="tenant acme has changed since the place was chosen"):
        await store.capacity.take([claim("b", cores=100)], CONTROLLER, terms=terms)
    (again,) = await store.capacity.take([claim("a", cores=100)], CONTROLLER, terms=terms)
    assert read(again)["spec"]["host"] == "h1", "one that stands is answered as it is"


@pytest.mark.parametrize("state", ["Suspended", "Closed"])
async def test_nothing_is_made_in_a_tenant_that_is_not_active_and_all_may_go(store: Store, state: str) -> None:
    await furnished(store)
    kept = await store.objects.create(body("Thing", "kept"), ALICE)
    await change(store, state=state)
    for made in (body("Thing", "new"), body("Project", "acme--new", spec={}, namespace="")):
        for writer in (ALICE, CONTROLLER, SYSTEM):
            with pytest.raises(Walled, match=f"tenant acme is {state.lower()}"):
                await store.objects.create(made, writer)
    await store.events.emit(kept.key, kept.uid, "Told", "what happens is told still")
    await store.objects.replace(body("Thing", "kept", spec={"size": 2}), CONTROLLER)
    await store.objects.delete(kept.key, CONTROLLER)
    await store.objects.create(body("Thing", "elsewhere", namespace="rival--lab"), ALICE)


async def test_a_closed_tenants_hosts_are_its_own_until_nothing_is_left(store: Store) -> None:
    await furnished(store)
    dedicated = {"hosts": {"names": ["h1"]}, "state": "Closed"}
    await store.objects.create(body("Tenant", "rival", spec=dedicated, namespace=""), ALICE)
    assert "h1" not in await lands(store)
    rival = body("Tenant", "rival", namespace="", spec=dedicated)
    await store.objects.replace({**rival, "status": {"phase": "Closed"}}, CONTROLLER, part="status")
    assert "h1" in await lands(store)


async def test_what_goes_away_is_closed_as_before(store: Store) -> None:
    await furnished(store)
    await store.objects.delete(Key("Tenant", "", "acme"), ALICE)
    with pytest.raises(Forbidden, match="tenant acme is being deleted"):
        await store.objects.create(body("Project", "acme--new", spec={}, namespace=""), ALICE)
    await store.objects.create(body("Thing", "a"), ALICE)
    await store.objects.delete(Key("Project", "", PROJECT), ALICE)
    with pytest.raises(Forbidden, match=f"project {PROJECT} is being deleted"):
        await store.objects.create(body("Thing", "b"), ALICE)

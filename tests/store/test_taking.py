"""Claims that are taken with the status that says so: both stand, or neither."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bessemer.core.errors import BessemerError, Conflict, Forbidden, Invalid, NotFound, QuotaExceeded, Taken
from bessemer.core.notices import Happening
from bessemer.core.ports import CONTROLLER, Scope, Stored
from bessemer.core.quota import Quota
from bessemer.core.resource import Key
from bessemer.core.taking import Telling, Wanted
from bessemer.store import Store
from bessemer.store.transaction import Tx
from tests.store.make import ALICE, PROJECT, body, claim, inventory, read


def telling(of: Stored, phase: str = "Placed", *, revision: int = 0) -> Telling:
    said = {
        "kind": of.key.kind,
        "metadata": {
            "name": of.key.name,
            "namespace": of.key.namespace,
            "uid": of.uid,
            "resourceVersion": str(revision or of.revision),
        },
        "status": {"phase": phase},
    }
    return Telling(said, [Happening("Placed", "it has a place", False)])


async def workload(store: Store) -> Stored:
    await store.capacity.declare("h1", inventory())
    return await store.objects.create(body("Thing", "a"), ALICE)


async def standing(store: Store) -> tuple[Any, ...]:
    """All that a take moves."""
    claims = (await store.objects.list(Scope(kind="Claim"))).items
    events = (await store.objects.list(Scope(kind="Event"))).items
    devices = [row.claim for row in await store.capacity.devices() if row.claim]
    used = [use.used for use in await store.capacity.use("tenant/acme") if use.meter != "things" and use.used]
    return len(claims), len(events), devices, used, len(await store.ledger.entries())


async def test_both_are_written_and_told_in_one_order(store: Store) -> None:
    made = await workload(store)
    wanted = claim("a", devices=("gpu-0",))
    taken, told = await store.capacity.take([wanted], CONTROLLER, tells=telling(made))
    assert await store.objects.get(told.key) == told
    assert read(told)["status"] == {"phase": "Placed"}
    assert told.revision < taken.revision
    (event,) = (await store.objects.list(Scope(kind="Event"))).items
    assert read(event)["reason"] == "Placed"
    assert (await standing(store))[:1] == (1,)


@pytest.mark.parametrize("why", ["quota", "device", "changed", "gone", "no status"])
async def test_what_refuses_one_refuses_both(store: Store, why: str) -> None:
    made = await workload(store)
    before, refused = await standing(store), telling(made)
    wanted, raises = claim("a", devices=("gpu-0",)), BessemerError
    if why == "quota":
        await store.capacity.set_quota("tenant/acme", Quota(devices={"H100": 0}))
        raises = QuotaExceeded
    elif why == "device":
        wanted, raises = claim("a", devices=("gpu-77",)), Taken
    elif why == "changed":
        await store.objects.replace(read(made) | {"spec": {"size": 2}}, ALICE)
        raises = Conflict
    elif why == "gone":
        await store.objects.delete(made.key, ALICE)
        raises = NotFound
    else:
        refused, raises = Telling({**refused.body, "status": "none"}), Invalid
    with pytest.raises(raises):
        await store.capacity.take([wanted], CONTROLLER, tells=refused)
    assert await standing(store) == before
    if why in ("quota", "device"):
        assert await store.objects.get(made.key) == made


async def test_beside_others_of_its_group_it_is_refused_alone(store: Store) -> None:
    made = await workload(store)
    other = await store.objects.create(body("Thing", "b"), ALICE)
    late = telling(made, revision=made.revision + 100)
    found = await asyncio.gather(
        store.capacity.take([claim("a", devices=("gpu-0",))], CONTROLLER, tells=late),
        store.capacity.take([claim("b", devices=("gpu-0",))], CONTROLLER, tells=telling(other)),
        return_exceptions=True,
    )
    assert isinstance(found[0], Conflict)
    assert not isinstance(found[1], BaseException)
    (row,) = [row for row in await store.capacity.devices() if row.claim]
    assert row.claim == found[1][0].uid
    assert (await store.objects.get(made.key)).revision == made.revision


async def test_several_of_a_group_go_in_together(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one of them asks has nothing written that the others have put off."""
    await workload(file_store)
    made = [await file_store.objects.create(body("Thing", f"w{n}"), ALICE) for n in range(4)]
    settled: list[Tx] = []
    monkeypatch.setattr(Tx, "settle", settled.append)
    takes = [
        file_store.capacity.take([_owned(claim(f"w{n}", cores=100), thing)], CONTROLLER, tells=telling(thing))
        for n, thing in enumerate(made)
    ]
    before = file_store.metrics.groups
    await asyncio.gather(*takes)
    assert file_store.metrics.groups == before + 1
    assert not settled


def _owned(wanted: Wanted, by: Stored) -> Wanted:
    key, spec, metadata = wanted
    owner = {"apiVersion": "bessemer.dev/v1alpha1", "kind": by.key.kind, "name": by.key.name, "uid": by.uid}
    return key, spec, {**metadata, "ownerReferences": [owner]}


async def test_who_may_not_take_tells_nothing(store: Store) -> None:
    made = await workload(store)
    with pytest.raises(Forbidden):
        await store.capacity.take([claim("a")], ALICE, tells=telling(made))
    assert await store.objects.get(Key("Thing", PROJECT, "a")) == made


async def test_what_was_told_before_its_first_status_is_told_once_more(store: Store) -> None:
    made = await workload(store)
    await store.events.emit(made.key, made.uid, "Placed", "it has a place")
    taken, _ = await store.capacity.take([claim("a", devices=("gpu-0",))], CONTROLLER, tells=telling(made))
    (event,) = (await store.objects.list(Scope(kind="Event"))).items
    assert read(event)["count"] == 2
    assert (await standing(store))[0] == 1
    assert [row.claim for row in await store.capacity.devices() if row.claim] == [taken.uid]

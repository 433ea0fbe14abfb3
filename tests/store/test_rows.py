"""What the rows of the trail say, and who finds which."""

from __future__ import annotations

import json
from typing import Any

from bessemer.core.clock import FakeClock
from bessemer.core.ports import CONTROLLER, AuditFilter, Writer
from bessemer.core.resource import Key
from bessemer.store import Store
from bessemer.store.difference import BYTES_MAX
from tests.store.make import ALICE, PROJECT, body, claim, inventory
from tests.store.trail import town as town  # noqa: PLC0414

# --- what rows say --------------------------------------------------------------------------------------------------


async def changes(store: Store) -> list[Any]:
    return [json.loads(row.change) for row in await store.audit.rows()]


async def test_a_row_says_what_was_before_and_after(store: Store) -> None:
    labels = {"a": "1"}
    await store.objects.create(body("Thing", "a", spec={"size": 1, "gone": [1]}, labels=labels), ALICE)
    await store.objects.replace(body("Thing", "a", spec={"size": 2, "new": {"x": None}}, labels=labels), ALICE)
    await store.objects.replace(body("Thing", "a", spec={"size": 2, "new": {"x": None}}), ALICE)
    await store.objects.delete(Key("Thing", PROJECT, "a"), ALICE)
    assert await changes(store) == [
        {"after": {"metadata": {"labels": {"a": "1"}}, "spec": {"size": 1, "gone": [1]}}},
        {
            "after": {"spec": {"size": 2, "gone": None, "new": {"x": None}}},
            "before": {"spec": {"size": 1, "gone": [1], "new": None}},
        },
        {"after": {"metadata": None}, "before": {"metadata": {"labels": {"a": "1"}}}},
        {"before": {"spec": {"size": 2, "new": {"x": None}}}},
    ]


async def test_a_claim_and_a_status_by_hand_are_told_too(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    (taken,) = await store.capacity.take([claim("a")], CONTROLLER)
    await store.capacity.amend(taken.key, {"stop": True}, CONTROLLER)
    await store.objects.create(body("Thing", "a"), ALICE)
    thing = body("Thing", "a") | {"status": {"phase": "Ready"}}
    await store.objects.replace(thing, Writer("system", "api"), part="status")
    take, amend, _, status = await changes(store)
    assert take["after"]["spec"]["host"] == "h1"
    assert amend == {"after": {"spec": {"intent": {"stop": True}}}, "before": {"spec": {"intent": {"stop": None}}}}
    assert status == {"after": {"status": {"phase": "Ready"}}, "before": {"status": {"phase": None}}}


async def test_a_long_change_is_cut_to_names_size_and_digest(store: Store) -> None:
    await store.objects.create(body("Thing", "a", spec={"small": 1, "long": "x" * BYTES_MAX}), ALICE)
    ((cut,),) = [change["after"].values() for change in await changes(store)]
    assert cut["fields"] == ["spec.small", "spec.long"]
    assert cut["bytes"] > BYTES_MAX
    assert len(cut["sha256"]) == 64


async def test_the_copy_that_kubectl_keeps_is_left_out(store: Store) -> None:
    copy = {"kubectl.kubernetes.io/last-applied-configuration": '{"password": "hunter2"}', "mine": "1"}
    await store.objects.create(body("Thing", "a", annotations=copy), ALICE)
    ((change,)) = await changes(store)
    assert "hunter2" not in json.dumps(change)
    assert change["after"]["metadata"]["annotations"]["mine"] == "1"


# --- who finds what -------------------------------------------------------------------------------------------------


async def test_rows_are_found_by_who_what_whose_and_when(store: Store, clock: FakeClock) -> None:
    bob = Writer("user", "bob", source="10.0.0.9")
    await store.objects.create(body("Thing", "a"), ALICE)
    await clock.advance(10)
    await store.objects.create(body("Thing", "b", namespace="other--lab"), bob)
    await store.objects.create(body("Tenant", "acme", namespace=""), bob)
    await store.objects.create(body("Project", "other--lab", namespace=""), bob)
    await clock.advance(10)
    await store.audit.deny(bob, "delete", Key("Thing", PROJECT, "a"), "not yours")
    now = clock.now()

    async def ids(**wanted: Any) -> list[int]:
        rows, _ = await store.audit.find(AuditFilter(**wanted))
        return [row.id for row in rows]

    assert await ids() == [5, 4, 3, 2, 1]
    assert await ids(who="bob") == await ids(who="user:bob") == [5, 4, 3, 2]
    assert await ids(verb="delete") == await ids(allowed=False) == [5]
    assert await ids(kind="Thing") == [5, 2, 1]
    assert await ids(kind="Thing", namespace=PROJECT, name="a") == [5, 1]
    assert await ids(tenant="acme") == [5, 3, 1]
    assert await ids(tenant="other") == [4, 2]
    assert await ids(tenant="nobody") == []
    assert await ids(since=now - 10, until=now) == [4, 3, 2]
    rows, more = await store.audit.find(AuditFilter(), limit=2)
    assert [row.id for row in rows] == [5, 4]
    assert [row.id for row in (await store.audit.find(AuditFilter(), before=more))[0]] == [3, 2, 1]

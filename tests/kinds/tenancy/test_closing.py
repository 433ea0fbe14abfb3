"""A tenant's life: suspended it keeps what it has, closed it loses everything in order, once, with a receipt."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any

import orjson
import pytest

from bessemer.core.errors import QuotaExceeded, Walled
from bessemer.core.resource import Metadata
from bessemer.kinds import KINDS
from bessemer.kinds.tenancy.closing import FIRST, Receipt, order
from bessemer.kinds.tenancy.tenant import Tenant, TenantSpec, TenantStatus, validate
from tests.kinds.five import Life, check_lives_through, distinct, in_each_setting
from tests.kinds.points import Point
from tests.kinds.world import PROJECT, World

INSTANCE = {"flavor": "small", "image": "micro"}
ENDPOINT = {"model": "smol", "flavor": "serve", "replicas": 1}


async def furnished(world: World) -> None:
    await world.create("Instance", "vm", INSTANCE)
    await world.create("Endpoint", "chat", ENDPOINT)
    await world.create("ApiKey", "app", {})
    await world.create("Project", "acme--empty", {}, namespace="")
    await world.until_ready("Instance", "vm")
    await world.until_ready("Endpoint", "chat")


async def state(world: World, word: str) -> None:
    await world.patch("Tenant", "acme", namespace="", state=word)


async def tenant(world: World) -> dict[str, Any]:
    found = await world.object("Tenant", "acme", namespace="")
    assert found is not None
    return found


async def closed(world: World) -> dict[str, Any]:
    await world.until_reason("Tenant", "acme", "Closed", namespace="")
    receipt: dict[str, Any] = (await tenant(world))["status"]["receipt"]
    return receipt


async def test_what_a_suspended_tenant_has_goes_on_and_nothing_new_comes() -> None:
    async with World() as world:
        await furnished(world)
        await state(world, "Suspended")
        said = await world.until_reason("Tenant", "acme", "Suspended", namespace="")
        assert said["status"] == "False"
        words = "tenant acme is suspended: what it has goes on, nothing new is made; an administrator of the platform"
        for kind, name, spec, namespace in (
            ("Instance", "vm2", INSTANCE, PROJECT),
            ("ApiKey", "app2", {}, PROJECT),
            ("Project", "acme--more", {}, ""),
        ):
            with pytest.raises(Walled, match=words):
                await world.create(kind, name, spec, namespace=namespace)
        await world.patch("Endpoint", "chat", replicas=2)
        waits = await world.until_reason("Endpoint", "chat", "Degraded")
        assert "1 of 2 replicas answer: tenant acme is suspended" in waits["message"]
        assert (await world.condition("Instance", "vm"))["status"] == "True"
        await world.delete("ApiKey", "app")
        await world.until_gone("ApiKey", "app")
        await state(world, "Active")
        await world.until_ready("Endpoint", "chat")
        await world.create("ApiKey", "app", {})


async def test_a_closed_tenant_is_released_in_order_with_a_receipt() -> None:
    async with World() as world:
        await furnished(world)
        uid = (await world.object("Project", PROJECT, namespace="") or {})["metadata"]["uid"]
        await state(world, "Closed")
        receipt = await closed(world)
        assert [(one["kind"], one["count"]) for one in receipt["released"] if one["count"]] == [
            ("Endpoint", 1),
            ("Instance", 1),
            ("ApiKey", 1),
            ("Project", 2),
        ]
        times = [one["at"] for one in receipt["released"]]
        assert times == sorted(times)
        assert all(one["began"] <= one["at"] <= receipt["closedAt"] for one in receipt["released"])
        assert [account["project"] for account in receipt["accounts"]] == ["acme--empty", PROJECT]
        rows = [entry for entry in await world.store.ledger.entries() if entry.project_uid == uid]
        account = receipt["accounts"][1]
        assert (account["projectUid"], account["ledgerRows"]) == (uid, len(rows))
        assert account["totalMicro"] == 0, "there is no plan, and so no price"
        digest = receipt.pop("digest")
        assert (
            digest == hashlib.sha256(orjson.dumps({**receipt, "digest": ""}, option=orjson.OPT_SORT_KEYS)).hexdigest()
        )
        assert await world.bodies("Project") == []
        await world.check_clean()
        assert [use for use in await world.store.capacity.use("tenant/acme") if use.used] == []
        before = await tenant(world)
        await world.crash()
        await world.delete("Tenant", "acme", namespace="")
        await world.until_gone("Tenant", "acme", namespace="")
        assert before["status"]["phase"] == "Closed"


async def life(stop: Point | None) -> Life:
    """Closed amid its work, perhaps with a stop."""
    async with World(stop=stop) as world:
        await world.create("Endpoint", "chat", ENDPOINT)
        await world.create("ApiKey", "app", {})
        await world.until_ready("Endpoint", "chat")
        await state(world, "Closed")
        receipt = await closed(world)
        counts = {one["kind"]: one["count"] for one in receipt["released"] if one["count"]}
        assert counts == {"Endpoint": 1, "ApiKey": 1, "Project": 1}
        assert len(receipt["accounts"]) == 1
        await world.check_clean()
        return Life(world.points.names, world.crashes)


def late(names: Sequence[Hashable]) -> Sequence[int]:
    """What comes once the tenant is closed, roughly: how its workloads come to be is the others' to stop."""
    return [index for index in distinct(names) if index > len(names) * 2 // 3]


async def test_a_closing_goes_on_after_a_stop() -> None:
    await check_lives_through(life, chosen=late)


@pytest.mark.long
async def test_a_closing_goes_on_wherever_it_was_stopped() -> None:
    await check_lives_through(life, chosen=in_each_setting)


async def test_a_closing_that_cannot_go_on_says_what_holds_it() -> None:
    async with World() as world:
        await world.create("Instance", "vm", INSTANCE)
        await world.until_ready("Instance", "vm")
        found = await world.object("Instance", "vm")
        assert found is not None
        host = world.hosts[found["status"]["host"]]
        host.silent = True
        await world.crash()
        await state(world, "Closed")

        async def stuck() -> bool:
            said = await tenant(world)
            return any(c["type"] == "Stuck" and c["status"] == "True" for c in said["status"].get("conditions", ()))

        await world.until(stuck, seconds=3000)
        status = (await tenant(world))["status"]
        assert status["phase"] == "Closing"
        assert f"1 of Instance is being released, {PROJECT}/vm first" in status["message"]
        host.silent = False
        await world.crash()
        await closed(world)


async def test_nothing_is_made_in_a_tenant_that_is_closed() -> None:
    async with World() as world:
        await world.create("ApiKey", "app", {})
        await state(world, "Closed")
        receipt = await closed(world)
        assert receipt["digest"]
        with pytest.raises(Walled, match="tenant acme is closed: nothing new is made"):
            await world.create("Project", PROJECT, {}, namespace="")


def test_the_word_of_the_receipt_is_final() -> None:
    spec = TenantSpec(state="Closed")
    done = Tenant(metadata=Metadata(name="a"), spec=spec, status=TenantStatus(receipt=Receipt(digest="ab")))
    for word in ("Active", "Suspended"):
        again = Tenant(metadata=Metadata(name="a"), spec=TenantSpec(state=word))  # type: ignore[arg-type]
        assert [cause.field for cause in validate(again, done)] == ["spec.state"]
        half = done.model_copy(update={"status": TenantStatus(receipt=Receipt())})
        assert validate(again, half) == []


def test_every_kind_of_a_project_has_its_place_in_the_order() -> None:
    kinds = list(order())
    assert kinds[: len(FIRST)] == list(FIRST)
    assert len(kinds) == len(set(kinds))
    assert set(kinds) == {kind.name for kind in KINDS if kind.namespaced} - {"Event"}


async def test_a_quota_that_is_stated_holds_before_anybody_looks() -> None:
    async with World() as world:
        await world.patch("Tenant", "acme", namespace="", quota={"instances": 0})
        with pytest.raises(QuotaExceeded):
            await world.create("Instance", "vm", INSTANCE)

"""Claim: written by the port that takes the hardware, spoken for by its host's agent, read by its tenant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from bessemer.core.errors import Conflict, Forbidden
from bessemer.core.ports import CONTROLLER, Writer
from bessemer.core.resource import READ, Key
from bessemer.kinds.fleet.claim import KIND
from tests.api.world import BASE, instance
from tests.api.world import World as ApiWorld
from tests.kinds.five import THEIRS, Case, Life, check_is_denied_to_another_tenant, check_lives_through
from tests.kinds.fleet.yard import ADMIN, PROJECT, Yard
from tests.kinds.points import Point
from tests.kinds.world import World
from tests.placement.hosts import inventory

VM = Key("Claim", PROJECT, "vm")


async def claimed(yard: Yard) -> dict[str, Any]:
    await yard.host("h1", inventory(gpus=1))
    await yard.advance(20)
    await yard.take("vm", "h1", devices=["gpu0"])
    return await yard.body("Claim", "vm")


async def test_converges() -> None:
    async with Yard() as yard:
        body = await claimed(yard)
        said = {**body, "status": {"phase": "Running", "address": "unix:/run/x"}}
        await yard.store.objects.replace(said, Writer("agent", "h1"), part="status")
        shown = {column.name: column.value(await yard.body("Claim", "vm")) for column in KIND.columns}
        assert (shown["Phase"], shown["Workload"], shown["Host"]) == ("Running", "Instance/vm", "h1")
        assert (shown["Cores"], shown["Memory"], shown["GPUs"]) == ("1", "1 GiB", 1)


async def test_converges_when_run_twice() -> None:
    async with Yard() as yard:
        body = await claimed(yard)
        revision = yard.store.revision
        await yard.take("vm", "h1", devices=["gpu0"])
        assert yard.store.revision == revision, "taken once"
        assert await yard.body("Claim", "vm") == body


async def live(stop: Point | None) -> Life:
    """Taken for an Instance, spoken for by its host's agent, amended, retired and released."""
    async with World(stop=stop) as world:
        await world.create("Instance", "vm", {"flavor": "small", "image": "micro"})
        await world.until_ready("Instance", "vm")
        await world.patch("Instance", "vm", running=False)
        await world.until_reason("Instance", "vm", "Stopped")
        await world.delete("Instance", "vm")
        await world.until_gone("Instance", "vm")
        await world.check_clean()
        written = {name for name in world.points.names["commit"] if is_of_claims(name)}
        assert written >= {f"capacity.{step}" for step in ("take", "amend Claim", "retire Claim", "release Claim")}
        return Life(world.points.names, world.crashes)


def is_of_claims(name: str) -> bool:
    return name.startswith("capacity.") or name == "objects.replace Claim"


def of_claims(names: Sequence[str]) -> Sequence[int]:
    """Every write of a Claim: the port's that takes the hardware, and the word of its host's agent."""
    return [index for index, name in enumerate(names) if is_of_claims(name)]


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    """It has no control side here, and what its host does for it is its workload's to live through: these write it."""
    await check_lives_through(live, chosen=of_claims)


async def test_deletes_cleanly() -> None:
    async with Yard() as yard:
        await claimed(yard)
        with pytest.raises(Conflict):
            await yard.store.capacity.release(VM, CONTROLLER)
        await yard.store.capacity.retire(VM, CONTROLLER)
        assert "deletionTimestamp" in (await yard.body("Claim", "vm"))["metadata"]
        await yard.end("vm", "h1")
        assert not await yard.there("Claim", "vm")
        assert [use.claim for use in await yard.store.capacity.devices()] == [""]
        rows = [row.state or row.kind for row in await yard.store.ledger.entries()]
        assert rows == ["deploying", "lost", "close"], "from Gone to the release nobody pays"


async def taken(w: ApiWorld) -> str:
    """The Claim of an Instance of the project that is not the stranger's."""
    await w.host("h1")
    await w.create(f"{BASE}/namespaces/{THEIRS}/instances", instance("theirs"))
    return (await w.claim("theirs", "h1", THEIRS)).key.name


async def test_is_denied_to_another_tenant() -> None:
    assert KIND.readonly
    assert "anyone" not in KIND.rights, "roles are held in the tenant that owns it"
    for role in ("admin", "tenant-admin", "member", "reader", "gateway"):
        assert set(KIND.rights[role]) == set(READ)
    await check_is_denied_to_another_tenant(Case("Claim", "theirs"), make=taken)


async def test_nobody_writes_it_but_the_port_and_its_own_agent() -> None:
    async with Yard() as yard:
        body = await claimed(yard)
        for writer in (ADMIN, CONTROLLER, Writer("agent", "h2"), Writer("gateway", "gateway")):
            with pytest.raises(Forbidden):
                await yard.store.objects.replace({**body, "status": {"phase": "Gone"}}, writer, part="status")
            with pytest.raises(Forbidden):
                await yard.store.objects.delete(VM, writer)

"""Claim: written by the port that takes the hardware, spoken for by its host's agent, read by its tenant."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.core.errors import Conflict, Forbidden
from bessemer.core.ports import CONTROLLER, Writer
from bessemer.core.resource import READ, Key
from bessemer.kinds.fleet.claim import KIND
from tests.kinds.fleet.yard import ADMIN, PROJECT, Yard
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


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    """It has no control side here; its own crash matrix is its workloads'. A crash of ours leaves it alone."""
    async with Yard() as yard:
        body = await claimed(yard)
        await yard.crash()
        await yard.advance(30)
        assert await yard.body("Claim", "vm") == body


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
        assert [row.kind for row in await yard.store.ledger.entries()][-1] == "close"


async def test_is_denied_to_another_tenant() -> None:
    assert KIND.readonly
    assert "anyone" not in KIND.rights, "roles are held in the tenant that owns it"
    for role in ("admin", "tenant-admin", "member", "reader", "gateway"):
        assert set(KIND.rights[role]) == set(READ)
    async with Yard() as yard:
        body = await claimed(yard)
        for writer in (ADMIN, CONTROLLER, Writer("agent", "h2"), Writer("gateway", "gateway")):
            with pytest.raises(Forbidden):
                await yard.store.objects.replace({**body, "status": {"phase": "Gone"}}, writer, part="status")
            with pytest.raises(Forbidden):
                await yard.store.objects.delete(VM, writer)

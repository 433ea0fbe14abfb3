"""Consolidation: planned, approved, carried out; with real loops and agents on fake drivers, and two tenants."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.core.resource import Metadata
from bessemer.kinds.fleet.consolidation.spec import Consolidation, ConsolidationSpec, validate
from tests.kinds.five import (
    Case,
    Life,
    check_converges,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
    check_lives_through,
    in_each_setting,
)
from tests.kinds.points import Point
from tests.kinds.world import PROJECT, World

THEIRS = "beta--lab"
CASE = Case("Consolidation", "tidy", {"empty": {"hosts": ["h1"]}, "approved": True}, namespace="", reason="Succeeded")


async def furnish(world: World) -> None:
    """Another tenant, and flavors with GPUs."""
    await world.create("Tenant", "beta", {}, namespace="")
    await world.create("Project", THEIRS, {}, namespace="")
    for name, count in (("one", 1), ("two", 2)):
        spec = {"cores": 1, "memory": "1Gi", "disk": "1Gi", "devices": {"model": "H100", "count": count}}
        await world.create("Flavor", name, spec, namespace="")
    await world.until_ready("Project", THEIRS, namespace="")


async def vm(world: World, name: str, *, namespace: str = PROJECT, on: str = "", **spec: Any) -> None:
    """An Instance that runs, on the one host that is open."""
    await world.create("Instance", name, {"flavor": "one", "image": "micro", **spec}, namespace=namespace)
    await world.until_ready("Instance", name, namespace=namespace)
    assert not on or (await status(world, "Instance", name, namespace=namespace))["host"] == on


async def alone(world: World, host: str) -> None:
    """No other host takes anybody."""
    for name in world.hosts:
        await world.patch("Host", name, namespace="", unschedulable=name != host)
        await world.until_ready("Host", name, namespace="")


async def all_open(world: World) -> None:
    for name in world.hosts:
        await world.patch("Host", name, namespace="", unschedulable=False)
        await world.until_reason("Host", name, "Ready", namespace="")


async def status(world: World, kind: str, name: str, *, namespace: str = PROJECT) -> dict[str, Any]:
    found = await world.object(kind, name, namespace=namespace)
    assert found is not None
    return found.get("status", {})


async def ended(world: World, name: str = "tidy") -> dict[str, Any]:
    async def holds() -> bool:
        return (await status(world, "Consolidation", name, namespace="")).get("phase") in ("Succeeded", "Failed")

    await world.until(holds, seconds=3000)
    return await status(world, "Consolidation", name, namespace="")


async def hosts_of(world: World) -> dict[str, str]:
    """Claim → host, of what stands."""
    found = await world.bodies("Claim")
    return {c["metadata"]["name"]: c["spec"]["host"] for c in found if "deletionTimestamp" not in c["metadata"]}


# --- the five ---------------------------------------------------------------------------------------------------


async def test_converges() -> None:
    found = await check_converges(CASE)
    assert found["status"]["hosts"] == ["h1"]
    assert found["status"]["moves"] == 0


async def test_converges_when_run_twice() -> None:
    await check_converges_when_run_twice(CASE)


async def a_move(stop: Point | None) -> Life:
    """Two tenants' guests stand on two hosts, and one goes to the other's, so that two devices are free together."""
    async with World(hosts=2, gpus=2, stop=stop) as world:
        await furnish(world)
        await alone(world, "h1")
        await vm(world, "mine", movable=True)
        await alone(world, "h2")
        await vm(world, "theirs", namespace=THEIRS)
        await all_open(world)
        await world.create("Consolidation", "tidy", {"open": {"flavor": "two"}, "approved": True}, namespace="")
        assert (await ended(world))["phase"] == "Succeeded"
        assert await hosts_of(world) == {"instance-mine-0": "h2", "instance-theirs-0": "h2"}
        await world.until_ready("Instance", "mine")
        for kind, name, namespace in (
            ("Consolidation", "tidy", ""),
            ("Instance", "mine", PROJECT),
            ("Instance", "theirs", THEIRS),
        ):
            await world.delete(kind, name, namespace=namespace)
            await world.until_gone(kind, name, namespace=namespace)
        await world.check_clean()
        return Life(world.points.names, world.crashes)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await check_lives_through(a_move, chosen=in_each_setting)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(CASE)


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE)

"""Workloads that have a device in part, both sides together: placed, taken, run, counted, billed and given back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from bessemer.core.hosts import Device
from bessemer.core.ports import Writer
from bessemer.core.units import GIB
from bessemer.store.sharing import SHARED
from tests.kinds.five import Life, Point, check_lives_through, distinct
from tests.kinds.world import World

QUARTER = {"cores": 1, "memory": "4Gi", "devices": {"count": 1, "model": "H100", "share": "0.25"}}
SEVENTH = {"cores": 1, "memory": "4Gi", "devices": {"count": 1, "profile": "1g.10gb"}}
HALF = {"cores": 1, "memory": "4Gi", "devices": {"count": 1, "profile": "3g.40gb"}}
WHOLE = {"cores": 1, "memory": "4Gi", "devices": {"count": 1}}
FLAVORS = {"quarter": QUARTER, "seventh": SEVENTH, "half": HALF, "whole": WHOLE}


async def furnish(world: World) -> None:
    for name, spec in FLAVORS.items():
        await world.create("Flavor", name, spec, namespace="")


async def endpoint(world: World, flavor: str, *, replicas: int, name: str = "chat") -> None:
    await world.create("Endpoint", name, {"model": "smol", "flavor": flavor, "replicas": replicas})


async def on_devices(world: World) -> Counter[str]:
    """How many claims have something of each device."""
    return Counter(device for claim in await world.bodies("Claim") for device in claim["spec"]["devices"])


async def uses(world: World) -> dict[str, int]:
    found = await world.store.capacity.use("tenant/acme")
    return {use.meter: use.used for use in found if use.meter.partition("/")[0] in ("devices", "shares") and use.used}


async def test_four_replicas_share_a_device_and_the_fifth_waits() -> None:
    async with World(gpus=1) as world:
        await furnish(world)
        await endpoint(world, "quarter", replicas=4)
        await world.until_ready("Endpoint", "chat")
        assert await on_devices(world) == {"gpu-0": 4}
        assert [use.claim for use in await world.store.capacity.devices()] == [SHARED]
        assert await uses(world) == {"devices/H100": 1, "devices/*": 1, "shares/H100": 1000, "shares/*": 1000}
        rows = [row for row in await world.store.ledger.entries() if row.kind == "open"]
        assert [(row.devices, row.device_milli, row.device_model) for row in rows] == [(1, 250, "H100")] * 4
        await endpoint(world, "quarter", replicas=1, name="late")
        said = await world.until_reason("Endpoint", "late", "Unschedulable")
        assert "short of 0.25 H100" in said["message"]
        await world.patch("Endpoint", "chat", replicas=3)
        await world.until_ready("Endpoint", "late")


async def test_instances_of_one_device_are_made_where_they_may_begin() -> None:
    async with World(gpus=1) as world:
        await furnish(world)
        await endpoint(world, "half", replicas=1)
        await endpoint(world, "seventh", replicas=3, name="small")
        await world.until_ready("Endpoint", "chat")
        await world.until_ready("Endpoint", "small")
        specs: list[dict[str, Any]] = [claim["spec"] for claim in await world.bodies("Claim")]
        stands = {(spec["deviceProfile"], spec.get("deviceStart", 0), spec["deviceMilli"]) for spec in specs}
        assert len(stands) == 4
        assert {profile for profile, _, _ in stands} == {"3g.40gb", "1g.10gb"}
        assert {milli for _, _, milli in stands} == {500, 125}
        await endpoint(world, "whole", replicas=1, name="late")
        said = await world.until_reason("Endpoint", "late", "Unschedulable")
        assert "short of 1 GPU" in said["message"]
        for name in ("chat", "small"):
            await world.delete("Endpoint", name)
        await world.until_ready("Endpoint", "late")
        assert await uses(world) == {"devices/H100": 1, "devices/*": 1}


async def test_a_host_that_keeps_nothing_apart_shares_nothing_and_the_refusal_says_so() -> None:
    async with World(gpus=1) as world:
        host = world.hosts["h1"]
        host.inventory = host.inventory.model_copy(update={"sharing": "none", "partitions": {}})
        said = {**(await world.object("Host", "h1", namespace="") or {})}
        del said["metadata"]["resourceVersion"]
        said["status"]["report"] = host.inventory.dump()
        await world.store.objects.replace(said, Writer("agent", "h1"), part="report")
        await furnish(world)
        for flavor, words in (("quarter", "whose devices cannot be shared"), ("half", "without 3g.40gb of GPU")):
            await endpoint(world, flavor, replicas=1, name=flavor)
            waits = await world.until_reason("Endpoint", flavor, "Unschedulable")
            assert words in waits["message"]
        assert await world.bodies("Claim") == []


async def live(stop: Point | None) -> Life:
    async with World(stop=stop, gpus=1) as world:
        await furnish(world)
        await endpoint(world, "quarter", replicas=2)
        await world.create("Instance", "vm", {"flavor": "quarter", "image": "micro"})
        await world.until_ready("Endpoint", "chat")
        await world.until_ready("Instance", "vm")
        assert await on_devices(world) == {"gpu-0": 3}
        assert (await uses(world))["shares/H100"] == 750
        for kind, name in (("Endpoint", "chat"), ("Instance", "vm")):
            await world.delete(kind, name)
            await world.until_gone(kind, name)
        await world.check_clean()
        return Life(world.points.names, world.crashes)


def taking(names: Sequence[str]) -> Sequence[int]:
    """The first and the last of each call that takes, changes or gives back."""
    return [index for index in distinct(names) if names[index].startswith("capacity")]


async def test_it_lives_through_a_crash_at_each_commit_of_what_it_takes_and_gives_back() -> None:
    await check_lives_through(live, chosen=taking)


@pytest.mark.long
async def test_it_lives_through_a_crash_at_each_commit_and_driver_call() -> None:
    await check_lives_through(live, chosen=distinct)


async def test_a_share_in_bytes_is_of_each_model_the_thousandths_that_hold_it() -> None:
    world = World(hosts=2, gpus=1)
    for name, model, memory in (("h1", "H100", 80 * GIB), ("h2", "A100", 40 * GIB)):
        host = world.hosts[name]
        device = Device(id="gpu-0", kind="gpu", model=model, memory_bytes=memory)
        host.inventory = host.inventory.model_copy(update={"devices": [device]})
    async with world:
        sized = {"cores": 1, "memory": "1Gi", "devices": {"count": 1, "memory": "20Gi"}}
        await world.create("Flavor", "sized", sized, namespace="")
        await endpoint(world, "sized", replicas=6)
        await world.until_ready("Endpoint", "chat")
        specs: list[dict[str, Any]] = [claim["spec"] for claim in await world.bodies("Claim")]
        found = Counter((spec["host"], spec["deviceModel"], spec["deviceMilli"]) for spec in specs)
        assert found == {("h1", "H100", 250): 4, ("h2", "A100", 500): 2}
        assert {spec["asked"]["deviceBytes"] for spec in specs} == {20 * GIB}
        counted = await uses(world)
        assert (counted["shares/H100"], counted["shares/A100"], counted["devices/*"]) == (1000, 1000, 2)
        rows = [row for row in await world.store.ledger.entries() if row.kind == "open"]
        assert Counter((row.device_model, row.device_milli) for row in rows) == {("H100", 250): 4, ("A100", 500): 2}
        await endpoint(world, "sized", replicas=1, name="late")
        said = await world.until_reason("Endpoint", "late", "Unschedulable")
        assert "2 hosts: short of 20 GiB of one GPU (at most 0 B free on one)" in said["message"]
        await world.patch("Endpoint", "chat", replicas=5)
        await world.until_ready("Endpoint", "late")

"""NVLink partitions from what a host reports to what claims hold."""

from __future__ import annotations

from tests.kinds.world import World

PAIR = {"cores": 1, "memory": "1Gi", "devices": {"count": 2, "model": "H100", "together": ["nvlink"]}}
SINGLE = {"cores": 1, "memory": "1Gi", "devices": {"count": 1, "model": "H100"}}
OFFERED = [["gpu-0", "gpu-3"], ["gpu-1", "gpu-2"]]


async def test_guests_have_a_partition_each_or_wait_for_one() -> None:
    world = World(gpus=4)
    host = world.hosts["h1"]
    host.inventory = host.inventory.model_copy(update={"nvlink_partitions": OFFERED})
    async with world:
        for name, spec in (("pair", PAIR), ("single", SINGLE)):
            await world.create("Flavor", name, spec, namespace="")
        reported = (await world.object("Host", "h1", namespace="") or {})["status"]["report"]
        assert reported["nvlinkPartitions"] == OFFERED
        for name in ("first", "second"):
            await world.create("Instance", name, {"flavor": "pair", "image": "micro"})
            await world.until_ready("Instance", name)
        by_guest = {
            claim["spec"]["workload"]["name"]: sorted(claim["spec"]["devices"]) for claim in await world.bodies("Claim")
        }
        assert sorted(by_guest.values()) == OFFERED
        await world.delete("Instance", "first")
        await world.until_gone("Instance", "first")
        await world.create("Instance", "one", {"flavor": "single", "image": "micro"})
        await world.until_ready("Instance", "one")
        await world.create("Instance", "late", {"flavor": "pair", "image": "micro"})
        said = await world.until_reason("Instance", "late", "Unschedulable")
        assert "1 host: short of 2 H100 (1 free)" in said["message"]
        await world.delete("Instance", "second")
        await world.until_gone("Instance", "second")
        await world.until_ready("Instance", "late")
        late = max((sorted(claim["spec"]["devices"]) for claim in await world.bodies("Claim")), key=len)
        assert late == by_guest["second"], "of three that are free the two that are offered"

"""Gangs of 64 on 200 fake hosts under 13 leaves, that want more than there is: each has all of its members or none."""

from __future__ import annotations

from collections import defaultdict

import pytest

from bessemer.core.ports import Bookmark, Scope
from bessemer.core.resource import Change
from bessemer.core.values import Inventory
from bessemer.drivers.inspect.fake import FakeInspect
from bessemer.drivers.jobs.fake import Fate
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.kinds.jobs.job import place as placing
from bessemer.kinds.jobs.job.spec import Job
from tests.kinds.jobs.test_job import fates, status_of, until_free, until_phase
from tests.kinds.world import World

HOSTS, MEMBERS = 200, 64
SPEC = {
    "flavor": "h100.8",
    "members": MEMBERS,
    "script": "train",
    "topology": {"level": "spine", "perHost": 1},
    "tolerations": [{"key": "bessemer.dev/fake"}],
}


class Fabric(World):
    """A world whose hosts are those of `FakeInspect`, in their racks, leaves and spines."""

    async def __aenter__(self) -> Fabric:
        for ordinal, host in enumerate(self.hosts.values()):
            host.inventory = await FakeInspect(ordinal).inventory()
        await super().__aenter__()
        flavor = {"cores": 64, "memory": "256Gi", "devices": {"count": 8, "model": "H100-SXM5-80GB"}}
        await self.create("Flavor", "h100.8", flavor, namespace="")
        return self


async def added(world: World) -> dict[str, list[int]]:
    """By job: the revisions at which its Claims came to be."""
    found: dict[str, list[int]] = defaultdict(list)
    async for change in world.store.objects.watch(Scope(kind="Claim"), since=0, level=True):
        if isinstance(change, Bookmark):
            return found
        if change.type == "ADDED":
            found[change.key.name.split("-")[1]].append(change.revision)
    return found


async def test_four_gangs_of_64_share_200_hosts() -> None:
    async with Fabric(hosts=HOSTS, fake=True) as world:
        fates(world, lambda _member: Fate(300.0))
        for name in "abcd":
            await world.create("Job", name, SPEC)

        async def three() -> bool:
            return sorted([(await status_of(world, n)).get("phase") for n in "abcd"]) == ["Pending", *["Running"] * 3]

        await world.until(three)
        waits = next(n for n in "abcd" if (await status_of(world, n))["phase"] == "Pending")
        held: dict[str, set[str]] = defaultdict(set)
        for claim in await world.bodies("Claim"):
            held[claim["spec"]["workload"]["name"]].add(claim["spec"]["host"])
        assert {name: len(hosts) for name, hosts in held.items()} == dict.fromkeys(set("abcd") - {waits}, MEMBERS)
        for name in held:
            status = await status_of(world, name)
            assert status["leaves"] <= 5, "64 hosts lie under 4 leaves of 16 at best"
        for name in "abcd":
            await until_phase(world, "Succeeded", name)
        await until_free(world)
        came = await added(world)
        assert {name: (len(at), len(set(at))) for name, at in came.items()} == dict.fromkeys("abcd", (MEMBERS, 1)), (
            "each gang's Claims came in one transaction"
        )

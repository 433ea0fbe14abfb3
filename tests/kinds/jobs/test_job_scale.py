"""Gangs on many fake hosts under leaves and spines that want more than there is: each has all its members or none."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest

from bessemer.core.ports import Bookmark, Scope
from bessemer.drivers.inspect.fake import FakeInspect
from bessemer.drivers.jobs.fake import Fate
from bessemer.drivers.oidc.fake import FakeIssuers
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.kinds.jobs.job.place import place
from bessemer.kinds.jobs.job.spec import Job
from tests.kinds.jobs.test_job import fates, status_of, until_free, until_phase
from tests.kinds.world import World


def spec(members: int) -> dict[str, object]:
    """A gang of whole hosts, near each other."""
    return {
        "flavor": "h100.8",
        "members": members,
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


@pytest.mark.parametrize(("hosts", "members"), [(13, 4), pytest.param(200, 64, marks=pytest.mark.long)])
async def test_four_gangs_share_hosts_for_three(hosts: int, members: int) -> None:
    """They come at once; three have all that they want, the fourth holds nothing until one of them has ended."""
    async with Fabric(hosts=hosts, fake=True) as world:
        fates(world, lambda _member: Fate(100.0))
        for name in "abcd":
            await world.create("Job", name, spec(members))

        async def three() -> bool:
            return sorted(await phases(world)) == ["Pending", *["Running"] * 3]

        await world.until(three)
        held: dict[str, set[str]] = defaultdict(set)
        for claim in await world.bodies("Claim"):
            held[claim["spec"]["workload"]["name"]].add(claim["spec"]["host"])
        assert [len(on) for on in held.values()] == [members] * 3
        for name in held:
            status = await status_of(world, name)
            assert 1 <= status["leaves"] <= members // 16 + 2, "16 hosts are under a leaf"
            assert len(status["hosts"]) == members
        for name in "abcd":
            await until_phase(world, "Succeeded", name)
        await until_free(world)
        came = await added(world)
        assert {name: len(at) for name, at in came.items()} == dict.fromkeys("abcd", members)
        assert all(max(at) - min(at) == members - 1 for at in came.values()), (
            "nothing else came between a gang's Claims"
        )
        billed = [row.devices for row in await world.store.ledger.entries() if row.kind == "open"]
        assert billed == [8] * (4 * members)


async def phases(world: World) -> list[str]:
    return [(await status_of(world, name)).get("phase", "") for name in "abcd"]


async def test_of_two_that_decide_for_the_same_hosts_one_has_all_and_the_other_none() -> None:
    """Two control planes with arrays of their own, between a decision and its transaction."""
    async with Fabric(hosts=4, fake=True) as world:
        for name in "ab":
            await world.create("Job", name, {**spec(3), "flavor": "none"})
        store, feeds = world.store, [FleetFeed(world.store.objects, world.clock) for _ in range(2)]
        contexts = [
            Context(
                objects=store.objects,
                capacity=store.capacity,
                ledger=store.ledger,
                leases=store.leases,
                fleet=feed,
                importer=world.importer,
                issuers=FakeIssuers(),
                clock=world.clock,
            )
            for feed in feeds
        ]
        running = [asyncio.create_task(feed.run()) for feed in feeds]

        async def read() -> bool:
            return all(feed.ready() for feed in feeds)

        await world.until(read)
        jobs = [Job.model_validate(await world.object("Job", name)) for name in "ab"]
        made = [job.model_copy(update={"spec": job.spec.model_copy(update={"flavor": "h100.8"})}) for job in jobs]
        holds = await asyncio.gather(*(place(ctx, job, attempt=0) for ctx, job in zip(contexts, made, strict=True)))
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert sorted(hold.reason if hold else "" for hold in holds) == ["", "Taken"]
        claims = await world.bodies("Claim")
        assert len(claims) == 3
        assert len({claim["spec"]["workload"]["uid"] for claim in claims}) == 1


async def test_members_that_want_the_same_rails_hold_devices_of_them_on_every_host() -> None:
    async with Fabric(hosts=2, fake=True) as world:
        fates(world, lambda _member: Fate(1000.0))
        for count in (2, 3):
            flavor = {"cores": 8, "memory": "32Gi", "devices": {"count": count, "model": "H100-SXM5-80GB"}}
            await world.create("Flavor", f"h100.{count}", flavor, namespace="")
        await world.create("Job", "odd", {**spec(1), "flavor": "h100.3"})
        await until_phase(world, "Running", "odd")
        await world.create("Job", "even", {**spec(2), "flavor": "h100.2", "topology": {"rails": "required"}})
        await until_phase(world, "Running", "even")
        claims = [claim["spec"] for claim in await world.bodies("Claim")]
        one, other = [claim for claim in claims if claim["workload"]["name"] == "even"]
        assert one["host"] != other["host"]
        assert one["devices"] == other["devices"]
        stored = await world.object("Job", "odd")
        assert "rails" not in stored["spec"]["topology"], "what says nothing is not stored"

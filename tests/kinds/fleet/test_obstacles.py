"""What is said where no plan is: which claims stay, why each of them, and what to do; all of it at once."""

from __future__ import annotations

from typing import Any, NamedTuple

from bessemer.core.clock import Clock
from bessemer.core.ports import Capacity, Objects
from bessemer.core.resource import Metadata
from bessemer.kinds.context import Forks
from bessemer.kinds.fleet.consolidation import control
from bessemer.kinds.fleet.consolidation.spec import Consolidation, ConsolidationSpec, ConsolidationStatus
from tests.kinds.fleet.test_consolidation import THEIRS, all_open, alone, furnish, standing, vm
from tests.kinds.world import PROJECT, World


class _Looks(NamedTuple):
    objects: Objects
    capacity: Capacity
    fleet: Forks
    clock: Clock


async def previewed(world: World, **spec: Any) -> ConsolidationStatus:
    """Of the moment; it changes nothing."""
    before = [await world.bodies(kind) for kind in ("Host", "Claim", "Consolidation")]
    asked = Consolidation(metadata=Metadata(name="tidy"), spec=ConsolidationSpec.model_validate(spec))
    store = world.store
    looks = _Looks(store.objects, store.capacity, world.fleet, world.clock)
    found = await control.preview(looks, asked)
    assert [await world.bodies(kind) for kind in ("Host", "Claim", "Consolidation")] == before
    return found


async def test_all_that_stays_is_named_with_why_and_what_to_do() -> None:
    async with World(hosts=2, gpus=5) as world:
        await furnish(world)
        await alone(world, "h2")
        for name in ("x", "y", "z"):
            await vm(world, name)
        await alone(world, "h1")
        await vm(world, "fixed")
        await vm(world, "late")
        await world.patch("Instance", "late", movable=True)
        await world.create("Instance", "large", {"flavor": "three", "image": "micro", "movable": True})
        await world.until_ready("Instance", "large")
        await all_open(world)
        said = (await previewed(world, empty={"hosts": ["h1"]})).message
        assert said.startswith("h1 cannot be emptied; 3 claims cannot go: ")
        assert f"Instance {PROJECT}/fixed on h1 (not movable" in said
        assert f"Instance {PROJECT}/late on h1 (said to be movable only after it was placed)" in said
        nowhere = "no other host takes it: 1 host: short of 3 H100 (2 free)"
        assert f"Instance {PROJECT}/large on h1 ({nowhere})" in said
        assert "`movable: true` in its spec counts for places that are taken from then on" in said
        assert "Make room on other hosts" in said


async def test_a_gang_and_who_would_not_start_again_stay() -> None:
    async with standing({"mine": "h1"}, theirs="h1", gpus=4) as world:
        await alone(world, "h1")
        gang = {"flavor": "one", "script": "sleep 100000", "members": 2, "movable": True}
        await world.create("Job", "gang", gang)
        await world.until_reason("Job", "gang", "Running")
        await all_open(world)
        await world.patch("Tenant", "acme", namespace="", state="Suspended")
        await world.until_reason("Tenant", "acme", "Suspended", namespace="")
        said = (await previewed(world, empty={"hosts": ["h1"]})).message
        stays = "a gang would have to begin anew for the place of one"
        assert f"Job {PROJECT}/gang on h1, Job {PROJECT}/gang on h1 ({stays})" in said
        assert (
            f"Instance {PROJECT}/mine on h1 (once stopped it would not start again: tenant acme is not active)" in said
        )
        assert f"Instance {THEIRS}/theirs on h1 (not movable" in said


async def test_what_stays_is_said_of_open_places_too_and_what_no_host_would_take() -> None:
    async with standing({"fixed": "h1"}, movable=False) as world:
        await alone(world, "h2")
        await vm(world, "other")
        await all_open(world)
        said = (await previewed(world, open={"flavor": "two"})).message
        assert said.startswith("0 of 1 place of Flavor two can be had by 8 moves; 2 claims cannot go: ")
        assert f"Instance {PROJECT}/fixed on h1, Instance {PROJECT}/other on h2 (not movable" in said
        assert "(`--max-moves`)" in said
        said = (await previewed(world, open={"flavor": "three"})).message
        assert said.startswith("no host would take Flavor three, were it empty: 2 hosts: with fewer than 3 H100")
        await world.patch("Host", "h1", namespace="", taints=[{"key": "a/b"}])
        await world.patch("Host", "h2", namespace="", taints=[{"key": "c/d"}])
        for name in ("h1", "h2"):
            await world.until_ready("Host", name, namespace="")
        said = (await previewed(world, open={"flavor": "two"})).message
        assert "1 host: tainted a/b; 1 host: tainted c/d" in said
        assert "`--tolerate`" in said


async def test_all_hosts_that_are_not_there_are_told_at_once() -> None:
    async with World(hosts=1) as world:
        found = await previewed(world, empty={"hosts": ["h1", "h8", "h9"]})
        assert found.message.startswith("there is no Host h8, h9. `bessemer get hosts`")
        assert (found.phase, [c.reason for c in found.conditions]) == ("Pending", ["HostNotFound"])


async def test_a_plan_is_shown_whole() -> None:
    async with standing({"mine": "h1"}) as world:
        found = await previewed(world, empty={"hosts": ["h1"]})
        assert (found.phase, found.hosts, found.moves) == ("Planned", ["h1"], 1)
        assert [(step.claim, step.source, step.target) for step in found.steps] == [("instance-mine-0", "h1", "h2")]

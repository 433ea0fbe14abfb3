"""Consolidation: planned, approved, carried out; with real loops and agents on fake drivers, and two tenants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from bessemer.core.cordons import cordoned
from bessemer.core.resource import Change, Key, Metadata
from bessemer.drivers.jobs.fake import Fate
from bessemer.kinds.fleet.consolidation import carry, control, plan
from bessemer.kinds.fleet.consolidation.plan import target
from bessemer.kinds.fleet.consolidation.spec import (
    Consolidation,
    ConsolidationSpec,
    ConsolidationStatus,
    Step,
    validate,
)
from bessemer.kinds.fleet.host import FAKE_TAINT
from bessemer.kinds.fleet.moving import GONE_MAX, Fork, Moving
from bessemer.placement.fleet import forked
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.moves.plan import Move
from bessemer.placement.thought import Thought
from tests.kinds.five import (
    Case,
    Life,
    check_converges,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
    check_lives_through,
    distinct,
    in_each_setting,
)
from tests.kinds.jobs.test_job import fates
from tests.kinds.jobs.test_job_scale import Fabric
from tests.kinds.points import Point
from tests.kinds.world import PROJECT, USER, World
from tests.placement.hosts import ask, fleet, host
from tests.placement.moves.test_plan import by_criteria, claim

THEIRS = "beta--lab"
CASE = Case("Consolidation", "tidy", {"empty": {"hosts": ["h1"]}, "approved": True}, namespace="", reason="Succeeded")

FIXED = (
    f"h1 cannot be emptied; 1 claim cannot go: Instance {PROJECT}/fixed on h1 "
    "(not movable: neither spec.movable nor spec.preemptible says that it may be stopped)"
)


async def furnish(world: World) -> None:
    """Another tenant, and flavors with GPUs."""
    await world.create("Tenant", "beta", {}, namespace="")
    await world.create("Project", THEIRS, {}, namespace="")
    for name, count in (("one", 1), ("two", 2), ("three", 3)):
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


async def ended(world: World, name: str = "tidy", *, seconds: float = 3000) -> dict[str, Any]:
    async def holds() -> bool:
        return (await status(world, "Consolidation", name, namespace="")).get("phase") in ("Succeeded", "Failed")

    await world.until(holds, seconds=seconds)
    return await status(world, "Consolidation", name, namespace="")


@asynccontextmanager
async def standing(
    guests: Mapping[str, str], *, theirs: str = "", movable: bool = True, **how: Any
) -> AsyncIterator[World]:
    """Guests by name, each on the host that is named, and one of another tenant's on ``theirs``; all hosts are open."""
    async with World(**{"hosts": 2, "gpus": 2, **how}) as world:
        await furnish(world)
        for name, on in guests.items():
            await alone(world, on)
            await vm(world, name, **({"movable": True} if movable else {}))
        if theirs:
            await alone(world, theirs)
            await vm(world, "theirs", namespace=THEIRS)
        await all_open(world)
        yield world


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
    async with standing({"mine": "h1"}, theirs="h2", stop=stop) as world:
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


def course(names: Sequence[str]) -> Sequence[int]:
    """Of what is written: each word from the consolidation's first on, until it is deleted."""
    first = next((n for n, name in enumerate(names) if "Consolidation" in name), len(names))
    last = max((n for n, name in enumerate(names) if "Consolidation" in name), default=-1)
    return [first + n for n in distinct(names[first : last + 1])]


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    """Of those that belong to the move; the long one has them all."""
    await check_lives_through(a_move, chosen=course)


@pytest.mark.long
async def test_a_crash_anywhere_in_the_whole_life_changes_nothing() -> None:
    await check_lives_through(a_move, chosen=in_each_setting)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(CASE)


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE)


# --- who is moved, and how --------------------------------------------------------------------------------------


async def approve(world: World, name: str = "tidy", **spec: Any) -> None:
    await world.create("Consolidation", name, {**spec, "approved": True}, namespace="")


async def test_who_is_stopped_for_it_is_told_and_has_its_place_kept_from_everybody() -> None:
    async with standing({"mine": "h1"}, theirs="h2") as world:
        await approve(world, open={"flavor": "two"})
        await until_told(world, "mine")
        said = await status(world, "Instance", "mine")
        assert said["phase"] == "Running"
        words = condition(said, "Consolidation")["message"]
        assert words.startswith("Moved to another host, so that what is free lies together; it is stopped at ")
        # Whoever asks now gets neither the place of who is told, nor that which is opened.
        await world.create("Instance", "rival", {"flavor": "one", "image": "micro"}, namespace=THEIRS)
        assert (await ended(world))["phase"] == "Succeeded"
        assert await hosts_of(world) == {"instance-mine-0": "h2", "instance-theirs-0": "h2"}
        # What is open then is there for whoever is next.
        await world.until_ready("Instance", "rival", namespace=THEIRS)
        events = await world.bodies("Event")
        mine = [e for e in events if e["involvedObject"]["name"] == "mine"]
        assert "Consolidation" in [e["reason"] for e in mine]
        assert not any("theirs" in str(e) or "beta" in str(e) for e in mine)
        assert "beta" not in str(await world.object("Instance", "mine"))
        assert condition(await status(world, "Instance", "mine"), "Consolidation")["status"] == "False"


def condition(said: dict[str, Any], name: str) -> dict[str, Any]:
    return next((c for c in said.get("conditions", ()) if c["type"] == name and c["status"] != "Unknown"), {})


async def until_told(world: World, *names: str) -> list[str]:
    """Wait until one of these guests is told that it is moved; those that are."""
    found: list[str] = []

    async def told() -> bool:
        found[:] = [name for name in names if condition(await status(world, "Instance", name), "Consolidation")]
        return bool(found)

    await world.until(told)
    return found


async def endpoint(world: World, name: str = "chat", **spec: Any) -> None:
    flavor = {"flavor": "one", "model": "smol", **spec}
    await world.create("Endpoint", name, flavor)
    await world.until_ready("Endpoint", name)


async def test_a_replica_is_there_before_the_one_that_is_moved_goes() -> None:
    async with World(hosts=3, gpus=2) as world:
        await furnish(world)
        await alone(world, "h1")
        await endpoint(world, replicas=1)
        await alone(world, "h2")
        await world.patch("Endpoint", "chat", replicas=2)
        await world.until_ready("Endpoint", "chat")
        await all_open(world)
        await approve(world, empty={"hosts": ["h1"]})
        fewest = 2

        async def done() -> bool:
            nonlocal fewest
            running = [c for c in await world.bodies("Claim") if c.get("status", {}).get("phase") == "Running"]
            fewest = min(fewest, sum("deletionTimestamp" not in c["metadata"] for c in running))
            return (await status(world, "Consolidation", "tidy", namespace="")).get("phase") in ("Succeeded", "Failed")

        await world.until(done)
        assert fewest == 2, "two answer at each moment"
        said = await status(world, "Consolidation", "tidy", namespace="")
        assert (said["phase"], said["steps"][0]["how"], said["lostDeviceSeconds"]) == ("Succeeded", "Replace", 0)
        assert "h1" not in (await hosts_of(world)).values()
        assert len(await hosts_of(world)) == 2
        host = await world.object("Host", "h1", namespace="")
        assert host is not None
        assert host["spec"]["unschedulable"], "what is emptied stays so"
        await world.until_ready("Endpoint", "chat")
        # Its number is another, and it stays; fewer are fewer.
        await world.patch("Endpoint", "chat", replicas=1)

        async def fewer() -> bool:
            return len(await world.bodies("Claim")) == 1

        await world.until(fewer)


@pytest.mark.parametrize(("seconds", "phase"), [(2000.0, "Succeeded"), (9000.0, "Failed")])
async def test_a_host_that_brings_a_large_model_has_time_for_it_and_not_for_ever(seconds: float, phase: str) -> None:
    async with World(hosts=2, gpus=1) as world:
        await furnish(world)
        await alone(world, "h1")
        await endpoint(world)
        await all_open(world)
        content, there = world.hosts["h2"].content, world.clock.monotonic() + seconds
        ensure = content.ensure

        async def slow(digest: str) -> Path:
            await world.clock.sleep(max(0.0, there - world.clock.monotonic()))
            return await ensure(digest)

        content.ensure = slow  # type: ignore[method-assign]
        await approve(world, empty={"hosts": ["h1"]})
        await ended(world, seconds=10_000)
        said = await status(world, "Consolidation", "tidy", namespace="")
        assert said["phase"] == phase, said
        if phase == "Failed":
            assert f"has not come to h2 in {carry.LOAD_SECONDS['Endpoint']:.0f} s" in said["message"]


async def test_a_host_that_falls_silent_while_it_loads_has_no_more_time_than_anybody() -> None:
    async with World(hosts=2, gpus=1) as world:
        await furnish(world)
        await alone(world, "h1")
        await endpoint(world)
        await all_open(world)
        world.hosts["h2"].engine._load_seconds = 100_000.0
        await approve(world, empty={"hosts": ["h1"]})

        async def loads() -> bool:
            return any(c.get("status", {}).get("phase") == "Starting" for c in await world.bodies("Claim"))

        await world.until(loads)
        await world.silence("h2")
        said = await ended(world)
        assert said["phase"] == "Failed"
        assert f"in {carry.STEP_SECONDS:.0f} s" in said["message"]


async def a_replacement(stop: Point | None) -> Life:
    """A replica goes to another host; the endpoint has one at each moment."""
    async with World(hosts=2, gpus=2, stop=stop) as world:
        await furnish(world)
        await alone(world, "h1")
        await endpoint(world)
        await all_open(world)
        await approve(world, empty={"hosts": ["h1"]})
        assert (await ended(world))["phase"] == "Succeeded"
        assert list((await hosts_of(world)).values()) == ["h2"]
        assert sum(world.starts) == 2, "one on each host, once"
        await world.until_ready("Endpoint", "chat")
        for kind, name, namespace in (("Consolidation", "tidy", ""), ("Endpoint", "chat", PROJECT)):
            await world.delete(kind, name, namespace=namespace)
            await world.until_gone(kind, name, namespace=namespace)
        await world.check_clean()
        return Life(world.points.names, world.crashes)


@pytest.mark.long
async def test_a_crash_anywhere_in_a_replacement_changes_nothing() -> None:
    await check_lives_through(a_replacement, chosen=in_each_setting)


async def test_a_replica_for_which_there_is_no_quota_besides_goes_first() -> None:
    async with World(hosts=2, gpus=2) as world:
        await furnish(world)
        await world.patch("Tenant", "acme", namespace="", quota={"devices": {"H100": 1}})
        await world.until_ready("Tenant", "acme", namespace="")
        await alone(world, "h1")
        await endpoint(world)
        await all_open(world)
        await approve(world, empty={"hosts": ["h1"]})
        said = await ended(world)
        assert (said["phase"], said["steps"][0]["how"]) == ("Succeeded", "Restart")
        assert list((await hosts_of(world)).values()) == ["h2"]


@pytest.mark.parametrize("seconds", [10_000.0, 20.0])
async def test_a_job_begins_anew_elsewhere_unless_it_ends_before_and_has_not_failed(seconds: float) -> None:
    async with World(hosts=2, gpus=2) as world:
        await furnish(world)
        for host in world.hosts.values():
            host.jobs.fate = lambda _member: Fate(seconds)
        await alone(world, "h1")
        await world.create("Job", "train", {"flavor": "one", "script": "train", "movable": True})
        await world.until_reason("Job", "train", "Running")
        await all_open(world)
        await approve(world, empty={"hosts": ["h1"]})
        assert (await ended(world))["phase"] == "Succeeded"
        said = await status(world, "Job", "train")
        assert said["failures"] == 0
        if seconds < 30:
            assert (said["phase"], said["attempt"]) == ("Succeeded", 0)
        else:
            assert (said["phase"], said["attempt"], said["hosts"][0]["name"]) == ("Running", 1, "h2")


async def test_of_some_hosts_those_that_are_cheapest_are_emptied() -> None:
    async with standing({"a": "h1", "b": "h2", "c": "h2"}, hosts=3, gpus=3) as world:
        await approve(world, empty={"count": 2})
        said = await ended(world)
        assert (said["phase"], said["hosts"], said["moves"]) == ("Succeeded", ["h1", "h3"], 1)
        assert await hosts_of(world) == {"instance-a-0": "h2", "instance-b-0": "h2", "instance-c-0": "h2"}


async def test_gangs_and_whoever_does_not_say_so_stay_where_they_are() -> None:
    async with standing({"fixed": "h1"}, movable=False) as world:
        await approve(world, empty={"hosts": ["h1"]})
        said = await world.until_reason("Consolidation", "tidy", "NoPlan", namespace="")
        assert said["message"] == FIXED
        host = await world.object("Host", "h1", namespace="")
        assert host is not None
        assert not host["spec"].get("unschedulable")
        # A gang would begin anew for the place of one.
        gang = {"flavor": "one", "script": "sleep 100000", "members": 2, "movable": True, "preemptible": True}
        await world.create("Job", "gang", gang)
        await world.until_reason("Job", "gang", "Running")
        assert [c["spec"].get("movable") for c in await world.bodies("Claim")] == [None, None, None]


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        ("Tenant", "acme", {"state": "Suspended"}),
        ("Tenant", "acme", {"quota": {"devices": {"H100": 0}}}),
        ("Flavor", "one", {"offered": False}),
    ],
)
async def test_who_would_get_no_place_again_is_not_stopped(kind: str, name: str, change: dict[str, Any]) -> None:
    async with standing({"mine": "h1"}) as world:
        await world.patch(kind, name, namespace="", **change)
        await approve(world, empty={"hosts": ["h1"]})
        await world.until_reason("Consolidation", "tidy", "NoPlan", namespace="")
        assert await hosts_of(world) == {"instance-mine-0": "h1"}
        assert not condition(await status(world, "Instance", "mine"), "Consolidation")


async def test_a_plan_with_somebody_who_refuses_by_now_is_not_begun() -> None:
    async with standing({"a": "h1", "b": "h1"}) as world:
        await world.create("Consolidation", "tidy", {"empty": {"hosts": ["h1"]}}, namespace="")
        await world.until_reason("Consolidation", "tidy", "Planned", namespace="")
        last = (await status(world, "Consolidation", "tidy", namespace=""))["steps"][-1]["workload"]
        await world.patch("Instance", last, movable=False)
        await world.patch("Consolidation", "tidy", namespace="", approved=True)
        await world.until_reason("Consolidation", "tidy", "NoPlan", namespace="")
        assert set((await hosts_of(world)).values()) == {"h1"}


# --- what comes in between --------------------------------------------------------------------------------------


async def test_nothing_is_moved_until_somebody_says_so_and_the_plan_is_of_that_moment() -> None:
    async with standing({"mine": "h1"}, hosts=3) as world:
        await world.create("Consolidation", "tidy", {"empty": {"hosts": ["h1"]}}, namespace="")
        await world.until_reason("Consolidation", "tidy", "Planned", namespace="")
        shown = await status(world, "Consolidation", "tidy", namespace="")
        (step,) = shown["steps"]
        assert (step["source"], shown["moves"], shown["devicesMilli"]) == ("h1", 1, 2000)
        assert step["lostDeviceSeconds"] > 0
        # Where it was to go is shut by now: it is planned anew.
        await world.patch("Host", step["target"], namespace="", unschedulable=True)

        async def anew() -> bool:
            steps = (await status(world, "Consolidation", "tidy", namespace="")).get("steps", ())
            return bool(steps) and steps[0]["target"] != step["target"]

        await world.until(anew)
        assert await hosts_of(world) == {"instance-mine-0": "h1"}
        await world.patch("Consolidation", "tidy", namespace="", approved=True)
        assert (await ended(world))["phase"] == "Succeeded"
        assert await hosts_of(world) != {"instance-mine-0": "h1"}


async def test_a_plan_that_became_dearer_than_what_was_shown_is_not_carried_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "LOOK_SECONDS", 100_000.0)
    async with World(hosts=3, gpus=2) as world:
        await furnish(world)
        await alone(world, "h1")
        await vm(world, "a", movable=True)
        await world.create("Consolidation", "tidy", {"empty": {"hosts": ["h1"]}}, namespace="")
        await all_open(world)
        await world.until_reason("Consolidation", "tidy", "Planned", namespace="")
        await alone(world, "h1")
        await vm(world, "b", on="h1", movable=True)
        await all_open(world)
        assert (await status(world, "Consolidation", "tidy", namespace=""))["moves"] == 1
        await world.patch("Consolidation", "tidy", namespace="", approved=True)
        said = await ended(world)
        assert (said["phase"], condition(said, "Ready")["reason"]) == ("Failed", "PlanChanged")
        words = "the plan that was shown, of 1 move, cannot be carried out any more, and it takes 2 by now"
        assert said["message"] == f"{words}. {control.UNBEGUN_REMEDY}"
        assert set((await hosts_of(world)).values()) == {"h1"}


async def test_one_that_was_approved_does_not_wait_for_ever_for_a_plan() -> None:
    async with standing({"fixed": "h1"}, movable=False) as world:
        for name, approved in (("seen", False), ("tidy", True)):
            spec = {"empty": {"hosts": ["h1"]}, "deadlineSeconds": 60, "approved": approved}
            await world.create("Consolidation", name, spec, namespace="")
        await world.until_reason("Consolidation", "tidy", "NoPlan", namespace="")
        assert (await status(world, "Consolidation", "tidy", namespace=""))["phase"] == "Pending"
        said = await ended(world)
        assert (said["phase"], condition(said, "Ready")["reason"]) == ("Failed", "NoPlan")
        words = f"there is no plan 60 s after it was made: {FIXED}"
        assert said["message"] == f"{words}. {control.UNBEGUN_REMEDY}"
        assert (await status(world, "Consolidation", "seen", namespace=""))["phase"] == "Pending"


async def test_who_refuses_meanwhile_stays_and_nothing_further_is_moved() -> None:
    async with standing({"a": "h1", "b": "h1"}) as world:
        await approve(world, empty={"hosts": ["h1"]})
        (first,) = await until_told(world, "a", "b")
        second = "b" if first == "a" else "a"
        await world.patch("Instance", second, movable=False)
        said = await ended(world)
        assert (said["phase"], said["moved"]) == ("Failed", 1)
        assert said["message"].startswith("after 1 of 2 moves: Instance acme--research/")
        await world.until_ready("Instance", first)
        assert await hosts_of(world) == {f"instance-{first}-0": "h2", f"instance-{second}-0": "h1"}

        async def open_again() -> bool:
            host = await world.object("Host", "h1", namespace="")
            return host is not None and not host["spec"].get("unschedulable")

        await world.until(open_again)


@pytest.mark.parametrize("by_hand", [False, True])
async def test_what_somebody_cordons_meanwhile_stays_so_where_it_fails(by_hand: bool) -> None:
    async with World(hosts=2, gpus=2) as world:
        await furnish(world)
        await alone(world, "h1")
        for name in ("a", "b"):
            await vm(world, name, movable=True)
        await all_open(world)

        async def cordon(*, shut: bool) -> None:
            found = await world.object("Host", "h1", namespace="")
            assert found is not None
            patch, meta = cordoned(shut=shut), found["metadata"]
            said = {**meta.get("annotations", {}), **patch["metadata"]["annotations"]}
            annotations = {key: value for key, value in said.items() if value is not None}
            body = {
                **found,
                "metadata": {**meta, "annotations": annotations},
                "spec": {**found["spec"], **patch["spec"]},
            }
            await world.store.objects.replace(body, USER)

        # What was said once, and taken back in another way, is of another time.
        await cordon(shut=True)
        await world.patch("Host", "h1", namespace="", unschedulable=False)
        await world.until_reason("Host", "h1", "Ready", namespace="")
        await approve(world, empty={"hosts": ["h1"]})

        async def begun() -> bool:
            return any([condition(await status(world, "Instance", name), "Consolidation") for name in ("a", "b")])

        await world.until(begun)
        if by_hand:
            await cordon(shut=True)
        first = "a" if condition(await status(world, "Instance", "a"), "Consolidation") else "b"
        await world.patch("Instance", "b" if first == "a" else "a", movable=False)
        assert (await ended(world))["phase"] == "Failed"

        async def recorded() -> bool:
            return not (await status(world, "Consolidation", "tidy", namespace=""))["cordoned"]

        await world.until(recorded)
        host = await world.object("Host", "h1", namespace="")
        assert host is not None
        assert bool(host["spec"].get("unschedulable")) == by_hand


async def test_what_nobody_approves_is_looked_at_less_and_less_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, plan = 0, control._plan

    async def counted(ctx: Any, asked: Consolidation) -> Any:
        nonlocal looks
        looks += 1
        return await plan(ctx, asked)

    monkeypatch.setattr(control, "_plan", counted)
    monkeypatch.setattr(control, "ABANDONED_SECONDS", 4 * 3600.0)
    async with World(hosts=2, gpus=2) as world:
        await furnish(world)
        await alone(world, "h1")
        await vm(world, "fixed")
        await all_open(world)
        spec = {"empty": {"hosts": ["h1"]}}
        await world.create("Consolidation", "tidy", spec, namespace="")
        await world.create("Consolidation", "other", {"empty": {"hosts": ["h2"]}}, namespace="")
        # Time passes without its thousands of heartbeats.
        for _ in range(60):
            world.clock.jump(300.0)
            await world.clock.advance(31.0)
            await world._beat()
        await world.until_reason("Consolidation", "tidy", "NotApproved", namespace="")
        await world.until_reason("Consolidation", "other", "NotApproved", namespace="")
        said = await status(world, "Consolidation", "tidy", namespace="")
        assert (said["phase"], said["message"].partition(". ")[0]) == ("Failed", "nobody approved it within 0 days")
        assert looks < 100


def test_the_looks_at_what_nobody_approves_come_to_few() -> None:
    age, looks = 0.0, 0
    while age < control.ABANDONED_SECONDS:
        age, looks = age + control._look(age), looks + 1
    assert control._look(0.0) == control.LOOK_SECONDS
    assert looks < 300, "every 30 s they would be some 20,000"


def test_nothing_is_settled_in_thought() -> None:
    """What is held there is gone when it is left: then it would be kept for nobody."""
    arrays = fleet(host("a", gpus=4), host("b", gpus=1))
    moving = Moving(arrays, lambda _hosts: None)
    body = orjson.dumps({"spec": {"open": {"flavor": "two"}}, "status": MOVES})
    with Thought(arrays):
        moving.changed(Change(1, "ADDED", Key("Consolidation", "", "tidy"), "c-1", "", body))
        moving.settle()
    moving.settle()
    assert len(arrays.held.at("b")) == 1


async def test_deleted_under_way_it_brings_who_was_told_to_its_place() -> None:
    async with standing({"a": "h1", "b": "h1"}) as world:
        await approve(world, empty={"hosts": ["h1"]})
        await until_told(world, "a", "b")
        await world.delete("Consolidation", "tidy", namespace="")
        await world.until_gone("Consolidation", "tidy", namespace="")
        assert sorted((await hosts_of(world)).values()) == ["h1", "h2"]
        for name in ("a", "b"):
            await world.until_ready("Instance", name)
        host = await world.object("Host", "h1", namespace="")
        assert host is not None
        assert not host["spec"].get("unschedulable")


@pytest.mark.parametrize("under_way", [True, False])
async def test_what_goes_by_itself_is_waited_for_until_nothing_of_it_is_left(under_way: bool) -> None:
    """Its owner deletes it when it was told, or before it begins; and its host takes its time."""
    async with standing({"mine": "h1"}) as world:
        await world.create("Consolidation", "tidy", {"empty": {"hosts": ["h1"]}, "approved": under_way}, namespace="")
        if under_way:
            await until_told(world, "mine")
        else:
            await world.until_reason("Consolidation", "tidy", "Planned", namespace="")
        await world.silence("h1")
        await world.delete("Instance", "mine")
        since = world.clock.monotonic()

        async def for_a_while() -> bool:
            return world.clock.monotonic() > since + 5

        await world.until(for_a_while)
        await world.patch("Consolidation", "tidy", namespace="", approved=True)
        since += 100
        await world.until(for_a_while)
        await world.hear("h1")
        assert (await ended(world))["phase"] == "Succeeded"
        assert not await world.bodies("Claim")


async def test_one_is_carried_out_at_a_time() -> None:
    async with standing({"mine": "h1"}, hosts=3) as world:
        await approve(world, empty={"hosts": ["h1"]})

        async def begun() -> bool:
            return (await status(world, "Consolidation", "tidy", namespace="")).get("phase") == "Moving"

        await world.until(begun)
        await approve(world, "second", empty={"hosts": ["h1"]})
        await world.until_reason("Consolidation", "second", "Behind", namespace="")
        assert (await ended(world))["phase"] == "Succeeded"
        assert (await ended(world, "second"))["phase"] == "Succeeded"


async def test_of_two_that_begin_at_the_same_moment_one_makes_way(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, before = set[str](), control._before

    async def late(ctx: Any, asked: Consolidation) -> str:
        """At its first look each finds nobody, as where both look before either has written."""
        first = asked.metadata.name not in seen
        seen.add(asked.metadata.name)
        return "" if first else await before(ctx, asked)

    monkeypatch.setattr(control, "_before", late)
    async with standing({"a": "h1", "b": "h2"}, hosts=3) as world:
        for number in (1, 2):
            await world.create("Consolidation", f"tidy-{number}", {"empty": {"hosts": [f"h{number}"]}}, namespace="")
            await world.until_reason("Consolidation", f"tidy-{number}", "Planned", namespace="")
        for number in (1, 2):
            await world.patch("Consolidation", f"tidy-{number}", namespace="", approved=True)

        async def both_done() -> bool:
            said = [await status(world, "Consolidation", f"tidy-{number}", namespace="") for number in (1, 2)]
            assert sum(any(s["phase"] == "Moving" for s in one.get("steps", ())) for one in said) < 2
            return all(one["phase"] in ("Succeeded", "Failed") for one in said)

        await world.until(both_done, seconds=3000)
        for number in (1, 2):
            assert (await ended(world, f"tidy-{number}"))["phase"] == "Succeeded"
        assert set((await hosts_of(world)).values()) == {"h3"}


def consolidation(**spec: Any) -> Consolidation:
    return Consolidation(metadata=Metadata(name="tidy"), spec=ConsolidationSpec.model_validate(spec))


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.open"),
        ({"open": {"flavor": "two"}, "empty": {"count": 1}}, "spec.open"),
        ({"empty": {}}, "spec.empty.hosts"),
        ({"empty": {"hosts": ["a"], "count": 1}}, "spec.empty.hosts"),
        ({"empty": {"hosts": ["a", "a"]}}, "spec.empty.hosts[1]"),
    ],
)
def test_it_says_either_what_is_opened_or_what_is_emptied(spec: dict[str, Any], field: str) -> None:
    assert [cause.field for cause in validate(consolidation(**spec), None)] == [field]


def test_what_was_planned_with_stays_and_a_word_that_was_given_too() -> None:
    old = consolidation(empty={"count": 1}, approved=True)
    assert validate(consolidation(empty={"count": 1}, approved=True, deadline_seconds=60), old) == []
    changed = validate(consolidation(empty={"count": 2}, max_moves=3), old)
    assert [cause.field for cause in changed] == ["spec.empty", "spec.maxMoves", "spec.approved"]


STEP = {
    "project": PROJECT,
    "workloadKind": "Instance",
    "workload": "mine",
    "workloadUid": "w-1",
    "claim": "instance-mine-0",
    "claimUid": "mine",
    "source": "a",
    "target": "b",
    "place": {"host": "b", "devices": ["gpu0"]},
    "how": "Restart",
}
MOVES = {"phase": "Moving", "hosts": ["a"], "steps": [{**STEP, "phase": "Moving"}]}


async def test_a_plan_that_is_made_again_is_of_the_fleet_as_it_is_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    there = fleet(host("a", gpus=2), host("b", gpus=2))
    for uid in ("mine", "gone"):
        claim(there, uid, "a", device_count=1)

    async def read(_ctx: Any, moves: Sequence[Move]) -> Mapping[str, None]:
        there.drop("gone")
        return {move.uid: None for move in moves if move.uid == "mine"}

    async def nothing(*_: Any) -> None:
        return None

    async def may(*_: Any) -> str:
        return "Restart"

    def forks() -> Fork:
        fork = forked(there)
        return Fork(fork, by_criteria(fork), Holdings(fork))

    monkeypatch.setattr(plan, "_claims", read)
    monkeypatch.setattr(plan, "_unknown", nothing)
    monkeypatch.setattr(plan, "how", may)
    monkeypatch.setattr(plan, "_step", lambda move, _claim, now: Step.model_validate({**STEP, "claimUid": move.uid}))
    ctx: Any = SimpleNamespace(fleet=SimpleNamespace(forked=forks), clock=SimpleNamespace(now=lambda: 0.0))
    found = await plan.planned(ctx, consolidation(empty={"hosts": ["a"]}))
    assert isinstance(found, ConsolidationStatus)
    assert [step.claim_uid for step in found.steps] == ["mine"]


def test_where_its_place_is_taken_it_goes_to_no_host_that_is_opened() -> None:
    there = fleet(host("a", gpus=4), host("b", gpus=1), host("c", gpus=1))
    claim(there, "mine", "a", device_count=1)
    claim(there, "theirs", "b", device_count=1)
    step = Step.model_validate(STEP)

    def goes(*hosts: str) -> str:
        found = target(Fork(there, by_criteria(there), Holdings(there)), step, hosts=hosts)
        return found.host if found is not None else ""

    assert (goes("a"), goes("a", "c")) == ("c", "")


def test_where_a_device_of_its_place_is_gone_it_goes_elsewhere() -> None:
    there = fleet(host("a", gpus=4), host("b", gpus=1), host("c", gpus=1))
    claim(there, "mine", "a", device_count=1)
    for place in (
        {"host": "b", "devices": ["gone"]},
        {"host": "b", "companions": [{"device": "gone", "kind": "NIC"}]},
        {"host": "b", "allocations": [{"numaNode": 7, "milliCores": 1, "memoryBytes": 1}]},
    ):
        step = Step.model_validate({**STEP, "place": place})
        found = target(Fork(there, by_criteria(there), Holdings(there)), step, hosts=())
        assert found is not None
        assert "gone" not in found.devices


@pytest.mark.parametrize(("phase", "shut"), [("Waiting", {"a"}), ("Moving", {"a"}), ("Done", {"a", "b"})])
def test_a_host_that_is_opened_takes_nobody_once_who_comes_there_has_come(phase: str, shut: set[str]) -> None:
    told: list[frozenset[str]] = []
    moving = Moving(fleet(host("a", gpus=4), host("b", gpus=4)), told.append)
    status = {"phase": "Moving", "hosts": ["a", "b"], "steps": [{**STEP, "phase": phase}]}
    body = orjson.dumps({"spec": {"open": {"flavor": "two"}}, "status": status})
    moving.changed(Change(1, "ADDED", Key("Consolidation", "", "tidy"), "c-1", "", body))
    assert told[-1] == shut


@pytest.mark.parametrize("listed", [True, False])
def test_what_is_told_late_of_one_that_is_gone_keeps_nothing(listed: bool) -> None:
    """Who reads all anew misses it, and hears of nothing; who follows changes is behind."""
    arrays = fleet(host("a", gpus=4), host("b", gpus=4))
    moving = Moving(arrays, lambda _hosts: None)
    body = orjson.dumps({"spec": {"open": {"flavor": "two"}}, "status": MOVES})
    key = Key("Consolidation", "", "tidy")
    moving.changed(Change(1, "ADDED", key, "c-1", "", body))
    assert len(arrays.held.at("b")) == 1
    if listed:
        moving.gone("c-1")
    else:
        moving.changed(Change(3, "DELETED", key, "c-1", "", body))
    moving.changed(Change(2, "MODIFIED", key, "c-1", "", body))
    assert not arrays.held.at("b")


def test_what_was_left_out_counts_once_it_can_be_read() -> None:
    arrays = fleet(host("a", gpus=4), host("b", gpus=4))
    moving = Moving(arrays, lambda _hosts: None)
    moving.left_out("c-1")
    body = orjson.dumps({"spec": {"open": {"flavor": "two"}}, "status": MOVES})
    moving.changed(Change(1, "MODIFIED", Key("Consolidation", "", "tidy"), "c-1", "", body))
    assert len(arrays.held.at("b")) == 1


def test_what_is_known_of_those_that_are_gone_is_bounded() -> None:
    moving = Moving(fleet(host("a", gpus=4)), lambda _hosts: None)
    body = orjson.dumps({"spec": {"open": {"flavor": "two"}}, "status": {}})
    for number in range(GONE_MAX + 10):
        for revision, type in ((1, "ADDED"), (2, "DELETED")):
            key = Key("Consolidation", "", f"tidy-{number}")
            moving.changed(Change(revision, type, key, f"c-{number}", "", body))  # type: ignore[arg-type]
    assert len(moving._gone) == GONE_MAX
    assert not moving._heard


def test_whoever_asks_for_the_place_that_is_kept_changes_nothing() -> None:
    """So what others keep of the arrays as they are, stands."""
    arrays = fleet(host("a", gpus=4), host("b", gpus=1))
    moving = Moving(arrays, lambda _hosts: None)
    body = orjson.dumps({"spec": {"open": {"flavor": "two"}}, "status": MOVES})
    moving.changed(Change(1, "ADDED", Key("Consolidation", "", "tidy"), "c-1", "", body))
    before = arrays.version, dict(arrays.held.at("b"))
    found = moving.place("w-1", ask(device_count=1))
    assert found is not None
    assert (found.host, found.devices) == ("b", ("gpu0",))
    assert (arrays.version, dict(arrays.held.at("b"))) == before


# --- many hosts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hosts", "count"), [(8, 2), pytest.param(100, 8, marks=pytest.mark.long)])
async def test_whole_hosts_are_opened_in_a_fleet_of_fakes_that_is_in_pieces(hosts: int, count: int) -> None:
    """A job of two devices is left on each host of eight; jobs that want all eight find none until some have moved."""
    async with Fabric(hosts=hosts, fake=True) as world:
        fates(world, lambda _member: Fate(100_000.0))
        pair = {"cores": 4, "memory": "8Gi", "devices": {"count": 2, "model": "H100-SXM5-80GB"}}
        await world.create("Flavor", "h100.2", pair, namespace="")
        tolerations = [{"key": FAKE_TAINT}]
        for number in range(4 * hosts):
            spec = {"flavor": "h100.2", "script": "train", "movable": True, "tolerations": tolerations}
            await world.create("Job", f"j{number}", spec)

        async def claims() -> list[dict[str, Any]]:
            return [c for c in await world.bodies("Claim") if c.get("status", {}).get("phase") == "Running"]

        async def full() -> bool:
            return len(await claims()) == 4 * hosts

        await world.until(full)
        by_host: dict[str, list[str]] = defaultdict(list)
        for claim in await claims():
            by_host[claim["spec"]["host"]].append(claim["spec"]["workload"]["name"])
        for names in by_host.values():
            for name in sorted(names)[1:]:
                await world.delete("Job", name)
        whole = {"flavor": "h100.8", "script": "train", "members": count, "tolerations": tolerations}
        await world.create("Job", "whole", {**whole, "topology": {"perHost": 1}})

        async def refused() -> bool:
            return len(await claims()) == hosts and bool((await status(world, "Job", "whole")).get("waitingSince"))

        await world.until(refused)
        opens = {"flavor": "h100.8", "count": count, "tolerations": tolerations}
        await approve(world, open=opens, maxMoves=2 * count)
        told = await ended(world)
        assert (told["phase"], told["moves"], told["devicesMilli"]) == ("Succeeded", count, 8000 * count)

        async def runs() -> bool:
            return (await status(world, "Job", "whole")).get("phase") == "Running"

        await world.until(runs)
        assert len(await claims()) == hosts + count

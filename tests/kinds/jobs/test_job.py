"""Job, both sides together: gangs that are placed as one, run, fail, are taken anew, and end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bessemer.core.asking import Gang
from bessemer.core.resource import Metadata
from bessemer.drivers.jobs.fake import Fate
from bessemer.drivers.jobs.protocol import MemberSpec
from bessemer.drivers.process.protocol import End
from bessemer.kinds.jobs.job.spec import Job, JobSpec, validate
from tests.kinds.five import (
    Case,
    check_converges,
    check_converges_after_a_crash_at_every_call,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
    distinct,
)
from tests.kinds.world import World, check_intervals

SPEC = {"flavor": "serve", "script": "echo $RANK of $WORLD_SIZE", "members": 3}
CASE = Case("Job", "train", SPEC, reason="Succeeded")

Status = dict[str, Any]


async def test_converges() -> None:
    status = (await check_converges(CASE))["status"]
    assert (status["phase"], status["members"], status["attempt"]) == ("Succeeded", {"Stopped": 3}, 0)
    assert [(host["name"], host["ranks"]) for host in status["hosts"]] == [("h1", [0, 1, 2])]
    assert status["startedAt"] < status["finishedAt"]


async def test_converges_when_run_twice() -> None:
    await check_converges_when_run_twice(CASE)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    """The first and the last call of each name; ``tests.crash`` lives through all of a longer life."""
    await check_converges_after_a_crash_at_every_call(CASE, chosen=distinct)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(CASE)


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE)


async def status_of(world: World, name: str = "train") -> Status:
    found = await world.object("Job", name)
    assert found is not None
    status: Status = found.get("status", {})
    return status


async def until_phase(world: World, phase: str, name: str = "train") -> Status:
    async def holds() -> bool:
        return (await status_of(world, name)).get("phase") == phase

    await world.until(holds)
    return await status_of(world, name)


async def until_free(world: World) -> None:
    """Nothing is held any more."""

    async def holds() -> bool:
        return not await world.bodies("Claim")

    await world.until(holds)


def fates(world: World, fate: Callable[[MemberSpec], Fate]) -> None:
    for host in world.hosts.values():
        host.jobs.fate = fate


def fails(rank: str, *, attempts: int, code: int = 3) -> Callable[[MemberSpec], Fate]:
    """The member of the rank ends with the code in the first attempts, while the others go on for long."""

    def fate(member: MemberSpec) -> Fate:
        if int(member.env["BESSEMER_ATTEMPT"]) >= attempts:
            return Fate()
        return Fate(4.0, code) if member.env["RANK"] == rank else Fate(10_000.0)

    return fate


def running(world: World) -> list[str]:
    return [uid for host in world.hosts.values() for uid in host.jobs.specs]


# --- all or none ------------------------------------------------------------------------------------------------


async def test_a_gang_that_does_not_fit_takes_nothing() -> None:
    """Two hosts of 16 threads, three members of 10: two would have a place, and none takes it."""
    async with World(hosts=2) as world:
        await world.create("Flavor", "wide", {"cores": 10, "memory": "1Gi"}, namespace="")
        await world.create("Job", "train", {**SPEC, "flavor": "wide"})
        await world.until_reason("Job", "train", "Unschedulable")
        status = await status_of(world)
        assert status["phase"] == "Pending"
        assert status["reasons"]
        assert await world.bodies("Claim") == []
        assert all(not row.claim_uid for row in await world.store.ledger.entries()), "nothing was ever taken"


async def test_two_gangs_that_fit_one_at_a_time_both_run() -> None:
    """Each wants more than half of what there is: were they taken member by member, both might wait for ever."""
    async with World(hosts=3) as world:
        await world.create("Flavor", "wide", {"cores": 10, "memory": "1Gi"}, namespace="")
        for name in ("a", "b"):
            await world.create("Job", name, {**SPEC, "flavor": "wide", "members": 2})
        for name in ("a", "b"):
            await until_phase(world, "Succeeded", name)
        await until_free(world)
        check_intervals(list(await world.store.ledger.entries()), closed=True)


async def test_a_quota_is_of_the_whole_gang() -> None:
    async with World() as world:
        await world.patch("Project", "acme--research", namespace="", quota={"claims": 2})
        await world.create("Job", "train", SPEC)
        await world.until_reason("Job", "train", "QuotaExceeded")
        assert await world.bodies("Claim") == []
        await world.patch("Project", "acme--research", namespace="", quota={"claims": 3})
        await until_phase(world, "Succeeded")


async def test_what_members_are_told() -> None:
    async with World(hosts=2) as world:
        await world.create("Flavor", "wide", {"cores": 8, "memory": "1Gi"}, namespace="")
        fates(world, lambda _member: Fate(10_000.0))
        await world.create("Job", "train", {**SPEC, "flavor": "wide", "members": 4, "env": {"LR": "0.1"}})
        await until_phase(world, "Running")
        specs = sorted(
            (spec for host in world.hosts.values() for spec in host.jobs.specs.values()),
            key=lambda spec: int(spec.env["RANK"]),
        )
        words = ("WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "NNODES", "MASTER_ADDR", "LR")
        assert [[spec.env[word] for word in words] for spec in specs] == [
            ["4", "0", "2", "0", "2", "192.0.2.1", "0.1"],
            ["4", "1", "2", "0", "2", "192.0.2.1", "0.1"],
            ["4", "0", "2", "1", "2", "192.0.2.1", "0.1"],
            ["4", "1", "2", "1", "2", "192.0.2.1", "0.1"],
        ]
        assert {spec.hosts for spec in specs} == {"192.0.2.1 slots=2\n192.0.2.2 slots=2\n"}
        assert len({spec.env["MASTER_PORT"] for spec in specs}) == 1
        assert {(spec.words, spec.script) for spec in specs} == {(("/bin/sh", "/tmp/script"), SPEC["script"])}
        await world.delete("Job", "train")
        await world.until_gone("Job", "train")
        await world.check_clean()


# --- failures ---------------------------------------------------------------------------------------------------


async def test_one_that_fails_ends_all() -> None:
    async with World() as world:
        fates(world, fails("1", attempts=9))
        await world.create("Job", "train", SPEC)
        status = await until_phase(world, "Failed")
        assert (status["failure"]["rank"], status["failure"]["exitCode"], status["failures"]) == (1, 3, 1)
        said = await world.until_reason("Job", "train", "MemberFailed")
        assert said["message"] == "rank 1 on Host h1: it ended with exit status 3"
        await until_free(world)
        assert running(world) == []
        assert await status_of(world) == status, "its end stays as it was said"
        await world.crash()
        await world.delete("Job", "train")
        await world.until_gone("Job", "train")
        await world.check_clean()


async def test_within_its_backoff_limit_the_whole_gang_is_started_again() -> None:
    async with World() as world:
        fates(world, fails("2", attempts=2))
        await world.create("Job", "train", {**SPEC, "backoffLimit": 2})
        status = await until_phase(world, "Succeeded")
        assert (status["attempt"], status["failures"], status["failure"]["attempt"]) == (2, 2, 1)
        assert world.starts == [9]
        await until_free(world)
        rows = [row for row in await world.store.ledger.entries() if row.claim_uid]
        assert len({row.claim_uid for row in rows}) == 9
        check_intervals(rows, closed=True)


async def test_want_of_memory_is_the_jobs_own() -> None:
    async with World() as world:
        fates(world, lambda _member: Fate(2.0, 137, End.OUT_OF_MEMORY))
        await world.create("Job", "train", SPEC)
        await until_phase(world, "Failed")
        said = await world.until_reason("Job", "train", "OutOfMemory")
        assert "memory limit of 1 GiB" in said["message"]


async def test_what_the_platform_loses_does_not_count() -> None:
    """A fenced host and a process that its host ended: no failure of the job's, whose limit is 0."""
    async with World(hosts=3) as world:
        await world.create("Flavor", "wide", {"cores": 10, "memory": "1Gi"}, namespace="")
        fates(world, lambda _member: Fate(10_000.0))
        await world.create("Job", "train", {**SPEC, "flavor": "wide", "members": 2})
        status = await until_phase(world, "Running")
        first = status["hosts"][0]["name"]
        await world.silence(first)
        await world.until_reason("Job", "train", "HostSilent")
        fates(world, lambda _member: Fate(60.0))
        await world.patch("Host", first, namespace="", fenced=True)
        status = await until_phase(world, "Running")
        assert first not in [host["name"] for host in status["hosts"]]
        second = world.hosts[status["hosts"][0]["name"]]
        await second.jobs.kill(next(iter(second.jobs.specs)))
        await until_phase(world, "Restarting")
        status = await until_phase(world, "Succeeded")
        assert (status["attempt"], status["failures"], status["failure"]["reason"]) == (2, 0, "MemberLost")


async def test_past_its_deadline_it_is_ended_everywhere() -> None:
    async with World() as world:
        fates(world, lambda _member: Fate(10_000.0))
        await world.create("Job", "train", {**SPEC, "deadlineSeconds": 100, "backoffLimit": 5})
        await until_phase(world, "Running")
        began = world.clock.now()
        await until_phase(world, "Failed")
        assert 95 <= world.clock.now() - began <= 101
        await world.until_reason("Job", "train", "DeadlineExceeded")
        await until_free(world)
        assert running(world) == []


async def test_what_ended_in_time_succeeded_though_nobody_looked_until_later() -> None:
    async with World() as world:
        fates(world, lambda _member: Fate(50.0))
        await world.create("Job", "train", {**SPEC, "deadlineSeconds": 100})
        await until_phase(world, "Running")
        world._tasks["control"][0].cancel()
        end = world.clock.monotonic() + 200

        async def later() -> bool:
            return world.clock.monotonic() > end

        await world.until(later)
        assert {claim["status"]["phase"] for claim in await world.bodies("Claim")} == {"Stopped"}
        await world.crash(frozenset({"control"}))
        await world.until(lambda: _finished(world))
        assert (await status_of(world))["phase"] == "Succeeded"


async def _finished(world: World) -> bool:
    return (await status_of(world)).get("phase") in ("Succeeded", "Failed")


async def test_waiting_for_a_place_does_not_count_towards_the_deadline() -> None:
    async with World() as world:
        await world.create("Job", "train", {**SPEC, "flavor": "late", "deadlineSeconds": 60})
        await world.until_reason("Job", "train", "FlavorNotFound")
        end = world.clock.monotonic() + 120

        async def later() -> bool:
            return world.clock.monotonic() > end

        await world.until(later)
        await world.create("Flavor", "late", {"cores": 1, "memory": "1Gi"}, namespace="")
        status = await until_phase(world, "Succeeded")
        assert status["failures"] == 0


async def test_it_is_deleted_its_time_after_its_end() -> None:
    async with World() as world:
        await world.create("Job", "train", {**SPEC, "ttlSecondsAfterFinished": 50})
        await until_phase(world, "Succeeded")
        ended = world.clock.now()
        await world.until_gone("Job", "train")
        assert 45 <= world.clock.now() - ended <= 60
        await world.check_clean()


async def test_deleting_stops_it_everywhere() -> None:
    async with World(hosts=2) as world:
        await world.create("Flavor", "wide", {"cores": 10, "memory": "1Gi"}, namespace="")
        fates(world, lambda _member: Fate(10_000.0))
        await world.create("Job", "train", {**SPEC, "flavor": "wide", "members": 2})
        await until_phase(world, "Running")
        assert len(running(world)) == 2
        await world.delete("Job", "train")
        await world.until_gone("Job", "train")
        assert running(world) == []
        await world.check_clean()


async def test_a_job_made_again_under_its_name_waits_for_the_claims_of_the_first() -> None:
    async with World() as world:
        await world.create("Job", "train", SPEC)
        await until_phase(world, "Succeeded")
        await world.delete("Job", "train")
        await world.until_gone("Job", "train")
        await world.create("Job", "train", SPEC)
        await until_phase(world, "Succeeded")
        await until_free(world)
        assert len({row.claim_uid for row in await world.store.ledger.entries() if row.claim_uid}) == 6


# --- its words --------------------------------------------------------------------------------------------------


def job(name: str = "train", **spec: object) -> Job:
    return Job(metadata=Metadata(name=name), spec=JobSpec.model_validate({**SPEC, **spec}))


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"script": ""}, "spec.script"),
        ({"command": "/bin/true"}, "spec.script"),
        ({"script": "é" * 40_000}, "spec.script"),
        ({"script": "x" * 60_000, "members": 1024}, "spec.script"),
        ({"env": {"RANK": "1"}}, "spec.env[RANK]"),
        ({"env": {"BESSEMER_X": "1"}}, "spec.env[BESSEMER_X]"),
        ({"env": {"a-b": "1"}}, "spec.env[a-b]"),
        ({"env": {"LD_PRELOAD": "libx.so"}}, "spec.env[LD_PRELOAD]"),
        ({"subnet": "10.9.0.1/16"}, "spec.subnet"),
        ({"topology": {"segment": 2}}, "spec.topology.segment"),
    ],
)
def test_what_is_wrong_is_said_by_field(spec: dict[str, object], field: str) -> None:
    assert [cause.field for cause in validate(job(**spec), None)] == [field]


@pytest.mark.parametrize("text", ["a\0--bind\0/\0/", "\0"])
@pytest.mark.parametrize("where", ["script", "command", "args", "env"])
def test_no_word_of_it_holds_a_nul(text: str, where: str) -> None:
    value: object = {"args": [text], "env": {"A": text}}.get(where, text)
    with pytest.raises(ValueError, match="pattern"):
        job(**{where: value})


def test_only_what_no_member_is_made_of_may_change() -> None:
    assert validate(job(backoffLimit=3, ttlSecondsAfterFinished=9), job()) == []
    changed = validate(job(members=4, deadlineSeconds=5), job())
    assert [cause.field for cause in changed] == ["spec.members", "spec.deadlineSeconds"]


# --- turns ------------------------------------------------------------------------------------------------------


async def test_nobody_is_stopped_for_a_job_that_could_not_be_reached_there() -> None:
    async with World(gpus=1) as world:
        await world.create("Tenant", "beta", {"maxPriority": 10}, namespace="")
        await world.create("Project", "beta--lab", {}, namespace="")
        flavor = {"cores": 1, "memory": "256Mi", "disk": "1Gi", "devices": {"model": "H100", "count": 1}}
        await world.create("Flavor", "one", flavor, namespace="")
        fates(world, lambda _member: Fate(10_000.0))
        taken = len(world.hosts)
        await world.create("Job", "train", {**SPEC, "members": taken, "flavor": "one", "preemptible": True})
        await until_phase(world, "Running")
        high = {**SPEC, "members": 1, "flavor": "one", "priority": 7, "subnet": "10.99.0.0/16"}
        await world.create("Job", "far", high, namespace="beta--lab")
        end = world.clock.monotonic() + 120

        async def later() -> bool:
            return world.clock.monotonic() > end

        await world.until(later)
        far = await world.object("Job", "far", namespace="beta--lab")
        assert far is not None
        assert far["status"]["waitingSince"]
        assert (await status_of(world))["attempt"] == 0


async def test_a_gang_whose_place_is_needed_is_stopped_whole_and_has_its_turn_again() -> None:
    async with World(gpus=2) as world:
        await world.create("Tenant", "beta", {"maxPriority": 10}, namespace="")
        await world.create("Project", "beta--lab", {}, namespace="")
        flavor = {"cores": 1, "memory": "256Mi", "disk": "1Gi", "devices": {"model": "H100", "count": 1}}
        await world.create("Flavor", "one", flavor, namespace="")
        fates(world, lambda _member: Fate(10_000.0))
        await world.create("Job", "train", {**SPEC, "members": 2, "flavor": "one", "preemptible": True})
        await until_phase(world, "Running")
        high = {"flavor": "one", "image": "micro", "priority": 7}
        await world.create("Instance", "high", high, namespace="beta--lab")
        await world.until_ready("Instance", "high", namespace="beta--lab")
        status = await status_of(world)
        assert (status["failure"]["reason"], status["failures"], status["losses"]) == ("Preempted", 0, 0)

        async def waits() -> bool:
            status = await status_of(world)
            return status["phase"] == "Pending" and bool(status.get("waitingSince"))

        await world.until(waits)
        assert running(world) == [], "not one of its members goes on alone"
        await world.crash()

        async def known() -> bool:
            return world.fleet.ready()

        await world.until(known)
        (pending,) = world.fleet.line.waiting.pending.values()
        assert isinstance(pending.wants, Gang)
        assert pending.wants.count == 2, "who begins anew knows what it waits for"
        fates(world, lambda _member: Fate(5.0))
        await world.delete("Instance", "high", namespace="beta--lab")
        status = await until_phase(world, "Succeeded")
        assert (status["attempt"], status["failures"]) == (1, 0)
        assert status.get("waitingSince") is None

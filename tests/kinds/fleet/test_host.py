"""Host: heard, silent, fenced, cordoned, gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from bessemer.core.asking import Taint
from bessemer.core.hosts import Device
from bessemer.core.resource import READ, Metadata
from bessemer.core.units import GIB
from bessemer.kinds.fleet.host import FAKE_TAINT, KIND, Host, HostSpec, validate
from tests.kinds.five import (
    Case,
    Life,
    check_is_denied_to_another_tenant,
    check_lives_through,
    in_each_setting,
)
from tests.kinds.fleet.yard import HEARTBEAT_SECONDS, TAKEOVER_SECONDS, Yard
from tests.kinds.points import Point
from tests.placement.hosts import inventory

CASE = Case("Host", "h1", namespace="")


async def test_converges() -> None:
    async with Yard() as yard:
        await yard.create("Host", "h1")
        assert await yard.ready("Host", "h1") == ("Enrolling", "False", "NotJoined")
        await yard.join("h1", inventory(gpus=2))
        assert await yard.ready("Host", "h1") == ("Ready", "True", "Ready")
        host = await yard.load("h1")
        assert host.reachable
        assert [use.device for use in await yard.store.capacity.devices()] == ["gpu0", "gpu1"]
        assert "Ready" in await yard.events()


async def test_converges_when_run_twice() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(gpus=2))
        await yard.advance(1)
        before, declared = await yard.body("Host", "h1"), yard.points.names["driver"].count("capacity.declare")
        await yard.crash()
        await yard.advance(HEARTBEAT_SECONDS)
        assert await yard.body("Host", "h1") == before, "nothing is written for nothing"
        assert yard.points.names["driver"].count("capacity.declare") == declared


async def live(stop: Point | None) -> Life:
    """Every driver call of a Host: joined, taken from, silent, fenced, deleted."""
    async with Yard(stop) as yard:
        await yard.host("h1", inventory(gpus=1))
        await yard.advance(TAKEOVER_SECONDS)
        await yard.take("vm", "h1", devices=["gpu0"])
        yard.silent.add("h1")
        await yard.advance(HEARTBEAT_SECONDS + TAKEOVER_SECONDS)
        await yard.patch("Host", "h1", fenced=True)
        await yard.advance(TAKEOVER_SECONDS)
        assert not await yard.there("Claim", "vm")
        await yard.delete("Host", "h1")
        await yard.advance(TAKEOVER_SECONDS)
        assert not await yard.there("Host", "h1")
        assert await yard.store.capacity.devices() == []
        assert [row.kind for row in await yard.store.ledger.entries()].count("close") == 1
        calls = yard.points.names["driver"]
        assert set(calls) == {"leases.held", "capacity.declare", "capacity.release", "capacity.withdraw"}
        return Life({"driver": calls}, yard.crashes)


def telling(names: Sequence[str]) -> Sequence[int]:
    """Every call that acts, and of the looks at the lease that only follow one another the first and the last."""
    return sorted({*in_each_setting(names), *(i for i, name in enumerate(names) if name != "leases.held")})


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await check_lives_through(live, chosen=telling)


async def test_deletes_cleanly() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(gpus=1))
        await yard.take("vm", "h1", devices=["gpu0"])
        await yard.delete("Host", "h1")
        await yard.advance(5)
        phase, _, reason = await yard.ready("Host", "h1")
        assert (phase, reason) == ("Deleting", "ClaimsRemain")
        assert (await yard.load("h1")).status.message == "1 claim stands here"
        await yard.end("vm", "h1")
        await yard.advance(3)
        assert not await yard.there("Host", "h1")
        assert await yard.store.capacity.devices() == []


async def test_is_denied_to_another_tenant() -> None:
    """Tenants may not know that a host exists."""
    await check_is_denied_to_another_tenant(CASE)
    assert set(KIND.rights) == {"admin", "operator", "auditor", "agent"}, "no tenant sees a host"
    assert set(KIND.rights["agent"]) == {*READ, "update"}, "its own alone, and of it the report"


async def test_a_host_that_falls_silent_keeps_what_it_holds_until_it_is_back() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(gpus=1))
        await yard.take("vm", "h1", devices=["gpu0"])
        yard.silent.add("h1")
        await yard.advance(HEARTBEAT_SECONDS + 1)
        assert await yard.ready("Host", "h1") == ("Unreachable", "False", "HostSilent")
        assert not (await yard.load("h1")).reachable
        assert await yard.there("Claim", "vm")
        await yard.advance(600)
        stuck = (await yard.load("h1")).status.condition("Stuck")
        assert stuck is not None
        assert "spec.fenced" in stuck.message
        assert await yard.there("Claim", "vm")
        yard.silent.clear()
        await yard.advance(3)
        assert await yard.ready("Host", "h1") == ("Ready", "True", "Ready")


async def test_fencing_gives_claims_away_once_the_agent_is_silent_and_never_before() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(gpus=1))
        await yard.take("vm", "h1", devices=["gpu0"])
        await yard.patch("Host", "h1", fenced=True)
        await yard.advance(60)
        assert await yard.ready("Host", "h1") == ("Fencing", "False", "StillHeard")
        assert await yard.there("Claim", "vm")
        assert not (await yard.load("h1")).status.fenced
        yard.silent.add("h1")
        await yard.advance(HEARTBEAT_SECONDS + 11)
        assert await yard.ready("Host", "h1") == ("Fenced", "False", "Fenced")
        assert (await yard.load("h1")).status.fenced
        assert not await yard.there("Claim", "vm")
        assert [use.claim for use in await yard.store.capacity.devices()] == [""]
        yard.silent.clear()
        await yard.patch("Host", "h1", fenced=False)
        await yard.advance(3)
        assert await yard.ready("Host", "h1") == ("Ready", "True", "Ready")


@pytest.mark.parametrize("jump", [0, 86_400])
async def test_an_outage_of_the_control_plane_gives_nothing_away_and_says_nothing_of_a_host(jump: int) -> None:
    """The agents could not be heard, however long that was; they have their lease's time to be back."""
    async with Yard() as yard:
        for name in ("fencing", "well", "silent"):
            await yard.host(name, inventory(gpus=1))
        await yard.take("vm", "fencing", devices=["gpu0"])
        yard.silent.add("silent")
        await yard.patch("Host", "silent", fenced=True)
        await yard.advance(HEARTBEAT_SECONDS + 11)
        await yard.patch("Host", "fencing", fenced=True)
        before = {name: await yard.ready("Host", name) for name in ("well", "silent")}
        await yard.down()
        await yard.clock.advance(3_600)
        yard.clock.jump(jump)
        yard.silent |= {"fencing", "well"}
        yard.up()
        await yard.advance(HEARTBEAT_SECONDS - 5)
        assert await yard.ready("Host", "fencing") == ("Fencing", "False", "StillHeard")
        assert await yard.there("Claim", "vm")
        assert {name: await yard.ready("Host", name) for name in before} == before
        assert before["silent"] == ("Fenced", "False", "Fenced")
        await yard.advance(10)
        assert await yard.ready("Host", "fencing") == ("Fenced", "False", "Fenced"), "it was not back in its time"
        assert await yard.ready("Host", "well") == ("Unreachable", "False", "HostSilent")


async def test_a_deleted_host_that_is_fenced_lets_its_claims_go() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(gpus=1))
        await yard.take("vm", "h1")
        yard.silent.add("h1")
        await yard.advance(HEARTBEAT_SECONDS + 1)
        await yard.delete("Host", "h1")
        await yard.advance(5)
        assert await yard.there("Host", "h1")
        await yard.patch("Host", "h1", fenced=True)
        await yard.advance(3)
        assert not await yard.there("Host", "h1")


async def test_cordon_and_overcommit_reach_capacity() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(nodes=1, threads=2, memory=64 * GIB), overcommitMilli=4000)
        await yard.take("a", "h1", milli_cores=8000)
        with pytest.raises(Exception, match="no 1000 milli-cores"):
            await yard.take("b", "h1")
        await yard.patch("Host", "h1", unschedulable=True)
        await yard.advance(1)
        assert await yard.ready("Host", "h1") == ("Cordoned", "True", "Cordoned")
        with pytest.raises(Exception, match="cordoned"):
            await yard.take("b", "h1", milli_cores=0)


async def test_a_report_that_changes_is_declared_again_and_what_vanished_is_lost() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(gpus=2))
        await yard.take("vm", "h1", devices=["gpu1"])
        await yard.report("h1", inventory(gpus=1))
        await yard.advance(1)
        uses = {use.device: use.lost for use in await yard.store.capacity.devices()}
        assert uses == {"gpu0": False, "gpu1": True}


async def test_what_nobody_may_have_is_named_with_why() -> None:
    async with Yard() as yard:
        found = inventory(gpus=1)
        why = {"healthy": False, "unfit": "being wiped: discard, 40 %"}
        disks = [Device(id=f"disk-{n}", kind="disk", model="NVMe", **why if n else {}) for n in range(6)]
        await yard.host("h1", found)
        assert (await yard.body("Host", "h1"))["status"]["message"] == ""
        await yard.report("h1", found.model_copy(update={"devices": [*found.devices, *disks]}))
        await yard.advance(1)
        assert await yard.ready("Host", "h1") == ("Ready", "True", "Ready")
        said = (await yard.body("Host", "h1"))["status"]["message"]
        assert said.startswith("disk disk-1: being wiped: discard, 40 %; disk disk-2: ")
        assert said.endswith("; and 2 more")


async def test_a_fake_host_is_tainted_by_its_nature() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(fake=True), taints=[{"key": "rack7"}])
        host = await yard.load("h1")
        assert host.status.taints == [FAKE_TAINT, "rack7"]


async def test_a_jump_of_the_clock_loses_no_host() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory())
        for jump in (86_400, -2 * 86_400):
            yard.clock.jump(jump)
            await yard.advance(3)
            assert (await yard.load("h1")).reachable


async def test_a_thousand_hosts_cost_little_while_nothing_happens() -> None:
    async with Yard() as yard:
        for n in range(50):
            await yard.create("Host", f"h{n}")
        revision = yard.store.revision
        await yard.advance(60)
        await asyncio.sleep(0)
        assert yard.store.revision == revision, "who waits writes nothing"


def test_validate_reads_names_and_taints() -> None:
    taints = [Taint(key="a"), Taint(key="a"), Taint(key="*"), Taint(key=""), Taint(key="a b")]
    causes = validate(Host(metadata=Metadata(name="Not A Name"), spec=HostSpec(taints=taints)), None)
    assert [cause.field for cause in causes] == [
        "metadata.name",
        "spec.taints[1].key",
        "spec.taints[2].key",
        "spec.taints[3].key",
        "spec.taints[4].key",
    ]
    assert validate(Host(metadata=Metadata(name="h1"), spec=HostSpec()), None) == []


async def test_columns_show_the_report() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(gpus=2, fake=True))
        body = await yard.body("Host", "h1")
        shown = {column.name: column.value(body) for column in KIND.columns}
        assert (shown["Phase"], shown["Threads"], shown["GPUs"]) == ("Ready", 16, "2 × H100")
        assert (shown["Fake"], shown["Taints"]) == (True, FAKE_TAINT)
        enrolling = {**body, "spec": {"taints": [{"key": FAKE_TAINT}]}, "status": {}}
        assert next(column for column in KIND.columns if column.name == "Fake").value(enrolling) is True
        empty = {column.name: column.value({"metadata": {}, "spec": {}}) for column in KIND.columns}
        assert empty["Threads"] == 0

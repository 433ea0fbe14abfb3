"""Instance, both sides together: the way up, what it waits for, silent and fenced hosts, what it costs."""

from __future__ import annotations

import json

import pytest

from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Change, Key, Metadata
from bessemer.core.units import MIB
from bessemer.core.values import BILLING, Asked, ClaimSpec, WorkloadRef
from bessemer.drivers.qemu.fake import Fault
from bessemer.kinds.compute.instance.control import PHASES
from bessemer.kinds.compute.instance.host import BOOTS
from bessemer.kinds.compute.instance.spec import Instance, InstanceIntent, InstanceSpec, validate
from bessemer.kinds.context import Progress
from bessemer.kinds.fleet.holds import hold_of
from bessemer.loop.leadership import LEASE_SECONDS
from bessemer.metering import derive
from bessemer.placement.shape import Shape
from tests.kinds.five import (
    Case,
    check_converges,
    check_converges_after_a_crash_at_every_call,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
    distinct,
)
from tests.kinds.host_bench import DIGEST
from tests.kinds.world import PROJECT, World, check_intervals
from tests.metering.ledgers import PLAN

SPEC = {"flavor": "small", "image": "micro"}
CASE = Case("Instance", "vm", SPEC)


async def test_converges() -> None:
    found = await check_converges(CASE)
    status = found["status"]
    assert (status["phase"], status["host"], status["claim"]) == ("Running", "h1", "instance-vm-0")
    assert (status["guest"]["cpus"], status["guest"]["hostname"]) == (2, "vm")
    assert status["restarts"] == 0


async def test_converges_when_run_twice() -> None:
    await check_converges_when_run_twice(CASE)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    """The first and the last call of each name; ``tests.crash`` lives through all of a longer life."""
    await check_converges_after_a_crash_at_every_call(CASE, chosen=distinct)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(CASE)


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE)


async def up(world: World, **spec: object) -> None:
    await world.create("Instance", "vm", {**SPEC, **spec})
    await world.until_ready("Instance", "vm")


async def status_of(world: World, kind: str = "Instance", name: str = "vm") -> dict[str, object]:
    found = await world.object(kind, name)
    assert found is not None
    status: dict[str, object] = found.get("status", {})
    return status


# --- what it waits for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "reason"),
    [({"flavor": "none"}, "FlavorNotFound"), ({"image": "none"}, "ImageNotFound")],
)
async def test_it_says_what_it_waits_for(spec: dict[str, str], reason: str) -> None:
    async with World() as world:
        await world.create("Instance", "vm", {**SPEC, **spec})
        said = await world.until_reason("Instance", "vm", reason)
        assert said["phase"] == "Pending"
        if reason == "FlavorNotFound":
            await world.create("Flavor", "none", {"cores": 1, "memory": "128Mi"}, namespace="")
            await world.until_ready("Instance", "vm", seconds=20)


async def test_a_flavor_below_the_images_need_is_refused() -> None:
    async with World() as world:
        await world.create("Flavor", "tiny", {"cores": 1, "memory": "64Mi"}, namespace="")
        await world.create("Instance", "vm", {**SPEC, "flavor": "tiny"})
        said = await world.until_reason("Instance", "vm", "FlavorTooSmall")
        assert "128Mi" in said["message"]


async def test_an_image_whose_content_was_lost_is_waited_for() -> None:
    async with World() as world:
        world.importer.lost.add(DIGEST)
        world.importer.steps = [Progress()] * 100_000
        await world.until_reason("Image", "micro", "Importing", namespace="")
        await world.create("Instance", "vm", SPEC)
        await world.until_reason("Instance", "vm", "ImageNotReady")
        assert await world.bodies("Claim") == []
        world.importer.steps.clear()
        await world.until_ready("Instance", "vm", seconds=20)


async def test_without_a_place_it_says_why_and_what_would_help() -> None:
    async with World() as world:
        await world.create("Flavor", "huge", {"cores": 64, "memory": "1Gi"}, namespace="")
        await world.create("Instance", "vm", {**SPEC, "flavor": "huge"})
        said = await world.until_reason("Instance", "vm", "Unschedulable")
        assert "1 host: " in said["message"]
        status = await status_of(world)
        assert [set(reason) for reason in status["reasons"]] == [{"code", "hosts", "text"}]  # type: ignore[attr-defined]
        assert status["remedy"]


async def test_its_claim_says_what_was_asked_for_and_the_fleet_counts_it_by_that() -> None:
    async with World() as world:
        await up(world, tolerations=[{"key": "bessemer.dev/fake"}])
        (claim,) = await world.bodies("Claim")
        asked = claim["spec"]["asked"]
        assert (asked["milliCores"], asked["memoryBytes"], asked["deviceCount"]) == (2000, 256 * MIB, 0)
        assert (asked["virtualization"], asked["tolerations"]) == (True, ["bessemer.dev/fake"])
        held = hold_of(Change(1, "ADDED", Key("Claim", "", ""), "", "h1", json.dumps(claim).encode()))
        assert held.request == Asked.model_validate(asked).request("acme")
        assert held.shape == Shape.of(held.request)


async def test_fake_hosts_take_nothing_that_does_not_tolerate_them() -> None:
    async with World(fake=True) as world:
        await world.create("Instance", "vm", SPEC)
        await world.until_reason("Instance", "vm", "Unschedulable")
        await world.create("Instance", "fake", {**SPEC, "tolerations": [{"key": "bessemer.dev/fake"}]})
        await world.until_ready("Instance", "fake")
        assert (await status_of(world, name="fake"))["fake"] is True
        rows = await world.store.ledger.entries()
        assert derive(rows, PLAN, start=0, end=1 << 40).fake


@pytest.mark.parametrize("said", [[{"key": "maintenance"}], [{"key": "*"}]])
async def test_a_taint_is_a_wall_to_a_tenant_that_may_not_tolerate_it(said: list[dict[str, str]]) -> None:
    """Written past the api, as a controller or an older release would: where it lands is decided all the same."""
    async with World() as world:
        await world.patch("Host", "h1", namespace="", taints=[{"key": "maintenance"}])
        await world.create("Instance", "vm", {**SPEC, "tolerations": said})
        told = await world.until_reason("Instance", "vm", "Unschedulable")
        assert "1 host: tainted maintenance" in told["message"]
        await world.patch("Tenant", "acme", namespace="", tolerations=[{"key": "maintenance"}])
        await world.until_ready("Instance", "vm")
        await world.patch("Tenant", "acme", namespace="", tolerations=[])
        await world.create("Instance", "vm2", {**SPEC, "tolerations": said})
        await world.until_reason("Instance", "vm2", "Unschedulable")
        assert (await status_of(world))["phase"] == "Running"  # what runs is left alone


async def test_two_that_want_the_last_place_do_not_both_get_it() -> None:
    async with World() as world:
        await world.create("Flavor", "most", {"cores": 9, "memory": "1Gi"}, namespace="")
        for name in ("one", "two"):
            await world.create("Instance", name, {**SPEC, "flavor": "most"})

        async def one_has_it() -> bool:
            found = [await world.condition("Instance", name) for name in ("one", "two")]
            return sorted(c.get("reason", "") for c in found) == ["Ready", "Unschedulable"]

        await world.until(one_has_it)
        winner = "one" if (await world.condition("Instance", "one"))["status"] == "True" else "two"
        await world.delete("Instance", winner)
        loser = "two" if winner == "one" else "one"
        await world.until_ready("Instance", loser, seconds=60)
        assert [claim["metadata"]["name"] for claim in await world.bodies("Claim")] == [f"instance-{loser}-0"]


# --- while it runs ----------------------------------------------------------------------------------------------


async def test_flavor_and_image_may_go_while_it_runs() -> None:
    async with World() as world:
        await up(world)
        await world.delete("Flavor", "small", namespace="")
        await world.delete("Image", "micro", namespace="")

        async def stated() -> bool:
            return (await status_of(world)).get("message") == (
                "Flavor small and Image micro are gone; what stands keeps what it has"
            )

        await world.until(stated, seconds=10)
        await world.crash()
        await world.until_ready("Instance", "vm")
        assert world.hosts["h1"].qemu.starts == 1


async def test_stop_and_start_keep_place_and_disk() -> None:
    async with World() as world:
        await up(world)
        claim = (await world.bodies("Claim"))[0]["metadata"]["uid"]
        await world.patch("Instance", "vm", running=False)
        await world.until_reason("Instance", "vm", "Stopped")
        assert (await status_of(world))["phase"] == "Stopped"
        assert list(world.hosts["h1"].disks.sizes) == [claim]
        await world.patch("Instance", "vm", running=True)
        await world.until_ready("Instance", "vm")
        assert (await world.bodies("Claim"))[0]["metadata"]["uid"] == claim


async def test_a_killed_guest_is_restarted_and_the_gap_is_lost_time() -> None:
    async with World() as world:
        await up(world)
        host = world.hosts["h1"]
        host.qemu.kill_process(next(iter(host.qemu.guests)))
        await world.until_reason("Instance", "vm", "GuestDied")
        await world.until_ready("Instance", "vm")
        assert (await status_of(world))["restarts"] == 1
        rows = list(await world.store.ledger.entries())
        assert [row.state for row in rows] == ["deploying", "running", "lost", "deploying", "running"]
        check_intervals(rows, closed=False)


@pytest.mark.parametrize(
    ("fault", "reason"), [(Fault.DISK_FULL, "DiskFull"), (Fault.IMAGE_CORRUPTED, "DigestMismatch")]
)
async def test_trouble_is_shown_and_leaves_nothing(fault: Fault, reason: str) -> None:
    async with World() as world:
        world.hosts["h1"].qemu.faults["*"] = fault
        await world.create("Instance", "vm", SPEC)
        said = await world.until_reason("Instance", "vm", reason)
        assert (said["status"], said["phase"]) == ("False", "Preparing")
        assert said["message"]
        await world.delete("Instance", "vm")
        await world.until_gone("Instance", "vm")
        await world.check_clean()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.SILENT, "GuestSilent"),
        (Fault.WRONG_CPUS, "GuestMismatch"),
        (Fault.HUGE_REPORT, "ReportInvalid"),
        (Fault.OTHER_NONCE, "ReportInvalid"),
        (Fault.CRASH_AT_BOOT, "GuestDied"),
    ],
)
async def test_a_guest_that_never_reports_well_holds_nothing_and_costs_nothing(fault: Fault, reason: str) -> None:
    async with World() as world:
        host = world.hosts["h1"]
        host.qemu.faults["*"] = fault
        await world.create("Instance", "vm", SPEC)

        async def given_up() -> bool:
            return (await status_of(world)).get("phase") == "Failed" and not await world.bodies("Claim")

        await world.until(given_up)
        assert await host.residue() == []
        rows = list(await world.store.ledger.entries())
        check_intervals(rows, closed=True)
        assert derive(rows, PLAN, start=0, end=1 << 40).total_micro == 0
        await world.crash()
        end = world.clock.monotonic() + 400

        async def later() -> bool:
            return world.clock.monotonic() > end

        await world.until(later)
        said = await world.condition("Instance", "vm")
        assert (said["status"], said["reason"], said["phase"]) == ("False", reason, "Failed")
        assert said["message"].startswith("on Host h1: ")
        status = await status_of(world)
        assert (status["message"], status["host"], status["claim"]) == (said["message"], "", "")
        assert (host.qemu.starts, await world.bodies("Claim")) == (BOOTS, [])


async def test_what_was_given_up_is_placed_anew_when_it_is_asked_for_again() -> None:
    async with World() as world:
        host = world.hosts["h1"]
        host.qemu.faults["*"] = Fault.OTHER_NONCE
        await world.create("Instance", "vm", SPEC)

        async def given_up() -> bool:
            return (await status_of(world)).get("phase") == "Failed"

        await world.until(given_up)
        host.qemu.faults.clear()
        await world.patch("Instance", "vm", running=False)
        await world.patch("Instance", "vm", running=True)
        await world.until_ready("Instance", "vm")
        assert host.qemu.starts == BOOTS + 1
        await world.delete("Instance", "vm")
        await world.until_gone("Instance", "vm")
        await world.check_clean()


async def test_a_start_right_after_a_stop_leaves_no_lost_time() -> None:
    async with World() as world:
        await up(world)
        await world.patch("Instance", "vm", running=False)

        async def powering_off() -> bool:
            return (await status_of(world)).get("phase") == "Stopping"

        await world.until(powering_off)
        await world.patch("Instance", "vm", running=True)
        await world.until_ready("Instance", "vm")
        rows = list(await world.store.ledger.entries())
        assert [row.state for row in rows] == ["deploying", "running", "deploying", "running"]
        assert ((await status_of(world))["restarts"], world.hosts["h1"].qemu.starts) == (0, 2)


async def test_past_its_deadline_it_says_that_it_is_stuck_and_what_would_help() -> None:
    async with World() as world:
        world.hosts["h1"].qemu.faults["*"] = Fault.SILENT
        await world.create("Instance", "vm", SPEC)

        async def stuck() -> str:
            conditions = (await world.object("Instance", "vm") or {}).get("status", {}).get("conditions", ())
            return next((c["message"] for c in conditions if c["type"] == "Stuck" and c["status"] == "True"), "")

        await world.until(stuck)
        assert "serial log" in await stuck()


# --- its host ---------------------------------------------------------------------------------------------------


async def test_a_silent_host_makes_it_unknown_and_nothing_is_given_away() -> None:
    async with World(hosts=1, gpus=1) as world:
        await up(world)
        await world.silence("h1")
        said = await world.until_reason("Instance", "vm", "HostSilent")
        assert said["phase"] == "Unknown"
        before = [row.id for row in await world.store.ledger.entries()]
        await world.hear("h1")
        await world.until_ready("Instance", "vm")
        assert world.hosts["h1"].qemu.starts == 1
        assert [row.id for row in await world.store.ledger.entries()] == before


async def test_after_all_was_stopped_it_is_unknown_until_its_agent_has_looked() -> None:
    """The agent's last word cut the lease, what ran was ended with it, and the control plane is back first."""
    async with World() as world:
        await up(world)
        host = world.hosts["h1"]
        await world.store.leases.acquire("host/h1", "agent", 5.0)
        host.silent = True
        host.qemu.kill_process(next(iter(host.qemu.guests)))
        await world.clock.advance(6.0)
        await world.crash()
        began = world.clock.monotonic()
        await world.until_reason("Instance", "vm", "HostSilent")
        assert world.clock.monotonic() - began <= LEASE_SECONDS, "as soon as a loop leads again"
        await world.hear("h1")
        await world.until_ready("Instance", "vm")
        assert (await status_of(world))["restarts"] == 1, "what is Ready is what its agent has started since"


async def test_deleted_while_its_host_is_silent_it_waits_for_the_host() -> None:
    async with World() as world:
        await up(world)
        await world.silence("h1")
        await world.until_reason("Instance", "vm", "HostSilent")
        await world.delete("Instance", "vm")

        async def terminating() -> bool:
            return (await world.condition("Instance", "vm"))["phase"] == "Terminating"

        await world.until(terminating)
        assert "heard of again" in (await world.condition("Instance", "vm"))["message"]
        assert len(await world.bodies("Claim")) == 1
        await world.hear("h1")
        await world.until_gone("Instance", "vm")
        await world.check_clean()


async def test_deleted_while_its_host_is_silent_it_goes_when_the_host_is_fenced() -> None:
    async with World() as world:
        await up(world)
        await world.silence("h1")
        await world.until_reason("Instance", "vm", "HostSilent")
        await world.delete("Instance", "vm")
        await world.patch("Host", "h1", namespace="", fenced=True)
        await world.until_gone("Instance", "vm")
        check_intervals(list(await world.store.ledger.entries()), closed=True)


async def test_on_a_fenced_host_it_is_placed_anew_elsewhere() -> None:
    async with World(hosts=2) as world:
        await up(world)
        first = str((await status_of(world))["host"])
        await world.silence(first)
        await world.until_reason("Instance", "vm", "HostSilent")
        await world.patch("Host", first, namespace="", fenced=True)

        async def elsewhere() -> bool:
            return (await status_of(world)).get("host", "") not in (first, "")

        await world.until(elsewhere)
        await world.until_ready("Instance", "vm")
        check_intervals(list(await world.store.ledger.entries()), closed=False)
        assert len(await world.bodies("Claim")) == 1


@pytest.mark.parametrize("seconds", [86_400, -86_400])
async def test_a_clock_that_jumps_a_day_doubles_no_time(seconds: float) -> None:
    async with World() as world:
        await up(world)
        world.clock.jump(seconds)
        host = world.hosts["h1"]
        host.qemu.kill_process(next(iter(host.qemu.guests)))
        await world.until_reason("Instance", "vm", "GuestDied")
        await world.until_ready("Instance", "vm", seconds=120)
        await world.delete("Instance", "vm")
        await world.until_gone("Instance", "vm")
        await world.check_clean()


# --- its words --------------------------------------------------------------------------------------------------


def test_every_phase_of_a_claim_means_something_and_is_billed_as_something() -> None:
    assert set(PHASES) == set(BILLING)


def instance(name: str = "vm", **spec: object) -> Instance:
    return Instance(metadata=Metadata(name=name), spec=InstanceSpec.model_validate({**SPEC, **spec}))


def test_what_is_wrong_is_said_by_field() -> None:
    assert [c.field for c in validate(instance("a.b"), None)] == ["metadata.name"]
    assert [c.field for c in validate(instance(flavor="x"), instance())] == ["spec.flavor"]
    assert [c.field for c in validate(instance(image="x"), instance())] == ["spec.image"]
    twice = instance(tolerations=[{"key": "a"}, {"key": "a"}])
    assert [c.field for c in validate(twice, None)] == ["spec.tolerations[1].key"]
    assert validate(instance(running=False), instance()) == []


async def test_of_which_nothing_was_said_a_claim_of_its_name_is_found_where_it_is_in_the_way() -> None:
    """No claim is looked for before the first place: the transaction that takes it finds what holds the name."""
    async with World() as world:
        ref = WorkloadRef(kind="Instance", name="vm", uid="an-earlier-one")
        intent = InstanceIntent(image=DIGEST, cpus=1, memory_bytes=MIB, disk_bytes=MIB, hostname="vm", running=False)
        spec = ClaimSpec(host="h1", tenant="acme", workload=ref, intent=intent.dump())
        key = Key("Claim", PROJECT, "instance-vm-0")
        (held,) = await world.store.capacity.take([(key, spec, {})], CONTROLLER)
        await world.create("Instance", "vm", SPEC)
        said = await world.until_reason("Instance", "vm", "NameHeld")
        assert said["phase"] == "Pending"
        assert [claim["metadata"]["uid"] for claim in await world.bodies("Claim")] == [held.uid]
        await world.store.capacity.release(key, CONTROLLER, fenced=True)
        await world.until_ready("Instance", "vm")

"""Endpoint, both sides together: replicas that come, go, die and move, folded into one word."""

from __future__ import annotations

import pytest

from bessemer.core.ports import Writer
from bessemer.core.resource import Metadata
from bessemer.drivers.process.protocol import End
from bessemer.kinds.inference.endpoint.spec import Endpoint, EndpointSpec, validate
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

SPEC = {"model": "smol", "flavor": "serve"}
CASE = Case("Endpoint", "chat", {**SPEC, "replicas": 2})


async def test_converges() -> None:
    found = await check_converges(CASE)
    status = found["status"]
    assert (status["phase"], status["readyReplicas"], status["wantedReplicas"]) == ("Ready", 2, 2)
    assert [replica["ready"] for replica in status["replicas"]] == [True, True]


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
    await world.create("Endpoint", "chat", {**SPEC, **spec})
    await world.until_ready("Endpoint", "chat")


async def status_of(world: World) -> dict[str, object]:
    found = await world.object("Endpoint", "chat")
    assert found is not None
    status: dict[str, object] = found.get("status", {})
    return status


async def uids(world: World) -> dict[str, str]:
    """Uids of the claims by name."""
    return {claim["metadata"]["name"]: claim["metadata"]["uid"] for claim in await world.bodies("Claim")}


# --- what it waits for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"flavor": "none"}, "FlavorNotFound"),
        ({"model": "none"}, "ModelNotFound"),
        ({"flavor": "thin"}, "FlavorTooSmall"),
    ],
)
async def test_it_says_what_it_waits_for(spec: dict[str, str], reason: str) -> None:
    async with World() as world:
        await world.create("Flavor", "thin", {"cores": 1, "memory": "256Mi"}, namespace="")
        await world.create("Endpoint", "chat", {**SPEC, **spec})
        said = await world.until_reason("Endpoint", "chat", reason)
        assert said["phase"] == "Pending"


async def test_what_fits_serves_while_the_rest_waits() -> None:
    async with World() as world:
        await world.create("Endpoint", "chat", {**SPEC, "replicas": 20})

        async def sixteen() -> bool:
            return (await status_of(world)).get("readyReplicas") == 16

        await world.until(sixteen)
        status = await status_of(world)
        assert status["phase"] == "Degraded"
        assert status["reasons"]
        assert "16 of 20 replicas answer" in str(status["message"])
        await world.patch("Endpoint", "chat", replicas=16)
        await world.until_ready("Endpoint", "chat")


async def test_many_replicas_come_in_groups() -> None:
    async with World(hosts=3) as world:
        await up(world, replicas=40)
        assert len(await uids(world)) == 40


async def test_no_engine_is_placed_where_none_can_be_kept_apart() -> None:
    """A guest is: it is its own wall. Any sandbox will do for an engine; how strong it is, the Host says."""
    async with World(isolation="none") as world:
        await world.create("Endpoint", "chat", SPEC)
        ready = await world.until_reason("Endpoint", "chat", "Unschedulable")
        assert ready["message"].endswith("1 host: without a sandbox for engines")
        assert await world.bodies("Claim") == []
        await world.create("Instance", "vm", {"flavor": "small", "image": "micro"})
        await world.until_ready("Instance", "vm")
        host = world.hosts["h1"]
        said = {**(await world.object("Host", "h1", namespace="") or {})}
        del said["metadata"]["resourceVersion"]
        said["status"]["report"] = host.inventory.model_copy(update={"isolation": "weak"}).dump()
        await world.store.objects.replace(said, Writer("agent", "h1"), part="report")
        await world.until_ready("Endpoint", "chat")


async def test_a_replica_of_eight_devices_takes_a_whole_fake_host() -> None:
    async with World(hosts=2, gpus=8, fake=True) as world:
        flavor = {"cores": 4, "memory": "8Gi", "devices": {"count": 8, "model": "H100"}}
        await world.create("Flavor", "h100.8", flavor, namespace="")
        await world.create("Endpoint", "chat", {**SPEC, "flavor": "h100.8", "replicas": 2})
        await world.until_reason("Endpoint", "chat", "Unschedulable")
        await world.patch("Endpoint", "chat", tolerations=[{"key": "bessemer.dev/fake"}])
        await world.until_ready("Endpoint", "chat")
        held = [use.claim for use in await world.store.capacity.devices()]
        assert len(held) == 16
        assert len(set(held)) == 2
        assert (await status_of(world))["fake"] is True
        assert {row.device_model for row in await world.store.ledger.entries()} == {"H100"}


# --- while it serves --------------------------------------------------------------------------------------------


async def test_scaling_down_lets_the_highest_go() -> None:
    async with World() as world:
        await up(world, replicas=3)
        await world.patch("Endpoint", "chat", replicas=1)

        async def one() -> bool:
            return list(await uids(world)) == ["endpoint-chat-0"]

        await world.until(one)
        await world.until_ready("Endpoint", "chat")
        await world.patch("Endpoint", "chat", replicas=0)
        await world.until_reason("Endpoint", "chat", "Stopped")
        await world.until(lambda: _none(world))
        await world.delete("Endpoint", "chat")
        await world.until_gone("Endpoint", "chat")
        await world.check_clean()


async def _none(world: World) -> bool:
    return not await uids(world)


async def test_losing_one_of_two_degrades_it_until_it_is_back() -> None:
    async with World() as world:
        await up(world, replicas=2)
        uid = (await uids(world))["endpoint-chat-1"]
        await world.hosts["h1"].engine.end(uid, End.OUT_OF_MEMORY)
        await world.until_reason("Endpoint", "chat", "Degraded")
        status = await status_of(world)
        assert (status["readyReplicas"], status["phase"]) == (1, "Degraded")
        assert "memory limit" in str(status["message"])
        await world.until_ready("Endpoint", "chat")
        states = [row.state for row in await world.store.ledger.entries() if row.claim_uid == uid]
        assert states == ["deploying", "running", "lost", "deploying", "running"]


async def test_losing_all_shows_the_reason() -> None:
    async with World() as world:
        await up(world)
        await world.hosts["h1"].engine.end((await uids(world))["endpoint-chat-0"], End.CRASHED)
        said = await world.until_reason("Endpoint", "chat", "EngineExited")
        assert said["phase"] == "Starting"
        await world.until_ready("Endpoint", "chat")


async def test_model_and_flavor_may_go_while_it_serves() -> None:
    async with World() as world:
        await up(world)
        await world.delete("Model", "smol", namespace="")
        await world.delete("Flavor", "serve", namespace="")

        async def stated() -> bool:
            return "Flavor serve and Model smol are gone" in str((await status_of(world))["message"])

        await world.until(stated, seconds=10)
        await world.crash()
        await world.until_ready("Endpoint", "chat")
        assert world.hosts["h1"].engine.starts == 1


async def test_a_silent_host_makes_it_unknown_or_degraded() -> None:
    async with World(hosts=2) as world:
        await world.create("Flavor", "half", {"cores": 10, "memory": "1Gi"}, namespace="")
        await up(world, flavor="half", replicas=2)
        await world.silence("h1")
        await world.until_reason("Endpoint", "chat", "Degraded")
        await world.silence("h2")
        await world.until_reason("Endpoint", "chat", "HostSilent")
        assert (await status_of(world))["phase"] == "Unknown"
        assert len(await uids(world)) == 2
        world.hosts["h1"].silent = False
        await world.hear("h2")
        await world.until_ready("Endpoint", "chat")
        assert [host.engine.starts for host in world.hosts.values()] == [1, 1]


async def test_replicas_of_a_fenced_host_are_placed_anew() -> None:
    async with World(hosts=2) as world:
        await up(world)
        first = (await world.bodies("Claim"))[0]["spec"]["host"]
        await world.silence(first)
        await world.until_reason("Endpoint", "chat", "HostSilent")
        await world.patch("Host", first, namespace="", fenced=True)
        await world.until_ready("Endpoint", "chat")
        assert [claim["spec"]["host"] for claim in await world.bodies("Claim")] != [first]
        check_intervals(list(await world.store.ledger.entries()), closed=False)


async def test_an_endpoint_made_again_under_its_name_gets_claims_of_its_own() -> None:
    async with World() as world:
        await up(world)
        first = await uids(world)
        await world.delete("Endpoint", "chat")
        await world.until_gone("Endpoint", "chat")
        await up(world)
        assert set((await uids(world)).values()).isdisjoint(first.values())


# --- its words --------------------------------------------------------------------------------------------------


def endpoint(name: str = "chat", **spec: object) -> Endpoint:
    return Endpoint(metadata=Metadata(name=name), spec=EndpointSpec.model_validate({**SPEC, **spec}))


def test_what_is_wrong_is_said_by_field() -> None:
    assert [c.field for c in validate(endpoint("a.b"), None)] == ["metadata.name"]
    assert validate(endpoint(replicas=7), endpoint()) == []

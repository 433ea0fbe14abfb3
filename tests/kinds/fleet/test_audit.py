"""The audit: arrays that slipped are found and mended, and nothing is found where nothing slipped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from bessemer.core.hosts import Device
from bessemer.kinds.fleet.audit import PACE_SECONDS, ROUND_SECONDS, SETTLE_SECONDS
from bessemer.placement import FleetArrays, Hold, HostFacts
from bessemer.placement.mending import set_anew
from tests.kinds.fleet.yard import Yard
from tests.placement.hosts import fleet, host, inventory


@contextmanager
def told() -> Iterator[list[Any]]:
    """What an audit says, a host each."""
    found: list[Any] = []
    with capture_logs() as logs:
        yield found
    found += [
        (line["host"], line["differences"])
        for line in logs
        if line["event"] == "placement's arrays differed from the store"
    ]


async def two_hosts(yard: Yard) -> FleetArrays:
    await yard.host("h1", inventory(gpus=2))
    await yard.host("h2", inventory(gpus=4, model="A100"), taints=[{"key": "mine"}])
    await yard.advance(20)
    await yard.take("vm", "h1", devices=["gpu0"])
    return yard.fleet._arrays


def contents(arrays: FleetArrays) -> dict[str, Any]:
    return {name: value.copy() for name, value in vars(arrays).items() if isinstance(value, np.ndarray)}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


async def test_where_nothing_slipped_nothing_is_found() -> None:
    async with Yard() as yard:
        arrays = await two_hosts(yard)
        before = contents(arrays)
        with told() as found:
            await yard.advance(2 * PACE_SECONDS + SETTLE_SECONDS)
        assert (found, yard.fleet.audit.found) == ([], 0)
        assert yard.fleet.audit.looked >= 2, "each in its turn"
        assert same(before, contents(arrays))


BREAKS: dict[str, Callable[[FleetArrays], None]] = {
    "device_milli": lambda arrays: arrays.device_milli[0].__setitem__(0, 700),
    "cores_free": lambda arrays: arrays.cores_free[0].__setitem__(1, 1),
    "reachable": lambda arrays: arrays.reachable.__setitem__(0, False),
    "device_model": lambda arrays: arrays.device_model[0].__setitem__(0, arrays.models.find("A100")),
    "taints": lambda arrays: arrays.taints.__setitem__(0, arrays.taints[1]),
    "kind": lambda arrays: arrays.kind.__setitem__(0, arrays.kind[1]),
    "topology": lambda arrays: arrays.topology.__setitem__(0, arrays.topology[1]),
    "leaf": lambda arrays: arrays.leaf.__setitem__(0, 0),
    "device_cut": lambda arrays: arrays.device_cut[0].__setitem__(1, 5),
    "device_switch": lambda arrays: arrays.device_switch[0].__setitem__(1, 7),
}


@pytest.mark.parametrize("name", BREAKS)
async def test_an_array_that_says_something_else_is_found_and_mended(name: str) -> None:
    async with Yard() as yard:
        arrays = await two_hosts(yard)
        before = contents(arrays)
        BREAKS[name](arrays)
        assert not same(before, contents(arrays))
        with told() as found:
            await yard.fleet.audit.look(["h1", "h2"])
            await yard.fleet.audit.look(["h1", "h2"])
        assert found == [("h1", [name])]
        assert yard.fleet.audit.found == 1
        assert same(before, contents(arrays))


async def test_what_was_never_heard_of_is_found_when_it_is_no_longer_under_way() -> None:
    async with Yard() as yard:
        arrays = await two_hosts(yard)
        before = contents(arrays)
        (uid,) = yard.fleet._told.known["Claim"]
        # As if the feed had lost a change of each kind.
        yard.fleet._told.claim_gone(uid)
        yard.fleet._told.known["Claim"].add("ghost")
        arrays.hold("ghost", Hold("h2", ("gpu1",), ()))
        yard.fleet._told.heard["h2"] -= 1
        with told() as found:
            await yard.advance(2 * PACE_SECONDS + 2 * SETTLE_SECONDS)
        assert sorted(name for name, _ in found) == ["h1", "h2"]
        words = sorted(word for _, said in found for word in said)
        assert [word.split()[0] for word in words] == ["claim", "claim", "revision"]
        assert same(before, contents(arrays))


async def test_what_is_only_late_is_no_difference() -> None:
    async with Yard() as yard:
        await two_hosts(yard)
        (uid,) = yard.fleet._told.known["Claim"]
        hold = yard.fleet._arrays.held._by_uid[uid]
        yard.fleet._told.claim_gone(uid)
        with told() as found:
            task = asyncio.create_task(yard.fleet.audit.look(["h1"]))
            await yard.clock.advance(SETTLE_SECONDS / 2)
            await yard.quiet()
            yard.fleet._told.known["Claim"].add(uid)
            yard.fleet._arrays.hold(uid, hold)
            await yard.clock.advance(SETTLE_SECONDS)
            await task
        assert found == []


async def test_what_the_feed_knows_before_the_audit_is_not_taken_back() -> None:
    """A claim went, and the feed has heard of it, between what the audit read and when it looks at that."""
    async with Yard() as yard:
        arrays = await two_hosts(yard)
        (uid,) = yard.fleet._told.known["Claim"]
        audit = yard.fleet.audit
        yard.fleet._told.heard["h1"] -= 1
        before = await audit._truth("h1")
        assert before is not None
        doubts = audit._right(before)
        assert doubts == {""}
        yard.fleet._told.claim_gone(uid)
        yard.fleet._told.heard["h1"] = before.host.revision + 1
        with told() as found:
            audit._catch_up(before, before=doubts)
        assert (found, arrays.held.of(uid)) == ([], None)
        assert yard.fleet._told.heard["h1"] == before.host.revision + 1


async def test_all_hosts_have_their_turn() -> None:
    async with Yard() as yard:
        for n in range(3):
            await yard.create("Host", f"h{n}")
        audit = yard.fleet.audit
        turns = [name for _ in range(6) for name in audit._next()]
        assert turns == ["h0", "h1", "h2"] * 2
        for n in range(int(ROUND_SECONDS / PACE_SECONDS)):
            yard.fleet._told.heard[f"x{n:03}"] = 1
        assert len(audit._next()) == 2, "so that a round takes no longer than it may"


def test_numbers_that_change_as_a_host_is_set_anew_are_no_difference() -> None:
    beside = [Device(id=f"{kind}0", kind=kind, model=kind, pcie_switch="s", numa_node=0) for kind in ("nic", "nvme")]
    facts = HostFacts(name="a", inventory=inventory(gpus=1).model_copy(update={"devices": beside}))
    arrays = fleet(facts)
    assert [set_anew(arrays, facts) for _ in range(3)] == [()] * 3
    arrays.other_name[0, 0] = arrays.other_name[0, 1]
    assert set_anew(arrays, facts) == ("other_name",)


def test_a_host_that_is_set_anew_has_what_it_had() -> None:
    facts = [host("a", gpus=2, taints=("t",)), host("b", gpus=3, model="A100")]
    arrays = fleet(*facts)
    arrays.hold("u", Hold("b", ("gpu1",), (), device_milli=300))
    before = contents(arrays)
    assert [*set_anew(arrays, facts[1]), *set_anew(arrays, facts[0])] == []
    assert same(before, contents(arrays))
    assert set_anew(arrays, host("c")) == ("present",)
    assert arrays.row("c") is not None

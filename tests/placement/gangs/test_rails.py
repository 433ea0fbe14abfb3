"""Members on the same rails: against brute force over all rails, and by example."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Gang, GangDecision, Refusal
from bessemer.core.beside import Companion
from bessemer.core.hosts import Device
from bessemer.placement import FleetArrays, Hold, HostFacts
from bessemer.placement.beside import rails_of
from bessemer.placement.gangs import decide_gang, place_gang
from bessemer.placement.gangs.changes import cheapest
from bessemer.placement.sight import Sight
from tests.placement.gangs.slow import best, best_on_rails, gangs, yards
from tests.placement.gangs.test_properties import check_holds
from tests.placement.hosts import ask, fleet, host


def rails_there(facts: list[HostFacts], answer: GangDecision) -> list[list[int | None]]:
    """Of each member."""
    rails = {(fact.name, device.id): device.rail for fact in facts for device in fact.inventory.devices}
    return [sorted(rails[member.host, device] or 0 for device in member.devices) for member in answer.members]


@given(facts=yards, gang=gangs(), policy=st.sampled_from(("required", "preferred")))
@settings(max_examples=300, deadline=None)
def test_members_are_on_the_same_rails_wherever_they_can_be(facts: list[HostFacts], gang: Gang, policy: Any) -> None:
    gang = replace(gang, rails=policy)
    answer = decide_gang(fleet(*facts), gang)
    placed = place_gang(fleet(*facts), gang)
    assert placed == (answer if isinstance(answer, GangDecision) else None)
    if not gang.member.device_count:
        assert isinstance(answer, GangDecision) == (best(facts, gang) is not None)
        return
    expected = best_on_rails(facts, gang)
    if expected is None:
        anywhere = best(facts, replace(gang, rails="")) is not None
        assert isinstance(answer, GangDecision) == (policy == "preferred" and anywhere)
        return
    assert isinstance(answer, GangDecision)
    check_holds(facts, gang, answer)
    first, *others = rails_there(facts, answer)
    assert all(other == first for other in others)
    assert len({member.host for member in answer.members}) == gang.count
    assert answer.score["rails"] == len(set(first))
    if expected.sites == 1:
        assert (answer.score["sites"], answer.leaves, answer.spines) == (1, expected.leaves, expected.spines)


@given(facts=yards, gang=gangs())
@settings(max_examples=150, deadline=None)
def test_the_change_that_is_named_makes_it_fit(facts: list[HostFacts], gang: Gang) -> None:
    gang = replace(gang, rails="required")
    answer = decide_gang(fleet(*facts), gang)
    if not isinstance(answer, Refusal):
        return
    assert sum(reason.hosts for reason in answer.reasons) == len(facts)
    change = cheapest(Sight.of(fleet(*facts), gang.member), gang)
    assert (change.text if change else "") == answer.cheapest
    if change is not None:
        opened = [replace(fact, schedulable=True) if "uncordon" in change.text else fact for fact in facts]
        assert isinstance(decide_gang(fleet(*opened), change.gang), GangDecision), change.text


def railed(name: str, **more: Any) -> HostFacts:
    """Eight GPUs, each on a rail."""
    facts = host(name, gpus=8, **more)
    devices = [d.model_copy(update={"rail": n}) for n, d in enumerate(facts.inventory.devices)]
    return replace(facts, inventory=facts.inventory.model_copy(update={"devices": devices}))


def yard(**held: tuple[str, ...]) -> FleetArrays:
    arrays = fleet(*(railed(name, leaf="l1", spine="s1") for name in "abcd"))
    for name, devices in held.items():
        arrays.hold(name, Hold(name, devices, ()))
    return arrays


def test_pairs_lie_where_all_hosts_have_the_same_rails_free() -> None:
    arrays = yard(a=("gpu0", "gpu1", "gpu4"), b=("gpu2",), c=("gpu0", "gpu6"), d=("gpu3", "gpu5"))
    pair = Gang(member=ask(device_count=2, same_nvlink=True), count=4, rails="required")
    answer = decide_gang(arrays, pair)
    assert isinstance(answer, Refusal)
    assert str(answer) == "4 hosts: with room, but on the same rails for at most 3 of 4 members"
    assert answer.cheapest == "rails: preferred instead of required"
    arrays.drop("c")
    arrays.drop("d")
    answer = decide_gang(arrays, pair)
    assert isinstance(answer, GangDecision)
    assert {member.devices for member in answer.members} == {("gpu6", "gpu7")}, "under one switch, of those that may be"


def test_who_would_rather_lie_on_the_same_rails_lies_somewhere_all_the_same() -> None:
    arrays = yard(a=tuple(f"gpu{n}" for n in range(4)), b=tuple(f"gpu{n}" for n in range(4, 8)))
    gang = Gang(member=ask(device_count=3), count=4, rails="preferred")
    answer = decide_gang(arrays, gang)
    assert isinstance(answer, GangDecision)
    assert "rails" not in answer.score
    three = decide_gang(arrays, replace(gang, count=3))
    assert isinstance(three, GangDecision)
    assert len({member.devices for member in three.members}) == 1


@pytest.mark.parametrize("near", ["switch", "node", ""])
def test_companions_lie_beside_the_devices_on_those_rails(near: Any) -> None:
    def with_nics(facts: HostFacts) -> HostFacts:
        nics = [
            Device(
                id=f"nic{n}", kind="nic", model="x7", numa_node=n // 4, pcie_switch=f"sw{n // 2}", rail=n, functions=2
            )
            for n in range(8)
        ]
        return replace(
            facts, inventory=facts.inventory.model_copy(update={"devices": [*facts.inventory.devices, *nics]})
        )

    arrays = fleet(*(with_nics(railed(name, leaf="l1")) for name in "ab"))
    arrays.hold("a", Hold("a", ("gpu0", "gpu1", "gpu2"), ()))
    member = ask(device_count=2, companions=(Companion(kind="nic", near=near, functions=1),))
    answer = decide_gang(arrays, Gang(member=member, count=2, rails="required"))
    assert isinstance(answer, GangDecision)
    one, other = answer.members
    assert one.devices == other.devices
    assert all(len(member.companions) == 1 for member in answer.members)


def test_a_gpu_is_on_the_rail_of_what_is_under_its_switch() -> None:
    def device(name: str, **more: Any) -> Device:
        return Device(id=name, kind="gpu", model="m", numa_node=0, **more)

    gpus = [device("own", pcie_switch="s0", rail=7), device("near", pcie_switch="s0"), device("two", pcie_switch="s1")]
    gpus += [device("none", pcie_switch="")]
    others = [device(f"o{n}", pcie_switch=s, rail=r) for n, (s, r) in enumerate((("s0", 3), ("s1", 1), ("s1", 2)))]
    others += [device("quiet", pcie_switch="s0"), device("alone", pcie_switch="", rail=5)]
    assert rails_of(gpus, others) == [7, 3, -1, -1]

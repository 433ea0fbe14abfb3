"""NVLink partitions: exactly one that a host offers, never a part of one, and of several the one that breaks least."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bessemer.core.asking import Allocation, Decision, Gang, GangDecision, Refusal, Request
from bessemer.core.beside import Companion
from bessemer.core.hosts import NVLINK_PARTITIONS_MAX, Device, Inventory
from bessemer.placement import FleetArrays, Hold, HostFacts, decide
from bessemer.placement.board import Board
from bessemer.placement.gangs import decide_gang
from bessemer.placement.mending import set_anew
from tests.placement.hosts import ask, fleet, host, inventory, partitions
from tests.placement.test_board import Fullest

HGX = [[f"gpu{n}" for n in range(at, at + size)] for size in (8, 4, 2, 1) for at in range(0, 8, size)]
"""One of eight, two of four, four of two, eight of one (NVIDIA, Fabric Manager User Guide, default partitions of an HGX
H100)."""


def hgx(name: str = "h", **more: Any) -> HostFacts:
    return host(name, gpus=8, nodes=2, threads=64, memory=64 << 30, nvlink_partitions=HGX, **more)


def want(devices: int, **more: Any) -> Request:
    return ask(1, device_count=devices, same_nvlink=True, **more)


def taken(arrays: FleetArrays, request: Request) -> list[str]:
    answer = decide(arrays, request)
    assert isinstance(answer, Decision), str(answer)
    assert answer.request == request
    arrays.hold(f"c{arrays.version}", Hold.of(answer))
    return sorted(answer.devices)


def refused(arrays: FleetArrays, request: Request) -> tuple[str, str]:
    answer = decide(arrays, request)
    assert isinstance(answer, Refusal)
    return str(replace(answer, cheapest="")), answer.cheapest


def test_of_an_hgx_it_gives_blocks_and_breaks_the_fewest_larger_ones() -> None:
    arrays = fleet(hgx())
    assert taken(arrays, want(2)) == ["gpu0", "gpu1"]
    assert taken(arrays, want(4)) == ["gpu4", "gpu5", "gpu6", "gpu7"]
    assert taken(arrays, want(2)) == ["gpu2", "gpu3"]


def test_a_half_that_is_broken_is_used_up_before_one_that_is_whole() -> None:
    arrays = fleet(hgx())
    arrays.hold("one", Hold("h", ("gpu5",), ()))
    assert taken(arrays, want(2)) == ["gpu6", "gpu7"]
    assert taken(arrays, want(4)) == ["gpu0", "gpu1", "gpu2", "gpu3"]


def test_the_second_pair_lies_beside_the_first_whatever_policy_decides() -> None:
    arrays = fleet(hgx())
    board = Board(arrays, Fullest())
    for expected in (("gpu0", "gpu1"), ("gpu2", "gpu3"), ("gpu4", "gpu5")):
        answer = board.decide(want(2))
        assert isinstance(answer, Decision)
        assert tuple(sorted(answer.devices)) == expected
        arrays.hold(expected[0], Hold.of(answer))
    assert str(board.decide(want(4))).startswith("1 host: short of 4")


def test_six_that_are_free_are_no_partition_of_four_where_those_are_broken() -> None:
    arrays = fleet(hgx("a"), hgx("b"))
    for name, held in (("a", "gpu1"), ("a", "gpu6"), ("b", "gpu0"), ("b", "gpu7")):
        arrays.hold(name + held, Hold(name, (held,), ()))
    words, cheapest = refused(arrays, want(4))
    assert words == "2 hosts: no free NVLink partition of 4"
    assert cheapest == "do without NVLink between the devices"
    assert len(taken(arrays, ask(1, device_count=4))) == 4, "whoever wants no NVLink takes any"


def test_what_no_partition_is_as_large_as_is_said_and_the_next_smaller_is_proposed() -> None:
    arrays = fleet(hgx())
    assert refused(arrays, want(3))[0] == "1 host: without an NVLink partition of 3"
    arrays.hold("one", Hold("h", ("gpu0",), ()))
    arrays.hold("two", Hold("h", ("gpu4",), ()))
    far = want(4, same_switch=True)
    assert refused(arrays, far)[0] == "1 host: no free NVLink partition of 4"
    assert refused(arrays, want(7))[1] == "ask for at most 2 GPUs"
    assert refused(arrays, want(7, same_switch=True))[1] == "ask for at most 2 GPUs"


def test_one_that_is_free_must_still_lie_as_it_is_asked_for() -> None:
    arrays = fleet(hgx(), host("plain", gpus=8))
    assert refused(fleet(hgx()), want(4, same_switch=True))[0] == (
        "1 host: with a free NVLink partition of 4, but not on one PCIe switch"
    )
    assert refused(fleet(hgx()), want(8, numa="required"))[0] == (
        "1 host: with a free NVLink partition of 8, but not on one NUMA node"
    )
    assert taken(arrays, want(4, numa="required"))
    fits = ask(60, device_count=4, same_nvlink=True, numa="required")
    arrays = fleet(hgx())
    arrays.hold("all", Hold("h", ("gpu0",), ()))
    assert refused(arrays, ask(70, device_count=4, same_nvlink=True, numa="required"))[0] == (
        "1 host: NUMA node 1 short of 70 cores"
    )
    assert isinstance(decide(arrays, fits), Decision)


def test_a_host_that_says_nothing_gives_any_of_a_domain() -> None:
    arrays = fleet(host("h", gpus=8, threads=64))
    assert len(taken(arrays, want(3))) == 3


def test_one_device_and_shares_are_as_they_were() -> None:
    arrays = fleet(hgx())
    assert len(taken(arrays, want(1))) == 1
    assert len(taken(arrays, want(1, device_milli=500))) == 1


def test_companions_lie_beside_the_partition() -> None:
    nics = [Device(id=f"nic{n}", kind="nic", model="x", numa_node=n // 4, pcie_switch=f"sw{n // 2}") for n in (4, 6)]
    found = inventory(gpus=8, threads=64, nvlink_partitions=HGX)
    found = found.model_copy(update={"devices": [*found.devices, *nics]})
    near = Companion(kind="nic", count=2, near="switch")
    answer = decide(fleet(HostFacts(name="h", inventory=found)), want(4, companions=(near,)))
    assert isinstance(answer, Decision)
    assert sorted(answer.devices) == ["gpu4", "gpu5", "gpu6", "gpu7"]
    assert [use.device for use in answer.companions] == ["nic4", "nic6"]


def test_members_of_a_gang_have_a_partition_each() -> None:
    arrays = fleet(hgx("a", leaf="l"), hgx("b", leaf="l"))
    arrays.hold("one", Hold("a", ("gpu0",), ()))
    answer = decide_gang(arrays, Gang(member=want(4), count=3, policy="required"))
    assert isinstance(answer, GangDecision)
    assert sorted((one.host, *sorted(one.devices)) for one in answer.members) == [
        ("a", "gpu4", "gpu5", "gpu6", "gpu7"),
        ("b", "gpu0", "gpu1", "gpu2", "gpu3"),
        ("b", "gpu4", "gpu5", "gpu6", "gpu7"),
    ]
    more = decide_gang(arrays, Gang(member=want(4), count=4, policy="required"))
    assert isinstance(more, Refusal)
    assert (str(replace(more, cheapest="")), more.cheapest) == (
        "2 hosts: with room, but under one leaf for 3 of 4 members",
        "ask for at most 3 members",
    )
    other = decide_gang(arrays, Gang(member=want(5), count=3, policy="required"))
    assert isinstance(other, Refusal)
    assert other.cheapest == "ask for at most 4 GPUs for each member"


def test_a_member_has_what_it_would_have_by_itself_whatever_cores_are_free() -> None:
    arrays = fleet(hgx("a", leaf="l"), hgx("b", leaf="l"))
    for name, node in (("a", 0), ("b", 1)):
        part = Allocation(numa_node=node, milli_cores=60_000, memory_bytes=0)
        arrays.hold(name, Hold(name, (), (part,)))
    member = ask(20, device_count=4, same_nvlink=True)
    answer = decide_gang(arrays, Gang(member=member, count=2, per_host=1))
    assert isinstance(answer, GangDecision)
    found = {one.host: sorted(one.devices) for one in answer.members}
    assert found == {"a": ["gpu4", "gpu5", "gpu6", "gpu7"], "b": ["gpu0", "gpu1", "gpu2", "gpu3"]}


def test_members_on_rails_have_a_partition_too() -> None:
    found = inventory(gpus=4, nvlink_partitions=[["gpu0", "gpu3"], ["gpu1", "gpu2"]])
    railed = [device.model_copy(update={"rail": n}) for n, device in enumerate(found.devices)]
    found = found.model_copy(update={"devices": railed})
    arrays = fleet(*(HostFacts(name=name, inventory=found) for name in "ab"))
    arrays.hold("one", Hold("a", ("gpu1",), ()))
    answer = decide_gang(arrays, Gang(member=want(2), count=2, rails="required"))
    assert isinstance(answer, GangDecision)
    assert [sorted(one.devices) for one in answer.members] == [["gpu0", "gpu3"]] * 2


def test_a_report_that_makes_no_sense_is_refused_and_what_is_not_there_is_not_offered() -> None:
    for wrong in (
        [["gpu0", "gpu0"]],
        [["gpu0", "gpu1"], ["gpu1", "gpu0"]],
        [[]],
        [[f"gpu{n}"] for n in range(NVLINK_PARTITIONS_MAX + 1)],
        [[f"gpu{m}" for m in range(256) if m != n] for n in range(5)],
    ):
        with pytest.raises(ValidationError):
            Inventory(nvlink_partitions=wrong)
    assert "nvlinkPartitions" not in Inventory().model_dump(by_alias=True)
    arrays = fleet(host("h", gpus=4, nvlink_partitions=[["gpu0", "gone"], ["gpu2", "gpu3"]]))
    assert taken(arrays, want(2)) == ["gpu2", "gpu3"]
    assert refused(arrays, want(2))[0] == "1 host: no free NVLink partition of 2"


def test_arrays_are_equal_however_they_came_about() -> None:
    arrays = fleet(hgx("a"), host("b", gpus=8))
    arrays.set_host(host("a", gpus=8))
    arrays.set_host(hgx("b"))
    arrays.remove_host("a")
    arrays.set_host(hgx("a"))
    anew = fleet(hgx("b"), hgx("a"))
    for name in "ab":
        offers = [one.offers.all[int(one.offer[one.row(name)])] for one in (arrays, anew)]  # type: ignore[index]
        assert offers[0] == offers[1]
        assert len(offers[0]) == 7, "of one alone there is nothing to choose"
    arrays.offer[arrays.row("b")] = 5  # type: ignore[index]
    assert set_anew(arrays, hgx("b")) == ("offer",)
    assert set_anew(arrays, hgx("b")) == ()


@st.composite
def worlds(draw: st.DrawFn) -> list[HostFacts]:
    facts = []
    for number in range(draw(st.integers(1, 3))):
        found = inventory(gpus=draw(st.integers(2, 6)), threads=64)
        gpus = [
            device.model_copy(
                update={
                    "model": draw(st.sampled_from(("H100", "H100", "H100", "A100"))),
                    "healthy": draw(st.integers(0, 9)) < 9,
                    "nvlink_domain": draw(st.sampled_from(("nv0", ""))),
                }
            )
            for device in found.devices
        ]
        ids = draw(st.permutations([device.id for device in gpus]))
        nested = [ids[at : at + size] for size in (2, 4) for at in range(0, len(ids) - size + 1, size)]
        more = {"devices": gpus, "nvlink_partitions": nested if draw(st.booleans()) else draw(partitions(gpus))}
        facts.append(HostFacts(name=f"h{number}", inventory=found.model_copy(update=more)))
    return facts


wanted = st.builds(
    lambda devices, models: want(devices, device_models=models),
    st.sampled_from((2, 2, 3, 4, 5)),
    st.sampled_from((frozenset[str](), frozenset({"H100"}))),
)


@given(
    worlds(),
    st.lists(wanted, min_size=1, max_size=6),
    st.sets(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=5),
)
@settings(max_examples=200, deadline=None)
def test_random_hosts_against_sets(facts: list[HostFacts], asked: list[Request], held: set[tuple[int, int]]) -> None:
    """Where one is free it is given; what is given is one, and breaks the fewest; words and the change are true."""
    arrays, numbers = fleet(*facts), count()
    found = {fact.name: fact.inventory for fact in facts}
    free = {fact.name: {d.id for d in fact.inventory.devices if d.healthy} for fact in facts}
    for number, device in sorted(held):
        if f"gpu{device}" in free.get(f"h{number}", ()):
            arrays.hold(f"held{next(numbers)}", Hold(f"h{number}", (f"gpu{device}",), ()))
            free[f"h{number}"].discard(f"gpu{device}")
    for request in asked:
        answer = decide(arrays, request)
        offered = {name: _whole(found[name], free[name], request) for name in found}
        if isinstance(answer, Refusal):
            _judge(arrays, answer, request=request, found=found, free=free)
            assert not any(offered[name] for name in found if found[name].nvlink_partitions)
            continue
        name, chosen = answer.host, set(answer.devices)
        assert len(answer.devices) == request.device_count
        if found[name].nvlink_partitions:
            assert chosen in offered[name]
            larger = [set(some) for some in found[name].nvlink_partitions if len(some) > len(chosen)]
            harm = [sum(bool(one & some) for one in larger if one <= free[name]) for some in (chosen, *offered[name])]
            assert harm[0] == min(harm)
        arrays.hold(f"held{next(numbers)}", Hold.of(answer))
        free[name] -= chosen


def _whole(found: Inventory, free: set[str], request: Request) -> list[set[str]]:
    """Partitions that would do."""
    good = {d.id for d in found.devices if not request.device_models or d.model in request.device_models} & free
    return [set(some) for some in found.nvlink_partitions if len(some) == request.device_count and good >= set(some)]


def _judge(
    arrays: FleetArrays, answer: Refusal, *, request: Request, found: dict[str, Inventory], free: dict[str, set[str]]
) -> None:
    assert sum(reason.hosts for reason in answer.reasons) == len(found)
    open_to = [name for name in found if len(_any(found[name], free[name], request)) >= request.device_count]
    sizes = [_sizes(found[name]) for name in open_to if found[name].nvlink_partitions]
    busy = sum(request.device_count in some for some in sizes)
    said = {reason.text: reason.hosts for reason in answer.reasons if reason.code == "NoPartition"}
    words = {
        f"no free NVLink partition of {request.device_count}": busy,
        f"without an NVLink partition of {request.device_count}": len(sizes) - busy,
    }
    assert said == {text: hosts for text, hosts in words.items() if hosts}
    fewer = re.fullmatch(r"ask for at most (\d+) .*", answer.cheapest)
    if fewer is not None:
        counts = range(int(fewer[1]), request.device_count)
        fit = [isinstance(decide(arrays, _with(request, n)), Decision) for n in counts]
        assert fit == [True] + [False] * (len(fit) - 1)
    if answer.cheapest.startswith("do without NVLink"):
        assert max(len(_any(found[name], free[name], request)) for name in found) >= request.device_count


def _sizes(found: Inventory) -> set[int]:
    """Of partitions that could be free some time."""
    there = {device.id for device in found.devices}
    return {len(some) for some in found.nvlink_partitions if there.issuperset(some)}


def _any(found: Inventory, free: set[str], request: Request) -> set[str]:
    return {d.id for d in found.devices if not request.device_models or d.model in request.device_models} & free


def _with(request: Request, devices: int) -> Request:
    return want(devices, device_models=request.device_models)


@given(worlds(), wanted, st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_members_of_a_gang_have_nothing_in_common(facts: list[HostFacts], request: Request, members: int) -> None:
    answer = decide_gang(fleet(*facts), Gang(member=request, count=members))
    if isinstance(answer, Refusal):
        return
    found = {fact.name: fact.inventory for fact in facts}
    held = [(one.host, device) for one in answer.members for device in one.devices]
    assert len(held) == len(set(held)) == members * request.device_count
    for one in answer.members:
        offered = found[one.host].nvlink_partitions
        assert not offered or set(one.devices) in map(set, offered)


def test_who_asks_for_no_nvlink_looks_at_no_partition() -> None:
    arrays = fleet(hgx())
    before = decide(arrays, ask(1, device_count=3))
    arrays.offer = np.full_like(arrays.offer, -1)
    assert decide(arrays, ask(1, device_count=3)) == before

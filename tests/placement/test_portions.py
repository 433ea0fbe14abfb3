"""Devices on several NUMA nodes: each node gives its part of cores and memory, as far as it has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Allocation, Decision, Gang, GangDecision, Request
from bessemer.core.beside import Companion
from bessemer.core.cpus import parse_cpus
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.units import GIB, MIB
from bessemer.placement import Hold, HostFacts, decide
from bessemer.placement.choose import place_at
from bessemer.placement.gangs import decide_gang
from bessemer.placement.portions import portions, spans
from bessemer.placement.sight import Sight
from tests.placement.hosts import ask, fleet, host


def parts(decision: object) -> dict[int, tuple[int, int]]:
    """Whole cores and GiB by node."""
    assert isinstance(decision, Decision), decision
    return {part.numa_node: (part.milli_cores // 1000, part.memory_bytes // GIB) for part in decision.allocations}


def held(node: int, cores: int, memory: int = 0) -> Hold:
    return Hold("h", (), (Allocation(numa_node=node, milli_cores=1000 * cores, memory_bytes=memory),))


def test_devices_of_two_nodes_have_cores_and_memory_of_both() -> None:
    """Also where one node had all of it."""
    arrays = fleet(host("h", gpus=8, threads=64, memory=512 * GIB))
    assert parts(decide(arrays, ask(32, 256 * GIB, device_count=8))) == {0: (16, 128), 1: (16, 128)}


def test_each_node_gives_as_it_has_devices() -> None:
    there = host("h", gpus=8, threads=64, memory=512 * GIB)
    arrays = fleet(there)
    arrays.hold("a", Hold("h", ("gpu0", "gpu1"), ()))
    assert parts(decide(arrays, ask(24, 96 * GIB, device_count=6))) == {0: (8, 32), 1: (16, 64)}


def test_what_a_node_lacks_the_others_give() -> None:
    arrays = fleet(host("h", gpus=8, threads=64, memory=512 * GIB))
    arrays.hold("a", held(0, 60, 500 * GIB))
    assert parts(decide(arrays, ask(32, 256 * GIB, device_count=8))) == {0: (4, 12), 1: (28, 244)}


def test_a_node_without_devices_gives_only_what_theirs_have_not() -> None:
    devices = [Device(id=f"g{n}", kind="gpu", model="H100", numa_node=n) for n in (0, 1)]
    numa = [NumaNode(id=n, cores=8, threads=8, memory_bytes=64 * GIB) for n in range(3)]
    arrays = fleet(HostFacts(name="h", inventory=Inventory(numa=numa, devices=devices)))
    arrays.hold("a", held(0, 6))
    assert parts(decide(arrays, ask(10, 8 * GIB, device_count=2))) == {0: (2, 4), 1: (8, 4)}
    assert parts(decide(arrays, ask(12, 8 * GIB, device_count=2))) == {0: (2, 4), 1: (8, 4), 2: (2, 0)}


@pytest.mark.parametrize(
    ("numa", "count", "expected"),
    [("legacy", 8, {0: (32, 256)}), ("preferred", 4, {0: (32, 256)}), ("preferred", 0, {0: (32, 256)})],
)
def test_elsewhere_one_node_gives_all_that_it_has(numa: str, count: int, expected: dict[int, tuple[int, int]]) -> None:
    arrays = fleet(host("h", gpus=8, threads=64, memory=512 * GIB))
    assert parts(decide(arrays, ask(32, 256 * GIB, device_count=count, numa=numa))) == expected


def test_nobody_knows_where_a_device_lies_that_does_not_say() -> None:
    assert not spans("preferred", (-1, 0, 0))
    assert spans("preferred", (-1, 0, 1))
    assert not spans("legacy", (0, 1))


def test_nics_of_two_nodes_count_where_there_is_no_device() -> None:
    nics = [Device(id=f"nic{n}", kind="nic", model="x7", numa_node=n) for n in (0, 1)]
    numa = [NumaNode(id=n, cores=8, threads=8, memory_bytes=64 * GIB) for n in range(2)]
    arrays = fleet(HostFacts(name="h", inventory=Inventory(numa=numa, devices=nics)))
    both = ask(4, 8 * GIB, companions=(Companion(kind="nic", count=2),))
    assert parts(decide(arrays, both)) == {0: (2, 4), 1: (2, 4)}


@given(want=st.integers(0, 120), weights=st.lists(st.integers(0, 4), min_size=1, max_size=6), unit=st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_each_node_is_within_a_unit_of_its_share(want: int, weights: list[int], unit: int) -> None:
    given = portions(want, weights, unit=unit)
    assert sum(given) == (want // unit * unit if any(weights) else 0)
    for gives, weight in zip(given, weights, strict=True):
        assert gives % unit == 0
        assert abs(gives - want // unit * unit * weight / (sum(weights) or 1)) < unit


@st.composite
def machines(draw: st.DrawFn) -> HostFacts:
    """Up to four nodes of up to six cores, of one, two or four threads each, memory in pages of 1 GiB or not."""
    count = draw(st.integers(2, 4))
    smt = draw(st.sampled_from((1, 2, 2, 4)))
    numa = []
    for number in range(count):
        cores, pages = draw(st.integers(1, 6)), draw(st.integers(0, 6))
        own = draw(st.sampled_from((smt, smt, 1)))
        siblings = [",".join(str(100 * number + own * c + t) for t in range(own)) for c in range(cores)]
        numa.append(
            NumaNode(
                id=number,
                cores=cores,
                threads=own * cores,
                memory_bytes=(pages + draw(st.integers(0, 6))) * GIB,
                hugepages={str(GIB): pages},
                siblings=siblings,
            )
        )
    lies = draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=6))
    devices = [Device(id=f"g{n}", kind="gpu", model="H100", numa_node=node) for n, node in enumerate(lies)]
    return HostFacts(name="h", inventory=Inventory(numa=numa, devices=devices))


@st.composite
def wide(draw: st.DrawFn) -> Request:
    return ask(
        draw(st.integers(0, 14)),
        draw(st.integers(0, 14)) * GIB,
        device_count=draw(st.integers(2, 6)),
        cpu_policy=draw(st.sampled_from(("shared", "threads", "cores"))),
        page_bytes=draw(st.sampled_from((0, GIB))),
    )


@given(facts=machines(), asked=st.lists(wide(), min_size=1, max_size=3))
@settings(max_examples=400, deadline=None)
def test_who_fits_at_all_fits_as_its_devices_lie(facts: HostFacts, asked: list[Request]) -> None:
    """Whether it fits is a matter of sums alone, as it is for who does not look at nodes; and so is what it gets."""
    arrays = fleet(facts)
    for number, request in enumerate(asked):
        sight = Sight.of(arrays, request)
        cores, memory = sight.cores_here[0].tolist(), sight.memory_here[0].tolist()
        answer = decide(arrays, request)
        assert isinstance(answer, Decision) == isinstance(decide(arrays, replace(request, numa="legacy")), Decision)
        if not isinstance(answer, Decision):
            continue
        assert answer == decide(arrays, request)
        gives = {part.numa_node: part for part in answer.allocations}
        assert len(gives) == len(answer.allocations)
        assert sum(part.milli_cores for part in gives.values()) == request.milli_cores
        assert sum(part.memory_bytes for part in gives.values()) == request.memory_bytes
        for node, part in gives.items():
            assert part.milli_cores <= cores[node]
            assert part.memory_bytes <= memory[node]
            assert part.page_bytes in ({0} if not part.memory_bytes else {request.page_bytes})
            check_threads(facts.inventory.numa[node], part, policy=request.cpu_policy)
        check_proportion(facts, answer, cores=cores, memory=memory)
        arrays.hold(str(number), Hold.of(answer))


def check_threads(node: NumaNode, part: Allocation, *, policy: str) -> None:
    """Of its own node, as many as it has CPUs."""
    cores, own = [set(parse_cpus(words)) for words in node.siblings], set(parse_cpus(part.cpus))
    if policy == "shared":
        assert not own
        return
    assert 1000 * len(own) == part.milli_cores + part.spare_milli_cores
    assert own <= set().union(*cores)
    if policy == "cores":
        assert all(core <= own or not core & own for core in cores)


def check_proportion(facts: HostFacts, answer: Decision, *, cores: list[int], memory: list[int]) -> None:
    """Of nodes with enough for it each gives its share, to one unit."""
    lies = [device.numa_node for device in facts.inventory.devices if device.id in answer.devices]
    if len(set(lies)) == 1 or answer.request is None:
        return
    gives, want = {part.numa_node: part for part in answer.allocations}, answer.request
    sizes = [int(words.count(",")) + 1 for node in facts.inventory.numa for words in node.siblings[:1]]
    unit = 1000 * (max(sizes) if want.cpu_policy == "cores" else 1)
    ideal = [lies.count(node) / len(lies) for node in range(len(cores))]
    if all(has >= want.milli_cores * share + unit for has, share in zip(cores, ideal, strict=True) if share):
        for node, share in enumerate(ideal):
            got = gives[node].milli_cores if node in gives else 0
            # Beside whole cores there may be a part of one, with the rest of its threads spare.
            assert abs(got - want.milli_cores * share) < unit + 1000 * (unit // 1000 - 1)
    if all(has >= want.memory_bytes * share + GIB for has, share in zip(memory, ideal, strict=True) if share):
        for node, share in enumerate(ideal):
            got = gives[node].memory_bytes if node in gives else 0
            assert abs(got - want.memory_bytes * share) < (GIB if want.page_bytes else 2 * MIB)


@given(facts=st.lists(machines(), min_size=1, max_size=3), request=wide())
@settings(max_examples=150, deadline=None)
def test_members_of_a_gang_get_the_same(facts: list[HostFacts], request: Request) -> None:
    arrays = fleet(*(replace(fact, name=f"h{number}") for number, fact in enumerate(facts)))
    for count in range(1, len(facts) + 1):
        answer = decide_gang(arrays, Gang(member=request, count=count, per_host=1))
        for got in answer.members if isinstance(answer, GangDecision) else ():
            row = arrays.row(got.host)
            assert row is not None
            alone = place_at(Sight.of(arrays.view(np.array([row])), request), 0, score={})
            assert replace(got, fitting=0, reasons=()) == alone

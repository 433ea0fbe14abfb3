"""Placement by property: against a second, slow implementation that tries every way to lie."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Allocation, Decision, Request
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.units import GIB
from bessemer.placement import FleetArrays, Hold, HostFacts, decide
from bessemer.placement.cheapest import cheapest
from bessemer.placement.choose import place
from bessemer.placement.sight import Sight
from tests.placement.hosts import fleet, host, joined, partitions, share_of

MODELS = ("H100", "A100", "B200")
MEMORIES = (80 * GIB, 40 * GIB, 40 * GIB - 7, 0)
"""Of a device, also of one model."""

TAINTS = ((), ("slow",), ("bessemer.dev/fake",), ("slow", "mine"))


@st.composite
def hosts(draw: st.DrawFn, name: str) -> HostFacts:
    nodes = draw(st.integers(1, 2))
    numa = [
        NumaNode(
            id=n,
            cores=1,
            threads=draw(st.integers(1, 4)),
            memory_bytes=draw(st.integers(1, 4)) * GIB,
        )
        for n in range(nodes)
    ]
    devices = [
        Device(
            id=f"g{n}",
            kind="gpu",
            model=draw(st.sampled_from(MODELS)),
            numa_node=draw(st.integers(0, nodes - 1)),
            pcie_switch=draw(st.sampled_from(("", "s0", "s1"))),
            nvlink_domain=draw(st.sampled_from(("", "n0"))),
            healthy=draw(st.integers(0, 9)) > 0,
            memory_bytes=draw(st.sampled_from(MEMORIES)),
        )
        for n in range(draw(st.integers(0, 4)))
    ]
    taints = draw(st.sampled_from(TAINTS))
    return HostFacts(
        name=name,
        inventory=Inventory(
            numa=numa,
            devices=devices,
            nvlink_partitions=draw(partitions(devices)),
            fake="bessemer.dev/fake" in taints,
            virtualization=draw(st.sampled_from(("kvm", "tcg", "none"))),
            isolation=draw(st.sampled_from(("strong", "weak", "none"))),
            engines=draw(st.sampled_from(([], [], ["llamacpp", "vllm"], ["none"]))),
            sharing="time",
        ),
        taints=taints,
        schedulable=draw(st.integers(0, 9)) > 0,
        reachable=draw(st.integers(0, 9)) > 0,
    )


@st.composite
def fleets(draw: st.DrawFn) -> list[HostFacts]:
    return [draw(hosts(f"h{n}")) for n in range(draw(st.integers(0, 4)))]


SHARES = (1, 250, 300, 500, 700, 999)

SIZES = (1, 10 * GIB, 20 * GIB, 25 * GIB + 1, 40 * GIB - 7, 40 * GIB, 79 * GIB, 81 * GIB)

requests = st.builds(
    lambda devices, **more: Request(device_count=devices[0], device_milli=devices[1], device_bytes=devices[2], **more),
    st.one_of(
        st.tuples(st.integers(0, 3), st.just(1000), st.just(0)),
        st.tuples(st.just(1), st.sampled_from(SHARES), st.just(0)),
        st.tuples(st.just(1), st.just(1), st.sampled_from(SIZES)),
    ),
    tenant=st.just("acme"),
    milli_cores=st.integers(0, 6).map(lambda n: n * 1000),
    memory_bytes=st.integers(0, 6).map(lambda n: n * GIB),
    device_models=st.frozensets(st.sampled_from((*MODELS, "gone")), max_size=2),
    numa=st.sampled_from(("required", "preferred", "legacy")),
    same_switch=st.booleans(),
    same_nvlink=st.booleans(),
    tolerations=st.sampled_from(((), ("slow",), ("*",))),
    virtualization=st.booleans(),
    isolation=st.booleans(),
    engine=st.sampled_from(("", "", "", "llamacpp", "vllm")),
)


class Slow:
    """What each host has left, as plain numbers."""

    def __init__(self, facts: list[HostFacts]) -> None:
        self.facts = {f.name: f for f in facts}
        self.cores = {(f.name, n.id): n.threads * 1000 for f in facts for n in f.inventory.numa}
        self.memory = {(f.name, n.id): n.memory_bytes for f in facts for n in f.inventory.numa}
        self.devices = {(f.name, d.id): d for f in facts for d in f.inventory.devices if d.healthy}
        self.milli = dict.fromkeys(self.devices, 1000)

    def take(self, decision: Decision) -> None:
        for part in decision.allocations:
            self.cores[decision.host, part.numa_node] -= part.milli_cores
            self.memory[decision.host, part.numa_node] -= part.memory_bytes
            assert self.cores[decision.host, part.numa_node] >= 0
            assert self.memory[decision.host, part.numa_node] >= 0
        for device in decision.devices:
            self.milli[decision.host, device] -= decision.device_milli
            assert self.milli[decision.host, device] >= 0

    def fits(self, name: str, request: Request) -> bool:
        facts = self.facts[name]
        bears = "*" in request.tolerations or set(facts.taints) <= set(request.tolerations)
        may = facts.schedulable and facts.reachable and bears
        if request.virtualization and facts.inventory.virtualization == "none":
            return False
        if request.isolation and facts.inventory.isolation == "none":
            return False
        if request.engine and request.engine not in (facts.inventory.engines or ["llamacpp"]):
            return False
        return may and any(self.suits(name, request, chosen) for chosen in self.choices(name, request))

    def choices(self, name: str, request: Request) -> Any:
        free = [
            device
            for (host, _), device in self.devices.items()
            if host == name
            and (not request.device_models or device.model in request.device_models)
            and self.milli[name, device.id] >= share_of(request, device)
        ]
        return combinations(free, request.device_count)

    def ways(self, name: str, request: Request) -> list[set[str]]:
        """Which devices there would do."""
        return [{d.id for d in chosen} for chosen in self.choices(name, request) if self.suits(name, request, chosen)]

    def suits(self, name: str, request: Request, chosen: tuple[Device, ...]) -> bool:
        if chosen and request.same_switch and (len({d.pcie_switch for d in chosen}) > 1 or not chosen[0].pcie_switch):
            return False
        if chosen and request.same_nvlink and not joined(self.facts[name].inventory, chosen):
            return False
        nodes = [node.id for node in self.facts[name].inventory.numa]
        if request.numa == "required":
            return any(
                self.cores[name, node] >= request.milli_cores
                and self.memory[name, node] >= request.memory_bytes
                and all(device.numa_node == node for device in chosen)
                for node in nodes
            )
        enough_cores = sum(self.cores[name, node] for node in nodes) >= request.milli_cores
        return enough_cores and sum(self.memory[name, node] for node in nodes) >= request.memory_bytes


def arrays_of(facts: list[HostFacts]) -> FleetArrays:
    arrays = FleetArrays()
    for fact in facts:
        arrays.set_host(fact)
    return arrays


def as_hold(decision: Decision) -> Hold:
    return Hold.of(decision)


@given(fleets(), st.lists(requests, min_size=1, max_size=8))
@settings(max_examples=300, deadline=None)
def test_it_decides_exactly_where_brute_force_would_find_a_way(facts: list[HostFacts], asked: list[Request]) -> None:
    arrays, slow = arrays_of(facts), Slow(facts)
    for number, request in enumerate(asked):
        fitting = {name for name in slow.facts if slow.fits(name, request)}
        answer = decide(arrays, request)
        if isinstance(answer, Decision):
            assert answer.host in fitting
            chosen = tuple(slow.devices[answer.host, device] for device in answer.devices)
            assert len(set(answer.devices)) == request.device_count
            assert {device.id for device in chosen} in slow.ways(answer.host, request)
            assert answer.device_milli == (share_of(request, chosen[0]) if chosen else 1000)
            assert sum(part.milli_cores for part in answer.allocations) == request.milli_cores
            assert sum(part.memory_bytes for part in answer.allocations) == request.memory_bytes
            if request.numa == "required":
                nodes = {part.numa_node for part in answer.allocations} | {device.numa_node for device in chosen}
                assert len(nodes) <= 1
            if request.device_milli < 1000 and request.numa != "preferred":
                ways = [(name, device) for name in fitting for way in slow.ways(name, request) for device in way]
                fullest = min(slow.milli[way] - share_of(request, slow.devices[way]) for way in ways)
                assert slow.milli[answer.host, answer.devices[0]] - answer.device_milli == fullest
            slow.take(answer)
            arrays.hold(f"claim-{number}", as_hold(answer))
        else:
            assert not fitting
            assert sum(reason.hosts for reason in answer.reasons) == len(facts)


@given(fleets(), st.lists(requests, min_size=1, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_the_order_in_which_hosts_and_holds_came_decides_nothing(
    facts: list[HostFacts], asked: list[Request], random: Any
) -> None:
    first, holds = arrays_of(facts), list[tuple[str, Hold]]()
    for number, request in enumerate(asked[:-1]):
        answer = decide(first, request)
        if isinstance(answer, Decision):
            holds.append((f"claim-{number}", as_hold(answer)))
            first.hold(*holds[-1])
    told = [*facts, *holds]
    random.shuffle(told)
    second = FleetArrays()
    for one in told:
        if isinstance(one, HostFacts):
            second.set_host(one)
        else:
            second.hold(*one)
    assert decide(first, asked[-1]) == decide(second, asked[-1])


@given(fleets(), st.lists(requests, min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_the_cheapest_change_really_makes_it_fit(facts: list[HostFacts], asked: list[Request]) -> None:
    arrays, slow, request = arrays_of(facts), Slow(facts), asked[-1]
    for number, earlier in enumerate(asked[:-1]):
        answer = decide(arrays, earlier)
        if isinstance(answer, Decision):
            slow.take(answer)
            arrays.hold(f"claim-{number}", as_hold(answer))
    sight = Sight.of(arrays, request)
    change = cheapest(sight) if place(sight) is None else None
    if change is None:
        return
    changed = change.sight.request
    assert place(change.sight) is not None
    if changed != request:
        assert any(slow.fits(name, changed) for name in slow.facts), change.text
    assert changed.device_count > 0 or request.device_count == 0
    if 1 < changed.device_bytes // GIB < request.device_bytes // GIB:
        more = replace(changed, device_bytes=changed.device_bytes + GIB)
        assert not any(slow.fits(name, more) for name in slow.facts), "there is a larger share"
    if changed.device_milli < request.device_milli:
        more = replace(changed, device_milli=changed.device_milli + 1)
        assert not any(slow.fits(name, more) for name in slow.facts), "there is a larger share"


HOLDS = st.tuples(
    st.sampled_from(("a", "b", "c")),
    st.booleans(),
    st.sets(st.sampled_from(("gpu0", "gpu1", "gpu2", "gone")), max_size=3),
    st.integers(0, 4),
    st.sampled_from((1000, *SHARES)),
)


@given(st.lists(HOLDS, max_size=12))
@settings(max_examples=200, deadline=None)
def test_what_is_free_is_what_no_hold_names_in_whatever_order_they_came_and_went(
    steps: list[tuple[str, bool, set[str], int, int]],
) -> None:
    """A claim may be seen before the end of the one that had its device, and after its place was assumed."""
    facts = host("h", gpus=3)
    kept, holds = fleet(facts), dict[str, Hold]()
    for uid, stays, devices, cores, milli in steps:
        if stays:
            part = Allocation(numa_node=0, milli_cores=cores, memory_bytes=cores)
            holds[uid] = Hold("h", tuple(sorted(devices)), (part,), milli)
            kept.hold(uid, holds[uid])
        else:
            holds.pop(uid, None)
            kept.drop(uid)
        anew = fleet(facts)
        for other, hold in holds.items():
            anew.hold(other, hold)
        for name in ("device_milli", "cores_free", "memory_free", "sizes"):
            assert (getattr(kept, name) == getattr(anew, name)).all(), name
        for column, gpu in enumerate(("gpu0", "gpu1", "gpu2")):
            held = sum(hold.device_milli for hold in holds.values() if gpu in hold.devices)
            assert kept.device_milli[0, column] == 1000 - held
            assert kept.states(np.arange(1)).milli[0, column] == max(0, 1000 - held)


@given(fleets(), st.lists(requests, max_size=6), st.data())
@settings(max_examples=150, deadline=None)
def test_arrays_kept_current_equal_arrays_built_anew(
    facts: list[HostFacts], asked: list[Request], data: st.DataObject
) -> None:
    kept, holds = arrays_of(facts), {}
    for number, request in enumerate(asked):
        answer = decide(kept, replace(request, tolerations=("*",)))
        if isinstance(answer, Decision):
            holds[f"c{number}"] = as_hold(answer)
            kept.hold(f"c{number}", holds[f"c{number}"])
    for uid in [uid for uid in holds if data.draw(st.booleans())]:
        kept.drop(uid)
        del holds[uid]
    renewed = [data.draw(hosts(f.name)) if data.draw(st.booleans()) else f for f in facts]
    for fact in renewed:
        kept.set_host(fact)
    anew = arrays_of(renewed)
    for uid, hold in holds.items():
        anew.hold(uid, hold)
    for fact in renewed:
        mine, other = kept.row(fact.name), anew.row(fact.name)
        nodes, devices = len(fact.inventory.numa), len(fact.inventory.devices)
        assert (kept.cores_free[mine][:nodes] == anew.cores_free[other][:nodes]).all()
        assert (kept.memory_free[mine][:nodes] == anew.memory_free[other][:nodes]).all()
        assert (kept.device_milli[mine][:devices] == anew.device_milli[other][:devices]).all()
        assert (kept.sizes[mine] == anew.sizes[other]).all()

"""One agent that lies: the fleet's arrays stay bounded, and a decision costs what the fleet is."""

from __future__ import annotations

from time import process_time

import numpy as np
import pytest
from pydantic import ValidationError

from bessemer.core.asking import Decision, Request
from bessemer.core.hosts import DEVICES_MAX, MODELS_MAX, NODES_MAX, NVLINK_PARTITIONS_MAX, Device, Inventory, NumaNode
from bessemer.placement import FleetArrays, Hold, HostFacts, decide
from tests.placement.hosts import ask, fleet, host


def node(number: int) -> NumaNode:
    return NumaNode(id=number, cores=1, threads=1, memory_bytes=1)


def gpu(number: int, *, model: str = "X", **more: str) -> Device:
    return Device(id=f"gpu{number}", kind="gpu", model=model, numa_node=number % NODES_MAX, **more)


def widest(model: str = "X") -> HostFacts:
    """The most that a report may say, each device under a switch and in a domain of its own."""
    gpus = [gpu(n, model=model, pcie_switch=f"s{n}", nvlink_domain=f"d{n}") for n in range(DEVICES_MAX)]
    parts = [[one.id for one in gpus[n : n + 4]] for n in range(NVLINK_PARTITIONS_MAX)]
    numa = [node(n) for n in range(NODES_MAX)]
    return HostFacts(name="liar", inventory=Inventory(numa=numa, devices=gpus, nvlink_partitions=parts))


@pytest.mark.parametrize(
    "report",
    [
        {"numa": [node(n) for n in range(NODES_MAX + 1)]},
        {"devices": [gpu(n) for n in range(DEVICES_MAX + 1)]},
        {"devices": [gpu(n, model=f"m{n}") for n in range(MODELS_MAX + 1)]},
        {"leaf": "x" * 257},
        {"nvlink_partitions": [[f"gpu{n}"] for n in range(NVLINK_PARTITIONS_MAX + 1)]},
        {"isolation_note": "x" * 5000},
        {"addresses": ["::1"] * 1000},
    ],
)
def test_what_no_machine_has_is_no_report(report: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Inventory.model_validate(report)


def test_a_host_that_keeps_changing_its_words_uses_up_nothing() -> None:
    """Neither memory nor numbers: names that nobody has any more are forgotten."""
    arrays = fleet(host("honest", gpus=2))
    for number in range(3 * (1 << 15) // MODELS_MAX):
        gpus = [gpu(n, model=f"lie {number} {n}") for n in range(MODELS_MAX)]
        facts = HostFacts(name="liar", inventory=Inventory(devices=gpus), taints=(f"mine {number}",))
        arrays.set_host(facts)
    assert len(arrays.models.all) <= 1 + 2 * MODELS_MAX
    assert len(arrays.taint_sets) <= 3
    answer = decide(arrays, ask(device_count=2, device_models=frozenset({"H100"})))
    assert isinstance(answer, Decision)
    assert answer.host == "honest"
    arrays.remove_host("liar")
    assert arrays.models.find("lie 1 1") < 0


def test_what_a_host_says_twice_counts_once() -> None:
    arrays = FleetArrays()
    report = Inventory(numa=[NumaNode(id=0, cores=4, threads=4, memory_bytes=1 << 30)] * 2, devices=[gpu(0), gpu(0)])
    arrays.set_host(HostFacts(name="liar", inventory=report))
    assert isinstance(decide(arrays, ask(4, 1 << 30, device_count=1)), Decision)
    assert not isinstance(decide(arrays, ask(5, 1 << 30)), Decision)
    assert not isinstance(decide(arrays, ask(1, 1 << 20, device_count=2)), Decision)


def seconds(arrays: FleetArrays, request: Request) -> float:
    """Of the fastest of some decisions, and of this process alone."""
    best = 1e9
    for _ in range(3):
        began = process_time()
        decide(arrays, request)
        best = min(best, process_time() - began)
    return best


def test_the_widest_lie_makes_no_decision_dear() -> None:
    """Every decision looks at every host; what one pretends to have is looked at once, not once for each part."""
    arrays = fleet(*(host(f"h{n}", gpus=8) for n in range(500)))
    near = {"numa": "required", "same_switch": True, "same_nvlink": True}
    asked = (ask(device_count=4, **near), ask(device_count=1, device_milli=300, **near))
    for request in asked:
        assert seconds(arrays, request) < 1.0
    arrays.set_host(widest())
    for request in asked:
        assert seconds(arrays, request) < 1.0


def test_a_liar_is_forgotten_by_readers_too() -> None:
    """Who reads what changed is told no more of a host than its row, however wide it pretends to be and however often
    it says so."""
    arrays = fleet(host("honest", gpus=2))
    read = arrays.changes.position
    for number in range(100):
        arrays.set_host(widest(f"lie {number}"))
    assert list(arrays.changes.since(0)) == [0, 1]
    states = arrays.states(np.array([0, 1]))
    assert states.milli.sum(axis=1).tolist() == [2000, 1000 * DEVICES_MAX]
    assert states.models[states.model[1, 0]] == "lie 99"
    arrays.remove_host("liar")
    arrays.set_host(host("heir", gpus=2))
    states = arrays.states(arrays.changes.since(read))
    assert states.milli.sum(axis=1).tolist() == [2000]
    assert set(states.model[0]) == {states.model[0, 0], -1}
    view = arrays.view(np.array([1]))
    assert decide(view, ask(device_count=2, device_models=frozenset({"H100"}))).host == "heir"
    assert decide(view, ask(device_count=1, device_milli=1)).host == "heir"


def test_a_hold_that_names_what_is_not_there_takes_nothing() -> None:
    arrays = fleet(host("a", gpus=1))
    arrays.hold("x", Hold("a", ("gpu7", "", "gpu0" * 1000), (), 300))
    assert decide(arrays, ask(device_count=1)).host == "a"
    arrays.hold("x", Hold("a", tuple(f"gpu{n}" for n in range(5000)), ()))
    assert not isinstance(decide(arrays, ask(device_count=1, device_milli=1)), Decision)
    arrays.drop("x")
    assert decide(arrays, ask(device_count=1)).host == "a"

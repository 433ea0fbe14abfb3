"""Shares of devices, and alternatives of models, by example."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bessemer.core.asking import Allocation, Decision, Refusal
from bessemer.core.units import GIB
from bessemer.placement import FleetArrays, Hold, HostFacts, decide
from bessemer.placement.choose import place
from bessemer.placement.sight import Sight
from tests.placement.hosts import ask, fleet, host

H100 = frozenset({"H100"})
EITHER = frozenset({"H100", "A100"})


def share(milli: int, **request):
    return ask(device_count=1, device_milli=milli, **request)


def held(arrays: FleetArrays, **milli: int) -> FleetArrays:
    """``gpu0=700`` holds 0.7 of that device of host a."""
    for device, taken in milli.items():
        arrays.hold(f"holder of {device}", Hold("a", (device,), (), taken))
    return arrays


def placed(arrays: FleetArrays, request) -> Decision:
    decision = decide(arrays, request)
    assert isinstance(decision, Decision), decision
    return decision


def refused(arrays: FleetArrays, request) -> Refusal:
    refusal = decide(arrays, request)
    assert isinstance(refusal, Refusal), refusal
    return refusal


@pytest.mark.parametrize("wrong", [(1, 0), (1, -1), (1, 1001), (2, 500), (0, 500)])
def test_a_share_is_of_one_device_and_less_than_all_of_it(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="device"):
        ask(device_count=wrong[0], device_milli=wrong[1])


def test_a_share_lies_on_one_device() -> None:
    arrays = held(fleet(host("a", gpus=2)), gpu0=500, gpu1=500)
    assert placed(arrays, share(500)).devices == ("gpu0",)
    assert not isinstance(decide(arrays, share(501)), Decision), "half of one and half of another are no whole"


def test_a_share_is_taken_of_the_fullest_device_that_suffices() -> None:
    arrays = held(fleet(host("a", gpus=4)), gpu1=700, gpu2=300, gpu3=701)
    decision = placed(arrays, share(300, numa="legacy"))
    assert (decision.devices, decision.device_milli) == (("gpu1",), 300)
    assert decision.score == {"milliLeftOnDevice": 0}
    assert placed(arrays, share(301)).devices == ("gpu2",)
    assert placed(arrays, share(800)).devices == ("gpu0",)


def test_of_several_hosts_one_with_a_begun_device_is_taken_then_one_with_few_whole_ones() -> None:
    arrays = held(fleet(host("a", gpus=4), host("b", gpus=2), host("c", gpus=4)), gpu0=300)
    assert placed(arrays, share(700)).host == "a"
    decision = placed(arrays, share(701))
    assert (decision.host, decision.score["devicesLeft"]) == ("b", 1)


def test_it_is_taken_of_the_device_that_was_wished_where_that_will_do() -> None:
    arrays = held(fleet(host("a", gpus=4)), gpu1=700, gpu2=300, gpu3=701)
    sight = Sight.of(arrays, share(200))
    for wish, device in ((None, "gpu3"), (300, "gpu1"), (700, "gpu2"), (1000, "gpu0"), (150, "gpu3")):
        decision = place(sight, wish=wish)
        assert decision is not None
        assert decision.devices == (device,), wish
    short = place(Sight.of(arrays, share(300)), wish=299)
    assert short is not None
    assert short.devices == ("gpu1",), "what was wished is not enough"


def test_whole_devices_are_those_that_nobody_has_anything_of() -> None:
    arrays = held(fleet(host("a", gpus=2)), gpu0=1)
    assert placed(arrays, ask(device_count=1)).devices == ("gpu1",)
    assert str(refused(arrays, ask(device_count=2))) == "1 host: short of 2 GPUs (1 free)"
    arrays.hold("x", Hold("a", ("gpu1",), ()))
    assert placed(arrays, share(999)).devices == ("gpu0",)


def test_what_is_begun_is_used_before_a_small_switch_is_broken() -> None:
    arrays = fleet(host("a", gpus=6))
    arrays.hold("x", Hold("a", ("gpu3",), ()))
    assert placed(arrays, share(500)).devices == ("gpu2",), "the switch that is broken already"
    held(arrays, gpu5=500)
    assert placed(arrays, share(500)).devices == ("gpu5",)


def test_a_share_lies_beside_its_cores_where_that_is_wished() -> None:
    arrays = held(fleet(host("a", gpus=4)), gpu0=500, gpu2=300)
    arrays.hold("x", Hold("a", (), (Allocation(numa_node=0, milli_cores=7000, memory_bytes=0),)))
    for numa, device in (("required", "gpu2"), ("preferred", "gpu2"), ("legacy", "gpu0")):
        assert placed(arrays, share(500, cores=2, numa=numa)).devices == (device,), numa
    required = placed(arrays, share(500, cores=2, numa="required"))
    assert [part.numa_node for part in required.allocations] == [1]
    wish = place(Sight.of(arrays, share(500, cores=2)), wish=500)
    assert wish is not None
    assert wish.devices == ("gpu2",), "what is near goes before what is wished"
    held(arrays, gpu3=300)
    refusal = refused(arrays, share(800, cores=8, numa="required"))
    assert str(refusal) == "1 host: NUMA node 0 short of 8 cores"
    assert refusal.cheapest == "numa: preferred instead of required"


def test_a_share_on_a_known_switch_is_kept_to_one() -> None:
    loose = host("a", gpus=1)
    device = loose.inventory.devices[0].model_copy(update={"pcie_switch": "", "nvlink_domain": ""})
    arrays = fleet(replace(loose, inventory=loose.inventory.model_copy(update={"devices": [device]})))
    assert placed(arrays, share(500)).devices == ("gpu0",)
    assert refused(arrays, share(500, same_switch=True)).cheapest == "let the devices lie on several PCIe switches"
    assert refused(arrays, share(500, same_nvlink=True)).cheapest == "let the devices lie in several NVLink domains"


def test_what_is_short_is_said_in_devices() -> None:
    one = held(fleet(host("a", gpus=2)), gpu0=900, gpu1=950)
    refusal = refused(one, share(250, device_models=H100))
    assert str(refusal) == "1 host: short of 0.25 H100 (0.1 free on one)"
    assert refusal.cheapest == "ask for at most 0.1 H100"
    two = fleet(host("a", gpus=1), host("b", gpus=1), host("c", gpus=8, model="A100"))
    held(two, gpu0=900).hold("x", Hold("b", ("gpu0",), ()))
    text = str(refused(two, share(250, device_models=H100)))
    assert text == "1 host: without H100; 2 hosts: short of 0.25 H100 (at most 0.1 free on one)"
    assert str(refused(one, share(250))) == "1 host: short of 0.25 GPU (0.1 free on one)"


def test_a_device_that_is_held_twice_is_short_of_nothing_more_than_all() -> None:
    arrays = held(fleet(host("a", gpus=1)), gpu0=900)
    arrays.hold("next", Hold("a", ("gpu0",), (), 900))
    refusal = refused(arrays, share(100))
    assert (str(refusal), refusal.cheapest) == (
        "1 host: short of 0.1 GPU (0 free on one)",
        "wait until claims on a end",
    )
    arrays.drop("holder of gpu0")
    assert placed(arrays, share(100)).devices == ("gpu0",)
    arrays.drop("next")
    arrays.hold("whole", Hold("a", ("gpu0", "gpu0"), ()))
    arrays.drop("whole")
    assert placed(arrays, ask(device_count=1)).host == "a", "what is named twice is held once"


def test_the_smaller_share_that_is_proposed_is_the_largest_there_is() -> None:
    arrays = held(fleet(host("a", gpus=2)), gpu0=433, gpu1=434)
    assert refused(arrays, share(999)).cheapest == "ask for at most 0.567 GPU"
    held(arrays, gpu0=1000, gpu1=1000)
    assert refused(arrays, share(999)).cheapest == "wait until claims on a end"


def test_alternatives_of_models_are_taken_as_they_come_and_named() -> None:
    arrays = fleet(host("a", gpus=1, model="A100"), host("b", gpus=2, model="H100"))
    assert placed(arrays, ask(device_count=1, device_models=EITHER)).host == "a"
    assert placed(arrays, ask(device_count=2, device_models=EITHER)).host == "b"
    refusal = refused(arrays, ask(device_count=3, device_models=EITHER | {"B200"}))
    assert str(refusal) == "2 hosts: with fewer than 3 A100, B200 or H100 (at most 2 there)"
    assert refusal.cheapest == "ask for at most 2 A100, B200 or H100"
    other = refused(fleet(host("c", gpus=2, model="L40")), share(500, device_models=EITHER))
    assert (str(other), other.cheapest) == ("1 host: without A100 or H100", "ask for L40")


def test_another_model_may_be_two() -> None:
    kinds = [
        device.model_copy(update={"model": model})
        for device, model in zip(host("a", gpus=2).inventory.devices, ("A100", "L40"), strict=True)
    ]
    facts = host("a", gpus=2)
    mixed = HostFacts(name="a", inventory=facts.inventory.model_copy(update={"devices": kinds}))
    refusal = refused(fleet(mixed), ask(device_count=2, device_models=H100))
    assert refusal.cheapest == "ask for A100 or L40"
    assert placed(fleet(mixed), ask(device_count=2, device_models=frozenset({"A100", "L40"}))).host == "a"


def test_a_share_of_what_is_not_sound_is_nobodys() -> None:
    facts = host("a", gpus=1)
    sick = [facts.inventory.devices[0].model_copy(update={"healthy": False})]
    arrays = fleet(HostFacts(name="a", inventory=facts.inventory.model_copy(update={"devices": sick})))
    assert str(refused(arrays, share(100))) == "1 host: without GPU"


def test_a_decision_counts_for_what_it_takes() -> None:
    arrays = fleet(host("a", gpus=1, memory=GIB * 8))
    for number in range(3):
        decision = placed(arrays, share(300))
        arrays.hold(str(number), Hold.of(decision))
    assert refused(arrays, share(300)).cheapest == "ask for at most 0.1 GPU"
    assert placed(arrays, share(100)).devices == ("gpu0",)

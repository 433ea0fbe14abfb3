"""Placement of what lies beside devices, by example: near NICs, functions, rails, threads of one's own, huge pages."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.core.asking import Decision, Refusal, Request
from bessemer.core.beside import Companion
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.units import GIB, MIB
from bessemer.placement import FleetArrays, Hold, HostFacts, decide
from tests.placement.hosts import ask, fleet


def device(name: str, *, node: int = 0, switch: str = "", rail: int | None = None, **more: Any) -> Device:
    kind = name.rstrip("0123456789")
    model = more.pop("model", {"gpu": "H100", "nic": "ConnectX-7"}.get(kind, kind))
    return Device(
        id=name, kind=kind, model=model, numa_node=node, pcie_switch=switch, rail=rail, address=f"pci-{name}", **more
    )


def server(name: str, *devices: Device, threads: int = 8, oc: int = 1000, **more: Any) -> HostFacts:
    """Two NUMA nodes of 8 threads, two to a core, 8 GiB of them in pages of 1 GiB, of 32 GiB."""
    numa = [
        NumaNode(
            id=n,
            cores=threads // 2,
            threads=threads,
            memory_bytes=32 * GIB,
            hugepages={str(GIB): 8},
            siblings=[f"{threads * n + c},{threads * n + c + threads // 2}" for c in range(threads // 2)],
        )
        for n in (0, 1)
    ]
    found = Inventory(numa=numa, devices=list(devices), virtualization="kvm", isolation="strong")
    return HostFacts(name=name, inventory=found, overcommit_milli=oc, **more)


def placed(arrays: FleetArrays, request: Request) -> Decision:
    answer = decide(arrays, request)
    assert isinstance(answer, Decision), answer
    return answer


def refused(arrays: FleetArrays, request: Request) -> Refusal:
    answer = decide(arrays, request)
    assert isinstance(answer, Refusal), answer
    return answer


def taken(arrays: FleetArrays, request: Request, uid: str = "x") -> Decision:
    answer = placed(arrays, request)
    arrays.hold(uid, Hold.of(answer))
    return answer


NIC = Companion(kind="nic")
NEAR = Companion(kind="nic", near="switch")


def test_the_near_one_is_taken_also_where_any_would_do() -> None:
    far, near = device("nic0", node=1, switch="b"), device("nic1", switch="a")
    arrays = fleet(server("h", far, near, device("gpu0", switch="a")))
    decision = placed(arrays, ask(device_count=1, companions=(NIC,), numa="legacy"))
    assert [use.device for use in decision.companions] == ["nic1"]
    assert decision.companions[0].address == "pci-nic1"
    assert [(place.id, place.pcie_switch, place.numa_node) for place in decision.tree] == [
        ("gpu0", "a", 0),
        ("nic1", "a", 0),
    ]


def test_each_switch_with_a_gpu_has_its_own_nic_and_the_reason_says_where_none_is() -> None:
    gpus = [device(f"gpu{n}", switch=f"s{n // 2}") for n in range(4)]
    arrays = fleet(server("h", *gpus, device("nic0", switch="s0")))
    assert placed(arrays, ask(device_count=2, companions=(NEAR,))).devices == ("gpu0", "gpu1")
    refusal = refused(arrays, ask(device_count=3, device_models=frozenset({"H100"}), companions=(NEAR,)))
    assert str(refusal) == "1 host: no NIC under the PCIe switch of 3 free H100"
    # Another switch of the same node will do.
    assert refusal.cheapest == "let the NIC lie under another PCIe switch than the H100"
    apart = fleet(server("h", *gpus, device("nic0", node=1, switch="s9")))
    assert refused(apart, ask(device_count=1, companions=(NEAR,))).cheapest == "let the NIC lie away from the GPU"


def test_one_near_companion_is_near_one_node() -> None:
    arrays = fleet(server("h", *(device(f"{kind}{n}", node=n) for kind in ("gpu", "nic") for n in (0, 1))))
    one, two = Companion(kind="nic", near="node"), Companion(kind="nic", near="node", count=2)
    assert isinstance(decide(arrays, ask(device_count=2, companions=(one,))), Refusal)
    assert len(placed(arrays, ask(device_count=2, companions=(two,))).companions) == 2


def test_rails_are_told_apart_also_where_the_obvious_choice_is_wrong() -> None:
    """Both switches have a NIC, of one rail: three rails are there, and not one for each switch."""
    gpus = [device(f"gpu{n}", switch=f"s{n}") for n in range(3)]
    nics = [device("nic0", switch="s0", rail=1), device("nic1", switch="s1", rail=1)]
    nics += [device("nic2", switch="s2", rail=2), device("nic3", switch="s2", rail=3)]
    wish = Companion(kind="nic", count=3, rails=True, near="switch")
    refusal = refused(fleet(server("h", *gpus, *nics)), ask(device_count=3, companions=(wish,)))
    assert str(refusal) == "1 host: no 3 NICs on different rails under the PCIe switch of 3 free GPUs"
    assert refusal.cheapest == "let the 3 NICs lie under another PCIe switch than the GPUs"
    more = fleet(server("h", *gpus, *nics, device("nic4", switch="s0", rail=2), device("nic5", switch="s1", rail=3)))
    uses = placed(more, ask(device_count=3, companions=(wish,))).companions
    rails = {device.id: device.rail for device in more.parts(0).others}
    assert {rails[use.device] for use in uses} == {1, 2, 3}


def test_functions_of_a_nic_are_shared_and_what_is_begun_is_used_up_first() -> None:
    arrays = fleet(server("h", *(device(f"nic{n}", functions=4) for n in range(2))))
    two = Companion(kind="nic", functions=2)
    first, second = (taken(arrays, ask(companions=(two,)), uid) for uid in "ab")
    assert first.companions == second.companions
    assert first.companions[0].functions == 2
    # One is used up, and the other is free as a whole.
    assert taken(arrays, ask(companions=(NIC,)), "c").companions[0].device != first.companions[0].device
    assert str(refused(arrays, ask(companions=(two,)))) == "1 host: short of NIC with 2 functions (0 free)"
    arrays.drop("a")
    assert isinstance(decide(arrays, ask(companions=(NIC,))), Refusal), "nobody has the whole while somebody has a part"
    assert placed(arrays, ask(companions=(two,))).companions == first.companions


def test_what_no_host_has_is_said() -> None:
    arrays = fleet(server("h", device("nic0")), server("i", device("disk0")))
    refusal = refused(arrays, ask(companions=(Companion(kind="nic", models=frozenset({"x8"})), Companion(kind="disk"))))
    assert str(refusal) == "2 hosts: without x8"
    assert refused(arrays, ask(companions=(Companion(kind="tape"),))).cheapest == "do without the tape"
    broken = fleet(server("h", device("nic0", healthy=False)))
    assert str(refused(broken, ask(companions=(NIC,)))) == "1 host: without NIC"


def test_threads_of_ones_own_are_nobody_elses_and_break_up_few_cores() -> None:
    arrays = fleet(server("h"))
    first = taken(arrays, ask(3, cpu_policy="threads"), "a")
    assert [part.cpus for part in first.allocations] == ["0-1,4"]
    assert [part.cpus for part in taken(arrays, ask(1, cpu_policy="threads"), "b").allocations] == ["5"]
    assert [part.cpus for part in taken(arrays, ask(3, cpu_policy="cores"), "c").allocations] == ["2-3,6-7"]
    assert first.allocations[0].spare_milli_cores == 0
    # Of node 0 nothing is left, for a core that is paid for in part is taken whole.
    assert placed(arrays, ask(1)).allocations[0].numa_node == 1


def test_a_thread_of_ones_own_costs_what_it_would_have_been_sold_for() -> None:
    arrays = fleet(server("h", oc=4000))
    part = taken(arrays, ask(2, cpu_policy="threads", numa="required"), "a").allocations[0]
    assert (part.milli_cores, part.spare_milli_cores) == (2000, 6000)
    assert arrays.cores_free[0].tolist() == [24000, 32000]
    taken(arrays, ask(22, numa="required"), "b")
    refusal = refused(arrays, ask(9, cpu_policy="cores", numa="required"))
    assert str(refusal) == "1 host: short of 9 threads on dedicated physical cores (8 free)"
    assert refusal.cheapest == "ask for shared cores in place of dedicated ones"


def test_without_numbers_nobody_has_threads_of_ones_own() -> None:
    facts = HostFacts(name="h", inventory=Inventory(numa=[NumaNode(id=0, cores=2, threads=4, memory_bytes=GIB)]))
    refusal = refused(fleet(facts), ask(1, 0, cpu_policy="threads"))
    assert str(refusal) == "1 host: short of 1 dedicated thread (0 free)"
    assert refusal.cheapest == "ask for shared cores in place of dedicated ones"


def test_huge_pages_are_beside_the_cores_and_are_no_ordinary_memory() -> None:
    arrays = fleet(server("h"))
    part = taken(arrays, ask(2, 6 * GIB, page_bytes=GIB, numa="required"), "a").allocations[0]
    assert (part.memory_bytes, part.page_bytes) == (6 * GIB, GIB)
    refusal = refused(arrays, ask(1, 12 * GIB, page_bytes=GIB))
    assert str(refusal) == "1 host: short of 12 GiB in huge pages of 1 GiB (10 GiB free)"
    assert refusal.cheapest == "ask for ordinary memory in place of huge pages"
    assert str(refused(arrays, ask(1, 49 * GIB))) == "1 host: short of 49 GiB of memory (48 GiB free)"


def test_the_node_that_lacks_something_is_named() -> None:
    arrays = fleet(*(server(name, device("gpu0", node=1)) for name in "ab"))
    for name in "ab":
        part = placed(arrays, ask(2, numa="required", device_count=1)).allocations[0]
        arrays.hold(name, Hold(name, (), (part,)))
    refusal = refused(arrays, ask(7, numa="required", device_count=1))
    assert str(refusal) == "2 hosts: NUMA node 1 short of 7 cores"
    assert str(refused(arrays, ask(1, 25 * GIB, numa="required", device_count=1))) == (
        "2 hosts: NUMA node 1 short of 25 GiB of memory"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"companions": (NIC, NIC)},
        {"companions": (NIC, Companion(kind="nic", models=frozenset({"x7"})))},
        {"companions": (NEAR,)},
        {"companions": (Companion(kind="gpu"),)},
        {"milli_cores": 1500, "cpu_policy": "cores"},
        {"memory_bytes": 3 * MIB, "page_bytes": 2 * MIB},
        {"memory_bytes": 4096, "page_bytes": 4096},
    ],
)
def test_what_nobody_could_mean_is_no_request(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Request(**{"tenant": "acme", "milli_cores": 1000, "memory_bytes": 0, **wrong})


def test_a_report_whose_threads_make_no_sense_gives_none_away() -> None:
    for siblings in (["0,1", "1,2"], ["0-99999"], ["x"], ["0", "1", "2", "3", "4"]):
        node = NumaNode(id=0, cores=2, threads=4, memory_bytes=GIB, siblings=siblings)
        arrays = fleet(HostFacts(name="h", inventory=Inventory(numa=[node])))
        assert isinstance(decide(arrays, ask(1, 0, cpu_policy="threads")), Refusal), siblings
        assert isinstance(decide(arrays, ask(4, 0)), Decision)

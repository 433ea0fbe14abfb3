"""Placement by example: what is taken, what is said, what is proposed."""

from __future__ import annotations

from bessemer.core.asking import Allocation, Decision, Refusal
from bessemer.core.units import GIB
from bessemer.placement import FleetArrays, Hold, Wall, decide, set_wall
from tests.placement.hosts import ask, fleet, host


def placed(arrays: FleetArrays, **request) -> Decision:
    decision = decide(arrays, ask(**request))
    assert isinstance(decision, Decision), decision
    return decision


def refused(arrays: FleetArrays, **request) -> Refusal:
    refusal = decide(arrays, ask(**request))
    assert isinstance(refusal, Refusal), refusal
    return refusal


def test_an_empty_fleet_says_so():
    refusal = refused(FleetArrays())
    assert str(refusal) == "there are no hosts"
    assert refusal.cheapest == ""


def test_a_small_request_gets_one_numa_node():
    decision = placed(fleet(host("a")), cores=2, memory=4 * GIB)
    assert decision.allocations == (Allocation(numa_node=0, milli_cores=2000, memory_bytes=4 * GIB),)


def test_the_fullest_host_that_fits_is_taken():
    arrays = fleet(host("a"), host("b"), host("c"))
    arrays.hold("x", Hold("b", (), (Allocation(numa_node=0, milli_cores=4000, memory_bytes=GIB),)))
    decision = placed(arrays, cores=4)
    assert (decision.host, decision.allocations[0].numa_node) == ("b", 0)


def test_what_needs_no_gpu_stays_off_the_hosts_that_have_some():
    assert placed(fleet(host("gpu", gpus=8, threads=4), host("plain", threads=64))).host == "plain"


def test_two_gpus_share_a_switch_and_leave_large_blocks_whole():
    arrays = fleet(host("a", gpus=8), host("b", gpus=8))
    arrays.hold("x", Hold("b", ("gpu5",), ()))
    assert placed(arrays, device_count=1).devices == ("gpu4",), "the switch that is broken already"
    assert placed(arrays, device_count=2).devices == ("gpu0", "gpu1")
    assert placed(arrays, device_count=8).host == "a"


def test_cores_and_memory_lie_beside_the_devices():
    arrays = fleet(host("a", gpus=4))
    arrays.hold("x", Hold("a", ("gpu0", "gpu1"), ()))
    decision = placed(arrays, device_count=2)
    assert decision.devices == ("gpu2", "gpu3")
    assert decision.allocations[0].numa_node == 1


def test_what_spans_nodes_does_so_only_where_it_may():
    arrays = fleet(host("a", threads=4))
    decision = placed(arrays, cores=6, memory=40 * GIB)
    assert sum(part.milli_cores for part in decision.allocations) == 6000
    assert sum(part.memory_bytes for part in decision.allocations) == 40 * GIB
    refusal = refused(arrays, cores=6, numa="required")
    assert str(refusal) == "1 host: each NUMA node short of 6 cores"
    assert refusal.cheapest == "numa: preferred instead of required"


def test_required_numa_puts_devices_cores_and_memory_on_one_node():
    arrays = fleet(host("a", gpus=4))
    arrays.hold("x", Hold("a", (), (Allocation(numa_node=0, milli_cores=7000, memory_bytes=0),)))
    decision = placed(arrays, cores=2, device_count=2, numa="required")
    assert decision.devices == ("gpu2", "gpu3")
    assert [part.numa_node for part in decision.allocations] == [1]


def test_same_switch_is_kept_or_refused():
    arrays = fleet(host("a", gpus=4))
    assert placed(arrays, device_count=2, same_switch=True).devices == ("gpu0", "gpu1")
    refusal = refused(arrays, device_count=4, same_switch=True, same_nvlink=True)
    assert str(refusal) == "1 host: with room, but not on one PCIe switch and one NVLink domain"
    assert refusal.cheapest == "let the devices lie on several PCIe switches"
    assert placed(fleet(host("plain")), same_switch=True).devices == (), "who wants none has no switch to keep"


def test_a_criterion_that_no_host_meets_decides_nothing_and_is_not_told():
    arrays = fleet(host("a", gpus=4), host("b", gpus=4))
    assert "devicesLeftOnSwitch" in placed(arrays, device_count=2).score
    assert "devicesLeftOnSwitch" not in placed(arrays, device_count=4).score


def test_overcommit_sells_threads_again_and_memory_never():
    arrays = fleet(host("a", nodes=1, threads=2, memory=4 * GIB, overcommit_milli=4000))
    assert placed(arrays, cores=8).host == "a"
    refusal = refused(arrays, cores=8, memory=5 * GIB)
    assert str(refusal) == "1 host: short of 5 GiB of memory (4 GiB free)"
    assert refusal.cheapest == "ask for at most 4 GiB of memory"


def test_every_host_counts_under_its_first_reason():
    arrays = fleet(
        host("away", reachable=False),
        host("kept", schedulable=False),
        *(host(f"fake{n}", taints=("bessemer.dev/fake",), fake=True, gpus=8) for n in range(38)),
        host("metal", virtualization="none"),
        host("open", isolation="none"),
        host("bare"),
        host("two", gpus=2),
        host("small", threads=1, nodes=1, gpus=8, overcommit_milli=1500),
        host("full", gpus=8),
    )
    arrays.hold("x", Hold("full", tuple(f"gpu{n}" for n in range(5)), ()))
    refusal = refused(
        arrays,
        cores=2,
        device_count=8,
        virtualization=True,
        isolation=True,
    )
    assert str(refusal).split("; ") == [
        "1 host: not reachable",
        "1 host: cordoned",
        "38 hosts: tainted bessemer.dev/fake",
        "1 host: without virtualization",
        "1 host: without a sandbox for engines",
        "1 host: without GPUs",
        "1 host: with fewer than 8 GPUs (2 there)",
        "1 host: short of 2 cores (1.5 free)",
        "1 host: short of 8 GPUs (3 free)",
    ]
    assert refusal.cheapest == "ask for at most 1 core"


def test_fake_hosts_are_proposed_after_all_that_is_real():
    taint = ("bessemer.dev/fake",)
    refusal = refused(fleet(host("real"), host("fake", taints=taint, fake=True, gpus=8)), device_count=8)
    assert refusal.cheapest == "tolerate bessemer.dev/fake (fake hosts: nothing real runs there)"
    assert placed(fleet(host("fake", taints=taint, fake=True)), tolerations=("*",)).fake


def test_nobody_tolerates_what_is_not_their_tenants_to_tolerate():
    arrays = fleet(host("kept", taints=("maintenance",)), host("slow", taints=("slow",)))
    for said in (("*",), ("maintenance", "slow")):
        assert placed(arrays, tolerations=said, bearable=frozenset({"slow"})).host == "slow"
        refusal = refused(arrays, tolerations=said, bearable=frozenset())
        assert str(refusal) == "1 host: tainted maintenance; 1 host: tainted slow"
        assert refusal.cheapest == "an administrator can let tenant acme tolerate maintenance"
    both = fleet(host("a", taints=("maintenance", "slow")))
    assert str(refused(both, tolerations=("*",), bearable=frozenset({"slow"}))) == "1 host: tainted maintenance"


def test_both_that_tolerate_are_named_at_once():
    """What the workload says, and what its tenant may: who does one alone asks twice."""
    refusal = refused(fleet(host("kept", taints=("maintenance",))), bearable=frozenset())
    let = "and have an administrator let tenant acme do so: by spec.tolerations of the workload and of its Tenant"
    assert refusal.cheapest == f"tolerate maintenance, {let}"


def test_what_a_tenant_may_tolerate_is_proposed_before_what_an_administrator_may_give():
    arrays = fleet(host("kept", taints=("a-kept",)), host("slow", taints=("slow",)))
    assert refused(arrays, bearable=frozenset({"slow"})).cheapest == "tolerate slow"
    assert refused(arrays, bearable=frozenset({"a-kept"})).cheapest == "tolerate a-kept"
    assert refused(arrays).cheapest == "tolerate a-kept"
    cordoned = fleet(host("kept", taints=("a-kept",)), host("off", schedulable=False))
    assert refused(cordoned, bearable=frozenset()).cheapest == "an administrator can uncordon off"


def test_another_model_is_proposed_by_its_name():
    refusal = refused(fleet(host("a", gpus=2, model="A100")), device_count=2, device_models=frozenset({"H100"}))
    assert (str(refusal), refusal.cheapest) == ("1 host: without H100", "ask for A100")


def test_waiting_and_an_administrator_come_last():
    arrays = fleet(host("a", gpus=1))
    arrays.hold("x", Hold("a", ("gpu0",), ()))
    assert refused(arrays, device_count=1).cheapest == "wait until claims on a end"
    assert refused(fleet(host("a", schedulable=False))).cheapest == "an administrator can uncordon a"
    assert refused(fleet(host("a", reachable=False))).cheapest == "an administrator can bring a back"
    assert refused(fleet(host("a")), device_count=1).cheapest == ""


def test_an_unhealthy_device_is_nobodys():
    facts = host("a", gpus=1)
    sick = [facts.inventory.devices[0].model_copy(update={"healthy": False})]
    arrays = fleet(host("b"))
    arrays.set_host(type(facts)(name="a", inventory=facts.inventory.model_copy(update={"devices": sick})))
    assert str(refused(arrays, device_count=1)) == "2 hosts: without GPU"


def test_a_hold_may_come_before_its_host_and_outlive_its_row():
    arrays = FleetArrays()
    arrays.hold("x", Hold("a", ("gpu0",), (Allocation(numa_node=0, milli_cores=1000, memory_bytes=GIB),)))
    arrays.set_host(host("a", gpus=1))
    assert str(refused(arrays, device_count=1)) == "1 host: short of 1 GPU (0 free)"
    arrays.remove_host("a")
    arrays.set_host(host("b", gpus=1))
    arrays.set_host(host("a", gpus=1))
    assert placed(arrays, device_count=1).host == "b"
    arrays.drop("x")
    arrays.drop("x")
    arrays.remove_host("b")
    arrays.remove_host("b")
    assert placed(arrays, device_count=1).host == "a"


def test_hardware_that_vanished_under_a_claim_gives_nothing_back():
    arrays = fleet(host("a", nodes=2, gpus=2))
    arrays.hold("x", Hold("a", ("gpu1",), (Allocation(numa_node=1, milli_cores=4000, memory_bytes=GIB),)))
    arrays.set_host(host("a", nodes=1, gpus=1, threads=2))
    arrays.drop("x")
    assert str(refused(arrays, cores=3)) == "1 host: short of 3 cores (2 free)"


# --- walls ------------------------------------------------------------------------------------------------------

OURS, THEIRS, BOTH = (frozenset(names) for names in (["acme"], ["rival"], ["acme", "rival"]))


def test_a_dedicated_host_takes_its_own_tenants_alone():
    arrays = fleet(host("a", wall=Wall("x", THEIRS)), host("b", wall=Wall("x", BOTH)), host("c"))
    arrays.hold("x", Hold("a", (), (Allocation(numa_node=0, milli_cores=1000, memory_bytes=GIB),)))
    decision = placed(arrays)
    assert decision.host in "bc"
    assert [(r.code, r.hosts, r.text) for r in decision.reasons] == [("Dedicated", 1, "dedicated to other tenants")]
    assert "rival" not in str(decision)


def test_a_tenant_is_kept_to_its_sites_and_its_own_hosts():
    arrays = fleet(host("a", wall=Wall("x", OURS)), host("b", wall=Wall("x")), host("c", wall=Wall("y")))
    assert placed(arrays, own_hosts=True).host == "a"
    assert placed(arrays, sites=frozenset(["y"])).host == "c"
    refusal = refused(arrays, own_hosts=True, sites=frozenset(["y"]))
    assert str(refusal) == (
        "2 hosts: not dedicated to tenant acme, which is kept to its own; 1 host: at another site than y"
    )
    assert refusal.cheapest == "an administrator can open more sites to tenant acme"
    assert (
        refused(fleet(host("b")), own_hosts=True).cheapest == "an administrator can dedicate more hosts to tenant acme"
    )


def test_a_wall_that_moves_is_a_walls_alone():
    arrays = fleet(host("a"), host("b"))
    arrays.hold("x", Hold("a", (), (Allocation(numa_node=0, milli_cores=1000, memory_bytes=GIB),)))
    before, free = arrays.version, arrays.cores_free.copy()
    set_wall(arrays, "a", wall=Wall("", THEIRS))
    assert placed(arrays).host == "b"
    assert arrays.version == before + 1
    assert (arrays.cores_free == free).all()
    set_wall(arrays, "a", wall=Wall())
    set_wall(arrays, "nowhere", wall=Wall("", THEIRS))
    assert placed(arrays).host == "a"
    arrays.remove_host("a")
    arrays.set_host(host("c"))
    assert placed(arrays).host in "bc", "the row of a host that went has nobody's wall"

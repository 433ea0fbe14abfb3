"""What no row counts is taken once as well: threads by number, huge pages, companions and their functions."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from bessemer.core.asking import Allocation, Request
from bessemer.core.beside import CompanionUse
from bessemer.core.errors import Taken
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from bessemer.core.units import GIB
from bessemer.core.values import Asked, ClaimSpec
from bessemer.store import Store
from bessemer.store.tally import Known, Survey
from tests.store.invariants import connect
from tests.store.make import ALICE, agent, body, claim, read

NODE = NumaNode(
    id=0, cores=4, threads=8, memory_bytes=16 * GIB, hugepages={str(GIB): 4}, siblings=["0,4", "1,5", "2,6", "3,7"]
)
NIC = Device(id="nic-0", kind="nic", model="x7", functions=4)
OWN = Device(id="nic-1", kind="nic", model="x7", in_use=True)


async def host(store: Store, *, overcommit: int = 1000) -> None:
    """A host that has reported, and is declared as it did."""
    found = Inventory(numa=[NODE], devices=[NIC, OWN])
    await store.objects.create(body("Host", "h1", spec={"overcommitMilli": overcommit}, namespace=""), ALICE)
    said = {"kind": "Host", "metadata": {"name": "h1"}, "status": {"report": found.dump()}}
    await store.objects.replace(said, agent("h1"), part="report")
    await store.capacity.declare("h1", found, overcommit_milli=overcommit)


def pinned(name: str, *uses: CompanionUse, **part: Any) -> tuple[Key, ClaimSpec, dict[str, Any]]:
    key, spec, metadata = claim(name)
    one = Allocation(**{"numa_node": 0, "milli_cores": 1000, "memory_bytes": 0, **part})
    return key, spec.model_copy(update={"allocations": [one], "companions": list(uses)}), metadata


def use(functions: int, device: str = "nic-0") -> CompanionUse:
    return CompanionUse(kind="nic", device=device, functions=functions)


async def test_a_thread_is_of_one_claim(store: Store) -> None:
    await host(store)
    (first,) = await store.capacity.take([pinned("a", cpus="0,4", milli_cores=2000)], CONTROLLER)
    for cpus, why in (("4", "went to another claim"), ("9", "are not on NUMA node 0")):
        with pytest.raises(Taken, match=why):
            await store.capacity.take([pinned("b", cpus=cpus)], CONTROLLER)
    with pytest.raises(Taken, match="went to another claim"):
        await store.capacity.take([pinned("b", cpus="1"), pinned("c", cpus="1")], CONTROLLER)
    await store.capacity.take([pinned("b", cpus="1")], CONTROLLER)
    await store.capacity.release(first.key, CONTROLLER, fenced=True)
    await store.capacity.take([pinned("d", cpus="0")], CONTROLLER)


async def test_a_thread_takes_what_it_would_be_sold_for(store: Store) -> None:
    await host(store, overcommit=4000)
    with pytest.raises(Taken, match="sold 4000 thousandths of a time by now"):
        await store.capacity.take([pinned("a", cpus="0")], CONTROLLER)
    await store.capacity.take([pinned("a", cpus="0", spare_milli_cores=3000)], CONTROLLER)
    with pytest.raises(Taken, match="no 29000 milli-cores"):
        await store.capacity.take([pinned("b", milli_cores=29000)], CONTROLLER)
    await store.capacity.take([pinned("b", milli_cores=28000)], CONTROLLER)
    assert {use.meter: use.used for use in await store.capacity.use("tenant/acme")}["milli_cores"] == 29000


async def test_huge_pages_are_apart_from_ordinary_memory(store: Store) -> None:
    await host(store)
    await store.capacity.take([pinned("a", page_bytes=GIB, memory_bytes=3 * GIB)], CONTROLLER)
    with pytest.raises(Taken, match="in huge pages of 1073741824 on NUMA node 0"):
        await store.capacity.take([pinned("b", page_bytes=GIB, memory_bytes=2 * GIB)], CONTROLLER)
    with pytest.raises(Taken, match="bytes of memory left"):
        await store.capacity.take([pinned("b", memory_bytes=13 * GIB)], CONTROLLER)
    await store.capacity.take([pinned("b", memory_bytes=12 * GIB)], CONTROLLER)


async def test_a_nic_is_of_one_or_its_functions_of_several(store: Store) -> None:
    await host(store)
    (first,) = await store.capacity.take([pinned("a", use(3))], CONTROLLER)
    for wish, why in ((use(2), "no 2 functions are left"), (use(0), "went to another"), (use(1, "nic-9"), "not there")):
        with pytest.raises(Taken, match=why):
            await store.capacity.take([pinned("b", wish)], CONTROLLER)
    await store.capacity.take([pinned("b", use(1))], CONTROLLER)
    await store.capacity.release(first.key, CONTROLLER, fenced=True)
    await store.capacity.release(pinned("b")[0], CONTROLLER, fenced=True)
    await store.capacity.take([pinned("c", use(0))], CONTROLLER)
    with pytest.raises(Taken, match="went to another"):
        await store.capacity.take([pinned("d", use(1))], CONTROLLER)


async def test_what_a_host_needs_itself_is_nobodys(store: Store) -> None:
    await host(store)
    with pytest.raises(Taken, match="not there, or not healthy"):
        await store.capacity.take([pinned("a", use(0, "nic-1"))], CONTROLLER)


OLD = {
    *("host", "tenant", "workload", "devices", "deviceModel"),
    *("allocations", "flavor", "fake", "placement", "intent"),
}
"""What schema 0007 reads of a Claim's spec, and refuses anything else."""


def admit(place: str, schema: int) -> None:
    with closing(connect(place)) as hand:
        hand.execute(f"UPDATE counters SET value = {schema} WHERE name = 'carries'")


async def test_what_an_older_release_could_not_read_is_not_said_while_one_serves(store: Store, place: str) -> None:
    await host(store)
    key, spec, metadata = claim("a")
    asked = Asked.of(Request(tenant="acme", milli_cores=1000, memory_bytes=GIB))
    terms = {"since": 5, "ends": 9, "priority": 3, "preemptible": True, "movable": "Replace"}
    spec = spec.model_copy(update={"asked": asked, **terms})
    admit(place, 7)
    (stored,) = await store.capacity.take([(key, spec, metadata)], CONTROLLER)
    said = read(stored)["spec"]
    assert said.keys() <= OLD
    assert set(said["allocations"][0]) == {"numaNode", "milliCores", "memoryBytes"}
    for wanted in (pinned("b", cpus="0"), pinned("b", use(1)), claim("b", devices=("gpu-0",), part=(500, "", 0))):
        with pytest.raises(Taken, match="while a release serves which knows nothing of it"):
            await store.capacity.take([wanted], CONTROLLER)
    await store.capacity.release(key, CONTROLLER, fenced=True)
    admit(place, 8)
    (stored,) = await store.capacity.take([(key, spec, metadata)], CONTROLLER)
    assert ClaimSpec.model_validate(read(stored)["spec"]) == spec


def test_of_a_report_a_check_keeps_what_it_asks_for() -> None:
    """It has those of all hosts at once."""
    survey, found = Survey({}), Inventory(numa=[NODE], devices=[NIC, OWN]).dump()
    key = Key("Host", "", "h1")
    document = {"kind": "Host", "metadata": {"name": "h1"}, "status": {"report": found}}
    survey.note(Known(key, "u", 1, b"", False, (), frozenset(), waits=False), document)
    assert survey.reports == {
        "h1": {"numa": found["numa"], "devices": [{"id": "nic-0", "functions": 4}, {"id": "nic-1"}]}
    }

"""What a request asks is stated once: whatever restates it or keeps answers by it is asked of each field here.

A new field of a `Request` fails `test_each_field_is_asked_of` until it has a row below, and that row is then held
against all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest
from pydantic import ValidationError

from bessemer.core.asking import Allocation, Decision, Needs, Request, Taken
from bessemer.core.beside import Companion, CompanionUse
from bessemer.core.units import GIB, TIB
from bessemer.core.values import Asked
from bessemer.kinds.fleet.moved import KeptPlace
from bessemer.placement import FleetArrays, Hold, decide
from bessemer.placement.board import Board
from bessemer.placement.facts import Wall
from bessemer.placement.gangs.room import COUNTED, understood
from bessemer.placement.policies.published import FirstFit
from bessemer.placement.shape import Shape
from tests.placement.hosts import fleet, host


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """``value`` of a field decides whether a request fits a host of that kind, whose other fields are ``beside``."""

    value: object
    beside: Mapping[str, Any] = field(default_factory=dict)
    there: Mapping[str, Any] = field(default_factory=dict)

    def fleet(self) -> FleetArrays:
        return fleet(host("h0", **{"gpus": 4, **self.there}))

    def requests(self, name: str) -> tuple[Request, Request]:
        """Without the field, and with it."""
        plain = {"tenant": "acme", "milli_cores": 1000, "memory_bytes": GIB, **self.beside}
        return Request(**plain), Request(**plain | {name: self.value})


NEEDED = {
    "milli_cores": Case(value=64_000),
    "memory_bytes": Case(value=TIB),
    "device_count": Case(value=5),
    "device_milli": Case(value=500, beside={"device_count": 1}, there={"sharing": "none"}),
    "device_profile": Case(value="1g.10gb", beside={"device_count": 1}),
    "device_models": Case(value=frozenset({"gone", "away"}), beside={"device_count": 1}),
    "numa": Case(value="required", beside={"milli_cores": 12_000}),
    "same_switch": Case(value=True, beside={"device_count": 3}),
    "same_nvlink": Case(value=True, beside={"device_count": 3}, there={"nvlink_partitions": [["gpu0", "gpu1"]]}),
    "companions": Case(value=(Companion(kind="nic", models=frozenset({"b", "a"})),)),
    "cpu_policy": Case(value="threads"),
    "page_bytes": Case(value=1 << 21),
    "device_bytes": Case(value=TIB, beside={"device_count": 1, "device_milli": 1}),
}

WHOSE = {
    "tenant": Case(value="other", there={"wall": Wall(owners=frozenset({"acme"}))}),
    "tolerations": Case(value=("slow",), there={"taints": ("slow",)}),
    "bearable": Case(value=frozenset({"b", "a"}), beside={"tolerations": ("*",)}, there={"taints": ("slow",)}),
    "sites": Case(value=frozenset({"south", "north"})),
    "own_hosts": Case(value=True),
    "virtualization": Case(value=True, there={"virtualization": "none"}),
    "isolation": Case(value=True, there={"isolation": "none"}),
    "engine": Case(value="vllm"),
}

CASES = {**NEEDED, **WHOSE}


def unasked(kind: type[Request]) -> set[str]:
    """Fields that have no row above."""
    return {one.name for one in fields(kind)} - CASES.keys()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wider(Request):
    """One that asks for something that nobody heard of."""

    colour: str = ""


def test_each_field_is_asked_of() -> None:
    assert unasked(Request) == set()
    assert {one.name for one in fields(Needs)} == NEEDED.keys()
    assert {one.name for one in fields(Shape)} == NEEDED.keys()


def test_an_unknown_field_is_refused() -> None:
    wider = Wider(tenant="acme", milli_cores=1000, memory_bytes=GIB, colour="red")
    assert unasked(Wider) == {"colour"}
    with pytest.raises(ValidationError, match="colour"):
        Asked.of(wider)


@pytest.mark.parametrize("name", CASES)
def test_a_claim_keeps_it(name: str) -> None:
    for request in CASES[name].requests(name):
        kept = Asked.model_validate(Asked.of(request).dump())
        assert kept.request(request.tenant) == request
        decision = Decision(host="h0", devices=(), allocations=(), request=request)
        hold = Hold.of(decision)
        assert (hold.request, hold.shape) == (request, Shape.of(request).taken(1000))


def test_what_is_taken_is_what_is_held_and_what_is_kept() -> None:
    part = Allocation(numa_node=1, milli_cores=2000, memory_bytes=GIB)
    each: dict[str, Any] = {
        "host": "h0",
        "devices": ("gpu0",),
        "allocations": (part,),
        "device_milli": 250,
        "device_profile": "2g.20gb",
        "device_start": 2,
        "companions": (CompanionUse(device="nic0", kind="nic", functions=1),),
    }
    taken = {one.name: one.default for one in fields(Taken)}
    assert each.keys() == taken.keys()
    assert all(each[name] != said for name, said in taken.items()), "each field says something"
    decision = Decision(**each, request=Request(tenant="acme", milli_cores=2000, memory_bytes=GIB))
    hold = Hold.of(decision)
    assert {name: getattr(hold, name) for name in each} == each
    assert not hold.takes_as(replace(hold, device_start=3))
    kept = KeptPlace.model_validate(KeptPlace.of(decision).dump())
    assert kept.decision(decision.request) == decision
    assert KeptPlace.model_fields.keys() == taken.keys()


@pytest.mark.parametrize("name", CASES)
def test_what_the_hardware_must_answer_is_the_shape(name: str) -> None:
    plain, asking = CASES[name].requests(name)
    assert (Shape.of(plain) != Shape.of(asking)) == (name in NEEDED)
    assert getattr(Shape.of(asking), name, None) == (getattr(asking, name) if name in NEEDED else None)


@pytest.mark.parametrize("name", CASES)
def test_no_answer_is_given_to_another(name: str) -> None:
    case = CASES[name]
    arrays, requests = case.fleet(), case.requests(name)
    kept = Board(arrays, FirstFit())
    told = [decide(arrays, request) for request in requests]
    assert len({type(answer) for answer in told}) == 2, "whether it fits hangs on the field"
    for request in (*requests, *requests[::-1]):
        answer = kept.decide(request)
        assert answer == Board(arrays, FirstFit()).decide(request)
        assert type(answer) is type(told[requests.index(request)])


@pytest.mark.parametrize("name", CASES)
def test_of_what_a_gang_cannot_count_one_goes_to_a_host(name: str) -> None:
    plain, asking = CASES[name].requests(name)
    assert understood(plain)
    assert understood(asking) == (name in COUNTED or name in WHOSE)
    assert NEEDED.keys() >= COUNTED

"""Shares in bytes, against the same in thousandths, model by model; `test_properties` has them, too."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Decision, Refusal, Request
from bessemer.core.hosts import Device
from bessemer.core.units import GIB
from bessemer.placement import FleetArrays, Hold, decide
from bessemer.placement.board import Board
from bessemer.placement.demand import Mix, Outlook
from bessemer.placement.own import classes
from bessemer.placement.policies import Costs
from bessemer.placement.policies.potential import Potential
from bessemer.placement.preview import ranked
from bessemer.placement.shape import Shape
from bessemer.placement.states import States
from bessemer.placement.vectors import WHOLE, thousandths
from tests.placement.hosts import ask, fleet, host

SIZES = {"H100": 80 * GIB, "A100": 40 * GIB, "L4": 24 * GIB - 5}


def sized(wanted: int, **more: object) -> Request:
    return ask(device_count=1, device_milli=1, device_bytes=wanted, **more)


def machine(name: str, *models: str, **more: object):
    devices = [Device(id=f"gpu{n}", kind="gpu", model=m, memory_bytes=SIZES[m]) for n, m in enumerate(models)]
    return host(name, devices=devices, **more)


@given(memory=st.integers(0, 1 << 48), wanted=st.integers(1, 1 << 48))
def test_so_many_thousandths_hold_it_and_one_less_does_not(memory: int, wanted: int) -> None:
    milli = int(thousandths(np.array([memory]), wanted)[0])
    if memory < wanted:
        assert milli > WHOLE
    else:
        assert Fraction(milli, WHOLE) * memory >= wanted > Fraction(milli - 1, WHOLE) * memory
        assert 1 <= milli <= WHOLE


@pytest.mark.parametrize("more", [{"device_milli": 500}, {"device_count": 2}, {"device_profile": "1g.10gb"}])
def test_bytes_are_of_one_device_and_nothing_beside(more: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="device"):
        replace(sized(GIB), **more)


def test_of_each_device_so_much_as_it_comes_to() -> None:
    arrays = fleet(machine("a", "A100"), machine("b", "H100"))
    for name, milli in (("A100", 500), ("H100", 250)):
        decision = decide(arrays, sized(20 * GIB, device_models=frozenset({name})))
        assert isinstance(decision, Decision)
        assert decision.device_milli == milli
        assert Hold.of(decision).shape == Shape.of(ask(device_count=1, device_milli=milli, device_models={name}))


def test_what_is_too_large_for_any_is_said_in_bytes_with_the_most_that_there_is() -> None:
    arrays = fleet(machine("a", "A100"), machine("b", "H100"), host("c", gpus=1))
    arrays.hold("x", Hold("b", ("gpu0",), (), 400))
    said = decide(arrays, sized(60 * GIB))
    assert isinstance(said, Refusal)
    assert str(said) == "3 hosts: short of 60 GiB of one GPU (at most 48 GiB free on one)"
    assert said.cheapest == "ask for at most 48 GiB of one GPU"


def policy_of(arrays: FleetArrays) -> Potential:
    shapes = [(2000, 1, 250), (1000, 1, 500), (4000, 1, 1000), (2000, 1, 700)]
    mix = Mix.of({Shape(milli_cores=c, memory_bytes=GIB, device_count=n, device_milli=m): 1.0 for c, n, m in shapes})
    return Potential(Outlook.derive(mix, classes(arrays)))


def test_of_many_sizes_each_host_is_looked_at_for_its_own_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one host says its devices have costs the others nothing."""
    arrays = fleet(machine("a", "A100", "H100"), *(machine(f"b{n}", "H100") for n in range(15)))
    looked: list[int] = []

    policy = policy_of(arrays)
    costs = policy.costs

    def watched(shape: Shape, states: States) -> Costs:
        looked.append(len(states))
        return costs(shape, states)

    monkeypatch.setattr(policy, "costs", watched)
    found = Board(arrays, policy).place(sized(GIB))
    assert found is not None
    assert sorted(looked) == [1, 16]


@given(
    models=st.lists(st.lists(st.sampled_from(sorted(SIZES)), min_size=1, max_size=4), min_size=1, max_size=5),
    held=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from((100, 250, 500, 1000))), max_size=8),
    wanted=st.sampled_from((5 * GIB, 12 * GIB, 20 * GIB, 23 * GIB, 40 * GIB, 80 * GIB)),
)
@settings(max_examples=150, deadline=None)
def test_it_goes_where_it_costs_least_of_all_that_it_could_be(
    models: list[list[str]], held: list[tuple[int, int, int]], wanted: int
) -> None:
    """Each model with its thousandths is asked for by itself; the best of those answers is as good as the one."""
    arrays = fleet(*(machine(f"h{n}", *here) for n, here in enumerate(models)))
    free = {(n, d): 1000 for n, here in enumerate(models) for d in range(len(here))}
    for number, (n, d, milli) in enumerate(held):
        if free.get((n, d), 0) >= milli:
            free[n, d] -= milli
            arrays.hold(f"c{number}", Hold(f"h{n}", (f"gpu{d}",), (), milli))
    policy, request = policy_of(arrays), sized(wanted, numa="legacy")
    found = Board(arrays, policy).place(request)
    each = {model: -(-wanted * 1000 // size) for model, size in SIZES.items() if wanted <= size}
    ways = [(n, d) for (n, d), left in free.items() if left >= each.get(models[n][d], 1001)]
    assert (found is not None) == bool(ways)
    best, fitting = inf, set[int]()
    for model, milli in each.items():
        share = ask(device_count=1, device_milli=milli, device_models=frozenset({model}), numa="legacy")
        answer = Board(arrays, policy).place(share)
        best = min(best, answer.score[policy.name] if answer is not None else inf)
    fitting = {n for n, _ in ways}
    if found is None:
        return
    assert found.score == {policy.name: best}
    assert found.fitting == len(fitting)
    row, column = int(found.host[1:]), int(found.devices[0][3:])
    assert (row, column) in ways
    assert found.device_milli == each[models[row][column]]
    (first,) = ranked(arrays, request, policy=policy, first=found.host, most=0)
    assert first.score == found.score

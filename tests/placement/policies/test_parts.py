"""What costs are made of adds up to them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.units import GIB
from bessemer.placement.board import Board
from bessemer.placement.demand import Mix, Outlook
from bessemer.placement.demand.waste import dual_waste
from bessemer.placement.hostclass import HostClass
from bessemer.placement.policies.fgd import Fgd
from bessemer.placement.policies.parts import explained
from bessemer.placement.policies.potential import FILLING, TURNING, Potential, Tuning
from bessemer.placement.policies.published import BestFit
from bessemer.placement.policies.ways import usable
from bessemer.placement.shape import Shape
from bessemer.placement.states import States
from tests.placement.hosts import ask, fleet, host
from tests.placement.shapes import mixes, shapes, states


@settings(max_examples=150, deadline=None)
@given(mixes, shapes(), states(), st.sampled_from((FILLING, TURNING)))
def test_the_parts_add_up_to_the_cost(mix: Mix, shape: Shape, there: States, tuning: Tuning) -> None:
    policy = Potential(Outlook(mix=mix, waste=dual_waste(mix.shares)), tuning=tuning)
    fits = usable(shape, there).sum(axis=1) >= shape.device_count
    value = policy.costs(shape, there).value
    total = np.add.reduce([*policy.parts(shape, there).values()]) / policy.step(shape)
    # The same sum in another order: at the edge of a step it may fall on either side.
    assert np.all(np.abs(total[fits] - 0.5 - value[fits]) <= 0.5 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(mixes, shapes(), states())
def test_fgd_is_the_rise_of_the_fragment(mix: Mix, shape: Shape, there: States) -> None:
    fits = usable(shape, there).sum(axis=1) >= shape.device_count
    policy = Fgd(mix, exact=True)
    assert np.array_equal(policy.parts(shape, there)["fragments"][fits], policy.costs(shape, there).value[fits])


def test_the_chosen_host_is_explained_by_what_chose_it() -> None:
    there = fleet(host("a", gpus=8), host("b", gpus=4), host("c", gpus=2))
    asked = ask(2, device_count=2)
    mix = Mix.of({Shape.of(asked): 3.0, Shape.of(ask(4, device_count=8)): 2.0})
    policy = Potential(Outlook.derive(mix, {HostClass(8000, GIB): 1}))
    placed = Board(there, policy).place(asked)
    assert placed is not None
    rows = np.arange(there.size)
    scores = dict(zip(there.names, explained(policy, Shape.of(asked), fleet=there, rows=rows), strict=True))
    assert scores[placed.host].value == placed.score["LPG"] == min(score.value for score in scores.values())
    assert set(scores["a"].parts) == {"fragments", "waste", "strand", "plan"}
    # Two of the eight that somebody else wants together are dearer than what nobody wants.
    assert scores["a"].parts["fragments"] > scores["c"].parts["fragments"]


def test_a_policy_without_parts_says_its_cost_alone() -> None:
    there = fleet(host("a", gpus=2))
    (score,) = explained(BestFit(), Shape.of(ask(1, device_count=1)), fleet=there, rows=np.array([0]))
    assert score.parts == {}

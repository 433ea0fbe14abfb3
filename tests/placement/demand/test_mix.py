"""The mix of demand, its typical shapes, and how it is learned."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.placement.demand import Arrivals, Mix, Turnover
from bessemer.placement.demand.mix import GRAIN, MOST
from tests.placement.shapes import mixes, shape


def test_typical_are_the_most_frequent_that_make_up_95_of_100() -> None:
    mix = Mix.of({shape(1): 60, shape(2): 30, shape(3): 6, shape(4): 3, shape(5): 1})
    typical = mix.typical()
    assert list(typical.cores) == [1, 2, 3]
    assert list(typical.weight) == pytest.approx([60 / 96, 30 / 96, 6 / 96])


def test_there_are_never_many_typical_shapes() -> None:
    typical = Mix.of({shape(n): 1 for n in range(3 * MOST)}).typical()
    assert len(typical) == MOST
    assert sum(typical.weight) == pytest.approx(1.0)


def test_typical_shapes_are_told_apart_by_cores_devices_and_models_alone() -> None:
    one, other = shape(1, 1), shape(1, 1, models=["A"])
    mix = Mix.of({one: 1, other: 1})
    assert len(mix.typical(1.0)) == 2
    more = Mix.of({one: 1, shape(1, 1, milli=1000): 1})
    assert len(more.typical(1.0)) == 1


def test_by_devices_a_request_weighs_what_it_asks_for() -> None:
    mix = Mix.of({shape(1): 100, shape(1, 1, milli=500): 16, shape(8, 8): 3})
    by_devices = mix.typical(1.0, by_devices=1.0)
    assert list(by_devices.count) == [8, 1]
    assert list(by_devices.weight) == pytest.approx([24 / 32, 8 / 32])
    half = mix.typical(1.0, by_devices=0.5)
    assert half.weight[0] == pytest.approx((100 / 119) / 2)


@settings(max_examples=60, deadline=None)
@given(mixes, st.sampled_from((0.3, 0.95, 1.0)), st.sampled_from((0.0, 0.5, 1.0)))
def test_weights_add_up_to_one_and_are_whole_grains(mix: Mix, share: float, by_devices: float) -> None:
    typical = mix.typical(share, by_devices=by_devices)
    assert all((Fraction(float(weight)) / Fraction(GRAIN)).denominator == 1 for weight in typical.weight)
    assert sum(typical.weight) == pytest.approx(1.0 if len(typical) else 0.0, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(mixes)
def test_equal_counts_make_equal_mixes_in_any_order(mix: Mix) -> None:
    counts = dict(zip(mix.shapes, mix.counts, strict=True))
    assert Mix.of(dict(reversed(counts.items()))) == mix


def test_cores_shares_and_devices() -> None:
    mix = Mix.of({shape(4000): 5, shape(3000, 1, milli=500): 4, shape(16_000, 2): 1, shape(0, 1, milli=500): 2})
    assert mix.devices == pytest.approx(5.0)
    assert mix.cores_per_device == pytest.approx((12_000 + 16_000) / 5000)
    assert mix.shares == {500: 6.0}
    assert Mix().cores_per_device == Mix().devices == 0
    assert len(Mix().typical()) == 0


def test_what_was_asked_for_long_ago_counts_less() -> None:
    arrivals = Arrivals(memory=10)
    for _ in range(50):
        arrivals.saw(shape(1))
    for _ in range(10):
        arrivals.saw(shape(2))
    mix = arrivals.mix()
    weight = dict(zip(mix.shapes, mix.counts, strict=True))
    assert weight[shape(2)] > weight[shape(1)]
    assert mix.version == arrivals.seen == 60


def test_weights_stay_finite_however_long_it_learns() -> None:
    arrivals = Arrivals(memory=0.1)
    for n in range(500):
        arrivals.saw(shape(n % 2))
    assert [shape.milli_cores for shape in arrivals.mix().shapes] == [1, 0]
    assert all(0 < count < 10 for count in arrivals.mix().counts)


def test_who_never_asks_for_the_same_twice_uses_up_no_memory() -> None:
    arrivals = Arrivals(memory=1000, most=10)
    for n in range(500):
        arrivals.saw(shape(n + 1))
        arrivals.saw(shape(0))
    assert len(arrivals.mix().shapes) <= 21
    assert arrivals.mix().shapes[0] == shape(0)


def test_turnover_is_zero_while_filling_and_one_in_balance() -> None:
    turnover = Turnover(window=10)
    assert turnover.stage() == turnover.ratio == 0
    for _ in range(20):
        turnover.took(1000)
    assert turnover.stage() == 0
    for _ in range(100):
        turnover.took(1000)
        turnover.gave_back(1000)
    assert turnover.ratio == pytest.approx(1.0, abs=0.1)
    assert turnover.stage() == 1
    for _ in range(100):
        turnover.took(1000)
    assert turnover.stage() == 0


def test_a_stage_does_not_move_to_and_fro() -> None:
    turnover = Turnover(window=1000)
    stages = []
    for n in range(20_000):
        turnover.took(1000)
        # About an eighth, the middle between two stages, a little more and a little less.
        turnover.gave_back(1000 * (n % 8 == 0) + (20 if n % 4000 < 2000 else -20))
        stages.append(turnover.stage())
    assert sum(one != other for one, other in pairwise(stages)) <= 1

"""The dual prices of the cutting-stock program, against brute force over its corners."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.placement.demand import WHOLE, dual_waste, hedged_waste
from bessemer.placement.demand.solver import Program
from bessemer.placement.demand.waste import MIXES, ROUNDS, SIZES, best_cuts, cutting_prices, generated, nearby, rounded

few_sizes = st.dictionaries(st.integers(180, 999), st.integers(1, 30), min_size=1, max_size=3)


def all_patterns(lengths: tuple[int, ...], left: int = WHOLE) -> Iterator[tuple[int, ...]]:
    """Every way to cut, whether something is left or not."""
    if not lengths:
        yield ()
        return
    for count in range(left // lengths[0] + 1):
        for rest in all_patterns(lengths[1:], left - count * lengths[0]):
            yield (count, *rest)


def best_corner(sizes: Mapping[int, float]) -> float:
    """Most that all shares are worth, such that no pattern is worth more than a device: over each corner."""
    lengths = tuple(sizes)
    counts = np.array(list(sizes.values()), dtype=np.float64)
    patterns = np.array([pattern for pattern in all_patterns(lengths) if any(pattern)], dtype=np.float64)
    walls = np.vstack([patterns, -np.eye(len(lengths))])
    limits = np.concatenate([np.ones(len(patterns)), np.zeros(len(lengths))])
    best = 0.0
    for chosen in combinations(range(len(walls)), len(lengths)):
        corner = walls[list(chosen)]
        if abs(np.linalg.det(corner)) < 1e-9:
            continue
        prices = np.linalg.solve(corner, limits[list(chosen)])
        if (walls @ prices <= limits + 1e-9).all():
            best = max(best, float(counts @ prices))
    return best


@settings(max_examples=40, deadline=None)
@given(few_sizes)
def test_prices_are_as_good_as_the_best_corner(sizes: dict[int, float]) -> None:
    wanted = rounded(sizes)
    prices = cutting_prices(wanted)
    assert prices is not None
    assert float(prices @ list(wanted.values())) == pytest.approx(best_corner(wanted), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(20, 999), st.floats(0, 1), max_size=4), st.integers(0, WHOLE))
def test_the_knapsack_is_exact(prices: dict[int, float], length: int) -> None:
    lengths, each = list(prices), np.array(list(prices.values()), dtype=np.float64)
    worth = [0.0] * (length + 1)
    for left in range(length + 1):
        worth[left] = max([worth[left - one] + price for one, price in prices.items() if one <= left], default=0.0)
    assert best_cuts(lengths, each)[length] == pytest.approx(worth[length])


def test_what_fits_together_leaves_no_waste_and_what_fits_nothing_is_all_waste() -> None:
    waste = dual_waste({810: 10.0, 190: 10.0, 500: 4.0})
    assert waste[0] == waste[WHOLE] == 0
    # A left-over of 500 takes its counterpart; one of 100 takes nothing.
    assert waste[500] == pytest.approx(0.0, abs=1e-3)
    assert waste[100] == 100
    # What 810 leaves is worth all that it takes to make a device of it.
    assert waste[810] + waste[190] == pytest.approx(0.0, abs=1e-3)


def test_without_shares_or_an_answer_nothing_is_waste(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not dual_waste({}).any()
    assert not dual_waste({WHOLE: 5.0, 500: 0.0}).any()
    monkeypatch.setattr(Program, "solve", lambda _self, **_options: None)
    assert not dual_waste({500: 1.0}).any()


@settings(max_examples=25, deadline=None)
@given(few_sizes)
def test_hedged_prices_are_prices(sizes: dict[int, float]) -> None:
    """No pattern is worth more than its device: two left-overs are worth no more apart than together."""
    worth = (np.arange(WHOLE + 1) - hedged_waste(sizes)) / WHOLE
    assert worth[WHOLE] == pytest.approx(1.0)
    for left in (180, 333, 500, 820):
        assert (worth[left:] - worth[: WHOLE + 1 - left] >= worth[left] - 1e-5).all()


def test_mixes_near_by_are_of_the_same_sizes_and_lie_about_the_one() -> None:
    wanted = {190: 30.0, 470: 1.0, 810: 69.0}
    mixes = list(nearby(wanted))
    assert len(mixes) == MIXES
    assert mixes == list(nearby(wanted))
    for size in wanted:
        logs = np.log([mix[size] for mix in mixes])
        assert np.std(logs) == pytest.approx(0.5, abs=0.05)
        assert np.mean(logs) == pytest.approx(np.median(logs), abs=0.1)


def test_what_is_rarely_asked_for_is_worth_something_when_hedged() -> None:
    """Where nearly all are of 810, one of 110 has room in what they leave, and is worth nothing."""
    sizes = {110: 1.0, 160: 3.0, 470: 20.0, 810: 76.0}
    plain, hedged = dual_waste(sizes), hedged_waste(sizes)
    assert plain[110] == pytest.approx(110)
    assert hedged[110] < 110


def test_a_hostile_mix_is_rounded_up_and_bounded() -> None:
    dice = np.random.default_rng(3)
    sizes = {int(size): float(dice.pareto(1.0) + 0.1) for size in dice.permutation(np.arange(1, WHOLE))[:600]}
    wanted = rounded(sizes)
    assert len(wanted) <= SIZES
    assert all(size % 10 == 0 for size in wanted)
    assert sum(wanted.values()) == pytest.approx(sum(sizes.values()), rel=0.1)
    found = generated(wanted)
    assert found is not None
    patterns, prices = found
    assert len(patterns) <= SIZES + ROUNDS
    assert best_cuts(list(wanted), prices)[WHOLE] <= 1 + 1e-9
    waste = dual_waste(sizes)
    assert waste.shape == (WHOLE + 1,)
    assert np.isfinite(waste).all()

"""What the second implementation does not show: the table, the dice, and what binds scarce classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from bessemer.placement.demand import Mix, Outlook, Plan
from bessemer.placement.demand.plan import shape_key
from bessemer.placement.hostclass import HostClass
from bessemer.placement.policies.fgd import Fgd
from bessemer.placement.policies.potential import BALANCE, FILLING, SURCHARGE, TURNING, Potential, tuned
from bessemer.placement.policies.published import Random
from bessemer.placement.policies.table import POLICIES
from bessemer.placement.shape import Shape
from bessemer.placement.states import SIZES, States
from tests.placement.shapes import shape

LARGE = HostClass(96_000, 1 << 40, (("A", 8),))
SMALL = HostClass(16_000, 1 << 38, (("B", 2),))


def hosts_with(*milli: Sequence[int], cores: int = 96_000) -> States:
    """A host for each list of free thousandths."""
    width = max(len(one) for one in milli)
    free = np.array([[*one, *[0] * (width - len(one))] for one in milli], dtype=np.int64)
    model = np.array([[0] * len(one) + [-1] * (width - len(one)) for one in milli], dtype=np.int32)
    count = len(milli)
    return States(
        cores=np.full(count, cores, dtype=np.int64),
        memory=np.full(count, 1 << 40, dtype=np.int64),
        milli=free,
        model=model,
        sizes=np.zeros((count, SIZES), dtype=np.int64),
        models=["A"],
    )


@pytest.mark.parametrize("name", POLICIES)
def test_each_policy_of_the_table_goes_by_its_name_and_costs(name: str) -> None:
    mix = Mix.of({shape(4000, 1): 3, shape(1000, 1, milli=500): 2})
    policy = POLICIES[name](Outlook(mix=mix), np.random.default_rng(1))
    costs = policy.costs(shape(1000, 1, milli=500), hosts_with([1000, 500], [1000], [700, 0]))
    assert policy.name == name
    assert np.isfinite(costs.value).all()
    assert [costs.milli[1], costs.milli[2]] == [1000, 700]


@pytest.mark.parametrize("name", POLICIES)
def test_no_host_costs_nothing_and_breaks_nothing(name: str) -> None:
    policy = POLICIES[name](Outlook(), np.random.default_rng(1))
    some = hosts_with([1000, 500])
    none = States(some.cores[:0], some.memory[:0], some.milli[:0], some.model[:0], some.sizes[:0], some.models)
    for asked in (shape(1), shape(1, 1), shape(1, 1, milli=10)):
        assert len(policy.costs(asked, none).value) == 0


def test_without_an_outlook_every_place_is_as_good() -> None:
    costs = Potential(Outlook()).costs(shape(4000, 1), hosts_with([1000, 500], [1000], [1000, 1000]))
    assert len(set(costs.value)) == 1


def test_models_without_number_take_no_room_without_bound() -> None:
    names = [f"m{n}" for n in range(100)]
    mix = Mix.of({shape(n, 1, milli=n + 1, models=[name]): 1 for n, name in enumerate(names)})
    some = hosts_with(*[[1000]] * len(names))
    states = replace(some, model=np.arange(len(names), dtype=np.int32)[:, None], models=names)
    value = Fgd(mix, exact=True).costs(shape(0, 1), states).value
    assert len(value) == len(names)
    assert np.isfinite(value).all()


@pytest.mark.parametrize("name", ["LPG", "FGD", "FGD-exact"])
def test_another_outlook_makes_another_version(name: str) -> None:
    outlook = Outlook.derive(Mix.of({shape(1000, 1, milli=500): 1}), {}, version=3)
    later = outlook.at(1.0, version=4)
    dice = np.random.default_rng(1)
    assert [POLICIES[name](one, dice).version for one in (outlook, later)] == [3, 4]
    assert later.waste is outlook.waste


def test_random_throws_anew_each_time_and_equal_dice_throw_alike() -> None:
    hosts, asked = hosts_with([1000], [1000], [1000]), shape(1, 1)
    one, other = Random(np.random.default_rng(7)), Random(np.random.default_rng(7))
    thrown = [tuple(one.costs(asked, hosts).value) for _ in range(3)]
    assert thrown == [tuple(other.costs(asked, hosts).value) for _ in range(3)]
    assert len(set(thrown)) == 3
    assert one.version == 3


def test_random_takes_a_share_from_any_device_that_has_enough() -> None:
    dealt, hosts = Random(np.random.default_rng(7)), hosts_with([1000, 700, 400], [300, 200, 400])
    taken = [tuple(dealt.costs(shape(1, 1, milli=400), hosts).milli) for _ in range(64)]
    assert set(taken) == {(1000, 400), (700, 400), (400, 400)}


def test_a_share_goes_where_it_leaves_no_waste() -> None:
    """Of 810 and 190: the left-over that another size just fills."""
    mix = Mix.of({shape(1000, 1, milli=810): 5, shape(1000, 1, milli=190): 5})
    potential = Potential(Outlook.derive(mix, {}))
    costs = potential.costs(shape(1000, 1, milli=190), hosts_with([1000, 190], [1000, 500], [1000, 1000]))
    assert int(np.argmin(costs.value)) == 0
    assert costs.milli[0] == 190


def test_what_needs_no_device_goes_where_cores_are_to_spare() -> None:
    mix = Mix.of({shape(8000, 1): 1})
    rich, poor = hosts_with([1000, 1000], cores=96_000), hosts_with([1000, 1000], cores=16_000)
    potential = Potential(Outlook(mix=mix))
    asked = shape(8000)
    assert potential.costs(asked, rich).value[0] < potential.costs(asked, poor).value[0]


def test_tuning_goes_from_filling_to_turning() -> None:
    assert tuned(0.0) == FILLING
    assert tuned(BALANCE) == tuned(1.0) == tuned(7.0) == TURNING
    between = tuned(BALANCE / 2)
    assert between.fragments == pytest.approx((FILLING.fragments + TURNING.fragments) / 2)
    assert between.share == TURNING.share


def planned(asked: Shape, *, share: Sequence[float], reduced: Sequence[float]) -> Plan:
    """A plan of one shape over the two classes, of which the large one is scarce."""
    return Plan(
        shapes={shape_key(asked): 0},
        classes={LARGE: 0, SMALL: 1},
        share=np.array([share]),
        reduced=np.array([reduced]),
        scarce=np.array([True, False]),
    )


def test_beyond_its_part_of_a_scarce_class_a_shape_pays() -> None:
    asked = shape(1000, 1)
    potential = Potential(Outlook(plan=planned(asked, share=(0.25, 0.75), reduced=(0.0, 0.0))))
    steps = SURCHARGE / FILLING.step
    assert potential.rationed(asked)
    # One is granted beyond the part, so that the first finds a place.
    assert potential.surcharge(asked, {}) == {}
    assert potential.surcharge(asked, {LARGE: 1}) == {LARGE: pytest.approx(steps, abs=1)}
    assert potential.surcharge(asked, {LARGE: 1, SMALL: 6}) == {}
    assert potential.surcharge(asked, {SMALL: 6}) == {}


def test_in_balance_the_plan_weighs_more() -> None:
    asked = shape(1000, 1)
    plan = planned(asked, share=(0.25, 0.75), reduced=(0.0, 0.0))
    filling, turning = (Potential(Outlook(plan=plan, turnover=turnover)) for turnover in (0.0, 1.0))
    held = {LARGE: 1}
    assert turning.surcharge(asked, held)[LARGE] > 10 * filling.surcharge(asked, held)[LARGE]


def test_a_shape_that_no_plan_knows_is_not_rationed() -> None:
    potential = Potential(Outlook(plan=planned(shape(1000, 1), share=(0.0, 1.0), reduced=(0.0, 0.0))))
    other = shape(2000, 1)
    assert not potential.rationed(other)
    assert potential.surcharge(other, {LARGE: 9}) == {}
    assert not Potential(Outlook()).rationed(other)


def test_what_the_plan_would_not_do_costs_what_it_would_lose() -> None:
    asked = shape(1000, 1)
    potential = Potential(Outlook(plan=planned(asked, share=(0.0, 1.0), reduced=(0.5, 0.0))))
    some = hosts_with([1000], [1000], [1000], [1000])
    kinds = ("another", SMALL, LARGE)
    states = States(
        cores=some.cores,
        memory=some.memory,
        milli=some.milli,
        model=some.model,
        sizes=some.sizes,
        models=some.models,
        kind=np.array([0, 1, 2, -1], dtype=np.int32),
        kinds=kinds,
    )
    another, small, large, unknown = potential.costs(asked, states).value
    assert another == small == unknown
    assert large - small == pytest.approx(0.5 / FILLING.step, abs=1)
    # Nobody says the classes: nobody pays for them.
    assert len(set(potential.costs(asked, some).value)) == 1

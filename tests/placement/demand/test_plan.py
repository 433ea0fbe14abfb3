"""The plan over classes of hosts: against placing everything by hand, and what makes a class scarce."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.placement.demand import Mix, Plan, class_plan
from bessemer.placement.demand.plan import CLASSES, PATTERNS, SHAPES, _columns, _Cuts, _cuts, _program, _Task
from bessemer.placement.demand.solver import Program
from bessemer.placement.demand.waste import ROUNDS, SIZES, rounded
from bessemer.placement.hostclass import HostClass
from bessemer.placement.shape import Shape
from tests.placement.shapes import shape

PLAIN = HostClass(32_000, 1 << 40, (("A", 4),))
RARE = HostClass(32_000, 1 << 40, (("B", 4),))
RICH = HostClass(128_000, 1 << 40, (("A", 4),))

ANY = shape(1000, 1)
ONLY_RARE = shape(1000, 1, models=["B"])


def planned(plan: Plan | None, asked: Shape, kind: HostClass) -> float:
    assert plan is not None
    row = plan.index(asked)
    assert row is not None
    return float(plan.share[row, plan.classes[kind]])


def test_what_fits_anywhere_stays_off_what_others_need() -> None:
    mix = Mix.of({ANY: 90, ONLY_RARE: 10})
    plan = class_plan(mix, {PLAIN: 90, RARE: 10})
    assert plan is not None
    assert list(plan.scarce[[plan.classes[PLAIN], plan.classes[RARE]]]) == [False, True]
    assert planned(plan, ONLY_RARE, RARE) == pytest.approx(1.0, abs=1e-4)
    assert planned(plan, ONLY_RARE, PLAIN) == 0
    assert planned(plan, ANY, RARE) == pytest.approx(0.0, abs=1e-4)
    assert planned(plan, ANY, PLAIN) == pytest.approx(1.0, abs=1e-4)


def test_hosts_with_many_cores_are_kept_for_who_needs_them() -> None:
    many_cores = shape(120_000, 4)
    mix = Mix.of({ANY: 360, many_cores: 10})
    plan = class_plan(mix, {PLAIN: 90, RICH: 10})
    assert planned(plan, many_cores, RICH) == pytest.approx(1.0, abs=1e-4)
    assert planned(plan, ANY, RICH) == pytest.approx(0.0, abs=1e-4)


def test_where_nothing_is_scarce_there_is_no_plan() -> None:
    assert class_plan(Mix.of({ANY: 1}), {PLAIN: 9, RARE: 1}) is None
    assert class_plan(Mix.of({ANY: 90, ONLY_RARE: 1}), {PLAIN: 90, RARE: 10}) is None
    assert class_plan(Mix.of({ONLY_RARE: 1}), {}) is None
    assert class_plan(Mix(), {PLAIN: 1}) is None
    assert class_plan(Mix.of({shape(1): 1}), {PLAIN: 1, RARE: 1}) is None


def test_where_the_program_does_not_end_well_there_is_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Program, "solve", lambda _self, **_options: None)
    assert class_plan(Mix.of({ANY: 90, ONLY_RARE: 10}), {PLAIN: 90, RARE: 10}) is None


def test_requests_without_devices_that_find_no_cores_do_not_undo_the_plan() -> None:
    mix = Mix.of({ANY: 90, ONLY_RARE: 10, shape(64_000): 500})
    assert class_plan(mix, {PLAIN: 90, RARE: 10}) is not None


def test_hostile_mixes_and_fleets_are_bounded() -> None:
    dice = np.random.default_rng(5)
    odd = {
        shape(n, 1, milli=int(dice.integers(1, 1000)), models=["B"] if n % 3 else []): 1.0 for n in range(SHAPES + 40)
    }
    hosts = {HostClass(32_000 + n, 1 << 40, (("B" if n % 9 == 0 else "A", 4),)): 1 for n in range(CLASSES + 9)}
    mix = Mix.of(odd)
    task, cuts = _Task.of(mix, hosts), _cuts(rounded(mix.shares))
    assert task.fits.shape == (SHAPES, CLASSES)
    columns = _columns(task, cuts.ways)
    assert cuts.ways <= SIZES + ROUNDS
    assert columns.count <= SHAPES * CLASSES + SHAPES + CLASSES * (cuts.ways + 1)
    program = _program(task, columns, cuts=cuts)
    assert len(program.lower) == len(program.upper) == SHAPES + CLASSES * (len(cuts.sizes) + 4)


def test_ways_to_cut_are_all_maximal_ones_or_those_that_suffice() -> None:
    assert _cuts({}).ways == 0
    assert _cuts({500: 1.0, 300: 1.0}) == _Cuts([300, 500], [[(1, 1.0), (2, 3.0)], [(0, 2.0), (1, 1.0)]], 3)
    many = _cuts(dict.fromkeys(range(20, 420, 10), 1.0))
    assert 0 < many.ways < PATTERNS
    assert all(many.having)


def most_devices(shapes: Mapping[Shape, int], hosts: Mapping[HostClass, int]) -> float:
    """The most devices that whole requests can use, by trying every way to spread them over the classes."""
    kinds, best = list(hosts), 0.0
    splits = [
        [split for split in product(range(count + 1), repeat=len(kinds)) if sum(split) <= count]
        for count in shapes.values()
    ]
    for way in product(*splits):
        used = [
            [
                sum(split[k] * each for split, each in zip(way, amounts, strict=True))
                for amounts in ([s.milli / 1000 for s in shapes], [s.milli_cores for s in shapes])
            ]
            for k in range(len(kinds))
        ]
        fits = all(
            devices <= hosts[kind] * kind.device_count and cores <= hosts[kind] * kind.milli_cores
            for kind, (devices, cores) in zip(kinds, used, strict=True)
        ) and all(
            not split[k] or kinds[k].fits(s) for s, split in zip(shapes, way, strict=True) for k in range(len(kinds))
        )
        if fits:
            best = max(best, sum(devices for devices, _ in used))
    return best


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from((1000, 20_000)), st.integers(1, 3))
def test_the_plan_uses_as_many_devices_as_can_be_used(plain: int, rare: int, cores: int, twos: int) -> None:
    """Demand is scaled to all devices, so that here each count is exactly what is asked for."""
    hosts = {HostClass(32_000, 1 << 40, (("A", 2),)): plain, HostClass(32_000, 1 << 40, (("B", 2),)): rare}
    every = 2 * (plain + rare)
    two = shape(cores, 2, models=["B"])
    shapes = {two: min(twos, every // 2 - 1), shape(1000, 1): every - 2 * min(twos, every // 2 - 1)}
    plan = class_plan(Mix.of(shapes), hosts)
    if plan is None:
        return
    used = sum(
        shapes[one] * one.milli / 1000 * plan.share[row].sum() for one in shapes if (row := plan.index(one)) is not None
    )
    assert used >= most_devices(shapes, hosts) - 1e-3
    assert used <= every + 1e-3
    assert (plan.share >= -1e-9).all()

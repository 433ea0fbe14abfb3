"""Who waits and what is offered, beside what was placed."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.placement.demand import Mix, Unplaced
from bessemer.placement.demand.mix import MOST
from bessemer.placement.demand.unplaced import FADES, OFFERED, TENANT_LEAST, TENANT_PART, TENANTS
from bessemer.placement.hostclass import HostClass
from bessemer.placement.shape import Shape
from tests.placement.shapes import shape, shapes

HOSTS = (HostClass(64_000, 1 << 40, (("A", 8),)), HostClass(16_000, 1 << 40))
SMALL, LARGE = shape(1000, 1), shape(8000, 8)
PLACED = Mix.of({SMALL: 1000}, version=7)


def parts(mix: Mix) -> dict[Shape, float]:
    return dict(zip(mix.shapes, mix.counts, strict=True))


def waiting(*asks: tuple[str, str, Shape, int]) -> Unplaced:
    found = Unplaced()
    for uid, tenant, wanted, count in asks:
        found.asks(uid, tenant=tenant, shape=wanted, count=count)
    return found


def test_who_waits_counts_once_however_often_it_asks_and_no_more_once_it_left() -> None:
    unplaced = Unplaced()
    for _ in range(3):
        unplaced.asks("u", tenant="acme", shape=LARGE, count=4)
    assert parts(unplaced.mix(PLACED, hosts=HOSTS)) == {SMALL: 1000, LARGE: 4}
    unplaced.asks("u", tenant="acme", shape=SMALL, count=1)
    assert parts(unplaced.mix(PLACED, hosts=HOSTS)) == {SMALL: 1001}
    for _ in range(2):
        unplaced.leaves("u")
    assert parts(unplaced.mix(PLACED, hosts=HOSTS)) == {SMALL: 1000}


def test_a_version_is_another_whenever_the_mix_is() -> None:
    unplaced, seen = Unplaced(), set[int]()
    for change in (
        lambda: unplaced.asks("u", tenant="acme", shape=LARGE, count=1),
        lambda: unplaced.asks("u", tenant="acme", shape=LARGE, count=2),
        lambda: unplaced.offers("one", SMALL),
        lambda: unplaced.offers("one", None),
        lambda: unplaced.leaves("u"),
    ):
        change()
        seen.add(unplaced.mix(PLACED, hosts=HOSTS).version)
    assert seen.isdisjoint({PLACED.version})
    assert len(seen) == 5


@pytest.mark.parametrize("flood", [[LARGE], [shape(1)], [shape(cores, 1) for cores in range(1, 61)]])
def test_a_tenant_that_floods_does_not_turn_the_mix(flood: list[Shape]) -> None:
    many = waiting(*((f"u{n}", "flood", flood[n % len(flood)], 3) for n in range(30_000)), ("v", "else", LARGE, 1))
    mix = many.mix(PLACED, hosts=HOSTS)
    assert sum(mix.counts) <= 1.1 * 1000 + 1.01
    assert mix.devices <= 1.1 * PLACED.devices + 8.01
    assert mix.distance(PLACED) < 0.1
    for by_devices in (0.0, 1.0):
        typical = mix.typical(1.0, by_devices=by_devices)
        [ours] = [n for n, cores in enumerate(typical.cores) if cores == 1000]
        assert typical.weight[ours] > 0.9
    assert parts(mix)[LARGE] >= 1, "who asks for little is not crowded out"
    assert parts(mix)[flood[-1]] > 0.8, "and what floods is known"


def test_all_tenants_together_are_at_most_half_of_it() -> None:
    for wanted, count in ((shape(2000, 1), 1000), (LARGE, 1000 / 8)):
        crowd = waiting(*((f"u{n}", f"t{n % 50}", wanted, 8) for n in range(5000)))
        assert parts(crowd.mix(PLACED, hosts=HOSTS))[wanted] == pytest.approx(count)


def test_where_nothing_was_placed_who_waits_is_known_and_bounded() -> None:
    one = waiting(("u", "acme", LARGE, 1)).mix(Mix(), hosts=HOSTS)
    assert parts(one) == {LARGE: 1}
    assert parts(waiting(("u", "acme", SMALL, 90)).mix(Mix(), hosts=HOSTS)) == {SMALL: TENANT_LEAST[0]}
    assert parts(waiting(("u", "acme", LARGE, 90)).mix(Mix(), hosts=HOSTS)) == {LARGE: TENANT_LEAST[1] / 8}


def test_what_no_host_could_hold_counts_for_nothing() -> None:
    """Else whatever is the largest that is asked for would be larger than any host."""
    unplaced = waiting(("u", "acme", shape(1000, 16), 4), ("v", "acme", shape(1000, 1, models=["B"]), 1))
    unplaced.offers("huge", shape(99_000))
    assert unplaced.mix(Mix(), hosts=HOSTS).shapes == ()
    assert unplaced.mix(PLACED, hosts=HOSTS).shapes == (SMALL,)


def test_what_is_offered_counts_little_and_fades() -> None:
    unplaced = Unplaced()
    for name, wanted in (("one", SMALL), ("same", SMALL), ("eight", LARGE), ("gone", shape(3000))):
        unplaced.offers(name, wanted)
    unplaced.offers("gone", None)
    assert parts(unplaced.mix(Mix(), hosts=HOSTS)) == {SMALL: OFFERED / 2, LARGE: OFFERED / 2}
    few = unplaced.mix(Mix.of({SMALL: 10}), hosts=HOSTS)
    assert parts(few) == {SMALL: 12, LARGE: 2}
    unplaced.asks("u", tenant="acme", shape=SMALL, count=5)
    assert parts(unplaced.mix(Mix.of({SMALL: 10}), hosts=HOSTS))[LARGE] == pytest.approx((OFFERED - 15 * FADES) / 2)
    assert parts(unplaced.mix(Mix.of({SMALL: 45}), hosts=HOSTS)) == {SMALL: 50}


def test_however_many_shapes_wait_and_are_offered_few_are_counted() -> None:
    unplaced = Unplaced()
    for n in range(2 * MOST):
        unplaced.asks(f"u{n}", tenant="acme", shape=shape(1000 + n), count=1)
        unplaced.offers(f"f{n}", shape(9000 + n))
    assert len(unplaced.mix(Mix(), hosts=HOSTS).shapes) <= 2 * MOST


ASKS = st.lists(st.tuples(st.sampled_from("abc"), shapes(), st.integers(1, 40)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(ASKS, st.lists(shapes(), max_size=4), st.integers(0, 200), st.randoms(use_true_random=False))
def test_equal_waits_make_equal_mixes_in_any_order(
    asks: list[tuple[str, Shape, int]], offered: list[Shape], placed: int, random: Random
) -> None:
    found = []
    for _ in range(2):
        unplaced, order = Unplaced(), list(enumerate(asks))
        random.shuffle(order)
        # Somebody comes and goes meanwhile.
        unplaced.asks("other", tenant="a", shape=LARGE, count=3)
        for n, (tenant, wanted, count) in order:
            unplaced.asks(f"u{n}", tenant=tenant, shape=wanted, count=count)
        unplaced.leaves("other")
        for n, wanted in random.sample(list(enumerate(offered)), len(offered)):
            unplaced.offers(f"f{n}", wanted)
        found.append(unplaced.mix(Mix.of({SMALL: placed}), hosts=HOSTS))
    assert found[0] == found[1]
    assert sum(found[0].counts) <= placed + TENANTS * max(TENANT_LEAST[0], TENANT_PART * placed) + OFFERED + 1e-6

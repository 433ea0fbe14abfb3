"""The policy that scales endpoints: what it learns, what it wants and why, and that it does not flap."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.loads import Sums
from bessemer.kinds.inference.replay import PEERS, PRESETS, Asked, Case, Replayed, figures, replay
from bessemer.kinds.inference.replay.peers import Fixed, Knative
from bessemer.kinds.inference.scaling import Means, Policy, Scale, Scaler, ScaleTarget, Sight, scale_problems
from bessemer.kinds.inference.scaling.learning import Lead, Pace, Rate, Rushes, Trust
from tests.kinds.inference.traces import burst, chat

TIMES = ScaleTarget(ttft_ms=1000, inter_token_ms=40)
CASE = Case(PRESETS["70b"], Scale(min=1, max=40, target=TIMES), first=4)
CHAT = chat(seconds=1500, a_second=9)


def own(case: Case) -> Scaler:
    return Scaler(case.scale, Means(case.speed.slots, case.speed.start_seconds))


def came_to(asked: Sequence[Asked], policy: Callable[[Case], Policy], case: Case = CASE) -> tuple[float, float]:
    """Percent within the target, and device-hours."""
    found = figures(Replayed("", replay(asked, policy(case), case=case), case))
    return found["attained_percent"], found["device_hours"]


def sights(rates: Sequence[float], *, ready: int, busy: float = 0.0, every: float = 2.0) -> Iterator[Sight]:
    """One every so often, at so many requests a second."""
    sums = Sums()
    for number, rate in enumerate(rates):
        sums += Sums(arrived=rate * every)
        yield Sight(at=number * every, busy=busy, ready=ready, sums=sums)


def test_it_attains_more_for_less_than_those_that_are_known() -> None:
    good, hours = came_to(CHAT, own)
    assert good >= 95.0
    for peer in ("knative", "waiting"):
        less, cost = came_to(CHAT, PEERS[peer])
        assert less < good - 5 or (less < good and cost > hours), peer
    # Knative with a target found by hand for this trace and this replica attains as much, and pays for it.
    by_hand = [came_to(CHAT, lambda case, share=share: Knative(case, target=share * 128)) for share in (0.05, 0.1)]
    assert min(cost for attained, cost in by_hand if attained >= 95.0) > 1.15 * hours


def test_what_one_replica_can_do_is_learnt() -> None:
    policy = own(CASE)
    replay(CHAT, policy, case=CASE)
    alone, batch, reading = policy._pace.parts
    speed = CASE.speed
    assert alone == pytest.approx(speed.alone, rel=0.15)
    assert reading == pytest.approx(1 / speed.reading, rel=0.6)
    assert 0 < batch < 5 * speed.batch


def test_a_pace_is_found_again_from_what_was_seen() -> None:
    pace, draw = Pace(), random.Random(1)
    for _ in range(400):
        busy, reading = draw.uniform(1, 60), draw.uniform(0, 8000)
        seconds = (0.02 + 0.0002 * busy) / (1 - reading * 5e-5)
        pace.take(busy, reading, seconds=seconds * 500, tokens=500)
    assert pace.parts == pytest.approx((0.02, 0.0002, 5e-5), rel=0.02)
    # At 40 ms: the share rate × reads × reading of a second is read, and rate × writes × 40 ms are busy.
    rate = pace.capacity(0.04, reads=1000, writes=200, slots=1000)
    assert (0.02 + 0.0002 * rate * 200 * 0.04) / (1 - rate * 1000 * 5e-5) == pytest.approx(0.04, rel=0.02)
    few = pace.capacity(math.inf, reads=0, writes=200, slots=8)
    assert few * 200 * (0.02 + 0.0002 * 8) == pytest.approx(8, rel=0.02), "Little's law"


def test_trust_falls_where_more_than_one_in_twenty_miss_and_rises_else() -> None:
    trust = Trust(first=0.6)
    for _ in range(100):
        trust.take(seconds=2.0, answers=100, missed=5, slowness=60.0)
    assert trust.share == pytest.approx(0.6)
    trust.take(seconds=2.0, answers=100, missed=30, slowness=60.0)
    assert trust.share < 0.6
    for _ in range(2000):
        trust.take(seconds=2.0, answers=100, missed=0, slowness=60.0)
    assert trust.share == 1.0


def test_a_lead_covers_all_but_one_in_twenty() -> None:
    lead, draw = Lead(), random.Random(3)
    for number in range(20_000):
        lead.led(number * 2.0, 10.0, came=10.0 * draw.uniform(0.8, 1.4), after=2.0)
    assert 1.3 < lead.factor < 1.42


def test_a_rate_is_of_a_window_of_which_enough_is_known() -> None:
    rate = Rate()
    assert rate.over(10.0, 30.0) is None
    for at in range(2, 62, 2):
        rate.take(float(at), seconds=2.0, count=4.0 if at <= 30 else 8.0)
    assert rate.over(60.0, 20.0) == pytest.approx(4.0)
    assert rate.over(60.0, 20.0, ago=30.0) == pytest.approx(2.0)
    assert rate.over(60.0, 400.0) is None


def test_it_scales_up_at_once_and_down_after_a_while() -> None:
    asked = burst(quiet=400, length=300, a_second=30)
    asked = [*asked, *(Asked(asked[-1].at + second, 500, 200) for second in range(1, 2000))]
    course = replay(asked, own(CASE), case=CASE)
    rises = [at for at, old, new, _ in course.events if new > old and at >= 400]
    assert 400 <= rises[0] <= 420
    assert not [at for at, old, new, _ in course.events if new < old and rises[0] <= at < rises[0] + 60]
    assert course.wanted[-1] <= 2


def test_rushes_that_are_shorter_than_a_start_find_replicas_that_stayed() -> None:
    asked = burst(quiet=240, length=60, a_second=40, times=8)
    course = replay(asked, own(CASE), case=CASE)

    def missed(number: int) -> float:
        rush = [one for one in course.requests if 0 <= one.asked.at - 240 - 300 * number < 60]
        return sum(one.first_seconds > 1 or one.pace > 0.04 for one in rush) / len(rush)

    assert missed(0) > 0.5, "nobody could know of it"
    assert max(missed(number) for number in range(3, 8)) < 0.05
    # Five, always, are enough for them, which is known only afterwards.
    attained, hours = came_to(asked, lambda _: Fixed(case_of(5)), case_of(5))
    assert attained > 95.0
    assert course.replica_seconds * CASE.speed.devices / 3600 < 2 * hours


def case_of(count: int) -> Case:
    """So many, always."""
    return replace(CASE, scale=CASE.scale.model_copy(update={"min": 1, "max": count}), first=count)


def test_a_rise_that_is_over_is_not_taken_to_rise_on() -> None:
    policy = Scaler(Scale(min=1, max=200, target=TIMES), Means(slots=128, start_seconds=90.0))
    rates = [1.0] * 60 + [40.0] * 45 + [1.0] * 30
    for sight in sights(rates, ready=20):
        policy._pace.seen, policy._writes.weight = 1e6, 1.0
        foreseen = policy._coming(sight) or 0.0
        assert foreseen <= 100.0
        if sight.at >= 2 * 115:
            assert foreseen < 1.5 * 40, "what came, and no more, once it ends"


def test_the_busiest_spans_are_those_in_which_most_came() -> None:
    rushes = Rushes(span_seconds=10.0, keep_seconds=100.0)
    assert rushes.rate(0.9) == 0.0
    for rate in (1, 1, 1, 1, 1, 1, 1, 30, 30, 33):
        for _ in range(5):
            rushes.take(seconds=2.0, count=2.0 * rate)
    assert rushes.rate(1.0) == 33
    assert rushes.rate(0.6) == 30
    assert rushes.rate(0.05) == 1
    for _ in range(50):
        rushes.take(seconds=2.0, count=2.0)
    assert rushes.rate(1.0) == 1, "what is long ago says nothing"


def test_a_steady_load_changes_nothing() -> None:
    steady = chat(seconds=1800, a_second=10, swing=0.0)
    course = replay(steady, own(CASE), case=CASE)
    late = [new for at, _, new, _ in course.events if at > 900]
    assert len(late) <= 3, course.events


def test_where_no_time_is_said_a_share_of_the_slots_decides() -> None:
    policy = Scaler(Scale(min=1, max=50), Means(slots=10))
    verdicts = [policy.decide(sight, present=1) for sight in sights([1.0] * 10, ready=1, busy=28)]
    assert (verdicts[-1].replicas, verdicts[-1].why) == (4, "28 requests at a time")


@pytest.mark.parametrize(("full", "target", "wanted"), [(0.9, None, 5), (1.0, None, 5), (0.7, None, 4), (0.7, 0.5, 6)])
def test_caches_that_are_nearly_full_want_more_replicas(full: float, target: float | None, wanted: int) -> None:
    policy = Scaler(Scale(min=4, max=50, target=ScaleTarget(cache_share=target)), Means(slots=100))
    steady = [replace(sight, kv_share=full) for sight in sights([1.0] * 10, ready=4, busy=40)]
    verdict = [policy.decide(sight, present=4) for sight in steady][-1]
    assert verdict.replicas == wanted
    assert (wanted > 4) == ("caches of keys and values" in verdict.why)


def test_steps_are_bounded_and_so_is_what_is_wanted() -> None:
    policy, seen = Scaler(Scale(min=1, max=50), Means(slots=1)), []
    for sight in sights([1.0] * 12, ready=1, busy=1000):
        seen.append(policy.decide(sight, present=seen[-1] if seen else 1).replicas)
    assert seen[:4] == [5, 10, 20, 40]
    assert seen[-1] == 50


def test_the_last_goes_when_nobody_has_asked_for_long_enough_and_not_before() -> None:
    policy = Scaler(Scale(min=0, max=3, idle_seconds=100), Means(slots=4))
    busy = [policy.decide(sight, present=1).replicas for sight in sights([1.0] * 20, ready=1, busy=1)]
    assert busy[-1] == 1
    present, gone = 1, 0.0
    for at in range(40, 300, 2):
        present = policy.decide(Sight(at=float(at), ready=present, sums=Sums(arrived=40)), present=present).replicas
        gone = gone or (float(at) if not present else 0.0)
    assert 38 + 100 <= gone <= 38 + 106
    never = Scaler(Scale(min=0, max=3, idle_seconds=100), Means(slots=4))
    alone = [never.decide(Sight(at=float(at), ready=1), present=1).replicas for at in range(0, 110, 2)]
    assert (alone[0], alone[-1]) == (1, 0), "one that nobody has ever asked sleeps, too"
    slow = Scaler(Scale(min=0, max=3, idle_seconds=100), Means(slots=4))
    starts = [slow.decide(Sight(at=float(at), starting=1), present=1).replicas for at in range(0, 500, 2)]
    assert set(starts) == {1}, "and one that has not answered yet does not"
    woken = policy.decide(Sight(at=400.0, waiting=1, sums=Sums(arrived=41)), present=0)
    assert woken.replicas == 1


def test_whoever_counts_anew_is_believed_from_then_on() -> None:
    policy = Scaler(Scale(min=1, max=9), Means(slots=4))
    for sight in sights([5.0] * 30, ready=1, busy=2):
        policy.decide(sight, present=1)
    verdict = policy.decide(Sight(at=60.0, busy=2, ready=1, sums=Sums(arrived=3)), present=1)
    assert verdict.replicas == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 50), st.integers(0, 200), st.integers(0, 500), st.floats(0.1, 100)),
        min_size=1,
        max_size=60,
    ),
    st.integers(0, 3),
    st.integers(3, 12),
)
def test_whatever_comes_it_stays_within_its_bounds(
    steps: list[tuple[float, int, int, float]], least: int, most: int
) -> None:
    policy, present, at, sums = Scaler(Scale(min=least, max=most, target=TIMES), Means(8)), least, 0.0, Sums()
    for rate, busy, waiting, seconds in steps:
        at += seconds
        count = rate * seconds
        sums += Sums(arrived=count, answered=count, input_tokens=100 * count, output_tokens=50 * count)
        sums += Sums(begun=count, late=count / 3, paced=count, paced_tokens=49 * count, paced_seconds=2.0 * count)
        verdict = policy.decide(Sight(at=at, busy=busy, waiting=waiting, ready=present, sums=sums), present=present)
        assert least <= verdict.replicas <= most
        assert verdict.replicas or not (busy or waiting), "nobody is let go of while somebody asks"
        assert verdict.why
        present = verdict.replicas


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"min": 3, "max": 2}, "spec.scale.min"),
        ({"min": 2, "max": 2, "warm": 1}, "spec.scale.warm"),
        ({"min": 0, "max": 2, "warm": 1}, "spec.scale.warm"),
        ({"max": 2, "target": {"ttftMs": 1000, "busyShare": 0.5}}, "spec.scale.target.busyShare"),
    ],
)
def test_what_contradicts_itself_is_said_by_field(said: dict[str, object], field: str) -> None:
    assert [cause.field for cause in scale_problems(Scale.model_validate(said))] == [field]


def test_a_scale_says_no_more_than_it_must() -> None:
    assert Scale(max=3).dump() == {"min": 1, "max": 3}
    assert [*scale_problems(None), *scale_problems(Scale(max=3))] == []


def test_the_product_of_time_is_no_flapping() -> None:
    """Between two changes of direction passes at least what an idle replica is kept for."""
    course = replay(CHAT, own(CASE), case=CASE)
    turns = [(at, new > old) for at, old, new, _ in course.events]
    for (before, up), (after, again) in pairwise(turns):
        if up and not again:
            assert after - before >= 20.0, course.events

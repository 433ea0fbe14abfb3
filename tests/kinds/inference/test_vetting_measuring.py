"""What a vetting asks and what it makes of the answers, without any host."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.drivers.load.protocol import Hit, Shot, Volley
from bessemer.kinds.inference.vetting import checks
from bessemer.kinds.inference.vetting.measuring import Measured, alone_of, next_rate, taken, volley_of
from bessemer.kinds.inference.vetting.pricing import times
from bessemer.kinds.inference.vetting.report import Alone, Goals, Point, knee, percentile, point
from bessemer.kinds.inference.vetting.shape import (
    SHAPES,
    Asked,
    Lengths,
    arrivals,
    quantiles_of,
    shots,
)
from bessemer.kinds.inference.vetting.spec import PlanIntent, VettingIntent

ALONE = Alone(read=0.001, cached=0.0001, written=0.01, words=0.8)


def intent(**plan: Any) -> VettingIntent:
    said: dict[str, Any] = {"seed": "s", "inputs": [10, 100], "outputs": [10, 20], "shared_percent": 0, "seconds": 10}
    return VettingIntent(
        model="sha256:x",
        alias="v",
        slots=2,
        context_tokens=1024,
        cores_milli=1000,
        memory_bytes=1 << 30,
        plan=PlanIntent(**{**said, **plan}),
    )


def hit(at: float = 0.0, *, first: float = 0.1, gap: float = 0.01, written: int = 11, **more: Any) -> Hit:
    gaps = (gap,) * (written - 1)
    said = {"status": 200, "sent": at, "first": at + first, "ended": at + first + sum(gaps), "gaps": gaps}
    return Hit(**{**said, "read": 30, "written": written, **more})


def one(rate: float, *, per_second: float, held: bool = True) -> Point:
    zero = dict.fromkeys(("ttft_p50", "ttft_p95", "inter_token_p50", "inter_token_p95", "end_p50", "end_p95"), 0.0)
    counts = {"requests": 10, "failed": 0, "read": 0, "cached": 0, "written": int(per_second * 10)}
    return Point(rate=rate, held=held, seconds=10.0, busy_seconds=10.0, **zero, **counts)


# --- points -----------------------------------------------------------------------------------------------------


def test_times_count_from_when_a_request_was_to_be_sent() -> None:
    """One that was sent late has waited all the same."""
    volley = Volley(1, [Shot(1.0, {}), Shot(2.0, {})], 60.0)
    late = hit(3.0)
    found = point(volley, [hit(1.0), late], rate=1.0, goals=Goals())
    assert (found.ttft_p50, found.ttft_p95) == (100.0, 1100.0)
    assert found.inter_token_p95 == 10.0
    assert (found.end_p50, found.end_p95) == (200.0, 1200.0)
    assert found.late_ms == 1000.0
    assert (found.seconds, found.busy_seconds) == (3.2, 0.4)
    assert (found.requests, found.failed, found.written) == (2, 0, 22)


@pytest.mark.parametrize(
    ("ttft", "between", "bad", "held"),
    [(100, 10, False, True), (99, None, False, False), (None, 9, False, False), (None, None, True, False)],
)
def test_a_point_holds_what_it_must(ttft: int | None, between: int | None, *, bad: bool, held: bool) -> None:
    hits = [hit(), Hit(500, 0.0, 0.1)] if bad else [hit(), hit()]
    volley = Volley(1, [Shot(0.0, {}), Shot(0.0, {})], 60.0)
    found = point(volley, hits, rate=1.0, goals=Goals(ttft, between))
    assert (found.held, found.failed) == (held, int(bad))


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_a_percentile_is_one_of_them_with_as_many_below(values: list[float], percent: int) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100


def test_the_knee() -> None:
    rising = [one(1, per_second=10), one(2, per_second=20), one(4, per_second=39), one(8, per_second=40)]
    assert rising[0].served == 1
    assert one(8, per_second=40).served == 1, "ten in ten seconds"
    found = knee(rising, bounded=False)
    assert found is not None
    assert found.rate == 4, "more load gives hardly more"
    slow = [*rising[:2], one(4, per_second=39, held=False), one(8, per_second=40, held=False)]
    found = knee(slow, bounded=True)
    assert found is not None
    assert found.rate == 2
    assert knee([one(1, per_second=5, held=False)], bounded=True) is None
    assert knee([], bounded=False) is None


# --- what is asked ----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=30), st.floats(0, 1), st.integers(1, 6000))
def test_lengths_lie_between_their_quantiles(values: list[int], share: float, most: int) -> None:
    ordered = sorted(values)
    lengths = Lengths(ordered, most=most)
    assert min(most, ordered[0]) <= lengths.at(share) <= min(most, ordered[-1])
    assert lengths.at(0.0) == min(most, ordered[0])
    assert lengths.at(1.0) == min(most, ordered[-1])


def test_quantiles_of_a_trace_give_its_lengths_back() -> None:
    values = [n * n % 977 + 1 for n in range(5000)]
    lengths = Lengths(quantiles_of(values), most=10_000)
    assert lengths.mean() == pytest.approx(sum(values) / len(values), rel=0.03)


def test_arrivals_are_at_random_and_as_many_as_the_rate_says() -> None:
    from random import Random

    found = arrivals(Random("a"), 20.0, seconds=100.0)
    assert len(found) == pytest.approx(2000, rel=0.08)
    gaps = [two - before for before, two in pairwise(found)]
    mean = sum(gaps) / len(gaps)
    spread = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert spread == pytest.approx(mean**2, rel=0.15), "as gaps of a Poisson process are"
    assert len(arrivals(Random("a"), 0.01, seconds=1.0)) == 4


def test_requests_are_the_same_for_the_same_seed_and_share_what_they_should() -> None:
    asked = Asked("m", Lengths([100, 200], most=500), Lengths([5, 9], most=500), shared=0.5, words=1.0)
    found = shots(asked, seed="x", rate=5.0, seconds=10.0)
    assert found == shots(asked, seed="x", rate=5.0, seconds=10.0)
    assert found != shots(asked, seed="y", rate=5.0, seconds=10.0)
    texts = [shot.body["messages"][0]["content"].split() for shot in found]
    assert len({" ".join(text[:50]) for text in texts}) <= 4
    assert len({" ".join(text[-50:]) for text in texts}) == len(texts)
    assert all(100 <= len(text) <= 200 for text in texts)
    assert all(5 <= shot.body["max_tokens"] <= 9 for shot in found)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("context", [64, 256, 2048, 1 << 17])
def test_what_is_asked_fits_in_the_context(shape: str, context: int) -> None:
    inputs, outputs = SHAPES[shape]
    made = intent(inputs=list(inputs), outputs=list(outputs)).model_copy(update={"context_tokens": context})
    had = Measured(alone=ALONE, checks=[checks.stopped([], text="", word="")])
    volley = volley_of(made, had)
    assert volley is not None
    for shot in volley.shots:
        words = len(shot.body["messages"][0]["content"].split())
        assert words / ALONE.words + shot.body["max_tokens"] <= context - min(64, context // 8)


# --- what comes next --------------------------------------------------------------------------------------------


def test_how_long_a_token_takes_alone() -> None:
    made = intent()
    short, long = hit(first=0.05, read=40), hit(first=0.45, read=440)
    again, written = hit(first=0.07, read=440, cached=420), hit(gap=0.02, written=32)
    found = alone_of(made, [hit(), short, long, again, written])
    assert found is not None
    assert found.read == pytest.approx(0.001)
    assert found.cached == pytest.approx((0.07 - 0.01 - 0.001 * 20) / 420)
    assert found.written == pytest.approx(0.02)
    assert alone_of(made, [hit(), short, Hit(500, 0, 0), again, written]) is None


def test_rates_rise_until_more_gives_no_more() -> None:
    made, had = intent(), Measured(alone=ALONE, checks=[checks.stopped([], text="", word="")])
    tried: list[float] = []
    while (rate := next_rate(made, had)) is not None:
        tried.append(rate)
        had = had.model_copy(update={"points": [*had.points, one(rate, per_second=min(rate * 15, 100.0))]})
    assert tried == sorted(tried)
    assert tried[-1] > 100 / 15, "past what it can do"
    full = [rate for rate in tried if rate * 15 >= 100.0]
    assert 2 <= len(full) <= 3


def test_rates_that_were_said_are_all_tried_and_no_others() -> None:
    made, had = intent(rates=[1.0, 2.0]), Measured(alone=ALONE, checks=[checks.stopped([], text="", word="")])
    for rate in (1.0, 2.0):
        assert next_rate(made, had) == rate
        volley = volley_of(made, had)
        assert volley is not None
        assert not volley.serial
        had = taken(made, had, volley=volley, hits=[hit(shot.at) for shot in volley.shots])
    assert had.done
    assert volley_of(made, had) is None
    assert [one.rate for one in had.points] == [1.0, 2.0]


def test_what_was_not_answered_alone_is_asked_again() -> None:
    volley = volley_of(intent(), Measured())
    assert volley is not None
    assert volley.serial
    had = taken(intent(), Measured(), volley=volley, hits=[Hit(0, 0, 0)] * 5)
    assert (had.broken, had.volleys, had.alone) == (1, 1, None)


def test_the_engines_time_is_shared_out_by_what_it_did() -> None:
    busy = one(1.0, per_second=10).model_copy(update={"read": 2000, "cached": 1000, "busy_seconds": 5.0})
    found = times(busy, ALONE, slots=2)
    assert (found.read, found.cached) == (1_000_000, 100_000)
    assert found.written == (5_000_000_000 - 2000 * 1_000_000 - 1000 * 100_000) // 100
    idle = busy.model_copy(update={"busy_seconds": 0.5})
    assert times(idle, ALONE, slots=2).written == 5_000_000, "at least what one of two takes of a token alone"


# --- checks -----------------------------------------------------------------------------------------------------


def said(text: str | None = "Red is warm. Green is calm.", *, finish: str = "stop", **more: Any) -> Hit:
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    answer = json.dumps({"choices": [{"message": message, "finish_reason": finish}]})
    return Hit(**{"status": 200, "sent": 0.0, "ended": 1.0, "read": 40, "written": 4, "answer": answer, **more})


def call(arguments: str) -> dict[str, Any]:
    return {"tool_calls": [{"function": {"name": "get_weather", "arguments": arguments}}]}


GOOD = (
    said(),
    said(),
    said(read=12),
    said(finish="length"),
    said(None, message=call('{"city": "Bern"}')),
    said('{"verdict": "yes", "count": 5}'),
)


def verdicts(**changed: Hit) -> list[str]:
    hits = [changed.get(f"n{n}", hit) for n, hit in enumerate(GOOD)]
    return [check.name for check in checks.judged(hits)[0] if check.verdict != "Passed"]


def test_what_is_well_passes() -> None:
    assert verdicts() == []
    found = checks.stopped([said("Red is warm. ")], text="Red is warm. Green is calm.", word="Green")
    assert found.verdict == "Passed"


@pytest.mark.parametrize(
    ("changed", "failed"),
    [
        ({"n0": said("")}, ["answers", "deterministic"]),
        ({"n0": said("a\ufffd")}, ["answers", "deterministic"]),
        ({"n0": Hit(500, 0, 0, answer="no")}, ["answers", "template", "deterministic"]),
        ({"n2": said(read=40)}, ["template"]),
        ({"n2": Hit(404, 0, 0)}, ["template"]),
        ({"n1": said("Blue.")}, ["deterministic"]),
        ({"n3": said(written=5)}, ["length"]),
        ({"n4": said("It is sunny.")}, ["tools"]),
        ({"n4": said(None, message=call("sunny"))}, ["tools"]),
        ({"n4": said(None, message={"tool_calls": [7]})}, ["tools"]),
        ({"n4": Hit(400, 0, 0, answer='{"error": 1}')}, ["tools"]),
        ({"n5": said('{"verdict": "maybe", "count": 5}')}, ["schema"]),
        ({"n5": said('{"verdict": "yes", "count": true}')}, ["schema"]),
        ({"n5": said('{"verdict": "yes"}')}, ["schema"]),
        ({"n5": said("yes")}, ["schema"]),
        ({"n5": Hit(200, 0, 0, answer="[" * 1000)}, ["schema"]),
    ],
)
def test_what_is_not_well_is_told_by_its_name(changed: dict[str, Hit], failed: list[str]) -> None:
    assert verdicts(**changed) == failed


def test_a_mark_of_the_template_in_an_answer() -> None:
    marked = said("Red.<|im_end|>")
    assert verdicts(n0=marked, n1=marked) == ["template"]


@pytest.mark.parametrize(
    ("answer", "finish"), [("Red is warm. Green is", "stop"), ("Red is warm.", "length"), ("Blue.", "stop")]
)
def test_a_stop_that_is_not_heeded(answer: str, finish: str) -> None:
    found = checks.stopped([said(answer, finish=finish)], text="Red is warm. Green is calm.", word="Green")
    assert found.verdict == "Failed"


def test_an_answer_without_a_word_to_stop_at() -> None:
    assert checks.stop_of("Red is warm. Green is calm.") in ("is", "warm", "Green", "calm")
    assert checks.stop_of("Red!") == ""
    assert checks.second("m", "Red!") == ([], "")
    assert checks.stopped([], text="Red!", word="").verdict == "Skipped"


def test_what_an_engine_says_is_shown_in_short_and_printable() -> None:
    found = checks.judged([said("\x1b[31m" + "x" * 5000), *GOOD[1:]])[0][0]
    assert "\x1b" not in found.seen
    assert len(found.seen) < 200


def test_nothing_that_an_engine_says_is_kept_whole() -> None:
    wild = "\x1b\n" + "x" * 50_000
    wrong = {"tool_calls": [{"function": {"name": wild, "arguments": wild}}]}
    hits = [said(wild, finish=wild), *GOOD[1:3], said(finish=wild), said(None, message=wrong), said(wild)]
    found, text = checks.judged(hits)
    found.append(checks.stopped([said(wild, finish=wild)], text=text, word="y" * 2000))
    assert len(text) <= checks.TEXT_MAX
    assert all(len(check.seen) < 700 and check.seen.isprintable() for check in found)

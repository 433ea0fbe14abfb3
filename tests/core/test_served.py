"""Sums of how endpoints answered: what a record adds, and what is read out of counts within bounds."""

from __future__ import annotations

import pytest

from bessemer.core.served import BETWEEN_MS, COLUMNS, FIRST_MS, Served, quantile
from bessemer.core.values import AnswerEnd, UsageRecord


def record(wrote: int, *, first: int = 0, latency: int = 0, ended: AnswerEnd | None = None) -> UsageRecord:
    return UsageRecord(
        at=1,
        request_id="r",
        project="acme--lab",
        endpoint="chat",
        endpoint_uid="u",
        api_key="k",
        model="m",
        status=200,
        input_tokens=7,
        cached_input_tokens=2,
        output_tokens=wrote,
        latency_ms=latency,
        first_token_ms=first,
        ended=ended,
    )


def test_a_stream_has_a_first_token_and_a_pace() -> None:
    sums = Served()
    sums.take(record(11, first=40, latency=240))
    sums.take(record(21, first=60, latency=660, ended="cancelled"))
    assert [sums[name] for name in ("requests", "input_tokens", "cached_input_tokens", "output_tokens")] == [
        2,
        14,
        4,
        32,
    ]
    assert [sums[name] for name in ("cancelled", "cut", "killed")] == [1, 0, 0]
    first, between = sums.first(), sums.between()
    assert first is not None
    assert between is not None
    assert (first.count, first.mean) == (2, 50.0)
    assert 35 <= first.p50 <= 50 < first.p95 <= 75
    assert (between.count, between.mean) == (2, round(800 / 30, 2)), "of tokens, not of requests"
    assert 15 < between.p50 <= 20 < between.p95 <= 30


def test_what_is_no_stream_has_neither_and_one_token_no_pace() -> None:
    sums = Served()
    sums.take(record(50, latency=900))
    assert (sums.first(), sums.between()) == (None, None)
    sums.take(record(1, first=10, latency=12))
    assert sums.first() is not None
    assert sums.between() is None


def test_sums_add_up() -> None:
    one, two, both = Served(), Served(), Served()
    for number in range(1, 40):
        mine = record(number, first=number * 30, latency=number * 90)
        (one if number % 3 else two).take(mine)
        both.take(mine)
    one.add(two.values)
    assert one.values == both.values
    assert len(both.values) == len(COLUMNS)


@pytest.mark.parametrize("bounds", [FIRST_MS, BETWEEN_MS])
def test_a_quantile_lies_between_the_bounds_that_are_about_it(bounds: tuple[int, ...]) -> None:
    """Beside the values themselves."""
    assert list(bounds) == sorted(set(bounds))
    values = [0.37 * number for number in range(1, 900)]
    counts = [sum(below < v <= bound for v in values) for below, bound in zip((0, *bounds), bounds, strict=False)]
    counts.append(sum(v > bounds[-1] for v in values))
    for part in (0.01, 0.5, 0.95, 0.99):
        true = values[int(part * len(values))]
        place = next((n for n, bound in enumerate(bounds) if true <= bound), len(bounds))
        found = quantile(counts, bounds, part=part)
        assert (0, *bounds)[min(place, len(bounds) - 1)] <= found <= bounds[min(place, len(bounds) - 1)] + 1e-9
    assert quantile([0] * len(bounds) + [3], bounds, part=0.5) == bounds[-1], "behind the last bound nothing is known"

"""Use over time: averages of what was held, and tokens where they fell."""

from __future__ import annotations

import pytest

from bessemer.core.units import GIB
from bessemer.metering import usage
from tests.metering.ledgers import opened, row


def test_a_step_shows_the_average_of_what_was_held() -> None:
    rows = [opened(1, 30, state="running"), row(2, 120, "close")]
    points = usage(rows, start=0, end=180, step_seconds=60)
    assert [(p.at, p.cores, p.memory_bytes) for p in points] == [(0, 1.0, GIB / 2), (60, 2.0, GIB), (120, 0.0, 0.0)]


def test_the_last_step_may_be_short() -> None:
    points = usage([opened(1, 0)], start=0, end=90, step_seconds=60)
    assert [p.cores for p in points] == [2.0, 2.0]


def test_tokens_fall_into_their_step_and_one_workload_can_be_asked_for() -> None:
    rows = [
        row(1, 10, "tokens", requests=1, input_tokens=5, output_tokens=7),
        row(2, 70, "tokens", requests=2, input_tokens=1, output_tokens=1, workload_uid="u2"),
    ]
    assert [(p.requests, p.output_tokens) for p in usage(rows, start=0, end=120, step_seconds=60)] == [(1, 7), (2, 1)]
    only = usage(rows, start=0, end=120, step_seconds=60, workload_uid="u2")
    assert [p.requests for p in only] == [0, 2]


def test_the_number_of_steps_is_bounded() -> None:
    with pytest.raises(ValueError, match="at most"):
        usage([], start=0, end=100_000, step_seconds=1)
    with pytest.raises(ValueError, match="at least"):
        usage([], start=0, end=10, step_seconds=0)

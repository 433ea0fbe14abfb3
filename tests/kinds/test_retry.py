"""When a host tries again: longer each time, within bounds, and whatever the clock does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.kinds.retry import LONGEST_SECONDS, Retry


def test_waits_double_up_to_a_bound() -> None:
    retry, waits = Retry(), []
    for _ in range(12):
        retry = retry.failed(1000.0)
        waits.append(retry.left(1000.0))
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == LONGEST_SECONDS


@given(now=st.floats(0, 2e9), jump=st.floats(-1e8, 1e8), failures=st.integers(0, 1000))
def test_a_clock_that_jumps_never_makes_it_wait_longer_than_the_bound(now: float, jump: float, failures: int) -> None:
    retry = Retry(failures, now).failed(now)
    assert 0 <= retry.left(now + jump) <= LONGEST_SECONDS


def test_it_survives_in_a_status() -> None:
    retry = Retry().failed(5.0).failed(6.0)
    assert Retry.read({"retry": retry.dump()}) == retry


@pytest.mark.parametrize("kept", [None, 7, [], {}, {"failures": "x", "until": 1}, {"failures": 1, "until": None}])
def test_what_cannot_be_read_is_a_fresh_start(kept: Any) -> None:
    assert Retry.read({"retry": kept}) == Retry()

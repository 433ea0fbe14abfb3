"""A bill beside an engine's own counters: what is accounted for, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.core.reconcile import TAIL_TOKENS, UNTOLD_TOKENS, Billed, Counted, Replica, judge

NOW = 1_750_000_000


def replica(
    counted: dict[str, Any] | None, *, gone: bool = True, until: int = NOW, **billed: tuple[int, int, int]
) -> Replica:
    said = None if counted is None else Counted.read({"at": NOW + 60, "context": 1000, **counted})
    of = {how.removeprefix("whole"): Billed(*sums, until) for how, sums in billed.items()}
    return Replica(endpoint="chat", endpoint_uid="u", uid="c", gone=gone, counted=said, billed=of)


@pytest.mark.parametrize(
    ("counted", "billed", "state"),
    [
        ({"tokens": [100, 50]}, {"whole": (3, 100, 50)}, "equal"),
        ({"tokens": [107, 54], "probes": [7, 4]}, {"whole": (3, 100, 50)}, "equal"),
        ({"tokens": [60, 20], "before": [40, 30]}, {"whole": (3, 100, 50)}, "equal"),
        ({"tokens": [101, 50]}, {"whole": (3, 100, 50)}, "unexplained"),
        ({"tokens": [100, 49]}, {"whole": (3, 100, 50)}, "unexplained"),
        ({"tokens": [100, 50 + TAIL_TOKENS]}, {"whole": (2, 90, 40), "cancelled": (1, 10, 10)}, "explained"),
        ({"tokens": [100, 51 + TAIL_TOKENS]}, {"whole": (2, 90, 40), "cancelled": (1, 10, 10)}, "unexplained"),
        ({"tokens": [101, 50]}, {"whole": (2, 90, 40), "cancelled": (1, 10, 10)}, "unexplained"),
        ({"tokens": [10, 10 + UNTOLD_TOKENS + TAIL_TOKENS]}, {"killed": (1, 10, 10)}, "explained"),
        ({"tokens": [900, 7]}, {"unpaid": (1, 0, 0)}, "explained"),
        ({"tokens": [1900, 7]}, {"unpaid": (1, 0, 0)}, "unexplained"),
        ({"tokens": [90, 50], "before": [0, 0], "unseen": 1}, {"whole": (3, 100, 50)}, "explained"),
        ({"tokens": [110, 50], "unseen": 1}, {"whole": (3, 100, 50)}, "unexplained"),
        ({"tokens": [60, 0], "busy": 1}, {"whole": (3, 100, 50)}, "explained"),
        ({"tokens": [60, 0], "busy": 1, "context": 30}, {"whole": (3, 100, 50)}, "unexplained"),
        ({"tokens": [90, 40]}, {"whole": (2, 90, 40), "cut": (1, 10, 10)}, "explained"),
        ({"tokens": [90, 40]}, {"whole": (2, 90, 40), "cancelled": (1, 10, 10)}, "unexplained"),
        (None, {"whole": (3, 100, 50)}, "unknown"),
    ],
)
def test_each_token_is_accounted_for_or_is_not(
    counted: dict[str, Any] | None, billed: dict[str, tuple[int, int, int]], state: str
) -> None:
    assert judge(replica(counted, **billed)).state == state


def test_a_replica_in_use_is_asked_again() -> None:
    """Its counters were read before the last bill of it, or while it answered."""
    assert judge(replica({"tokens": [9, 9]}, gone=False, until=NOW + 60, whole=(1, 1, 1))).state == "unsettled"
    assert judge(replica({"tokens": [9, 9], "busy": 2}, gone=False, whole=(1, 1, 1))).state == "unsettled"
    assert judge(replica({"tokens": [9, 9]}, gone=False, whole=(1, 1, 1))).state == "unexplained"
    assert judge(replica({"tokens": [1, 1]}, gone=False, whole=(1, 1, 1))).state == "equal"


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {},
        {"at": "x"},
        {"at": 1, "tokens": [1]},
        {"at": 1, "tokens": "many"},
        {"at": 1, "tokens": [1 << 63, 1]},
        {"at": 1, "context": 1 << 62},
    ],
)
def test_what_a_host_says_is_read_with_care(said: Any) -> None:
    assert Counted.read(said) is None

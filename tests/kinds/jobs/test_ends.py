"""What a host says of a member's end, as the word of a stranger: nothing that it says is more than it may be."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core.resource import Metadata
from bessemer.core.values import ClaimSpec, WorkloadRef
from bessemer.kinds.fleet.claim import Claim, ClaimStatus
from bessemer.kinds.jobs.job.control import first_failure
from bessemer.kinds.jobs.job.ends import CLOCK_SECONDS, MESSAGE_MAX, end_of

NOW = 1000.0
WELL = {"reason": "", "code": 0, "at": 50.0}
BAD = {"reason": "MemberFailed", "code": 3, "at": 50.0}


def claim(end: Any, *, phase: str = "Failed", rank: int = 0, message: str = "", ends: int = 0) -> Claim:
    return Claim(
        metadata=Metadata(name=f"job-x-{rank}", namespace="acme--research", uid=f"c-{rank}"),
        spec=ClaimSpec(
            host="h1",
            tenant="acme",
            workload=WorkloadRef(kind="Job", name="x", uid="w", replica=rank),
            intent={"started": 10, "ends": ends},
        ),
        status=ClaimStatus.model_validate({"phase": phase, "message": message, "detail": {"end": end}}),
    )


def test_what_a_host_has_reason_to_say_counts() -> None:
    assert (end := end_of(claim(WELL, phase="Stopped"))) is not None
    assert end.reason == ""
    failure = first_failure([claim(BAD, message="it ended with exit status 3")], now=NOW)
    assert failure is not None
    assert (failure.reason, failure.exit_code, failure.message) == ("MemberFailed", 3, "it ended with exit status 3")
    assert (late := end_of(claim({**BAD, "reason": "DeadlineExceeded", "code": None}, ends=40))) is not None
    assert late.reason == "DeadlineExceeded"


@pytest.mark.parametrize(
    "said",
    [
        "ended",
        [],
        {},
        {**BAD, "reason": "Preempted"},
        {**BAD, "reason": None},
        {**BAD, "reason": "DeadlineExceeded"},
        {**BAD, "code": 0},
        {**BAD, "code": 1 << 80},
        {**BAD, "code": "3"},
        {**BAD, "at": "soon"},
        {**BAD, "at": {}},
        {**WELL, "code": 7},
        WELL,
    ],
)
def test_anything_else_is_a_member_that_was_lost(said: Any) -> None:
    """Preempted and lost are made good, of which only the second is bounded; a good end of what does not stand as
    Stopped would end a gang that runs; a deadline that nobody set would fail it for good."""
    failure = first_failure([claim(said)], now=NOW)
    assert failure is not None
    assert (failure.reason, failure.exit_code) == ("MemberLost", None)


def test_a_deadline_that_has_not_come_is_a_member_that_was_lost() -> None:
    late = {**BAD, "reason": "DeadlineExceeded", "code": None}
    reasons = [end.reason for ends in (50, 51) if (end := end_of(claim(late, ends=ends))) is not None]
    assert reasons == ["DeadlineExceeded", "MemberLost"]


def test_a_deadline_is_judged_by_our_clock_within_bounds() -> None:
    """A host that says a time in days would fail a job of somebody else's for good."""
    ends = int(NOW + 50_000)
    liar = claim({**BAD, "reason": "DeadlineExceeded", "code": None, "at": ends + 1.0}, ends=ends)
    for now, reason in ((NOW, "MemberLost"), (ends - CLOCK_SECONDS - 1, "MemberLost"), (ends - 1, "DeadlineExceeded")):
        failure = first_failure([liar], now=now)
        assert failure is not None
        assert failure.reason == reason


def test_who_says_that_it_failed_before_it_began_is_not_the_first() -> None:
    liar, honest = claim({**BAD, "at": -1e300}, rank=1), claim({**BAD, "at": 10.0})
    failure = first_failure([liar, honest], now=NOW)
    assert failure is not None
    assert failure.rank == 0


def test_its_words_are_bounded_and_harmless() -> None:
    failure = first_failure([claim(BAD, message="\x1b[2Jgone\n" + "x" * 10_000)], now=NOW)
    assert failure is not None
    assert failure.message.startswith("[2Jgonexxx")
    assert len(failure.message) <= MESSAGE_MAX


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(JSON | st.fixed_dictionaries({}, optional={"reason": JSON, "code": JSON, "at": JSON}))
def test_nothing_that_it_says_ends_the_reckoning(said: Any) -> None:
    failure = first_failure([claim(said), claim(BAD, rank=1)], now=NOW)
    assert failure is not None
    assert failure.exit_code is None or 0 <= failure.exit_code <= 255
    end = end_of(claim(said))
    assert said is None or (end is not None and (end.at == math.inf or math.isfinite(end.at)))

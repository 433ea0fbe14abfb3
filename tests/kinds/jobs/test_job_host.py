"""A member of a Job on its host: started once, watched, and its end said once, whatever becomes of the agent."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.core.errors import DriverError
from bessemer.core.resource import Done, Wait
from bessemer.drivers.jobs.fake import Fate
from bessemer.drivers.jobs.protocol import RunningMember
from bessemer.drivers.process.protocol import End, Ended
from bessemer.kinds.fleet.claim import ClaimStatus
from bessemer.kinds.jobs.job.host import JobHost, decide
from bessemer.kinds.jobs.job.spec import JobIntent
from tests.kinds.host_bench import HostBench

INTENT = JobIntent(
    words=["/bin/sh", "/tmp/script"], script="train", env={"RANK": "0"}, cores_milli=1000, memory_bytes=1 << 30
)


def bench(fate: Fate | None = None, **intent: Any) -> HostBench:
    made = HostBench(JobHost(), INTENT.model_copy(update=intent).dump(), kind="Job")
    if fate is not None:
        made.jobs.fate = lambda _member: fate
    return made


async def test_it_runs_to_its_end() -> None:
    b = bench(Fate(30.0))
    await b.until_phase("Stopped")
    assert b.history == ["Preparing", "Running", "Stopped"]
    assert b.status.detail["end"] == {"reason": "", "code": 0, "at": b.status.detail["end"]["at"]}
    assert (b.jobs.starts, b.status.pid) == (1, None)


@pytest.mark.parametrize(
    ("fate", "reason", "code"),
    [(Fate(5.0, 3), "MemberFailed", 3), (Fate(5.0, 137, End.OUT_OF_MEMORY), "OutOfMemory", 137)],
)
async def test_how_it_failed_is_said(fate: Fate, reason: str, code: int) -> None:
    b = bench(fate)
    await b.until_phase("Failed")
    assert (b.status.reason, b.status.detail["end"]["code"]) == (reason, code)


async def test_its_end_is_said_once_and_stays() -> None:
    b = bench(Fate(5.0, 3))
    await b.until_phase("Failed")
    said = b.status
    await b.clock.advance(1000.0)
    assert isinstance(await b.step(), Done)
    assert (b.status, b.jobs.starts) == (said, 1)


async def test_it_ends_while_no_agent_is_there() -> None:
    """The agent that comes next tells its exit status."""
    b = bench(Fate(30.0, 7))
    await b.until_phase("Running")
    await b.clock.advance(500.0)
    await b.step()
    assert (b.status.phase, b.status.detail["end"]["code"], b.jobs.starts) == ("Failed", 7, 1)


@pytest.mark.parametrize("late", [0.0, 60.0])
async def test_an_agent_that_is_killed_before_it_could_say_that_it_started_it_does_not_start_it_twice(
    late: float,
) -> None:
    b = bench(Fate(30.0, 7))
    await b.until_phase("Preparing")
    before = b.claim
    await b.step()
    b.claim = before
    await b.clock.advance(late)
    await b.step()
    assert (b.status.phase, b.jobs.starts) == ("Failed" if late else "Running", 1)


async def test_past_its_deadline_it_is_ended_without_a_control_plane() -> None:
    b = bench(Fate(10_000.0))
    b.claim = b.claim.model_copy(
        update={
            "spec": b.claim.spec.model_copy(
                update={"intent": INTENT.model_copy(update={"ends": int(b.clock.now()) + 90}).dump()}
            )
        }
    )
    began = b.clock.now()
    await b.until_phase("Failed")
    assert b.status.reason == "DeadlineExceeded"
    assert 89 <= b.clock.now() - began <= 91
    assert await b.jobs.running() == ()


async def test_what_cannot_be_started_is_tried_again() -> None:
    b = bench(Fate(30.0))
    b.jobs.processes.refuse = DriverError("DiskFull", "no space is left for the process's files")
    await b.until(lambda b: b.status.reason == "DiskFull")
    assert isinstance(b.outcome, Wait)
    b.jobs.processes.refuse = None
    await b.until_phase("Stopped")
    assert b.jobs.starts == 1


async def test_removed_it_leaves_nothing_but_what_it_printed() -> None:
    b = bench(Fate(10_000.0))
    await b.until_phase("Running")
    assert isinstance(await b.remove(), Done)
    assert isinstance(await b.remove(), Done)
    assert await b.residue() == []
    assert b.jobs.outputs == {"w-1.0.0": b"fake member: /bin/sh\n"}


async def test_a_full_disk_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    b = bench(Fate(10_000.0))
    await b.until_phase("Running")

    async def full(_uid: str, _name: str) -> None:
        raise DriverError("DiskFull", "its output cannot be kept")

    monkeypatch.setattr(b.jobs, "keep", full)
    assert isinstance(await b.remove(), Done)
    assert await b.residue() == []


RUNS, KNOWN = RunningMember("c-1", 7, 100), {"process": "7:100"}
ZERO, KILLED = Ended(End.EXITED, 0, "exit status 0"), Ended(End.KILLED, 137, "ended on request")


@pytest.mark.parametrize(
    ("status", "member", "end", "now", "step"),
    [
        (ClaimStatus(), None, None, 5.0, "announce"),
        (ClaimStatus(phase="Preparing"), None, None, 5.0, "start"),
        (ClaimStatus(phase="Preparing"), None, None, 99.0, "late"),
        (ClaimStatus(phase="Preparing"), RUNS, None, 5.0, "watch"),
        (ClaimStatus(phase="Preparing"), None, ZERO, 5.0, "ended"),
        (ClaimStatus(phase="Running", detail=KNOWN), RUNS, None, 5.0, "watch"),
        (ClaimStatus(phase="Running", detail=KNOWN), RUNS, None, 99.0, "late"),
        (ClaimStatus(phase="Running", detail=KNOWN), None, ZERO, 99.0, "ended"),
        (ClaimStatus(phase="Running", detail=KNOWN), None, KILLED, 99.0, "late"),
        (ClaimStatus(phase="Running", detail=KNOWN), None, KILLED, 5.0, "ended"),
        (ClaimStatus(phase="Running", detail=KNOWN), None, None, 5.0, "lost"),
        (ClaimStatus(phase="Stopped", detail={**KNOWN, "end": {}}), None, ZERO, 99.0, "rest"),
    ],
)
def test_what_comes_next(
    status: ClaimStatus, member: RunningMember | None, end: Ended | None, now: float, step: str
) -> None:
    assert decide(status, member, end=end, now=now, ends=50) == step

"""What a loop promises, over a shelf and a clock that stands still."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from bessemer.core.clock import FakeClock, rfc3339
from bessemer.core.errors import BessemerError, Conflict, DriverError, QuotaExceeded, Unavailable
from bessemer.core.ports import CONTROLLER as WRITER
from bessemer.core.ports import UNDER, Fence
from bessemer.core.resource import Done, Fail, Key, Kind, Outcome, Wait
from bessemer.core.taking import Telling, Within
from bessemer.loop import work
from tests.loop.shelf import Bench, Lid, OneLease, Pot, Shelf, done, pots, start

A, B = Key("Pot", "acme--one", "a"), Key("Pot", "acme--one", "b")


@pytest.fixture
async def run():
    benches: list[Bench] = []

    async def begin(*kinds: Kind[Any, Any], **more: Any) -> Bench:
        bench = start(*kinds, **more)
        benches.append(bench)
        await bench.idle()
        return bench

    yield begin
    for bench in benches:
        await bench.loop.stop()
        await bench.task


class Calls:
    """A reconcile that plays a list of outcomes, and the last one for ever."""

    def __init__(self, *outcomes: Outcome | Exception) -> None:
        self.outcomes = list(outcomes)
        self.keys: list[Key] = []

    async def __call__(self, ctx: Any, obj: Any) -> Outcome:
        self.keys.append(obj.key)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def __len__(self) -> int:
        return len(self.keys)


def phase(name: str) -> Any:
    return Pot(spec={}).status.model_copy(update={"phase": name})


async def test_an_object_becomes_ready_with_one_write_and_one_turn(run):
    calls = Calls(Done(status=phase("Ready"), message="hot"))
    bench = await run(pots(calls))
    bench.shelf.put(A)
    await bench.idle()
    status = bench.shelf.status(A)
    ready = status.condition("Ready")
    assert (status.phase, status.observed_generation, status.phase_since) == ("Ready", 1, ready.last_transition_time)
    assert (ready.status, ready.reason, ready.message) == ("True", "Ready", "hot")
    assert bench.shelf.writes == [(A, "status")]
    assert len(calls) == 1, "its own write is no news to it"
    assert bench.said.all == [("Ready", "hot", False)]
    assert bench.metric("reconcile_seconds_count", kind="Pot", outcome="Done") == 1
    assert bench.metric("wait_seconds_count", kind="Pot") == 1
    assert bench.metric("queue_depth", kind="Pot") == 0


async def test_what_was_there_before_is_found_and_nothing_is_written_twice(run):
    shelf = Shelf()
    shelf.put(A)
    bench = await run(pots(), shelf=shelf)
    again = await run(pots(), shelf=shelf)
    assert again.shelf.status(A).phase == "Ready"
    assert shelf.writes == [(A, "status")]
    assert bench.loop is not again.loop


async def test_phase_since_moves_with_the_phase_and_ready_keeps_its_time(run):
    bench = await run(pots(Calls(Wait(reason="Cold", message="m", status=phase("Heating"), again=5.0), Done())))
    bench.shelf.put(A)
    await bench.idle()
    first = bench.shelf.status(A)
    await bench.advance(5)
    second = bench.shelf.status(A)
    assert first.phase_since == second.phase_since, "Done without a status keeps the phase"
    assert first.condition("Ready").last_transition_time != second.condition("Ready").last_transition_time
    assert bench.said.reasons == ["Cold", "Ready"]


async def test_a_name_is_never_worked_on_twice_at_once_and_a_wake_meanwhile_runs_it_once_more(run):
    at_once, most, turns, gate = 0, 0, 0, asyncio.Event()

    async def slow(ctx: Any, obj: Any) -> Outcome:
        nonlocal at_once, most, turns
        at_once, turns = at_once + 1, turns + 1
        most = max(most, at_once)
        await gate.wait()
        at_once -= 1
        return Done()

    bench = await run(pots(slow))
    bench.shelf.put(A)
    await bench.clock.advance(0)
    for size in range(5):
        bench.shelf.put(A, size=size)
        bench.loop.wake(A)
    await bench.clock.advance(0)
    assert (bench.metric("busy", kind="Pot"), bench.metric("held_back_total", kind="Pot")) == (1, 10)
    gate.set()
    await bench.idle()
    assert (most, turns) == (1, 2)
    assert bench.metric("busy", kind="Pot") == 0
    assert bench.shelf.status(A).observed_generation == 6


async def test_names_wait_for_the_workers_there_are(run):
    gate = asyncio.Event()

    async def slow(ctx: Any, obj: Any) -> Outcome:
        await gate.wait()
        return Done()

    bench = await run(pots(slow), workers=2)
    for n in range(5):
        bench.shelf.put(A._replace(name=f"p{n}"))
    await bench.clock.advance(3)
    assert (bench.metric("queue_depth", kind="Pot"), bench.metric("busy", kind="Pot")) == (3, 2)
    gate.set()
    await bench.idle()
    assert bench.metric("wait_seconds_sum", kind="Pot") == 9
    assert bench.metric("queue_depth", kind="Pot") == 0


async def test_many_names_of_one_kind_keep_no_other_kind_waiting(run):
    gate, order = asyncio.Event(), []

    async def slow(ctx: Any, obj: Any) -> Outcome:
        order.append(obj.key.name)
        await gate.wait()
        return Done()

    bench = await run(pots(slow), replace(pots(slow), resource=Lid, plural="lids"), workers=1)
    for n in range(4):
        bench.shelf.put(A._replace(name=f"p{n}"))
    bench.shelf.put(Key("Lid", "acme--one", "late"))
    await bench.clock.advance(0)
    gate.set()
    await bench.idle()
    assert order.index("late") <= 2
    assert order[-1] == "p3", "within a kind the first signal is served first"


async def test_again_and_resync_wake_without_a_signal(run):
    calls = Calls(Wait(reason="W", message="", again=7.0), Done(again=20.0), Done())
    bench = await run(pots(calls, resync_seconds=100.0))
    bench.shelf.put(A)
    await bench.idle()
    await bench.advance(6.9)
    assert len(calls) == 1
    await bench.advance(0.2)
    assert len(calls) == 2
    await bench.advance(20)
    assert (len(calls), bench.metric("resyncs_total", kind="Pot")) == (3, 0)
    await bench.advance(100)
    assert (len(calls), bench.metric("resyncs_total", kind="Pot")) == (4, 1)


async def test_an_error_backs_off_longer_each_time_and_shows_no_internals(run):
    calls = Calls(RuntimeError("secret of the house"))
    bench = await run(pots(calls))
    bench.shelf.put(A)
    await bench.idle()
    ready = bench.shelf.status(A).condition("Ready")
    assert (ready.status, ready.reason) == ("False", "InternalError")
    assert "secret" not in str(bench.shelf.bodies[A])
    assert bench.said.all[0][2], "an error is a warning"
    counts = []
    for _ in range(4):
        counts.append(len(calls))
        await bench.advance(2.0 ** (len(counts) - 1))
    assert counts == [1, 2, 3, 4], "after 1, 2, 4 … seconds"
    assert bench.metric("errors_total", kind="Pot", reason="InternalError") == 5
    assert bench.metric("backoffs_total", kind="Pot") == 5
    assert bench.said.reasons == ["InternalError"], "told once"


async def test_writes_that_fail_back_off_longer_each_time(run):
    """Though what the kind does succeeds each time."""
    bench = await run(pots())
    turns = 0

    async def full(key: Key, part: str) -> None:
        nonlocal turns
        turns += 1
        raise Unavailable("The disk is full.")

    bench.shelf.before_replace = full
    bench.shelf.put(A)
    await bench.idle()
    counts = []
    for n in range(5):
        counts.append(turns)
        await bench.advance(2.0**n)
    assert counts == [1, 2, 3, 4, 5], "after 1, 2, 4 … seconds"
    bench.shelf.before_replace = None
    await bench.advance(32)
    assert bench.shelf.status(A).phase == "Ready"
    bench.shelf.before_replace = full
    bench.shelf.put(A, size=2)
    await bench.idle()
    await bench.advance(1)
    assert turns == 8, "what was written ended the backoff"


async def test_success_ends_a_backoff(run):
    bench = await run(pots(Calls(DriverError("DiskFull", "No space on the pot."), Done(status=phase("Ready")))))
    bench.shelf.put(A)
    await bench.idle()
    ready = bench.shelf.status(A).condition("Ready")
    assert (ready.reason, ready.message) == ("DiskFull", "No space on the pot.")
    await bench.advance(1)
    assert bench.shelf.status(A).condition("Ready").status == "True"
    assert bench.said.reasons == ["DiskFull", "Ready"]


async def test_a_ready_object_keeps_its_word_through_two_errors(run):
    error = Unavailable("Away.", retry_after_seconds=4)
    calls = Calls(Done(status=phase("Ready"), again=1.0), error, error, error, error)
    bench = await run(pots(calls))
    bench.shelf.put(A)
    await bench.idle()
    for turns, value in ((2, "True"), (3, "True"), (4, "True"), (5, "False")):
        await bench.advance(4)
        assert (len(calls), bench.shelf.status(A).condition("Ready").status) == (turns, value)


async def test_a_conflict_is_tried_again_at_once_and_never_shown(run):
    calls = Calls(Conflict("taken"), Done(status=phase("Ready")))
    bench = await run(pots(calls))
    bench.shelf.put(A)
    await bench.idle()
    await bench.advance(0.02)
    assert bench.shelf.status(A).phase == "Ready"
    assert bench.metric("retries_total", kind="Pot") == 1
    assert bench.metric("errors_total", kind="Pot", reason="Conflict") == 0
    assert bench.said.reasons == ["Ready"]


async def test_a_write_that_lost_a_race_is_decided_anew(run):
    bench = await run(pots())
    calls = 0

    async def meddle(key: Key, part: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            bench.shelf.put(A, size=2)

    bench.shelf.before_replace = meddle
    bench.shelf.put(A, size=1)
    await bench.idle()
    await bench.advance(1)
    assert bench.shelf.status(A).observed_generation == 2
    assert bench.metric("reconcile_seconds_count", kind="Pot", outcome="Conflict") == 1


async def test_past_its_deadline_an_object_says_stuck_why_and_what_helps_until_it_moves_on(run):
    wait = Wait(reason="NoFire", message="There is no fire.", status=phase("Heating"), remedy="Light one.", again=50.0)
    calls = Calls(wait, wait, wait, wait, Done(status=phase("Ready")))
    bench = await run(pots(calls, deadlines={"Heating": 60.0}))
    bench.shelf.put(A)
    await bench.idle()
    await bench.advance(59)
    assert bench.shelf.status(A).condition("Stuck") is None
    await bench.advance(1)
    stuck = bench.shelf.status(A).condition("Stuck")
    assert (stuck.status, stuck.reason) == ("True", "NoFire")
    assert stuck.message == "Heating for longer than 1m: There is no fire. Light one."
    assert bench.metric("stuck_objects", kind="Pot") == 1
    assert bench.said.all[-1] == ("Stuck", stuck.message, True)
    writes = len(bench.shelf.writes)
    await bench.advance(50)
    assert len(bench.shelf.writes) == writes, "being stuck for longer is no news"
    await bench.advance(50)
    assert bench.shelf.status(A).condition("Stuck").status == "False"
    assert bench.metric("stuck_objects", kind="Pot") == 0


async def test_an_object_that_only_raises_gets_stuck_too(run):
    bench = await run(pots(Calls(RuntimeError("x")), deadlines={"Pending": 30.0}))
    bench.shelf.put(A)
    await bench.idle()
    await bench.advance(80)
    assert bench.shelf.status(A).condition("Stuck").reason == "InternalError"


async def test_a_deadline_of_which_only_a_rounding_is_left_has_passed(run):
    began = 10.1
    assert 0 < 60.0 - ((began + 60.0) - began) < 1e-12
    calls = Calls(Wait(reason="W", message="m", again=1000.0))
    bench = await run(pots(calls, deadlines={"Pending": 60.0}))
    await bench.advance(began)
    bench.shelf.put(A)
    await bench.idle()
    async with asyncio.timeout(60):
        await bench.advance(60.0)
    assert bench.shelf.status(A).condition("Stuck").status == "True"
    assert len(calls) < 10


async def test_a_jump_of_the_wall_clock_makes_nobody_stuck(run):
    bench = await run(pots(Calls(Wait(reason="W", message="m", again=10.0)), deadlines={"Pending": 60.0}))
    bench.shelf.put(A)
    await bench.idle()
    bench.clock.jump(86_400)
    await bench.advance(30)
    assert bench.shelf.status(A).condition("Stuck") is None


async def test_a_deadline_outlives_a_restart(run):
    kind = pots(Calls(Wait(reason="W", message="m", again=1000.0)), deadlines={"Pending": 60.0})
    bench = await run(kind)
    bench.shelf.put(A)
    await bench.idle()
    await bench.advance(40)
    await bench.loop.stop()
    again = await run(kind, shelf=bench.shelf, clock=bench.clock)
    await again.advance(21)
    assert again.shelf.status(A).condition("Stuck").status == "True"


async def test_what_had_progress_before_a_restart_has_its_time_from_then(run):
    """When it last moved was kept nowhere: it may have been a moment ago."""
    wait = Wait(reason="W", message="m", again=1000.0, done=5)
    kind = pots(Calls(wait), deadlines={"Pending": 60.0})
    bench = await run(kind)
    bench.shelf.put(A)
    await bench.idle()
    await bench.advance(40)
    await bench.loop.stop()
    again = await run(kind, shelf=bench.shelf, clock=bench.clock)
    await again.advance(59)
    assert again.shelf.status(A).condition("Stuck") is None
    await again.advance(1)
    assert again.shelf.status(A).condition("Stuck").status == "True"


async def test_what_has_progress_when_a_lease_comes_back_has_its_time_from_then(run):
    clock, shelf = FakeClock(), Shelf()
    leases = OneLease(clock)
    wait = Wait(reason="W", message="m", again=5.0, done=5)
    bench = await run(
        pots(Calls(wait), deadlines={"Pending": 60.0}), shelf=shelf, clock=clock, leases=leases, holder="one"
    )
    shelf.put(A)
    await bench.advance(10)
    leases.holders["loop/Pot"] = ("two", clock.now() + 50)
    await bench.advance(60)
    assert bench.metric("lease_held", kind="Pot") == 1
    await bench.advance(40)
    assert shelf.status(A).condition("Stuck") is None
    await bench.advance(30)
    assert shelf.status(A).condition("Stuck").status == "True"


async def test_a_hanging_reconcile_is_cancelled_and_said(monkeypatch, run):
    monkeypatch.setattr("bessemer.loop.loop.GRACE_SECONDS", 0.01)

    async def hang(ctx: Any, obj: Any) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    bench = await run(pots(hang))
    bench.shelf.put(A)
    await bench.clock.advance(work.LIMIT_SECONDS + 60)
    assert bench.shelf.status(A).condition("Ready").reason == "TookTooLong"
    assert bench.metric("errors_total", kind="Pot", reason="TookTooLong") >= 1


async def test_finalize_lets_go_even_when_somebody_writes_in_between(run):
    bench = await run(pots(finalize=done))
    bench.shelf.put(A, finalizers=("bessemer.dev/pot", "other"))
    await bench.idle()
    meddled = False

    async def meddle(key: Key, part: str) -> None:
        nonlocal meddled
        if part == "main" and not meddled:
            meddled = True
            bench.shelf.put(A, finalizers=("bessemer.dev/pot", "other"), size=9)
            bench.shelf.delete(A)

    bench.shelf.before_replace = meddle
    bench.shelf.delete(A)
    await bench.idle()
    assert bench.shelf.bodies[A]["metadata"]["finalizers"] == ["other"]
    assert meddled


async def test_finalize_that_waits_says_so_and_then_the_object_goes(run):
    finalize = Calls(Wait(reason="StillHot", message="m", status=phase("Cooling"), again=3.0), Done())
    bench = await run(pots(finalize=finalize))
    bench.shelf.put(A, finalizers=("bessemer.dev/pot",))
    await bench.idle()
    bench.shelf.delete(A)
    await bench.idle()
    assert bench.shelf.status(A).condition("Ready").reason == "StillHot"
    await bench.advance(3)
    assert A not in bench.shelf.bodies


async def test_a_finalizer_that_is_not_ours_to_remove_gets_its_last_word_written(run):
    """As a Claim's on its host: Done of ``finalize`` is phase Gone, and somebody else removes the object."""
    bench = await run(pots(finalize=Calls(Done(status=phase("Gone"), reason="Gone"))))
    bench.shelf.put(A, finalizers=("other",))
    bench.shelf.delete(A)
    await bench.idle()
    assert bench.shelf.status(A).phase == "Gone"


async def test_a_kind_without_work_is_skipped(run):
    bench = await run(Kind(resource=Pot, plural="pots", namespaced=True, rights={}))
    bench.shelf.put(A)
    assert bench.shelf.writes == []


async def test_another_kinds_change_wakes_whom_it_concerns(run):
    calls = Calls(Done())

    async def lid_to_pot(ctx: Any, change: Any):
        yield Key("Pot", change.key.namespace, change.key.name)

    bench = await run(pots(calls, wakes={"Lid": lid_to_pot}))
    bench.shelf.put(A)
    bench.shelf.put(B)
    await bench.idle()
    bench.shelf.put(Key("Lid", "acme--one", "b"))
    await bench.idle()
    assert calls.keys == [A, B, B]


async def test_a_wake_that_raises_is_counted_and_ends_nothing(run):
    async def broken(ctx: Any, change: Any):
        raise RuntimeError("wake")
        yield

    bench = await run(pots(wakes={"Lid": broken}))
    bench.shelf.put(Key("Lid", "", "x"))
    bench.shelf.put(A)
    await bench.idle()
    assert bench.metric("errors_total", kind="Pot", reason="WakeFailed") == 1
    assert bench.shelf.status(A).phase == "Ready"


async def test_when_history_ran_out_everything_is_listed_anew(run):
    calls = Calls(Done())

    async def lid_to_pot(ctx: Any, change: Any):
        yield A

    lids = Kind(resource=Lid, plural="lids", namespaced=True, rights={}, reconcile=done)
    bench = await run(pots(calls, wakes={"Lid": lid_to_pot}), lids)
    bench.shelf.put(A)
    bench.shelf.put(B)
    await bench.idle()
    bench.shelf.vanish(B)
    bench.shelf.cut_history()
    await bench.advance(1)
    assert bench.metric("relists_total", kind="Pot") == 1
    assert calls.keys[2:] == [A], "once more, since changes of lids were missed; b is gone"
    bench.shelf.put(A, size=3)
    await bench.idle()
    assert bench.shelf.status(A).observed_generation == 2


async def test_of_two_loops_one_works_and_the_other_takes_over(run):
    clock, shelf = FakeClock(), Shelf()
    leases = OneLease(clock)
    one, two = Calls(Done(again=1.0)), Calls(Done(again=1.0))
    first = await run(pots(one), shelf=shelf, clock=clock, leases=leases, holder="one")
    second = await run(pots(two), shelf=shelf, clock=clock, leases=leases, holder="two")
    shelf.put(A)
    await first.advance(10)
    assert (len(one) > 5, len(two)) == (True, 0)
    assert (first.metric("lease_held", kind="Pot"), second.metric("lease_held", kind="Pot")) == (1, 0)
    await first.loop.stop()
    before = len(one)
    await second.advance(6)
    assert (len(one), len(two) > 0) == (before, True)
    assert second.metric("lease_held", kind="Pot") == 1


async def test_work_that_outlives_its_lease_is_dropped(run):
    clock, shelf = FakeClock(), Shelf()
    leases = OneLease(clock)
    gate = asyncio.Event()

    async def slow(ctx: Any, obj: Any) -> Outcome:
        await gate.wait()
        return Done(status=phase("Ready"))

    bench = await run(pots(slow), shelf=shelf, clock=clock, leases=leases, holder="one")
    shelf.put(A)
    await clock.advance(0)
    leases.holders["loop/Pot"] = ("two", clock.now() + 3600)
    await clock.advance(20)
    gate.set()
    await bench.idle()
    assert shelf.writes == []
    assert bench.metric("reconcile_seconds_count", kind="Pot", outcome="Fenced") == 1


async def test_a_turn_writes_under_the_fence_of_its_lease(run):
    """And nobody else does: the store refuses what comes under a fence that is not the last."""
    seen: list[Fence | None] = []

    async def look(ctx: Any, obj: Any) -> Outcome:
        seen.append(UNDER.get())
        return Done(status=phase("Ready"))

    clock, shelf = FakeClock(), Shelf()
    leases = OneLease(clock)
    leases.fence = 6
    bench = await run(pots(look), shelf=shelf, clock=clock, leases=leases, holder="one")
    shelf.put(A)
    await bench.idle()
    assert seen == [Fence("loop/Pot", 7)]
    assert UNDER.get() is None


async def test_who_takes_over_again_does_not_measure_from_the_first_time(run):
    """Meanwhile the object may have been elsewhere and come back into the phase that it was in then."""
    clock, shelf = FakeClock(), Shelf()
    leases = OneLease(clock)
    kind = pots(Calls(Wait(reason="W", message="m", again=5.0)), deadlines={"Pending": 60.0})
    bench = await run(kind, shelf=shelf, clock=clock, leases=leases, holder="one")
    shelf.put(A)
    await bench.advance(10)
    leases.holders["loop/Pot"] = ("two", clock.now() + 50)
    await bench.advance(40)
    shelf.bodies[A]["status"]["phaseSince"] = rfc3339(clock.now())
    await bench.advance(30)
    assert bench.metric("lease_held", kind="Pot") == 1
    assert shelf.status(A).condition("Stuck") is None
    await bench.advance(35)
    assert shelf.status(A).condition("Stuck").status == "True"


async def test_a_lease_store_that_is_away_ends_the_work_when_the_lease_runs_out(run):
    clock, shelf = FakeClock(), Shelf()
    leases = OneLease(clock)
    bench = await run(pots(), shelf=shelf, clock=clock, leases=leases, holder="one")

    async def away(*args: Any, **kwargs: Any) -> None:
        raise Unavailable("away")

    leases.acquire = away
    await bench.advance(20)
    shelf.put(A)
    await bench.idle()
    assert shelf.writes == []
    assert bench.metric("lease_held", kind="Pot") == 0


@pytest.mark.parametrize("answer_seconds", [6.0, 9.0, 17.0])
async def test_a_lease_that_lapses_while_its_renewal_is_on_the_way_is_gained_anew(run, answer_seconds):
    """Turns that found no fence set no timer: everything is looked at again, though the number is the same. Where the
    answer took longer than the lease, that is at the first renewal that did not."""
    clock, shelf, calls = FakeClock(), Shelf(), Calls(Done(again=1.0))
    leases, slow = OneLease(clock), [0.0]
    acquire = leases.acquire

    async def late(*args: Any, **more: Any) -> Any:
        lease = await acquire(*args, **more)
        await clock.sleep(slow[0])
        return lease

    leases.acquire = late
    bench = await run(pots(calls, resync_seconds=100_000.0), shelf=shelf, clock=clock, leases=leases, holder="one")
    shelf.put(A)
    await bench.advance(4)
    slow[0] = answer_seconds
    await bench.advance(60)
    slow[0] = 4.0
    await bench.advance(30)
    before = len(calls)
    await bench.advance(10)
    assert bench.metric("lease_held", kind="Pot") == 1
    assert leases.fence == 1, "nobody else had it"
    assert len(calls) >= before + 9, "its timer runs"


async def test_stop_lets_what_is_at_work_finish(run):
    gate = asyncio.Event()

    async def slow(ctx: Any, obj: Any) -> Outcome:
        await gate.wait()
        return Done(status=phase("Ready"))

    bench = await run(pots(slow))
    bench.shelf.put(A)
    await bench.clock.advance(0)
    stopping = asyncio.create_task(bench.loop.stop())
    await bench.clock.advance(0)
    gate.set()
    await stopping
    assert bench.shelf.status(A).phase == "Ready"


async def test_fail_is_a_warning_and_is_looked_at_again(run):
    calls = Calls(Fail(reason="Broken", message="It leaks.", status=phase("Failed"), again=30.0), Done())
    bench = await run(pots(calls))
    bench.shelf.put(A)
    await bench.idle()
    assert bench.said.all == [("Broken", "It leaks.", True)]
    await bench.advance(30)
    assert len(calls) == 2


async def test_what_is_written_with_a_status_is_written_once_and_tells_what_the_status_tells(run):
    told: list[Telling] = []

    async def reconcile(ctx: Any, obj: Any) -> Outcome:
        async def write(telling: Telling) -> int:
            told.append(telling)
            return (await bench.shelf.replace(telling.body, WRITER, part="status")).revision

        within = Within(write, failed=lambda error: done(ctx, obj))
        return Wait(reason="Placed", message="m", status=phase("Placed"), within=within)

    bench = await run(pots(reconcile))
    bench.shelf.put(A)
    await bench.idle()
    assert [one.reason for telling in told for one in telling.happenings] == ["Placed"]
    assert bench.shelf.writes == [(A, "status")]
    assert bench.shelf.status(A).phase == "Placed"
    assert bench.said.all == [], "it is told with the write, by who writes"


async def test_where_that_fails_the_kind_says_what_came_of_it_and_its_time_goes_on(run):
    tries: list[BessemerError] = []

    async def reconcile(ctx: Any, obj: Any) -> Outcome:
        async def write(telling: Telling) -> int:
            raise QuotaExceeded("full")

        async def failed(error: BessemerError) -> Outcome:
            tries.append(error)
            return Wait(reason="Full", message=error.message, status=phase("Pending"), again=10.0)

        return Wait(reason="Placed", message="m", status=phase("Placed"), within=Within(write, failed))

    bench = await run(replace(pots(reconcile), deadlines={"Pending": 25.0, "Placed": 5.0}))
    bench.shelf.put(A)
    await bench.idle()
    assert bench.shelf.status(A).condition("Ready").reason == "Full"
    for _ in range(3):
        await bench.advance(10)
    assert bench.shelf.status(A).condition("Stuck").status == "True", "a phase that it never came to is none"
    assert len(tries) >= 3


@pytest.mark.parametrize("error", [Conflict("changed"), Unavailable("away")])
async def test_what_says_nothing_of_it_is_a_turn_again(run, error):
    left = [error]

    async def reconcile(ctx: Any, obj: Any) -> Outcome:
        async def write(telling: Telling) -> int:
            if left:
                raise left.pop()
            return (await bench.shelf.replace(telling.body, WRITER, part="status")).revision

        async def failed(error: BessemerError) -> Outcome:
            raise error

        return Wait(reason="Placed", message="m", status=phase("Placed"), within=Within(write, failed))

    bench = await run(pots(reconcile))
    bench.shelf.put(A)
    for _ in range(4):
        await bench.advance(2)
    assert bench.shelf.status(A).phase == "Placed"

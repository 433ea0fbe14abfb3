"""A replica's host side on a fake host: a completion as the proof, what engines do wrong, the way down."""

from __future__ import annotations

import pytest

from bessemer.core.errors import DriverError
from bessemer.core.resource import Done
from bessemer.core.units import GIB, MIB
from bessemer.core.values import BILLING
from bessemer.drivers.engine.fake import Behaviour, Trouble
from bessemer.drivers.engine.protocol import RunningEngine
from bessemer.drivers.process.protocol import End
from bessemer.kinds.inference.endpoint import loading
from bessemer.kinds.inference.endpoint.host import EndpointHost, threads_of
from bessemer.kinds.inference.endpoint.spec import EndpointIntent
from tests.kinds.host_bench import DIGEST, SECRET, HostBench, started

INTENT = EndpointIntent(
    model=DIGEST,
    alias="chat",
    slots=4,
    context_tokens=2048,
    cores_milli=4000,
    memory_bytes=GIB,
    needs_bytes=512 * MIB,
)


@pytest.fixture
def bench() -> HostBench:
    return HostBench(EndpointHost(), INTENT.dump(), kind="Endpoint")


async def engine_of(bench: HostBench) -> RunningEngine:
    engine = await bench.engine.find("c-1")
    assert engine is not None
    return engine


async def test_it_answers_before_it_counts(bench: HostBench) -> None:
    await bench.until_phase("Running")
    assert bench.history == ["Preparing", "Starting", "Running"]
    assert bench.engine.models["c-1"].counters.tokens_predicted > 0
    assert bench.status.address == f"unix:{bench.engine.door('c-1')}"
    assert bench.status.pid == (await engine_of(bench)).pid


async def test_one_that_only_embeds_writes_nothing_before_it_counts() -> None:
    bench = HostBench(EndpointHost(), INTENT.model_copy(update={"task": "embed"}).dump(), kind="Endpoint")
    await bench.until_phase("Running")
    counters = bench.engine.models["c-1"].counters
    assert (counters.requests, counters.tokens_predicted) == (1, 0)
    assert bench.engine.models["c-1"].asked["input"]


async def test_a_running_engine_is_asked_nothing_more(bench: HostBench) -> None:
    await bench.until_phase("Running")
    counted = bench.engine.models["c-1"].counters.tokens_predicted
    before = bench.status
    for _ in range(5):
        await bench.step()
    assert bench.engine.models["c-1"].counters.tokens_predicted == counted
    assert bench.status == before


async def test_a_new_agent_adopts_what_runs(bench: HostBench) -> None:
    await bench.until_phase("Running")
    engine = await engine_of(bench)
    bench.claim = bench.claim.model_copy(update={"status": type(bench.status)()})
    await bench.until_phase("Running")
    assert await engine_of(bench) == engine


async def test_the_engine_gets_what_the_intent_says(bench: HostBench) -> None:
    specs = started(bench)
    await bench.until_phase("Running")
    (spec,) = specs
    assert (spec.slots, spec.context_tokens, spec.threads, spec.memory_bytes) == (4, 8192, 3, GIB)
    assert (spec.secret, spec.alias) == (SECRET, "chat")
    assert SECRET not in repr(bench.status) + repr(spec)


def test_threads_leave_a_core_free_and_are_at_least_one() -> None:
    threads = [threads_of(INTENT.model_copy(update={"cores_milli": milli})) for milli in (500, 1000, 2000, 8000)]
    assert threads == [1, 1, 1, 7]


async def test_a_killed_engine_is_lost_until_it_answers_again(bench: HostBench) -> None:
    await bench.until_phase("Running")
    bench.history.clear()
    await bench.engine.end("c-1", End.CRASHED)
    await bench.step()
    assert (bench.status.reason, bench.status.address) == ("EngineExited", "")
    await bench.until_phase("Running")
    assert bench.history == ["Lost", "Starting", "Running"]
    assert BILLING["Lost"] == "lost"
    assert bench.status.restarts == 1


async def test_an_engine_whose_door_stays_silent_is_lost_and_started_anew(bench: HostBench) -> None:
    await bench.until_phase("Running")
    pid, began = bench.status.pid, bench.clock.monotonic()
    bench.history.clear()
    bench.engine.models["c-1"].behaviour = Behaviour(mute=True)
    await bench.until_reason("EngineSilent")
    assert (bench.status.phase, bench.history) == ("Running", [])
    await bench.until_phase("Lost")
    assert 30 <= bench.clock.monotonic() - began < 45
    assert (bench.status.address, bench.status.restarts) == ("", 1)
    await bench.until_phase("Running")
    assert bench.status.pid != pid
    assert "silent" not in bench.status.detail


async def test_a_door_that_answers_again_in_time_is_forgiven_at_once(bench: HostBench) -> None:
    await bench.until_phase("Running")
    before = bench.status
    bench.engine.models["c-1"].behaviour = Behaviour(mute=True)
    for _ in range(5):
        await bench.step()
        await bench.clock.advance(5)
    assert bench.status.reason == "EngineSilent"
    bench.engine.models["c-1"].behaviour = Behaviour()
    await bench.step()
    assert bench.status == before


@pytest.mark.parametrize("seconds", [86_400, -86_400])
async def test_a_clock_that_jumps_makes_nothing_silent(bench: HostBench, seconds: float) -> None:
    await bench.until_phase("Running")
    bench.engine.models["c-1"].behaviour = Behaviour(mute=True)
    await bench.step()
    bench.clock.jump(seconds)
    await bench.step()
    assert (bench.status.phase, bench.status.restarts) == ("Running", 0)


async def test_want_of_memory_says_what_was_asked_and_had(bench: HostBench) -> None:
    bench.engine.trouble["c-1"] = Trouble(ends=End.OUT_OF_MEMORY)
    await bench.until_reason("OutOfMemory")
    assert "the engine went past its memory limit of 1 GiB" in bench.status.message
    assert "4 slots of 2048 tokens within 1 GiB" in bench.status.message
    assert "needs about 512 MiB" in bench.status.message
    bench.engine.trouble.clear()
    await bench.until_phase("Running")


async def test_an_engine_that_exits_is_started_again_with_backoff(bench: HostBench) -> None:
    bench.engine.trouble["c-1"] = Trouble(ends=End.CRASHED)
    await bench.until(lambda b: b.status.restarts >= 4)
    assert bench.status.phase == "Preparing"
    assert bench.status.detail["retry"]["failures"] >= 4
    bench.engine.trouble.clear()
    await bench.until_phase("Running")


async def test_a_taken_door_is_waited_for(bench: HostBench) -> None:
    bench.engine.trouble["c-1"] = Trouble(port_taken=True)
    await bench.until_reason("PortTaken")
    assert bench.status.phase == "Preparing"
    bench.engine.trouble.clear()
    await bench.until_phase("Running")


async def test_an_engine_that_answers_nonsense_is_started_anew(bench: HostBench) -> None:
    await bench.until_phase("Starting")
    bench.engine.models["c-1"].behaviour = Behaviour(status=500)
    pid = bench.status.pid
    await bench.until_reason("ProbeFailed")
    assert bench.status.phase == "Preparing"
    await bench.until_phase("Running")
    assert bench.status.pid != pid


def that_loads_for_ever() -> HostBench:
    bench = HostBench(EndpointHost(), INTENT.dump(), kind="Endpoint")
    bench.engine._load_seconds = 1e9
    return bench


async def test_an_engine_that_loads_and_does_nothing_is_started_anew() -> None:
    bench = that_loads_for_ever()
    bench.engine.processes.idle.add("c-1")
    await bench.until_phase("Starting")
    began = bench.clock.monotonic()
    await bench.until_reason("EngineSilent")
    assert loading.IDLE_SECONDS < bench.clock.monotonic() - began < loading.IDLE_SECONDS + 2 * loading.LOOK_SECONDS
    assert "has done nothing for" in bench.status.message
    assert await bench.engine.find("c-1") is None


async def test_an_engine_that_only_computes_is_given_longer() -> None:
    bench = that_loads_for_ever()
    await bench.until_phase("Starting")
    began = bench.clock.monotonic()
    await bench.until_reason("EngineSilent", seconds=2 * loading.BUSY_SECONDS)
    assert loading.BUSY_SECONDS < bench.clock.monotonic() - began < loading.BUSY_SECONDS + 2 * loading.LOOK_SECONDS
    assert "has read nothing for" in bench.status.message


async def test_a_large_model_on_a_slow_disk_comes_up() -> None:
    bench = that_loads_for_ever()
    await bench.until_phase("Starting")
    pid, said = bench.status.pid, set()
    for second in range(0, 7200, 5):
        bench.engine.processes.read_bytes["c-1"] = second << 20
        await bench.clock.advance(5)
        await bench.step()
        said.add(str(bench.status.detail))
    assert (bench.status.phase, bench.status.pid, bench.status.restarts) == ("Starting", pid, 0)
    assert len(said) <= 7200 / loading.LOOK_SECONDS + 1, "its status changes with looks that count alone"
    bench.engine._engines["c-1"].ready_at = 0.0
    await bench.until_phase("Running")
    assert (bench.status.pid, "loading" in bench.status.detail) == (pid, False)


@pytest.mark.parametrize("seconds", [86_400, -86_400])
async def test_a_clock_that_jumps_ends_no_load(seconds: float) -> None:
    bench = that_loads_for_ever()
    await bench.until_phase("Starting")
    await bench.step()
    bench.clock.jump(seconds)
    await bench.step()
    assert (bench.status.phase, bench.status.restarts) == ("Starting", 0)


@pytest.mark.parametrize("reason", ["DigestMismatch", "DiskFull", "FetchFailed"])
async def test_a_model_that_does_not_come_is_waited_for(bench: HostBench, reason: str) -> None:
    bench.content.refuse = DriverError(reason, "no")
    await bench.until_reason(reason)
    assert await bench.engine.find("c-1") is None
    bench.content.refuse = None
    await bench.until_phase("Running")


async def test_it_deletes_cleanly_from_every_phase(bench: HostBench) -> None:
    for _ in range(8):
        await bench.step()
        assert isinstance(await bench.remove(), Done)
        assert await bench.residue() == []
        await bench.clock.advance(1)

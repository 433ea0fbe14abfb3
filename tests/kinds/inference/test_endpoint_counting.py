"""What an engine has counted is heard at a slow pace, once more before it goes, and through its processes' ends."""

from __future__ import annotations

import pytest

from bessemer.core.reconcile import Billed, Counted, Replica, judge
from bessemer.core.resource import Done, Wait
from bessemer.drivers.process.protocol import End
from bessemer.kinds.fleet.claim import ClaimStatus
from bessemer.kinds.inference.endpoint import caching
from bessemer.kinds.inference.endpoint.counting import COUNT_SECONDS
from bessemer.kinds.inference.endpoint.host import EndpointHost
from bessemer.kinds.inference.endpoint.spec import ReplicaStatus
from tests.kinds.host_bench import HostBench
from tests.kinds.inference.test_endpoint_host import INTENT


@pytest.fixture
def bench() -> HostBench:
    return HostBench(EndpointHost(), INTENT.dump(), kind="Endpoint")


def counted(bench: HostBench) -> Counted:
    found = Counted.read(bench.status.detail.get("counted"))
    assert found is not None
    return found


def answer(bench: HostBench, *, read: int, wrote: int) -> None:
    """Its engine serves somebody."""
    counters = bench.engine.models["c-1"].counters
    counters.prompt_tokens += read
    counters.tokens_predicted += wrote


def state(bench: HostBench, *, read: int, wrote: int) -> str:
    billed = {"": Billed(1, read, wrote, 0)}
    return judge(Replica(endpoint="x", endpoint_uid="w-1", uid="c-1", counted=counted(bench), billed=billed)).state


async def test_what_finds_it_good_is_nobodys(bench: HostBench) -> None:
    await bench.until_phase("Running")
    said = counted(bench)
    assert said.probes == said.tokens != (0, 0)
    assert said.context == INTENT.context_tokens


async def test_counters_are_read_once_a_minute_and_until_they_stand_still(bench: HostBench) -> None:
    await bench.until_phase("Running")
    told = []
    for number in range(6 * COUNT_SECONDS // 5):
        if number == 3:
            answer(bench, read=30, wrote=12)
        await bench.clock.advance(5)
        before = bench.status
        await bench.step()
        if bench.status != before:
            told.append(counted(bench).at)
    assert len(told) == 2, "what is new, and that it was all"
    assert told[1] - told[0] >= COUNT_SECONDS
    assert state(bench, read=30, wrote=12) == "equal"


async def test_the_last_of_it_stands_before_the_engine_goes(bench: HostBench) -> None:
    await bench.until_phase("Running")
    answer(bench, read=30, wrote=12)
    outcome = await bench.side.remove(bench.context(), bench.claim)
    assert isinstance(outcome, Wait)
    assert isinstance(outcome.status, ClaimStatus)
    assert await bench.engine.find("c-1") is not None
    bench.claim = bench.claim.model_copy(update={"status": outcome.status})
    assert state(bench, read=30, wrote=12) == "equal", "it stands before the engine goes"
    answer(bench, read=5, wrote=2)  # what is answered meanwhile
    outcome = await bench.side.remove(bench.context(), bench.claim)
    assert isinstance(outcome, Done)
    assert isinstance(outcome.status, ClaimStatus)
    assert await bench.engine.find("c-1") is None
    bench.claim = bench.claim.model_copy(update={"status": outcome.status})
    assert (bench.status.phase, list(bench.status.detail)) == ("Gone", ["counted"])
    assert state(bench, read=35, wrote=14) == "equal"
    assert state(bench, read=35, wrote=13) == "unexplained"


async def test_an_engine_that_dies_takes_with_it_what_nobody_saw(bench: HostBench) -> None:
    await bench.until_phase("Running")
    answer(bench, read=30, wrote=12)
    await bench.clock.advance(COUNT_SECONDS)
    await bench.step()
    answer(bench, read=5, wrote=5)
    await bench.engine.end("c-1", End.KILLED)
    await bench.step()
    await bench.until_phase("Running")
    answer(bench, read=7, wrote=3)
    await bench.clock.advance(COUNT_SECONDS)
    await bench.step()
    assert counted(bench).unseen == 1
    assert state(bench, read=37, wrote=15) == "equal"
    assert state(bench, read=42, wrote=20) == "explained", "what was billed and not seen"
    assert state(bench, read=36, wrote=15) == "unexplained", "more was counted than anybody was billed for"


@pytest.mark.parametrize(
    ("engine", "used", "said"), [("vllm", 0.87, 0.8), ("vllm", 0.3, None), ("llamacpp", 0.87, None)]
)
async def test_how_full_its_cache_is_stands_in_its_status_by_steps(
    engine: str, used: float, said: float | None
) -> None:
    intent = INTENT.model_copy(update={"engine": engine})
    bench = HostBench(EndpointHost(), intent.dump(), kind="Endpoint")
    bench.engine.sorts = ("llamacpp", "vllm")
    await bench.until_phase("Running")
    counters, changes = bench.engine.models["c-1"].counters, 0
    for number in range(30):
        counters.kv_used = used + 0.01 * (number % 3)
        await bench.clock.advance(5)
        before = bench.status
        await bench.step()
        changes += bench.status.detail.get("cache") != before.detail.get("cache")
    assert caching.said(bench.claim) == said
    assert changes == (said is not None), "it is said once, and again when it is another step"


@pytest.mark.parametrize("wild", ["0.9", True, -1, 3.0, float("nan"), None, [0.9]])
def test_what_a_host_says_of_a_cache_and_makes_no_sense_says_nothing(wild: object) -> None:
    bench = HostBench(EndpointHost(), INTENT.dump(), kind="Endpoint")
    bench.claim.status.detail["cache"] = wild
    assert caching.said(bench.claim) is None


def test_the_caches_of_an_endpoint_are_as_full_as_those_that_answer_on_the_mean() -> None:
    def one(*, ready: bool = True, share: float | None = None) -> ReplicaStatus:
        return ReplicaStatus(replica=0, claim="c", host="h", phase="Running", ready=ready, cache_share=share)

    assert caching.share([one(share=1.0), one(share=0.8), one(ready=False, share=0.5)]) == pytest.approx(0.9)
    assert caching.share([one(share=1.0), one()]) == 0.5, "who is half empty has room"
    assert caching.share([one(), one()]) is None
    assert caching.share([]) is None


async def test_of_one_that_died_before_it_was_taken_away_it_is_said_that_nobody_saw(bench: HostBench) -> None:
    await bench.until_phase("Running")
    answer(bench, read=30, wrote=12)
    await bench.engine.end("c-1", End.KILLED)
    outcome = await bench.side.remove(bench.context(), bench.claim)
    assert isinstance(outcome, Done)
    assert isinstance(outcome.status, ClaimStatus)
    bench.claim = bench.claim.model_copy(update={"status": outcome.status})
    assert counted(bench).unseen == 1
    assert state(bench, read=30, wrote=12) == "explained"

"""A Vetting's host side on a fake host: what is known is kept, what was under way is begun again, nothing is left."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bessemer.core.errors import DriverError
from bessemer.core.resource import Done
from bessemer.core.units import GIB
from bessemer.drivers.process.protocol import End
from bessemer.kinds.context import HostContext
from bessemer.kinds.inference.vetting.host import VettingHost, measured
from bessemer.kinds.inference.vetting.spec import PlanIntent, VettingIntent
from tests.kinds.host_bench import DIGEST, HostBench, started

PLAN = PlanIntent(seed="s", inputs=[10, 100], outputs=[10, 20], shared_percent=0, rates=[1.0, 2.0], seconds=4)
INTENT = VettingIntent(
    model=DIGEST, alias="v", slots=2, context_tokens=1024, cores_milli=2000, memory_bytes=GIB, plan=PLAN
)


@pytest.fixture
def bench() -> HostBench:
    return HostBench(VettingHost(), INTENT.dump(), kind="Vetting")


async def until_points(bench: HostBench, count: int) -> None:
    await bench.until(lambda bench: len(measured(bench.status).points) >= count)


async def test_it_is_a_replica_that_is_asked(bench: HostBench) -> None:
    specs = started(bench)
    await bench.until(lambda bench: measured(bench.status).done)
    (spec,) = specs
    assert (spec.alias, spec.slots, spec.context_tokens) == ("v", 2, 2048)
    assert bench.history == ["Preparing", "Starting", "Running"]
    found = measured(bench.status)
    assert [one.rate for one in found.points] == [1.0, 2.0]
    assert found.memory_bytes == GIB // 2
    assert bench.status.detail["percent"] == 100


async def test_what_is_over_is_asked_nothing_more(bench: HostBench) -> None:
    await bench.until(lambda bench: measured(bench.status).done)
    before, begun = bench.status, len(bench.loads.begun)
    for _ in range(3):
        await bench.step()
    assert bench.status == before
    assert len(bench.loads.begun) == begun


async def test_an_agent_that_comes_anew_goes_on_behind_what_is_known(bench: HostBench) -> None:
    await until_points(bench, 1)
    await bench.step()
    under = bench.loads.begun[-1]
    bench.loads.lose()
    await bench.until(lambda bench: measured(bench.status).done)
    assert bench.loads.begun[-1] == under
    assert bench.loads.begun.count(under) == 2, "what was under way is begun again"
    assert len({number for _, number in bench.loads.begun}) == len(bench.loads.begun) - 1, "and nothing else is"
    assert len(measured(bench.status).points) == 2


async def test_an_engine_that_ends_is_asked_again(bench: HostBench) -> None:
    await until_points(bench, 1)
    await bench.step()
    under = bench.loads.begun[-1]
    await bench.engine.end("c-1", End.CRASHED)
    await bench.until(lambda bench: measured(bench.status).done)
    assert bench.loads.begun[-2:] == [under, under]
    assert [one.failed for one in measured(bench.status).points] == [0, 0]
    assert bench.status.restarts == 1


async def test_load_that_breaks_is_put_on_again(bench: HostBench) -> None:
    await until_points(bench, 1)
    bench.loads.refuse = DriverError("LoadFailed", "what came of the load cannot be read")
    await bench.until_reason("LoadFailed")
    assert len(measured(bench.status).points) == 1
    bench.loads.refuse = None
    await bench.until(lambda bench: measured(bench.status).done)
    assert len(measured(bench.status).points) == 2


async def test_one_that_answers_nothing_is_given_up(bench: HostBench) -> None:
    await bench.until_phase("Running")
    bench.engine.models["c-1"].behaviour.status = 500
    bench.loads.lose()
    await bench.until_phase("Failed")
    assert bench.status.reason == "NotAnswered"


async def test_an_agent_that_puts_no_load_on_says_so(bench: HostBench, monkeypatch: pytest.MonkeyPatch) -> None:
    context = bench.context

    def without() -> HostContext:
        made = context()
        return replace(made, drivers=replace(made.drivers, loads=None))

    monkeypatch.setattr(bench, "context", without)
    await bench.until_phase("Failed")
    assert bench.status.reason == "LoadMissing"


async def test_nothing_of_it_is_left(bench: HostBench) -> None:
    await until_points(bench, 1)
    await bench.step()
    assert isinstance(await bench.remove(), Done)
    assert await bench.residue() == []
    assert await bench.loads.look(*bench.loads.begun[-1]) is None


async def test_what_a_claim_says_that_cannot_be_read_is_nothing(bench: HostBench) -> None:
    await bench.until_phase("Running")
    status = bench.status.model_copy(update={"detail": {**bench.status.detail, "vetting": {"points": "many"}}})
    assert measured(status).points == []

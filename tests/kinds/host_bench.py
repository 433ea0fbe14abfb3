"""One fake host and one Claim on it, for tests of host sides: the agent's part is played by a loop of a few lines."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bessemer.core.clock import FakeClock, SystemClock
from bessemer.core.errors import DriverError
from bessemer.core.resource import Done, Metadata, Outcome, Wait
from bessemer.core.values import ClaimSpec, WorkloadRef
from bessemer.drivers.disks.fake import FakeDisks, FakeDiskWorld
from bessemer.drivers.engine.fake import FakeAdapters, FakeEngine
from bessemer.drivers.engine.protocol import EngineSpec, RunningEngine
from bessemer.drivers.jobs.fake import FakeJobs
from bessemer.drivers.load.fake import FakeLoads
from bessemer.drivers.passthrough.fake import FakePciWorld
from bessemer.drivers.qemu.fake import FakeQemu, FakeQemuWorld
from bessemer.drivers.wipe.fake import FakeMediaWorld, fake_lending
from bessemer.kinds.context import HostContext, HostDrivers
from bessemer.kinds.fleet.claim import Claim, ClaimStatus
from bessemer.kinds.host_side import HostSide

DIGEST = "sha256:" + "ab" * 32
SECRET = "00ff" * 16


@dataclass
class BenchContent:
    """Content that is there, or refuses with ``refuse``."""

    refuse: DriverError | None = None
    fetched: list[str] = field(default_factory=list)
    pins: dict[str, tuple[str, ...]] = field(default_factory=dict)

    async def ensure(self, digest: str) -> Path:
        if self.refuse is not None:
            raise self.refuse
        self.fetched.append(digest)
        return Path("/fake/content") / digest.removeprefix("sha256:")

    def pin(self, claim_uid: str, digests: tuple[str, ...]) -> None:
        if digests:
            self.pins[claim_uid] = digests
        else:
            self.pins.pop(claim_uid, None)


class BenchSecrets:
    """The same secret for every claim."""

    async def get(self, claim_uid: str) -> Mapping[str, str]:
        return {"replica": SECRET}


class HostBench:
    """A host with the fake drivers, and a claim whose status lives here as it does in an agent's intent file."""

    def __init__(self, side: HostSide, intent: Mapping[str, Any], *, kind: str, uid: str = "c-1") -> None:
        self.clock = FakeClock()
        self.qemu = FakeQemuWorld()
        self.disks = FakeDiskWorld()
        self.engine = FakeEngine(self.clock)
        self.loads = FakeLoads(self.engine, self.clock)
        self.jobs = FakeJobs(self.clock)
        self.pci = FakePciWorld()
        self.media = FakeMediaWorld(pci=self.pci)
        self.content = BenchContent()
        self.virtualization = "tcg"
        self.began = 0.0
        self.side = side
        self.claim = Claim(
            metadata=Metadata(name=f"{kind.lower()}-x-0", namespace="acme--research", uid=uid, generation=1),
            spec=ClaimSpec(
                host="h1", tenant="acme", workload=WorkloadRef(kind=kind, name="x", uid="w-1"), intent=dict(intent)
            ),
            status=ClaimStatus(),
        )
        self.history: list[str] = []
        self.outcome: Outcome = Done()

    @property
    def status(self) -> ClaimStatus:
        return self.claim.status

    def context(self) -> HostContext:
        """What a fresh agent would hand to the host side: nothing survives but the world."""
        drivers = HostDrivers(
            qemu=FakeQemu(self.clock, world=self.qemu, disks=self.disks),
            disks=FakeDisks(self.disks),
            engine=self.engine,
            jobs=self.jobs,
            passthrough=fake_lending(self.media).passthrough,
            adapters=FakeAdapters(self.engine),
            loads=self.loads,
        )
        return HostContext(
            secrets=BenchSecrets(),
            content=self.content,
            clock=self.clock,
            drivers=drivers,
            virtualization=self.virtualization,
            threads=4,
            began=self.began,
        )

    async def step(self) -> Outcome:
        """One turn of the agent's loop: converge, and keep the status."""
        self.outcome = await self.side.converge(self.context(), self.claim)
        said = self.outcome.status
        assert isinstance(said, ClaimStatus)
        status = said.model_copy(update={"observed_generation": self.claim.metadata.generation})
        if status.phase != self.status.phase:
            self.history.append(status.phase)
        self.claim = self.claim.model_copy(update={"status": status})
        return self.outcome

    async def until(self, holds: Callable[[HostBench], bool], *, seconds: float = 600.0) -> None:
        """Turn after turn at the times that the outcomes ask for."""
        end = self.clock.monotonic() + seconds
        await self.step()
        while not holds(self):
            assert self.clock.monotonic() < end, f"still {self.status.phase} {self.status.reason} {self.status.message}"
            again = self.outcome.again
            assert again is not None
            await self.clock.advance(max(again, 0.001))
            await self.step()

    async def until_phase(self, phase: str, **bounds: float) -> None:
        await self.until(lambda bench: bench.status.phase == phase, **bounds)

    async def until_reason(self, reason: str, **bounds: float) -> None:
        await self.until(lambda bench: bench.status.reason == reason, **bounds)

    def amend(self, **intent: Any) -> None:
        """What ``Capacity.amend`` does."""
        spec = self.claim.spec.model_copy(update={"intent": {**self.claim.spec.intent, **intent}})
        metadata = self.claim.metadata.model_copy(update={"generation": self.claim.metadata.generation + 1})
        self.claim = self.claim.model_copy(update={"spec": spec, "metadata": metadata})

    async def remove(self) -> Outcome:
        """As an agent does: what is to be said before is said, and it is asked again."""
        outcome = await self.side.remove(self.context(), self.claim)
        if isinstance(outcome, Wait) and outcome.reason == "Counted":
            self.claim = self.claim.model_copy(update={"status": outcome.status})
            outcome = await self.side.remove(self.context(), self.claim)
        return outcome

    async def running(self) -> bool:
        """Whether a process of the claim lives."""
        drivers = self.context().drivers
        return bool(await drivers.qemu.find(self.claim.uid) or await drivers.engine.find(self.claim.uid))

    async def residue(self) -> list[str]:
        """What of the claim is left on the host."""
        left = [*self.qemu.guests, *self.disks.sizes, *self.disks.seeds, *self.content.pins]
        return [*left, *self.jobs.specs, *(engine.uid for engine in await self.engine.running())]


class OneFile:
    """Content that is one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def ensure(self, digest: str) -> Path:
        return self._path

    def pin(self, claim_uid: str, digests: tuple[str, ...]) -> None: ...


class RealBench(HostBench):
    """A claim on real drivers; time is the machine's, and ``forget`` is an agent that comes without its files."""

    def __init__(self, side: HostSide, intent: Mapping[str, Any], *, kind: str, content: Path) -> None:
        super().__init__(side, intent, kind=kind, uid=str(uuid.uuid4()))
        self.file = OneFile(content)

    def drivers(self) -> HostDrivers:
        """Fresh driver objects over the same machine."""
        raise AssertionError("each test says which drivers")

    def context(self) -> HostContext:
        return HostContext(
            secrets=BenchSecrets(),
            content=self.file,
            clock=SystemClock(),
            drivers=self.drivers(),
            virtualization="tcg",
            threads=2,
        )

    def forget(self) -> None:
        self.claim = self.claim.model_copy(update={"status": ClaimStatus()})

    async def until(self, holds: Callable[[HostBench], bool], *, seconds: float = 240.0) -> None:
        async with asyncio.timeout(seconds):
            await self.step()
            while not holds(self):
                await asyncio.sleep(min(self.outcome.again or 0.0, 0.5))
                await self.step()


def started(bench: HostBench) -> list[EngineSpec]:
    """What engines are started with from now on, as it is asked for."""
    specs: list[EngineSpec] = []
    start = bench.engine.start

    async def noted(spec: EngineSpec) -> RunningEngine:
        specs.append(spec)
        return await start(spec)

    bench.engine.start = noted  # type: ignore[method-assign]
    return specs

"""An agent on a fake host, a stand-in for the api, and a clock that stands until it is moved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bessemer.agent.agent import Agent, AgentDrivers, AgentSettings
from bessemer.agent.fake import fake_drivers
from bessemer.agent.metrics import AgentMetrics
from bessemer.core.clock import FakeClock
from bessemer.drivers.disks.fake import FakeDisks
from bessemer.drivers.qemu.fake import FakeQemu
from bessemer.kinds import HOST_SIDES
from tests.agent.standin import HOST, TOKEN, Api


class Threads(ThreadPoolExecutor):
    """Those of the loop, and how many are at work: a disk that is busy takes seconds for what is flushed."""

    def __init__(self) -> None:
        super().__init__(4)
        self.busy = 0
        self._lock = Lock()

    def submit(self, call: Callable[..., Any], /, *given: Any, **more: Any) -> Future[Any]:
        self._count(1)
        work = super().submit(call, *given, **more)
        work.add_done_callback(lambda _: self._count(-1))
        return work

    def _count(self, by: int) -> None:
        with self._lock:
            self.busy += by


@dataclass
class Bench:
    """One host, whose world survives its agents."""

    api: Api
    clock: FakeClock
    directory: Path
    drivers: AgentDrivers
    threads: Threads
    durable: bool = True
    running: dict[asyncio.Task[None], Agent] = field(default_factory=dict)
    metrics: AgentMetrics = field(default_factory=lambda: AgentMetrics(CollectorRegistry()))

    @property
    def qemu(self) -> FakeQemu:
        assert isinstance(self.drivers.host.qemu, FakeQemu)
        return self.drivers.host.qemu

    @property
    def disks(self) -> FakeDisks:
        assert isinstance(self.drivers.host.disks, FakeDisks)
        return self.drivers.host.disks

    def start(self, *, token: str = TOKEN) -> Agent:
        """A new agent process."""
        agent = Agent(
            AgentSettings(host=HOST, directory=self.directory, token=token, durable=self.durable),
            connect=self.api.connect,
            drivers=self.drivers,
            sides=HOST_SIDES,
            clock=self.clock,
            metrics=self.metrics,
        )
        self.running[asyncio.create_task(agent.run())] = agent
        return agent

    async def kill(self) -> None:
        """What kill -9 leaves: whatever was on disk, and the host's world."""
        for task in self.running:
            task.cancel()
        for result in await asyncio.gather(*self.running, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result
        self.running.clear()

    async def expect(self, holds: Callable[[], object], *, seconds: float = 120.0) -> None:
        """Move the clock until it holds; files are written by threads, for which it stands meanwhile."""
        end = self.clock.monotonic() + seconds
        while not holds():
            for task in self.running:
                if task.done():
                    task.result()
            assert self.clock.monotonic() < end, "it never came true"
            await self.clock.advance(0.1)
            await asyncio.sleep(0.0005)
            while self.threads.busy:
                await asyncio.sleep(0.0005)

    def memory(self) -> Bench:
        """The same bench, with intent in memory, for the tests that move the clock far."""
        return replace(self, durable=False)


@pytest.fixture
def clock() -> FakeClock:
    """Certificates live by the machine's clock, so this one starts there."""
    return FakeClock(time.time())


@pytest.fixture
async def bench(clock: FakeClock, tmp_path: Path) -> AsyncIterator[Bench]:
    threads = Threads()
    asyncio.get_running_loop().set_default_executor(threads)
    found = Bench(Api(clock), clock, tmp_path / "agent", fake_drivers(0, clock), threads)
    yield found
    await found.kill()

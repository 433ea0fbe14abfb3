"""Fake hosts: many agents in one process and one event loop, the same code as a real one over the fake drivers.

Each has a certificate and HTTPS connections of its own, a place in the fake fabric by its ordinal, and its intent in
memory: its guests do not outlive the process either. An idle one costs a heartbeat over its socket and two quiet
watches.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from bessemer.agent.agent import Agent, AgentDrivers, AgentSettings
from bessemer.agent.claims import Sides
from bessemer.agent.identity import Identity
from bessemer.agent.link import TROUBLE, Connect
from bessemer.agent.metrics import AgentMetrics
from bessemer.core.clock import Clock
from bessemer.core.resource import Key
from bessemer.core.tasks import first_of
from bessemer.drivers.disks.fake import FakeDisks, FakeDiskWorld
from bessemer.drivers.engine.fake import FakeEngine
from bessemer.drivers.fetch.fake import FakeContent
from bessemer.drivers.inspect.fake import FakeInspect
from bessemer.drivers.jobs.fake import FakeJobs
from bessemer.drivers.load.fake import FakeLoads
from bessemer.drivers.qemu.fake import FakeQemu
from bessemer.drivers.threads.fake import FakeThreads
from bessemer.drivers.wipe.fake import fake_lending
from bessemer.kinds.context import HostDrivers
from bessemer.loop.queue import Backoff

JOIN_SECONDS = 10.0
"""How long the others wait for one that joins."""

log = structlog.get_logger(__name__)

TokenFor = Callable[[str], Awaitable[str]]
"""Gives a one-time join token for a host; asked only for one that has no certificate yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSettings:
    """``directory`` holds a small folder per host: its key and certificate. With ``doors`` (a short path) the engines
    of fake hosts answer at real sockets there. ``joining`` hosts are let in at a time."""

    directory: Path
    doors: Path | None = None
    heartbeat_seconds: float = 20.0
    joining: int = 16


def fake_drivers(ordinal: int, clock: Clock, *, doors: Path | None = None) -> AgentDrivers:
    """The drivers of the fake host with this ordinal. They are its world: hand them to the agent that follows."""
    world, lending, engine = FakeDiskWorld(), fake_lending(), FakeEngine(clock, doors=doors)
    return AgentDrivers(
        inspect=FakeInspect(ordinal),
        content=FakeContent(clock),
        host=HostDrivers(
            qemu=FakeQemu(clock, disks=world),
            disks=FakeDisks(world),
            engine=engine,
            jobs=FakeJobs(clock),
            passthrough=lending.passthrough,
            loads=FakeLoads(engine, clock),
        ),
        threads=FakeThreads(),
        wipes=lending.wipes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeHosts:
    """What the agents of fake hosts share."""

    settings: FakeSettings
    connect: Connect
    sides: Sides
    clock: Clock
    metrics: AgentMetrics

    async def agent(self, name: str, *, ordinal: int, token_for: TokenFor) -> Agent:
        """The agent of one fake host, not yet running. Raises what ``token_for`` raises."""
        directory = self.settings.directory / name
        joined = Identity(directory / "identity", name).life() is not None
        settings = AgentSettings(
            host=name,
            directory=directory,
            token="" if joined else await token_for(name),
            heartbeat_seconds=self.settings.heartbeat_seconds,
            inspect_seconds=3600.0,
            workers=1,
            durable=False,
        )
        drivers = fake_drivers(ordinal, self.clock, doors=self.settings.doors)
        return Agent(
            settings,
            connect=self.connect,
            drivers=drivers,
            sides=self.sides,
            clock=self.clock,
            metrics=self.metrics,
        )


async def run_fake_hosts(names: Sequence[str], hosts: FakeHosts, *, token_for: TokenFor, first: int = 0) -> None:
    """Run the agents of these hosts until cancelled; the ordinal of a host is its index, counted from ``first``. A few
    join at a time, and one for which there is no token yet is tried again."""
    gate = asyncio.Semaphore(hosts.settings.joining)
    backoff = Backoff(1.0, 30.0, random.random)

    async def live(name: str, ordinal: int) -> None:
        while True:
            async with gate:
                try:
                    agent = await hosts.agent(name, ordinal=ordinal, token_for=token_for)
                except TROUBLE as error:
                    log.info("fake host waits", host=name, error=str(error))
                else:
                    group.create_task(agent.run())
                    # One that is refused goes on trying, and keeps no other out meanwhile.
                    await first_of(agent.joined(), hosts.clock.sleep(JOIN_SECONDS))
                    return
            await hosts.clock.sleep(backoff.next(Key("Host", "", name)))

    async with asyncio.TaskGroup() as group:
        for ordinal, name in enumerate(names, start=first):
            group.create_task(live(name, ordinal))

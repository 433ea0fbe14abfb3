"""An agent, put together: intent on disk, the loop over it, and all that goes over the wire.

Invariants: the work on this host never waits for the api (the loop runs over what is on disk), and nothing that is
said to the api is lost while it is away. A start adopts what runs: the drivers find it by the Claims' uids. Only once
the api has said which Claims there are, what none of them accounts for is taken away.

It decides nothing about a workload (`kinds`), knows no HTTP (`client`), and touches no infrastructure (`drivers`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import structlog

from bessemer.agent.claims import Sides, claim_kind, sweep
from bessemer.agent.content import AgentContent, Bounds
from bessemer.agent.doorways import OpenEngine
from bessemer.agent.follow import Follower
from bessemer.agent.identity import Identity
from bessemer.agent.intent import IntentObjects, Intents
from bessemer.agent.intentfile import IntentDirectory, IntentMemory
from bessemer.agent.link import TROUBLE, Connect, Link
from bessemer.agent.metrics import AgentMetrics
from bessemer.agent.outbox import Outbox
from bessemer.agent.report import Machine, Reporter, heartbeat
from bessemer.agent.secrets import AgentSecrets
from bessemer.agent.streams import Relay
from bessemer.agent.threads import ThreadKeeper
from bessemer.agent.wiping import Cleaner
from bessemer.core.clock import Clock
from bessemer.core.errors import DriverError
from bessemer.core.hosts import Inventory
from bessemer.core.ports import Scope, Stored, Writer
from bessemer.core.resource import Change, Key
from bessemer.core.tasks import first_of, together
from bessemer.drivers.engine.protocol import Doorway, Listen
from bessemer.drivers.fetch.protocol import Content
from bessemer.drivers.inspect.protocol import Inspect
from bessemer.drivers.threads.protocol import Threads
from bessemer.drivers.wipe.wipes import Wipes
from bessemer.kinds.context import HostContext, HostDrivers, unix_address
from bessemer.kinds.fleet.claim import Claim
from bessemer.loop import Granted, Loop
from bessemer.loop.queue import Backoff

LEAVE_SECONDS = 1.0
"""How long an agent's end waits for its last word to be heard."""

DISK_SECONDS = 5.0
"""Between two attempts to keep what the disk refused."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """``directory`` is this agent's own: key, certificate and intent. ``token`` is needed for the first join alone.

    ``door_host`` is the address of this host at which a gateway on another machine reaches its engines; "" where the
    gateway is on this machine. ``durable`` False keeps intent in memory, for fake hosts: what they run does not survive
    the process either.
    """

    host: str
    directory: Path
    token: str = ""
    heartbeat_seconds: float = 20.0
    inspect_seconds: float = 600.0
    content_budget_bytes: int = 20 << 30
    content_reserve_bytes: int = 1 << 30
    workers: int = 4
    door_host: str = ""
    durable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDrivers:
    """What one host is made of. ``doorway`` is needed where `AgentSettings.door_host` is given; without ``threads`` no
    Claim's are kept from the others, without ``wipes`` no disk is ever owed."""

    inspect: Inspect
    content: Content
    host: HostDrivers
    doorway: Doorway | None = None
    threads: Threads | None = None
    wipes: Wipes | None = None


class Agent:
    """One host's agent. ``sides`` are the host sides by workload kind (`kinds.HOST_SIDES`)."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        connect: Connect,
        drivers: AgentDrivers,
        sides: Sides,
        clock: Clock,
        metrics: AgentMetrics,
    ) -> None:
        self._settings = settings
        self._drivers = drivers
        self._sides = sides
        self._clock = clock
        self._metrics = metrics
        self._outbox = Outbox()
        files = IntentDirectory(settings.directory / "claims") if settings.durable else IntentMemory()
        self.intents = Intents(files, outbox=self._outbox, clock=clock)
        self._threads = ThreadKeeper(drivers.threads, self.intents)
        self._identity = Identity(settings.directory / "identity", settings.host)
        self._link = Link(self._identity, connect, token=settings.token, clock=clock, metrics=metrics)
        unfit = drivers.wipes.unfit if drivers.wipes is not None else None
        engines = drivers.host.engine.installed
        self._machine = Machine(self._link, drivers.inspect, clock=clock, metrics=metrics, unfit=unfit, engines=engines)
        self._cleaner = Cleaner(drivers.wipes, self._machine, clock=clock)
        self._listed = asyncio.Event()
        claims, host = Scope(kind="Claim", host=settings.host), Scope(kind="Host", name=settings.host)
        self._followers = (
            Follower(self._link, claims, listed=self._claims, changed=self._claim, metrics=metrics),
            Follower(self._link, host, listed=self._machine.listed, changed=self._machine.changed, metrics=metrics),
        )

    async def run(self) -> None:
        """Work until cancelled. Raises what a part of it raised: that is a defect, and a new start adopts what runs."""
        await self.intents.load()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._threads.run(self._clock))
                group.create_task(self._link.run())
                ctx = self._context(await self._inspected())
                group.create_task(self._loop(ctx).run())
                group.create_task(self._machine.watch_over(self._settings.inspect_seconds))
                group.create_task(self._keep_trying_the_disk())
                group.create_task(self._cleaner.run())
                group.create_task(self._take_orphans_away())
                group.create_task(self._uplink(ctx))
        finally:
            await self._leave()
            await self._link.close()

    async def _leave(self) -> None:
        """Say that nobody looks after this host from here on: else what ran here is taken to run for as long as the
        last beat holds, also by a control plane that is stopped and started meanwhile."""
        if self._identity.life() is None:
            return
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._link.client.agents.leave(self._settings.host)
        except (TimeoutError, *TROUBLE) as error:
            log.info("leaves unheard", host=self._settings.host, error=str(error))

    async def joined(self) -> None:
        """Return once this host has a certificate."""
        await self._link.joined()

    async def _uplink(self, ctx: HostContext) -> None:
        """All that needs the api, begun anew with each certificate."""
        await self._link.joined()
        log.info("joined", host=self._settings.host)
        while True:
            await first_of(self._speak(ctx), self._link.renewed())

    async def _speak(self, ctx: HostContext) -> None:
        link, clock, metrics = self._link, self._clock, self._metrics
        relay = Relay(link, ctx, sides=self._sides, find=self._find, metrics=metrics)
        await together(
            heartbeat(relay.beat, link, every=self._settings.heartbeat_seconds, clock=clock, metrics=metrics),
            *(follower.run(clock) for follower in self._followers),
            self._machine.run(),
            Reporter(link, self._outbox, clock=clock, metrics=metrics).run(),
            relay.run(clock),
        )

    async def _inspected(self) -> Inventory:
        """What the machine is; a look that fails is repeated, since nothing can be run on a host that is not known."""
        key, backoff = Key("Host", "", self._settings.host), Backoff(1.0, 60.0, random.random)
        while True:
            try:
                return await self._machine.look()
            except DriverError as error:
                log.error("inspection failed", host=self._settings.host, reason=error.reason, error=str(error))
                await self._clock.sleep(backoff.next(key))

    def _context(self, found: Inventory) -> HostContext:
        drivers = self._drivers.host
        advertise: Callable[[str, str], str] = unix_address
        if self._settings.door_host and self._drivers.doorway is not None:
            engine = OpenEngine(drivers.engine, self._drivers.doorway, listen=self._listen)
            drivers, advertise = replace(drivers, engine=engine), engine.advertise
        return HostContext(
            secrets=AgentSecrets(self._link, self.intents),
            content=AgentContent(
                self._drivers.content,
                self._link,
                wanted=lambda: [intent.claim["spec"].get("intent") or {} for intent in self.intents.by_uid.values()],
                bounds=Bounds(self._settings.content_budget_bytes, self._settings.content_reserve_bytes),
                metrics=self._metrics,
            ),
            clock=self._clock,
            drivers=drivers,
            virtualization=found.virtualization,
            threads=found.threads,
            began=self._clock.now(),
            advertise=advertise,
        )

    def _listen(self) -> Listen:
        me = self._identity
        return Listen(self._settings.door_host, 0, me.certificate_path, me.key_path, me.ca_path)

    def _loop(self, ctx: HostContext) -> Loop[HostContext]:
        return Loop(
            [claim_kind(self._sides, first=self._threads.hold, last=self._cleaner.tell)],
            ctx,
            objects=IntentObjects(self.intents, self._settings.host),
            leases=Granted(),
            events=None,
            clock=self._clock,
            writer=Writer("agent", self._settings.host),
            metrics=self._metrics.loop,
            workers=self._settings.workers,
        )

    async def _claims(self, listed: Sequence[Stored]) -> None:
        await self.intents.complete(orjson.loads(stored.body) for stored in listed)
        self._listed.set()

    async def _claim(self, change: Change) -> None:
        if change.type == "DELETED":
            await self.intents.absent(change.uid)
        else:
            await self.intents.accept(orjson.loads(change.body))

    async def _keep_trying_the_disk(self) -> None:
        while True:
            await self.intents.refused.wait()
            await self._clock.sleep(DISK_SECONDS)
            await self.intents.retry()

    async def _take_orphans_away(self) -> None:
        key, backoff = Key("Host", "", self._settings.host), Backoff(1.0, 300.0, random.random)
        while True:
            await self._listed.wait()
            self._listed.clear()
            try:
                orphans = await sweep(self._drivers.host, self.intents.known)
            except DriverError as error:
                log.warning("orphans not removed", reason=error.reason, error=str(error), internal=error.internal)
                self._listed.set()
                await self._clock.sleep(backoff.next(key))
            else:
                self._metrics.orphans.inc(len(orphans))
                backoff.reset(key)

    def _find(self, uid: str) -> Claim | None:
        intent = self.intents.by_uid.get(uid)
        return None if intent is None else Claim.model_validate({**intent.claim, "status": intent.status})

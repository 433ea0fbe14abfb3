"""A whole cloud in one process over simulated time: the real store, loop, kinds, agents and spool of a gateway; only
drivers are fake.

What a crash of the control plane leaves is the store's file; what a crash of an agent leaves is its directory and its
host's world, of the gateway its spool. Everything else of them is lost, and built anew.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from prometheus_client import CollectorRegistry

from bessemer.agent.agent import Agent, AgentDrivers, AgentSettings
from bessemer.agent.fake import fake_drivers
from bessemer.agent.metrics import AgentMetrics
from bessemer.core.errors import NotFound
from bessemer.core.ports import Policy, Scope, Writer
from bessemer.core.resource import Done, Key, Outcome
from bessemer.drivers.engine.fake import FakeEngine
from bessemer.drivers.process.protocol import End
from bessemer.drivers.qemu.fake import FakeQemu
from bessemer.kinds import HOST_SIDES, KINDS
from bessemer.kinds.context import HostContext
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.fleet.host import FAKE_TAINT
from bessemer.kinds.host_side import HostSide
from bessemer.store import Store, open_store, store_kinds
from bessemer.store.compaction import History
from tests.kinds.world import body
from tests.sim.clock import Inline, SimClock, Traffic
from tests.sim.control import Controller
from tests.sim.gateway import Gateway
from tests.sim.wire import Wire

USER = Writer("user", "root")
POLICIES: tuple[Policy, ...] = ("Background", "Foreground", "Orphan")
TENANTS = ("acme", "rival", "third")
HEARTBEAT_SECONDS = 300.0
CALM_SECONDS = 600.0
TOLERATE = [{"key": FAKE_TAINT}]

Body = dict[str, Any]


class Calm:
    """A host side whose settled claims are looked at seldom: a day must fit into a minute."""

    def __init__(self, side: HostSide) -> None:
        self._side = side

    def __getattr__(self, name: str) -> Any:
        return getattr(self._side, name)

    async def converge(self, ctx: HostContext, claim: Claim) -> Outcome:
        outcome = await self._side.converge(ctx, claim)
        return replace(outcome, again=CALM_SECONDS) if isinstance(outcome, Done) else outcome


@dataclass
class Machine:
    """A host: its world, which nothing but its own end ends, and perhaps an agent."""

    name: str
    drivers: AgentDrivers
    task: asyncio.Task[None] | None = None

    @property
    def qemu(self) -> FakeQemu:
        found = self.drivers.host.qemu
        assert isinstance(found, FakeQemu)
        return found

    @property
    def engine(self) -> FakeEngine:
        found = self.drivers.host.engine
        assert isinstance(found, FakeEngine)
        return found

    async def power_off(self) -> None:
        """Every process of the machine ends."""
        for uid in self.qemu.world.guests:
            self.qemu.world.kill_process(uid)
        for engine in await self.engine.running():
            await self.engine.end(engine.uid, End.CRASHED)

    async def residue(self) -> list[str]:
        """What of anybody is left on it."""
        uids = set(await self.qemu.uids()) | set(await self.drivers.host.disks.uids())
        return sorted(uids | {engine.uid for engine in await self.engine.running()})


class Cloud:
    """``async with Cloud(seed, hosts=…) as cloud``: furnished, every host Ready, and nothing left of it afterwards."""

    def __init__(self, seed: int, *, hosts: int, controllers: int = 1, side: type[Calm] = Calm) -> None:
        random.seed(seed)
        self.traffic = Traffic()
        self.clock = SimClock(self.traffic)
        self.wire = Wire(self.traffic)
        shared = "/dev/shm"
        self._folder = tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None)
        self.directory = Path(self._folder.name)
        self.machines = {f"fake-{n:03d}": Machine(f"fake-{n:03d}", fake_drivers(n, self.clock)) for n in range(hosts)}
        self.gateway = Gateway(self.directory / "spool", self.wire, clock=self.clock)
        self.restarts = 0
        self.controllers: list[Controller] = []
        self._controllers = controllers
        self._sides = {name: side(real) for name, real in HOST_SIDES.items()}
        self._metrics = AgentMetrics(CollectorRegistry())
        self._kinds = store_kinds(KINDS)
        self._control: list[asyncio.Task[None]] = []
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The store; only while the control plane is up."""
        assert self._store is not None
        return self._store

    @property
    def path(self) -> Path:
        """The store's file."""
        return self.directory / "store.db"

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().set_default_executor(Inline(1))
        self.boot()
        await self._furnish()
        self.gateway.start()
        await self.clock.pass_time(60)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self.machines:
            await self.kill_agent(name)
        await self.gateway.die()
        await self.crash()
        self._folder.cleanup()

    # --- the control plane ---

    def boot(self) -> None:
        """Start the control plane from the store's file alone."""
        store = open_store(
            self.path, clock=self.clock, kinds=self._kinds, seal_key=bytes(32), history=History(revisions=500)
        )
        count = self._controllers
        self.controllers = [
            Controller(f"controller-{n}", store, clock=self.clock, traffic=self.traffic, rivals=count > 1)
            for n in range(count)
        ]
        self._store = self.wire.store = store
        self._control = [task for controller in self.controllers for task in controller.start()]
        self._control.append(asyncio.create_task(store.tend()))

    async def crash(self) -> None:
        """The control plane is gone, and all that it had in memory."""
        self.wire.store = None
        self.wire.hang_up()
        await _end(self._control)
        if self._store is not None:
            self._store.close()
            self._store = None

    async def restart(self, away_seconds: float) -> None:
        await self.crash()
        await self.clock.pass_time(away_seconds)
        self.boot()
        self.restarts += 1

    # --- agents ---

    async def start_agent(self, name: str, token: str = "") -> None:
        machine = self.machines[name]
        agent = Agent(
            AgentSettings(
                host=name,
                directory=self.directory / name,
                token=token,
                heartbeat_seconds=HEARTBEAT_SECONDS,
                inspect_seconds=21_600.0,
                workers=1,
            ),
            connect=self.wire.connect,
            drivers=machine.drivers,
            sides=self._sides,
            clock=self.clock,
            metrics=self._metrics,
        )
        machine.task = asyncio.create_task(agent.run())

    async def kill_agent(self, name: str) -> None:
        machine = self.machines[name]
        if machine.task is not None:
            await _end([machine.task])
            machine.task = None

    def check_tasks(self) -> None:
        """Raise what a part raised: each lives for ever, or is ended by us."""
        agents = (machine.task for machine in self.machines.values() if machine.task is not None)
        for task in [*self._control, *self.gateway.tasks(), *agents]:
            if task.done():
                task.result()
                raise AssertionError("a part has ended by itself")

    # --- as a user ---

    async def create(self, kind: str, name: str, spec: Mapping[str, Any], *, project: str = "") -> None:
        await self.store.objects.create(body(kind, name, namespace=project, spec=spec), USER)

    async def patch(self, key: Key, **spec: Any) -> bool:
        """Change fields of a spec; False where there is no such object any more."""
        try:
            found = orjson.loads((await self.store.objects.get(key)).body)
        except NotFound:
            return False
        found["spec"] = {**found["spec"], **spec}
        del found["metadata"]["resourceVersion"]
        await self.store.objects.replace(found, USER)
        return True

    async def delete(self, key: Key) -> None:
        """In the background, in the foreground or without what it owns, by its name."""
        policy = POLICIES[zlib.crc32(str(key).encode()) % len(POLICIES)]
        try:
            await self.store.objects.delete(key, USER, policy=policy)
        except NotFound:
            pass

    async def bodies(self, kind: str) -> list[Body]:
        page = await self.store.objects.list(Scope(kind=kind))
        return [orjson.loads(stored.body) for stored in page.items]

    async def _furnish(self) -> None:
        for tenant in TENANTS:
            quota = {"milliCores": 1_200_000, "memoryBytes": 6 << 40, "devices": {"*": 96}, "instances": 40}
            await self.create("Tenant", tenant, {"quota": quota, "tolerations": TOLERATE})
            await self.create("Project", f"{tenant}--lab", {})
        eight = {"count": 8, "model": "H100-SXM5-80GB"}
        for name, spec in {
            "small": {"cores": 2, "memory": "4Gi", "disk": "1Gi"},
            "large": {"cores": 48, "memory": "700Gi", "disk": "1Gi", "numa": "required"},
            "one-gpu": {"cores": 8, "memory": "64Gi", "devices": {"count": 1}},
            "all-gpus": {"cores": 64, "memory": "512Gi", "devices": {**eight, "together": ["nvlink"]}},
        }.items():
            await self.create("Flavor", name, spec)
        await self.create("Image", "micro", {})
        wheel = {"package": "m", "version": "1.0", "member": "m/m.gguf"}
        await self.create("Model", "smol", {"source": {"wheel": wheel}, "sha256": "cd" * 32})
        for name in self.machines:
            await self.create("Host", name, {"taints": [{"key": FAKE_TAINT, "value": "true"}]})
            self.wire.tokens.add(f"token of {name}")
            await self.start_agent(name, f"token of {name}")


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()

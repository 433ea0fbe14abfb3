"""Agents against the real api and store, over TLS on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from bessemer.agent.agent import Agent, AgentDrivers, AgentSettings
from bessemer.agent.fake import FakeHosts, FakeSettings, fake_drivers, run_fake_hosts
from bessemer.agent.identity import Identity
from bessemer.agent.metrics import AgentMetrics
from bessemer.api import Limits
from bessemer.api.relay import Reader
from bessemer.client import Client, connect
from bessemer.core.clock import SystemClock
from bessemer.core.errors import BessemerError
from bessemer.core.ports import CONTROLLER, Stored
from bessemer.core.resource import Key
from bessemer.drivers.qemu.fake import FakeQemu
from bessemer.kinds import HOST_SIDES
from tests.agent.standin import claim
from tests.api.world import Served, World, instance, named, served, world

HOST = "rack1-host1"
INTENT: Mapping[str, Any] = claim()["spec"]["intent"]
IMAGE = b"a fake image"


class Seen:
    """A connector that counts its clients: those with a certificate, and those without, which ask for one."""

    def __init__(self, site: Served, directory: Path) -> None:
        self._site = site
        self._ca = directory / "trusted.crt"
        self._ca.write_bytes(site.world.ca.certificate)
        self.made = self.asked = 0

    def __call__(self, identity: Identity, *, anonymous: bool = False) -> Client:
        joined = not anonymous and identity.life() is not None
        self.made += joined
        self.asked += anonymous
        return connect(
            self._site.url, ca=self._ca, cert=(identity.certificate_path, identity.key_path) if joined else None
        )


@dataclass
class Stage:
    """A served api and one agent on fake drivers whose world survives it."""

    site: Served
    directory: Path
    connect: Seen
    drivers: AgentDrivers = field(default_factory=lambda: fake_drivers(0, SystemClock()))
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    """What the last agent counted."""

    @property
    def w(self) -> World:
        return self.site.world

    @property
    def qemu(self) -> FakeQemu:
        assert isinstance(self.drivers.host.qemu, FakeQemu)
        return self.drivers.host.qemu

    async def token(self, name: str = HOST) -> str:
        await self.w.create("/apis/bessemer.dev/v1alpha1/hosts", named(name))
        return await self.again(name)

    async def again(self, name: str = HOST) -> str:
        answer = await self.w.create(f"/apis/bessemer.dev/v1alpha1/hosts/{name}/token", {})
        return str(answer["token"])

    def start(self, token: str = "") -> Agent:
        self.registry = CollectorRegistry()
        agent = Agent(
            AgentSettings(host=HOST, directory=self.directory, token=token, heartbeat_seconds=0.2),
            connect=self.connect,
            drivers=self.drivers,
            sides=HOST_SIDES,
            clock=SystemClock(),
            metrics=AgentMetrics(self.registry),
        )
        self.tasks.append(asyncio.create_task(agent.run()))
        return agent

    async def kill(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()

    async def host(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads((await self.w.store.objects.get(Key("Host", "", HOST))).body)
        return found

    async def status(self, key: Key) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads((await self.w.store.objects.get(key)).body)["status"]
        return found

    async def take(self) -> Stored:
        """A Claim of an Instance on the host."""
        await self.w.create("/apis/bessemer.dev/v1alpha1/namespaces/acme--lab/instances", instance("vm"))
        return await self.w.claim("vm", HOST, "acme--lab", **INTENT)

    async def expect(self, holds: Callable[[], Any], *, seconds: float = 60.0) -> Any:
        """What ``holds`` (a coroutine function or a function) says once it says something."""
        end = time.monotonic() + seconds
        while True:
            found = holds()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            for task in self.tasks:
                if task.done():
                    task.result()
            assert time.monotonic() < end, "it never came true"
            await asyncio.sleep(0.02)

    async def running(self) -> Key:
        """The agent has joined, and a guest runs."""
        self.qemu.world.boot_seconds = 0.1
        self.start(await self.token())
        await self.expect(self.reported)
        key = (await self.take()).key
        await self.expect(lambda: self.in_phase(key, "Running"))
        return key

    def ended(self, *, for_seconds: float) -> bool:
        """Whether the agent's certificate ended so long ago."""
        life = Identity(self.directory / "identity", HOST).life()
        return life is not None and time.time() > life[1] + for_seconds

    async def beats(self) -> list[float]:
        """Until when the agent's last heartbeat holds, seconds since the epoch."""
        return [lease.expires_at for lease in await self.w.store.leases.held(f"host/{HOST}")]

    async def reported(self) -> bool:
        return bool((await self.host()).get("status", {}).get("report"))

    async def in_phase(self, key: Key, phase: str) -> bool:
        return (await self.status(key)).get("phase") == phase


@asynccontextmanager
async def stage(tmp_path: Path, **terms: Any) -> AsyncIterator[Stage]:
    async with world(limits=Limits(login_burst=1000), **terms) as w, served(w, tmp_path) as site:
        made = Stage(site, tmp_path / "agent", Seen(site, tmp_path))
        try:
            yield made
        finally:
            await made.kill()


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(tmp_path) as made:
        yield made


async def test_the_road_of_a_claim(s: Stage) -> None:
    key = await s.running()
    assert (await s.host())["status"]["report"]["fake"] is True
    await s.expect(lambda: s.w.api.state.relay.holds(HOST))
    await s.expect(s.beats)
    assert [lease.holder for lease in await s.w.store.leases.held(f"host/{HOST}")] == [HOST]
    asked = {"verb": "log", "claim": next(iter(s.qemu.world.guests))}
    stream = await s.w.api.state.relay.open(HOST, asked, reader=Reader("acme", "rob"))
    assert b"boots" in b"".join([part async for part in stream])
    await s.w.store.capacity.amend(key, {**INTENT, "running": False}, CONTROLLER)
    await s.expect(lambda: s.in_phase(key, "Stopped"))
    await s.w.store.capacity.retire(key, CONTROLLER)
    await s.expect(lambda: s.in_phase(key, "Gone"))
    assert s.qemu.world.guests == {}
    await s.w.store.capacity.release(key, CONTROLLER)
    claims = s.directory / "claims"
    await s.expect(lambda: not [*claims.iterdir()])
    states = [(row.kind, row.state) for row in await s.w.store.ledger.entries()]
    assert states[0][0] == "open"
    assert ("state", "running") in states
    assert ("state", "stopped") in states
    assert states[-1][0] == "close"


async def test_adopts_after_kill_9(s: Stage) -> None:
    key = await s.running()
    before = await s.w.store.objects.get(key), await s.w.store.objects.get(Key("Host", "", HOST))
    process = await s.qemu.find(before[0].uid)
    await s.kill()
    agent = s.start()
    await s.expect(lambda: agent.intents.by_uid)
    await s.expect(lambda: s.w.api.state.relay.holds(HOST))
    await s.expect(lambda: s.registry.get_sample_value("bessemer_agent_statuses_total", {"result": "heard"}))
    assert await s.qemu.find(before[0].uid) == process
    after = await s.w.store.objects.get(key), await s.w.store.objects.get(Key("Host", "", HOST))
    assert after == before, "nothing had changed, so nothing was written"


async def test_a_certificate_of_two_seconds_is_renewed_before_and_after_its_end(tmp_path: Path) -> None:
    async with stage(tmp_path, agent_certificate=2.0) as s:
        key = await s.running()
        await s.expect(lambda: s.connect.made >= 3)
        uid = (await s.w.store.objects.get(key)).uid
        process = await s.qemu.find(uid)
        await s.kill()
        life = Identity(s.directory / "identity", HOST).life()
        assert life is not None
        await s.expect(lambda: time.time() > life[1] + 0.5)
        s.start()
        await s.w.store.capacity.amend(key, {**INTENT, "running": False}, CONTROLLER)
        await s.expect(lambda: s.in_phase(key, "Stopped"))
        assert process is not None


async def test_a_revoked_host_is_let_in_no_more_and_its_guest_goes_on(tmp_path: Path) -> None:
    async with stage(tmp_path, agent_certificate=2.0) as s:
        key = await s.running()
        host = await s.host()
        await s.w.store.objects.replace({**host, "spec": {**host["spec"], "revoked": True}}, CONTROLLER)
        # One that were renewed would never have ended: it is good for 2 s, and a new one is asked for before.
        await s.expect(lambda: s.ended(for_seconds=0.5))
        made, asked, beats, before = s.connect.made, s.connect.asked, await s.beats(), await s.status(key)
        await s.w.store.capacity.amend(key, {**INTENT, "running": False}, CONTROLLER)
        await s.expect(lambda: s.ended(for_seconds=3.0) and s.connect.asked > asked)
        assert s.connect.made == made, "no certificate was given"
        assert await s.beats() == pytest.approx(beats, abs=0.1), "no heartbeat was taken"
        assert not s.w.api.state.relay.holds(HOST)
        assert await s.status(key) == before, "it was told nothing and is not heard"
        assert len(await s.qemu.running()) == 1


async def test_host_silent_then_back(s: Stage) -> None:
    key = await s.running()
    await s.kill()
    uid = (await s.w.store.objects.get(key)).uid
    await s.w.store.capacity.retire(key, CONTROLLER)
    assert await s.qemu.find(uid), "nobody is there to take it away"
    assert await s.in_phase(key, "Running")
    s.start()
    await s.expect(lambda: s.in_phase(key, "Gone"))


async def test_fenced_while_away(s: Stage) -> None:
    key = await s.running()
    await s.kill()
    await s.w.store.capacity.retire(key, CONTROLLER)
    await s.w.store.capacity.release(key, CONTROLLER, fenced=True)
    s.start()
    await s.expect(lambda: not s.qemu.world.guests)


async def test_a_new_token_for_a_host_that_lost_its_key(s: Stage) -> None:
    await s.running()
    await s.kill()
    for path in (s.directory / "identity").glob("agent.*"):
        path.unlink()
    agent = s.start(await s.again())
    await s.expect(lambda: s.w.api.state.relay.holds(HOST))
    assert agent.intents.by_uid


async def test_reads_nothing_of_another_host(s: Stage) -> None:
    """The client of an agent, used for what an agent never asks for."""
    key = await s.running()
    other = s.connect(Identity(s.directory / "identity", HOST))
    await s.w.create("/apis/bessemer.dev/v1alpha1/hosts", named("other"))
    for attempt in (
        other.get(Key("Host", "", "other")),
        other.get(Key("Instance", "acme--lab", "vm")),
        other.agents.heartbeat("other"),
        other.delete(key),
    ):
        with pytest.raises(BessemerError):
            await attempt
    await other.close()


async def test_fake_hosts_join_over_real_connections(s: Stage, tmp_path: Path) -> None:
    async def token_for(name: str) -> str:
        return await s.token(name)

    hosts = FakeHosts(
        settings=FakeSettings(directory=tmp_path / "fake"),
        connect=s.connect,
        sides=HOST_SIDES,
        clock=SystemClock(),
        metrics=AgentMetrics(CollectorRegistry()),
    )
    names = [f"fake-{n:03d}" for n in range(50)]
    s.tasks.append(asyncio.create_task(run_fake_hosts(names, hosts, token_for=token_for)))

    async def all_reported() -> bool:
        page = [orjson.loads((await s.w.store.objects.get(Key("Host", "", name))).body) for name in names]
        return all(body.get("status", {}).get("report") for body in page)

    await s.expect(lambda: s.connect.made >= len(names), seconds=60)
    await s.expect(all_reported, seconds=60)

    async def all_heard() -> bool:
        return len(await s.w.store.leases.held("host/")) == len(names)

    await s.expect(all_heard, seconds=60)

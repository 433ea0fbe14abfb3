"""Real hosts of a gang: a network namespace each, joined by a bridge, an agent in each as a process of its own, and a
control plane in this process, at the bridge's own address."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bessemer.api import Limits
from bessemer.core.errors import NotFound
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import Key
from bessemer.drivers.oidc.fake import FakeIssuers
from bessemer.kinds import KINDS
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.heartbeats import Heartbeats
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.kinds.fleet.queueing import Queueing
from bessemer.loop.loop import Loop
from tests.agent.process import ROOT, RealAgent
from tests.agent.site import Site
from tests.api.world import World, named, world
from tests.kinds.world import WorldImporter

PROJECT = "acme--lab"
OURS = "/apis/bessemer.dev/v1alpha1"


@dataclass
class Machine(RealAgent):
    """A host: its name and its address; its processes are started on its network."""

    name: str
    address: str

    def start(self, site: Site, token: str = "") -> None:
        """`bessemer agent` on this host."""
        self.run(f"--token={token}", name=self.name, server=site.server, ca=site.w.ca.certificate)

    async def clean(self) -> None:
        """Leave nothing of the host on this machine."""
        self.kill()
        jobs = self.drivers.jobs
        for uid in await jobs.uids():
            await jobs.remove(uid)


@dataclass
class Gangs:
    """The control plane, and its machines."""

    site: Site
    machines: list[Machine]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def w(self) -> World:
        return self.site.w

    async def join(self) -> None:
        """Enrol every machine and wait until there is room on it."""
        for machine in self.machines:
            await self.w.create(f"{OURS}/hosts", named(machine.name))
            token = (await self.w.create(f"{OURS}/hosts/{machine.name}/token", {}))["token"]
            machine.start(self.site, str(token))
        for machine in self.machines:
            await self.expect(lambda name=machine.name: self._declared(name))

    async def job(self, name: str, **spec: Any) -> None:
        await self.w.create(f"{OURS}/namespaces/{PROJECT}/jobs", named(name, **spec))

    async def status(self, name: str) -> dict[str, Any]:
        try:
            stored = await self.w.store.objects.get(Key("Job", PROJECT, name))
        except NotFound:
            return {}
        found: dict[str, Any] = orjson.loads(stored.body).get("status", {})
        return found

    async def until_phase(self, name: str, phase: str) -> dict[str, Any]:
        async def holds() -> bool:
            return (await self.status(name)).get("phase") == phase

        await self.expect(holds)
        return await self.status(name)

    async def until_free(self) -> None:
        """No Claim stands any more."""

        async def holds() -> bool:
            return not (await self.w.store.objects.list(Scope(kind="Claim"))).items

        await self.expect(holds)

    async def log(self, name: str, rank: int) -> str:
        """What `bessemer logs` prints to a member of the project."""
        file = self.site.state / "kubeconfig"
        ca = base64.b64encode(self.w.ca.certificate).decode()
        at = {"server": f"https://{self.site.address}:{self.site.port}", "certificate-authority-data": ca}
        config = {
            "clusters": [{"name": "c", "cluster": at}],
            "users": [{"name": "u", "user": {"token": await self.w.login("mia")}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        file.write_bytes(orjson.dumps(config))
        words = [f"--kubeconfig={file}", "logs", f"job/{name}", f"--rank={rank}", f"--project={PROJECT}"]
        asked = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bessemer", *words),
            env={"PATH": os.environ["PATH"], "HOME": str(self.site.state), "PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        said, trouble = await asked.communicate()
        assert asked.returncode == 0, trouble.decode()
        return said.decode()

    async def expect(self, holds: Callable[[], Awaitable[Any]], *, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not await holds():
            assert time.monotonic() < end, await self._explain()
            assert not any(task.done() for task in self.tasks), self.tasks
            await asyncio.sleep(0.1)

    async def _declared(self, name: str) -> bool:
        body = orjson.loads((await self.w.store.objects.get(Key("Host", "", name))).body)
        return bool(body.get("status", {}).get("phase") == "Ready")

    async def _explain(self) -> str:
        lines = [machine.log.read_text()[-2000:] for machine in self.machines]
        for kind in ("Job", "Claim", "Host"):
            page = await self.w.store.objects.list(Scope(kind=kind))
            lines += [f"{kind} {one.key.name}: {orjson.loads(one.body).get('status')}"[:1500] for one in page.items]
        return "\n".join(["it never came true", *lines])


def controller(w: World) -> list[asyncio.Task[None]]:
    """The control side of every kind over the api's store, in this process."""
    store, clock = w.store, w.clock
    fleet = Queueing(FleetFeed(store.objects, clock), store.objects, clock=clock)
    ctx = Context(
        objects=store.objects,
        capacity=store.capacity,
        ledger=store.ledger,
        leases=store.leases,
        fleet=fleet,
        importer=WorldImporter(),
        issuers=FakeIssuers(),
        clock=clock,
    )
    loop: Loop[Any] = Loop(
        KINDS, ctx, objects=store.objects, leases=store.leases, events=store.events, writer=CONTROLLER, clock=clock
    )
    heartbeats = Heartbeats(store.leases, clock, wake=loop.wake)
    return [asyncio.create_task(part.run()) for part in (loop, fleet, heartbeats)]


@asynccontextmanager
async def gangs(folder: Path, network: Network) -> AsyncIterator[Gangs]:
    """A control plane that serves and decides, and a machine in each namespace that has joined it."""
    machines = []
    for number, (name, address) in enumerate(network.spaces.items(), start=1):
        state = folder / f"real-{number}"
        state.mkdir()
        machines.append(Machine(state, f"real-{number}", address, prefix=("nsenter", f"--net=/run/netns/{name}")))
    async with world(limits=Limits(login_burst=100)) as w:
        site = Site(folder, w, network.here)
        made = Gangs(site, machines)
        await site.up()
        made.tasks = controller(w)
        try:
            await made.join()
            yield made
        finally:
            for machine in machines:
                await machine.clean()
            for task in made.tasks:
                task.cancel()
            await asyncio.gather(*made.tasks, return_exceptions=True)
            await site.end()


@dataclass(frozen=True)
class Network:
    """A bridge at ``here``, and namespaces on it by name, with the address of each."""

    here: str
    spaces: dict[str, str]


@contextmanager
def bridged(count: int) -> Iterator[Network]:
    """So many namespaces on one bridge, taken down at the end."""
    number = os.getpid() % 250
    bridge, net = f"bsg{os.getpid() % 100000}", f"10.232.{number}"
    made = Network(f"{net}.1", {f"{bridge}n{n}": f"{net}.{10 + n}" for n in range(1, count + 1)})
    try:
        _run("ip", "link", "add", "name", bridge, "type", "bridge")
        _run("ip", "addr", "add", f"{made.here}/24", "dev", bridge)
        _run("ip", "link", "set", bridge, "up")
        for n, (space, address) in enumerate(made.spaces.items(), start=1):
            _run("ip", "netns", "add", space)
            cable = f"{bridge}v{n}"
            _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            _run("ip", "link", "set", cable, "master", bridge, "up")
            _run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _run("ip", "-n", space, "link", "set", device, "up")
        yield made
    finally:
        for space in made.spaces:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv}: {done.stderr}"

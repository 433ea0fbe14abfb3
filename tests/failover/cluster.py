"""Replicas as they are run, over one database; a balancer before them, a gateway, and fake hosts with engines.

Each is a process, and whoever dials another does it through a wire that can be cut: a replica to the database and to
another replica, the hosts' agents and the gateway to the balancer.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from bessemer.client import Ask, Client, connect
from bessemer.core.errors import BessemerError
from bessemer.drivers.engine.doors import default_folder
from bessemer.main import identities
from bessemer.main.settings import Paths, Settings, save
from tests.failover.gateway import Gateway
from tests.failover.proxy import Proxy, Wire, balanced, before, proxied
from tests.ports import kept_ports
from tests.store.server import Server

ROOT = Path(__file__).parents[2]
LEASE_SECONDS = 1.0
READY_SECONDS = 180.0
HOSTS = 3
QUICK = Settings(controller_lease_seconds=LEASE_SECONDS, heartbeat_seconds=1.0)
"""So that a fault takes a second or two."""


async def spawn(log: Path, *words: str, api: str = "") -> asyncio.subprocess.Process:
    """One of ours, in a session of its own, which finds the api at that address."""
    told = {"BESSEMER_API_URL": api} if api else {}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *words),
            cwd=ROOT,
            env={**os.environ, **told, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


@dataclass
class Replica:
    """A state directory, the process over it, and an administrator's client to it. ``wire`` is to the database, and
    through ``front`` the other replicas dial it, where there are any."""

    paths: Paths
    settings: Settings
    wire: Proxy
    front: Proxy | None = None
    process: asyncio.subprocess.Process | None = None
    admin: Client | None = None

    @property
    def name(self) -> str:
        return self.paths.state.name

    @property
    def address(self) -> str:
        """Where the others find it."""
        return at(self.front.port if self.front is not None else self.settings.api_port)

    @property
    def log(self) -> str:
        return (self.paths.logs / "server.log").read_text()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self, parts: str = "api,controller") -> None:
        """Start its process; `ready` says when it answers."""
        self.process = await spawn(
            self.paths.logs / "server.log", "tests.failover.replica", parts, str(self.paths.state), self.address
        )

    async def ready(self) -> None:
        """Return when its api answers. One that found no database at its start is started again, as whoever supervises
        it does."""
        until = time.monotonic() + READY_SECONDS
        while True:
            try:
                await self.client.transport.request(Ask(method="GET", path="/readyz"))
                return
            except (BessemerError, OSError):
                assert self.process is not None
                if self.process.returncode is not None:
                    await self.start()
                assert time.monotonic() < until, self.log
                await asyncio.sleep(0.05)

    @property
    def client(self) -> Client:
        """As the administrator, past the balancer."""
        if self.admin is None:
            url = at(self.settings.api_port)
            self.admin = connect(url, ca=self.paths.ca_certificate, cert=self.paths.certificate(identities.ADMIN))
        return self.admin

    async def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End the process; its exit status."""
        if self.process is None:
            return 0
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        status = await asyncio.wait_for(self.process.wait(), 60)
        self.process = None
        return status

    async def close(self) -> None:
        await self.end()
        if self.admin is not None:
            await self.admin.close()


@dataclass
class Cluster:
    """The replicas of one database. ``well`` are the ports that the balancer takes for well; ``agents`` is the hosts'
    wire to it."""

    server: Server
    database: str
    replicas: Sequence[Replica]
    balancer: Proxy
    well: list[int]
    agents: Proxy
    gateway: Gateway
    times: dict[str, float] = field(default_factory=dict)
    """What was measured, in seconds: from when work could go on until it did."""
    crowds: dict[str, float] = field(default_factory=dict)
    """How many processes there were then for each processor, by the machine's load."""

    def measured(self, name: str, began: float) -> None:
        """Note that work went on just now."""
        self.times[name] = time.monotonic() - began
        self.crowds[name] = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))

    def leader(self, kind: str = "Instance") -> Replica | None:
        """Who has the kind's lease now; None where it has run out."""
        with psycopg.connect(self.database) as connection:
            row = connection.execute(
                "SELECT holder FROM leases WHERE name = %s AND expires_at > extract(epoch FROM clock_timestamp())",
                [f"loop/{kind}"],
            ).fetchone()
        holder = str(row[0]) if row is not None else ""
        living = [replica for replica in self.replicas if replica.process is not None]
        return next((replica for replica in living if f"-{replica.pid}-" in holder), None)

    async def some_leader(self) -> Replica:
        """Whoever leads, once somebody does."""
        until = time.monotonic() + 90
        while (found := self.leader()) is None:
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        return found

    def other(self, than: Replica) -> Replica:
        return next(replica for replica in self.replicas if replica is not than)

    def healthy(self) -> list[Replica]:
        """Those that the balancer takes for well."""
        return [replica for replica in self.replicas if replica.settings.api_port in self.well]

    def take_out(self, replica: Replica) -> None:
        """The balancer's health checks find it ill: who was connected dials anew."""
        self.well[:] = [one.settings.api_port for one in self.replicas if one is not replica]
        self.balancer.cut(Wire.OPEN)

    async def whole(self) -> None:
        """Wait until every replica answers, and the balancer knows."""
        for replica in self.replicas:
            await replica.ready()
        self.put_back()

    async def past_the_leases(self, began: float) -> None:
        """Wait until a controller's leases have run out that were renewed then."""
        ends = began + 1.5 * self.replicas[0].settings.controller_lease_seconds
        await asyncio.sleep(max(0.0, ends - time.monotonic()))

    def put_back(self) -> None:
        self.well[:] = [one.settings.api_port for one in self.replicas]


def founded(
    base: Path, *, settings: Settings, count: int, stack: ExitStack | AsyncExitStack
) -> list[tuple[Paths, Settings]]:
    """State directories as the documentation says that they are made: authority and keys of the first are copied, and
    content is shared. Their ports are theirs until the stack is closed."""
    made: list[tuple[Paths, Settings]] = []
    for name in "abc"[:count]:
        paths, own = Paths(base / name), stack.enter_context(kept_ports(settings))
        if made:
            first = made[0][0]
            shutil.copytree(first.ca, paths.ca)
            shutil.copytree(first.keys, paths.keys)
            first.content.mkdir(exist_ok=True)
            paths.content.symlink_to(first.content)
        identities.prepare(paths, own)
        made.append((paths, own))
    return made


@asynccontextmanager
async def cluster(server: Server, base: Path, *, count: int = 2, settings: Settings = QUICK) -> AsyncIterator[Cluster]:
    """So many replicas, which run and answer, over a database that was empty; the agents of a few fake hosts, and a
    gateway."""
    database = server.database("cluster")
    async with AsyncExitStack() as stack:
        states = founded(base, settings=_free(settings), count=count, stack=stack)
        balancer, well = await stack.enter_async_context(balanced([own.api_port for _, own in states]))
        agents, gateways = [await stack.enter_async_context(before(balancer.port)) for _ in range(2)]
        replicas: list[Replica] = []
        for paths, own in states:
            wire = await stack.enter_async_context(proxied(server.folder))
            front = await stack.enter_async_context(before(own.api_port))
            told = own.model_copy(update={"store": wire.url("cluster"), "api_url": at(balancer.port)})
            save(paths, told)
            replicas.append(Replica(paths, told, wire, front))
            stack.push_async_callback(replicas[-1].close)
        first = replicas[0]
        for replica in replicas:
            await replica.start()
        await stack.enter_async_context(_beside(first.paths, "agent", "--fake", api=at(agents.port)))
        await stack.enter_async_context(_beside(first.paths, "server", "--parts", "gateway", api=at(gateways.port)))
        for replica in replicas:
            await replica.ready()
        gateway = Gateway(first.paths, first.settings, gateways, database)
        yield Cluster(server, database, replicas, balancer, well, agents, gateway)


@asynccontextmanager
async def embedded(base: Path) -> AsyncIterator[Replica]:
    """One server over a file, which is one process's; and the agents of a few fake hosts. Its wire is the one that all
    who ask it come by."""
    async with AsyncExitStack() as stack:
        ((paths, own),) = founded(base, settings=_free(QUICK), count=1, stack=stack)
        wire, _ = await stack.enter_async_context(balanced([own.api_port]))
        settings = own.model_copy(update={"api_url": at(wire.port)})
        save(paths, settings)
        replica = Replica(paths, settings, wire)
        stack.push_async_callback(replica.close)
        await replica.start()
        await stack.enter_async_context(_beside(paths, "agent", "--fake", api=settings.api_url))
        await replica.ready()
        yield replica


def at(port: int) -> str:
    """The address of an api, or of what stands before one."""
    return f"https://127.0.0.1:{port}"


def _free(settings: Settings) -> Settings:
    """At ports that are free."""
    return settings.model_copy(update={"api_port": 0, "portal_port": 0, "gateway_port": 0, "fake_hosts": HOSTS})


@asynccontextmanager
async def _beside(paths: Paths, *words: str, api: str) -> AsyncIterator[None]:
    """A process of the first replica's state directory."""
    log = paths.logs / f"beside-{words[0]}.log"
    process = await spawn(log, "bessemer", *words, "--state", str(paths.state), api=api)
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        shutil.rmtree(default_folder(paths.fake), ignore_errors=True)

"""Replicas as they are run, over one database: each a process behind a wire that can be cut, a balancer before them,
and fake hosts that reach them through it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from bessemer.client import Ask, Client, connect
from bessemer.core.errors import BessemerError
from bessemer.main import identities
from bessemer.main.settings import Paths, Settings, save, with_ports
from tests.failover.proxy import Proxy, Wire, balanced, proxied
from tests.store.server import Server

ROOT = Path(__file__).parents[2]
LEASE_SECONDS = 1.0
READY_SECONDS = 60.0
HOSTS = 3


async def spawn(log: Path, *words: str) -> asyncio.subprocess.Process:
    """One of ours, in a session of its own."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *words),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


@dataclass
class Replica:
    """A state directory, the process over it, and an administrator's client to it."""

    paths: Paths
    settings: Settings
    wire: Proxy
    process: asyncio.subprocess.Process | None = None
    admin: Client | None = None

    @property
    def name(self) -> str:
        return self.paths.state.name

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
            self.paths.logs / "server.log", "tests.failover.replica", parts, str(self.paths.state)
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
            url = f"https://127.0.0.1:{self.settings.api_port}"
            self.admin = connect(url, ca=self.paths.ca_certificate, cert=self.paths.certificate(identities.ADMIN))
        return self.admin

    async def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End the process; its exit status."""
        if self.process is None:
            return 0
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        status = await asyncio.wait_for(self.process.wait(), 20)
        self.process = None
        return status

    async def close(self) -> None:
        await self.end()
        if self.admin is not None:
            await self.admin.close()


@dataclass
class Cluster:
    """The replicas of one database. ``well`` are the ports that the balancer takes for well."""

    server: Server
    database: str
    replicas: Sequence[Replica]
    balancer: Proxy
    well: list[int]
    times: dict[str, float] = field(default_factory=dict)
    """What was measured, in seconds."""

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
        until = time.monotonic() + 30
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

    def put_back(self) -> None:
        self.well[:] = [one.settings.api_port for one in self.replicas]


def founded(base: Path, *, settings: Settings, count: int) -> list[tuple[Paths, Settings]]:
    """State directories as the documentation says that they are made: authority and keys of the first are copied, and
    content is shared."""
    made: list[tuple[Paths, Settings]] = []
    for name in "abc"[:count]:
        paths, own = Paths(base / name), with_ports(settings, find_free=True)
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
async def cluster(server: Server, base: Path, *, count: int = 2) -> AsyncIterator[Cluster]:
    """So many replicas, which run and answer, over a database that was empty; and the agents of a few fake hosts."""
    database = server.database("cluster")
    free = Settings(
        api_port=0,
        portal_port=0,
        gateway_port=0,
        controller_lease_seconds=LEASE_SECONDS,
        heartbeat_seconds=1.0,
        fake_hosts=HOSTS,
    )
    async with AsyncExitStack() as stack:
        states = founded(base, settings=free, count=count)
        balancer, well = await stack.enter_async_context(balanced([own.api_port for _, own in states]))
        replicas: list[Replica] = []
        for paths, own in states:
            wire = await stack.enter_async_context(proxied(server.folder))
            told = {"store": wire.url("cluster"), "api_url": f"https://127.0.0.1:{balancer.port}"}
            settings = own.model_copy(update=told)
            save(paths, settings)
            replicas.append(Replica(paths, settings, wire))
            stack.push_async_callback(replicas[-1].close)
        for replica in replicas:
            await replica.start()
        first = replicas[0].paths
        agents = await spawn(first.logs / "fake.log", "bessemer", "agent", "--fake", "--state", str(first.state))
        stack.push_async_callback(_killed, agents)
        for replica in replicas:
            await replica.ready()
        yield Cluster(server, database, replicas, balancer, well)


async def _killed(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()

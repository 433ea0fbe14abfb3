"""Replicas as they are run: ``bessemer server`` processes over one database, each behind a wire that can be cut."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from bessemer.client import Ask, Client, connect
from bessemer.core.errors import BessemerError
from bessemer.main import identities
from bessemer.main.settings import Paths, Settings, save, with_ports
from tests.failover.proxy import Proxy, proxied
from tests.store.server import Server

ROOT = Path(__file__).parents[2]
LEASE_SECONDS = 2.0
READY_SECONDS = 60.0


@dataclass
class Replica:
    """One state directory, its process, and an administrator's client to it."""

    paths: Paths
    settings: Settings
    proxy: Proxy
    parts: str = "api,controller"
    process: asyncio.subprocess.Process | None = None
    clients: list[Client] = field(default_factory=list)

    @property
    def log(self) -> str:
        return (self.paths.logs / "server.log").read_text()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        """Start its process; `ready` says when it answers."""
        self.paths.logs.mkdir(parents=True, exist_ok=True)
        with (self.paths.logs / "server.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bessemer", "server", "--parts", self.parts, "--state", str(self.paths.state)),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def ready(self) -> None:
        """Return when its api answers."""
        until = time.monotonic() + READY_SECONDS
        while True:
            try:
                await self.client().transport.request(Ask(method="GET", path="/readyz"))
                return
            except (BessemerError, OSError):
                assert self.process is not None
                assert self.process.returncode is None, self.log
                assert time.monotonic() < until, self.log
                await asyncio.sleep(0.05)

    def client(self) -> Client:
        """As the administrator."""
        if not self.clients:
            certificate = self.paths.certificate(identities.ADMIN)
            url = identities.urls(self.settings)["api"]
            self.clients.append(connect(url, ca=self.paths.ca_certificate, cert=certificate))
        return self.clients[0]

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

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


@dataclass
class Cluster:
    """The replicas of one database, whose server is reached through a proxy each."""

    server: Server
    database: str
    replicas: Sequence[Replica]

    def leads(self, kind: str) -> str:
        """Who has the kind's lease now, by its process's number; "" where it has run out."""
        with psycopg.connect(self.database) as connection:
            row = connection.execute(
                "SELECT holder FROM leases WHERE name = %s AND expires_at > extract(epoch FROM clock_timestamp())",
                [f"loop/{kind}"],
            ).fetchone()
        return str(row[0]).rsplit("-", 2)[-2] if row is not None and row[0] else ""

    async def led(self, kind: str, *, by: Replica, seconds: float = 30.0) -> float:
        """Wait until the replica leads the kind; how long that took."""
        began = time.monotonic()
        while self.leads(kind) != str(by.pid):
            assert time.monotonic() - began < seconds, (self.leads(kind), by.pid)
            await asyncio.sleep(0.05)
        return time.monotonic() - began


def found(base: Path, names: Sequence[str], *, database: str) -> list[tuple[Paths, Settings]]:
    """State directories as the documentation says that they are made: keys and authority of the first are copied, and
    content is shared."""
    made: list[tuple[Paths, Settings]] = []
    for name in names:
        paths = Paths(base / name)
        settings = with_ports(
            Settings(
                api_port=0,
                portal_port=0,
                gateway_port=0,
                store=database,
                controller_lease_seconds=LEASE_SECONDS,
                heartbeat_seconds=1.0,
                lease_seconds=8.0,
            ),
            find_free=True,
        )
        if made:
            first = made[0][0]
            shutil.copytree(first.ca, paths.ca)
            shutil.copytree(first.keys, paths.keys)
            first.content.mkdir(exist_ok=True)
            paths.content.symlink_to(first.content)
        save(paths, settings)
        identities.prepare(paths, settings)
        made.append((paths, settings))
    return made


@asynccontextmanager
async def cluster(server: Server, base: Path, *, names: Sequence[str] = ("a", "b")) -> AsyncIterator[Cluster]:
    """So many replicas, which run and answer; the database is empty at first."""
    database = server.database("cluster")
    proxies: list[Proxy] = []
    replicas: list[Replica] = []
    async with proxied(server.folder) as first, proxied(server.folder) as second:
        proxies = [first, second]
        states = found(base, names, database=first.url("cluster"))
        for (paths, settings), proxy in zip(states, proxies, strict=False):
            settings = settings.model_copy(update={"store": proxy.url("cluster")})
            save(paths, settings)
            replicas.append(Replica(paths, settings, proxy))
        try:
            for replica in replicas:
                await replica.start()
            for replica in replicas:
                await replica.ready()
            yield Cluster(server, database, replicas)
        finally:
            for replica in replicas:
                for client in replica.clients:
                    await client.close()
                await replica.end()


def said(replica: Replica) -> list[dict[str, object]]:
    """What its process has logged."""
    return [json.loads(line) for line in replica.log.splitlines() if line.startswith("{")]

"""What the informers follow: one control plane over a file, or two over a database, with all that may befall them.

``log`` is what the changes were, read beside them."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from bessemer.main import identities
from bessemer.main.parts import CONTROL, command
from bessemer.main.settings import Paths, Settings, save
from tests.failover.cluster import founded
from tests.ports import kept_ports
from tests.store import server as postgresql

TYPES = ("ADDED", "MODIFIED", "DELETED")
"""As the store writes them."""

FLAVORS = "/apis/bessemer.dev/v1alpha1/flavors"
READ_SECONDS = 0.3
_SQL = "SELECT revision, type, name FROM changes WHERE kind = 'Flavor' AND revision > {}"


@dataclass
class Replica:
    """A process over a state directory, which can be ended in any way."""

    paths: Paths
    settings: Settings
    process: subprocess.Popen[bytes] | None = None
    ending: bool = False

    @property
    def url(self) -> str:
        return identities.urls(self.settings)["api"] + FLAVORS

    def start(self) -> None:
        asked = command(self.paths, CONTROL)
        asked.log_path.parent.mkdir(exist_ok=True)
        with asked.log_path.open("ab") as log:
            self.process = subprocess.Popen(asked.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None

    def restart(self, number: signal.Signals) -> None:
        """From a thread: who sees meanwhile that it has ended leaves it to this."""
        self.ending = True
        try:
            self.end(number)
            self.start()
        finally:
            self.ending = False


@dataclass
class Servers:
    """``database`` is None where there is one replica over a file."""

    replicas: Sequence[Replica]
    database: postgresql.Server | None = None
    log: dict[int, tuple[str, str]] = field(default_factory=dict)
    befell: Counter[str] = field(default_factory=Counter)

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.replicas]

    async def befall(self, dice: random.Random) -> None:
        """Something happens to one of them."""
        if self.database is not None and dice.random() < 0.6:
            how = dice.choice([signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
            await asyncio.to_thread(self._restart_database, self.database, how)
            self.befell[f"databases ended by {how.name}"] += 1
            return
        how = dice.choice([signal.SIGKILL, signal.SIGTERM])
        await asyncio.to_thread(dice.choice(self.replicas).restart, how)
        self.befell[f"servers ended by {how.name}"] += 1

    def _restart_database(self, database: postgresql.Server, how: signal.Signals) -> None:
        """In order, as in a crash, or by a kill of the process that all others of it follow."""
        of_it = psutil.Process(database.pid).children(recursive=True)
        database.stop(how)
        psutil.wait_procs(of_it, 20)  # they hold its memory, without which it does not start again
        database.start()

    async def supervise(self) -> None:
        """Start again what ended by itself: a replica that finds no database at its start does."""
        while True:
            for replica in self.replicas:
                process = replica.process
                if process is not None and not replica.ending and process.poll() is not None:
                    self.befell["servers that found no database"] += 1
                    replica.start()
            await asyncio.sleep(READ_SECONDS)

    async def follow(self) -> None:
        """Read the log of changes before it is compacted."""
        while True:
            try:
                await asyncio.to_thread(self.read)
            except (sqlite3.Error, psycopg.Error):  # it is being opened or closed, or it is not there
                pass
            await asyncio.sleep(READ_SECONDS)

    def read(self) -> None:
        """Note the changes that there are now."""
        with self._reading() as connection:
            for revision, kind, name in connection.execute(_SQL.format(max(self.log, default=0))):
                self.log[revision] = (TYPES[kind], name)

    @property
    def floor(self) -> int:
        """Up to where history is dropped."""
        with self._reading() as connection:
            ((floor,),) = connection.execute("SELECT value FROM counters WHERE name = 'floor'").fetchall()
            return int(floor)

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        if self.database is not None:
            with psycopg.connect(self.database.url("soak"), autocommit=True) as connection:
                yield connection
            return
        file = sqlite3.connect(f"file:{self.replicas[0].paths.store}?mode=ro", uri=True)
        try:
            yield file
        finally:
            file.close()


@asynccontextmanager
async def servers(base: Path, *, over: str, kept: int) -> AsyncIterator[Servers]:
    """Started, and killed at the end; so many revisions of history are kept."""
    ports = {"api_port": 0, "portal_port": 0, "gateway_port": 0}
    settings = Settings.model_validate({**ports, "keep_revisions": kept, "controller_lease_seconds": 1.0})
    if over == "sqlite":
        with kept_ports(settings) as own:
            paths = Paths(base)
            identities.prepare(paths, own)
            async with _running(Servers([Replica(paths, own)])) as made:
                yield made
        return
    with postgresql.running() as database, ExitStack() as stack:
        told = settings.model_copy(update={"store": database.database("soak")})
        states = founded(base, settings=told, count=2, stack=stack)
        async with _running(Servers([Replica(paths, own) for paths, own in states], database)) as made:
            yield made


@asynccontextmanager
async def _running(made: Servers) -> AsyncIterator[Servers]:
    try:
        for replica in made.replicas:
            save(replica.paths, replica.settings)
            replica.start()
        yield made
    finally:
        for replica in made.replicas:
            replica.end(signal.SIGKILL)

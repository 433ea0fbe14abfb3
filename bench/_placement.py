"""OpenStack Placement over PostgreSQL, as the peer of `commit`: started here, in the same run, with the same hosts.

``--peer DIR`` names a folder that `tools/placement-peer` has filled. It runs under uWSGI without authentication, in as
many processes as there are cores; PostgreSQL is durable and has its defaults but for 512 MB of shared buffers. A host
is a resource provider without a tree: threads, memory and GPUs.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil
import psycopg

from _common import READY_SECONDS, scratch, start, stop
from _declared import CORES_EACH, DEVICES, MEMORY, THREADS
from _postgres import NAME as DATABASE
from _postgres import Server as Database
from _postgres import running as postgresql
from _wire import Server, Wire, request

CANDIDATES = 10
"""Of which one is taken, as Nova takes one."""

_MEMORY_MB_EACH = 131_072
_HEADERS = "x-auth-token: admin\r\nOpenStack-API-Version: placement 1.39\r\n"
_ASKED = f"resources=VCPU:{CORES_EACH},MEMORY_MB:{_MEMORY_MB_EACH},PGPU:1&limit={CANDIDATES}"
_CONFIG = """[api]
auth_strategy = noauth2
[placement_database]
connection = postgresql+psycopg2://{user}@/{name}?host={folder}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """One that has its hosts. ``pids`` are uWSGI's and PostgreSQL's first processes."""

    server: Server
    version: str
    pids: tuple[int, ...]
    processes: int

    async def place(self, number: int) -> tuple[list[float], float, float]:
        """So many placements by as many clients as there are processes, once each of them is warm: the seconds of each,
        how many a second, and the CPU seconds of each."""
        await self._over(self.processes, self._place)
        before, began = self.cpu_seconds(), time.perf_counter()
        waits = await self._over(number, self._place)
        took = time.perf_counter() - began
        return waits, number / took, (self.cpu_seconds() - before) / number

    def cpu_seconds(self) -> float:
        """Of all its processes, those that have ended included."""
        found = 0.0
        for pid in self.pids:
            first = psutil.Process(pid)
            for one in (first, *first.children(recursive=True)):
                used = one.cpu_times()
                found += used.user + used.system
            found += first.cpu_times().children_user + first.cpu_times().children_system
        return found

    async def _over(self, number: int, work: Callable[[Wire], Awaitable[None]]) -> list[float]:
        """A connection is kept by one process: so as many clients as there are of those."""
        waits, turns = list[float](), iter(range(number))

        async def client(wire: Wire) -> None:
            for _ in turns:
                began = time.perf_counter()
                await work(wire)
                waits.append(time.perf_counter() - began)

        wires = [await Wire.open(self.server) for _ in range(self.processes)]
        try:
            async with asyncio.TaskGroup() as group:
                for wire in wires:
                    group.create_task(client(wire))
        finally:
            for wire in wires:
                wire.close()
        return waits

    async def _place(self, wire: Wire) -> None:
        """Ask for candidates, take the first that nobody else took."""
        found = await _ask(wire, "GET", f"/allocation_candidates?{_ASKED}")
        for wanted in found["allocation_requests"]:
            body = {
                "allocations": wanted["allocations"],
                "project_id": "bench",
                "user_id": "bench",
                "consumer_generation": None,
                "consumer_type": "INSTANCE",
            }
            status, _ = await _answer(wire, "PUT", f"/allocations/{uuid.uuid4()}", body)
            if status == 204:
                return
        raise RuntimeError("none of the candidates could be had")


async def _answer(wire: Wire, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    return await wire.ask(request(method, path, orjson.dumps(body) if body is not None else b"", headers=_HEADERS))


async def _ask(wire: Wire, method: str, path: str, body: object = None) -> dict[str, object]:
    """What a good answer says. Raises RuntimeError for any other."""
    status, said = await _answer(wire, method, path, body)
    if status not in (200, 201, 204):
        raise RuntimeError(f"{method} {path}: {status} {said[:300].decode(errors='replace')}")
    found: dict[str, object] = orjson.loads(said) if said else {}
    return found


@asynccontextmanager
async def placement_peer(folder: Path, *, hosts: int) -> AsyncIterator[Peer]:
    """One with so many hosts. Raises FileNotFoundError where the folder does not hold it."""
    programs = folder / "venv" / "bin"
    if not (programs / "uwsgi").exists():
        raise FileNotFoundError(f"{folder} holds no venv/bin/uwsgi: tools/placement-peer fills it")
    async with scratch() as own:
        with postgresql() as database:
            _tuned(database)
            config = {"user": DATABASE, "name": DATABASE, "folder": database.folder}
            (own / "placement.conf").write_text(_CONFIG.format(**config))
            synced = [str(programs / "placement-manage"), "--config-file", str(own / "placement.conf"), "db", "sync"]
            await asyncio.to_thread(subprocess.run, synced, check=True, capture_output=True)
            processes = os.cpu_count() or 1
            with _uwsgi(programs, own, processes=processes) as running:
                server = Server(path=str(own / "socket"))
                await _ready(server, running, log=own / "log")
                peer = Peer(server, _version(programs), (running.pid, database.pid), processes)
                await asyncio.to_thread(_fill, database, hosts=hosts)
                yield peer


def _tuned(database: Database) -> None:
    with psycopg.connect(database.url("postgres"), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET shared_buffers = '512MB'")
    database.stop()
    database.start()


def _fill(database: Database, *, hosts: int) -> None:
    """So many resource providers, as two requests for each would leave them; at some fifty a second these take
    minutes."""
    totals = {"VCPU": THREADS, "MEMORY_MB": MEMORY >> 20, "PGPU": DEVICES}
    with psycopg.connect(database.url(), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO resource_providers (uuid, name, generation) "
            "SELECT gen_random_uuid()::text, 'host-' || lpad(n::text, 5, '0'), 1 FROM generate_series(0, %s) AS n",
            (hosts - 1,),
        )
        connection.execute("UPDATE resource_providers SET root_provider_id = id")
        for resource, total in totals.items():
            done = connection.execute(
                "INSERT INTO inventories (resource_provider_id, resource_class_id, total, reserved, min_unit, "
                "max_unit, step_size, allocation_ratio) SELECT providers.id, classes.id, %s, 0, 1, %s, 1, 1.0 "
                "FROM resource_providers AS providers, resource_classes AS classes WHERE classes.name = %s",
                (total, total, resource),
            )
            if done.rowcount != hosts:
                raise RuntimeError(f"{done.rowcount} inventories of {resource} were made for {hosts} hosts")
        # Else its plans would be those of an empty database for as long as it is small.
        connection.execute("ANALYZE")


@contextmanager
def _uwsgi(programs: Path, own: Path, *, processes: int) -> Iterator[subprocess.Popen[bytes]]:
    argv = ["/usr/bin/env", f"OS_PLACEMENT_CONFIG_DIR={own}", str(programs / "uwsgi")]
    argv += ["--http11-socket", str(own / "socket"), "--module", "placement.wsgi.api:application"]
    argv += ["--master", "--processes", str(processes), "--lazy-apps", "--disable-logging", "--die-on-term"]
    running = start(argv, log=own / "log")
    try:
        yield running
    finally:
        stop(running)


async def _ready(server: Server, running: subprocess.Popen[bytes], *, log: Path) -> None:
    """Return once it answers. Raises RuntimeError with the end of its log where it dies."""
    async with asyncio.timeout(READY_SECONDS):
        while True:
            if running.poll() is not None:
                raise RuntimeError(f"uWSGI ended:\n{_end_of(log)}")
            try:
                wire = await Wire.open(server)
                status, _ = await wire.ask(request("GET", "/"))
                wire.close()
                if status == 200:
                    return
            except OSError:
                pass
            await asyncio.sleep(0.1)


def _end_of(log: Path) -> str:
    return log.read_text()[-2000:]


def _version(programs: Path) -> str:
    said = "import importlib.metadata as m; print(m.version('openstack-placement'))"
    found = subprocess.run([str(programs / "python"), "-c", said], check=True, capture_output=True, text=True)
    return f"OpenStack Placement {found.stdout.strip()} with PostgreSQL"

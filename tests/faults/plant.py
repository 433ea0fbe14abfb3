"""One factory on this machine, as a person starts it: real parts, a real guest, a real engine.

It is driven from outside (the command line, the api with the administrator's certificate, signals), and looked at with
the same drivers as an agent has. `running` stops it at the end and fails where something is left behind.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import orjson

from bessemer.client import Client, from_kubeconfig, tls_context
from bessemer.client.paths import api_version
from bessemer.core.errors import NotFound, Unavailable
from bessemer.core.ports import Bookmark, Scope
from bessemer.core.resource import Key
from bessemer.drivers.engine.doors import default_folder
from bessemer.drivers.process.parts import HostParts
from bessemer.drivers.process.protocol import Part
from bessemer.main import identities
from bessemer.main.hostdrivers import LocalDrivers, local_drivers
from bessemer.main.parts import command
from bessemer.main.settings import Paths, Settings, load
from bessemer.main.up import LOCK
from tests.drivers import micro_guest
from tests.ports import ANY, kept_ports, port_flags

ROOT = Path(__file__).parents[2]
PROJECT = "acme--lab"
INSTANCE, ENDPOINT = Key("Instance", PROJECT, "vm"), Key("Endpoint", PROJECT, "smol")
GUEST, REPLICA = Key("Claim", PROJECT, "instance-vm-0"), Key("Claim", PROJECT, "endpoint-smol-0")
SPECS: Mapping[Key, Mapping[str, Any]] = {
    INSTANCE: {"flavor": "micro", "image": "micro-guest"},
    ENDPOINT: {"model": "smollm2-135m", "flavor": "serve-small", "slots": 2},
}
SHORT: Mapping[str, str] = {"BESSEMER_LEASE_SECONDS": "6", "BESSEMER_HEARTBEAT_SECONDS": "1"}
"""Times by which silence is noticed within seconds."""

Body = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """The processes of the guest and the engine, by pid and start, and how long the guest has been up."""

    guest: tuple[int, int]
    engine: tuple[int, int]
    uptime_seconds: float


@dataclass
class Plant:
    """The factory of one state directory, whose ports are those of ``settings``. ``variables`` are what the shell in
    which it is started says besides."""

    state: Path
    settings: Settings = ANY
    variables: Mapping[str, str] = field(default_factory=lambda: SHORT)
    token: str = ""
    answers: int = 0
    """Requests that were answered to their end."""
    claims: dict[str, str] = field(default_factory=dict)

    @property
    def paths(self) -> Paths:
        return Paths(self.state)

    @property
    def drivers(self) -> LocalDrivers:
        return local_drivers(self.paths.agent)

    # --- as a person ---

    def run(self, *words: str, seconds: float = 120.0) -> str:
        """A command of the CLI, which must succeed; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "bessemer", *words],
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{self.logs()}"
        return done.stdout

    def up(self) -> None:
        """In the background."""
        self.state.mkdir(exist_ok=True)
        self.paths.cache.mkdir(exist_ok=True)
        packages = self.paths.cache / "packages"
        if not packages.exists():
            packages.symlink_to(micro_guest.package_cache())
        ports = () if self.paths.settings.exists() else port_flags(self.settings)
        self.run("up", "--detach", *ports)

    def down(self) -> str:
        return self.run("down")

    def environment(self) -> dict[str, str]:
        """What the shell says in which its commands are typed."""
        ours = {"PYTHONPATH": str(ROOT / "src"), "BESSEMER_STATE": str(self.state)}
        return {**os.environ, **ours, **self.variables}

    async def furnish(self) -> None:
        """A tenant with a guest and a served model, and a key to talk to it."""
        for key, spec in (
            (Key("Tenant", "", "acme"), {}),
            (Key("Project", "", PROJECT), {}),
            *SPECS.items(),
            (Key("ApiKey", PROJECT, "app"), {}),
        ):
            await self.create(key, spec)
        await self.new_token()
        await self.converged(seconds=200)
        for key in (GUEST, REPLICA):
            await self.note(key)

    async def note(self, claim: Key) -> None:
        """Keep a Claim's uid: by it the machine is asked, and what is left of it is found."""
        self.claims[claim.name] = (await self.body(claim))["metadata"]["uid"]

    # --- as the administrator ---

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        made = from_kubeconfig(self.paths.kubeconfig)
        try:
            yield made
        finally:
            await made.close()

    async def ask(self, work: Callable[[Client], Awaitable[T]], *, seconds: float = 90.0) -> T:
        """Ask the api, and ask again while it is away."""
        end = time.monotonic() + seconds
        async with self.client() as client:
            while True:
                try:
                    return await work(client)
                except Unavailable:
                    assert time.monotonic() < end, f"the api stays away{self.logs()}"
                    await asyncio.sleep(0.1)

    async def body(self, key: Key) -> Body:
        found: Body = orjson.loads((await self.ask(lambda client: client.get(key))).body)
        return found

    async def bodies(self, kind: str) -> list[Body]:
        """Every object of a kind."""
        page = await self.ask(lambda client: client.list(Scope(kind=kind)))
        return [orjson.loads(stored.body) for stored in page.items]

    async def create(self, key: Key, spec: Mapping[str, Any]) -> None:
        metadata = {"name": key.name, **({"namespace": key.namespace} if key.namespace else {})}
        body = {"apiVersion": api_version(key.kind), "kind": key.kind, "metadata": metadata, "spec": dict(spec)}
        await self.ask(lambda client: client.create(body))

    async def delete(self, key: Key) -> None:
        """Ask for its end; one that is gone is no error."""
        try:
            await self.ask(lambda client: client.delete(key))
        except NotFound:
            return

    async def new_token(self) -> None:
        """A new token for the application's key; the old one is worth nothing from now."""
        self.token = await self.ask(lambda client: client.account.key_token(PROJECT, "app"))

    async def until(self, key: Key, holds: Callable[[Body], bool], *, seconds: float = 120.0) -> Body:
        """The object once it is so. It is watched, so that nothing short is missed."""
        last: Body = {}
        try:
            async with asyncio.timeout(seconds):
                while True:
                    async for last in self._watch(key):
                        if holds(last):
                            return last
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{key} never came to it: {last.get('status')}{self.logs()}") from None

    async def _watch(self, key: Key) -> AsyncIterator[Body]:
        """The object as it changes, until the api goes away."""
        scope = Scope(kind=key.kind, namespace=key.namespace or None, name=key.name)
        async with self.client() as client:
            try:
                async for change in client.watch(scope):
                    if not isinstance(change, Bookmark) and change.type != "DELETED":
                        yield orjson.loads(change.body)
            except Unavailable:
                return

    async def converged(self, *, seconds: float = 120.0) -> None:
        """Guest and model are Ready, and so is the host."""
        host = Key("Host", "", load(self.paths).host_name or _machine())
        await asyncio.gather(*(self.until(key, is_ready, seconds=seconds) for key in (host, INSTANCE, ENDPOINT)))

    async def rows(self, claim: str) -> list[str]:
        """What a claim was billed as, one after the other: open, deploying, running, lost, …"""
        ledger = await self.ledger()
        uid = self.claims[claim]
        return [row.get("state") or row["kind"] for row in ledger["rows"] if row.get("claimUid") == uid]

    async def billed(self) -> tuple[int, int]:
        """Requests and output tokens that the ledger knows of."""
        rows = [row for row in (await self.ledger())["rows"] if row["kind"] == "tokens"]
        return sum(row.get("requests", 0) for row in rows), sum(row.get("outputTokens", 0) for row in rows)

    async def ledger(self) -> dict[str, Any]:
        return await self.ask(lambda client: client.projects.ledger(PROJECT, 0, int(time.time()) + 10))

    # --- as the machine ---

    async def look(self) -> Look:
        guest = await self.drivers.qemu.find(self.claims[GUEST.name])
        engine = await self.drivers.engine.find(self.claims[REPLICA.name])
        state = await self.drivers.qemu.state(self.claims[GUEST.name])
        assert guest is not None, "the guest is gone"
        assert engine is not None, "the engine is gone"
        assert state is not None
        return Look((guest.pid, started(guest.pid)), (engine.pid, started(engine.pid)), state.uptime_seconds)

    async def part(self, name: str) -> Part | None:
        found = await HostParts().find(command(self.paths, name).marker)
        return found[0] if found else None

    async def kill(self, name: str) -> Part:
        """kill -9 of a part; the one it was."""
        part = await self.part(name)
        assert part is not None, f"{name} does not run"
        os.kill(part.pid, signal.SIGKILL)
        return part

    async def restarted(self, name: str, before: Part, *, seconds: float = 90.0) -> Part:
        """The part that took its place."""

        async def another() -> Part | None:
            now = await self.part(name)
            return now if now is not None and now != before else None

        found: Part = await eventually(another, seconds=seconds, what=f"{name} is restarted")
        return found

    def supervisor(self) -> int:
        """The pid of whoever supervises."""
        return int((self.state / LOCK).read_text().partition(" ")[0])

    def new_supervisor(self) -> None:
        """kill -9 of whoever supervises; the next one adopts what runs."""
        os.kill(self.supervisor(), signal.SIGKILL)
        self.up()

    def logs(self) -> str:
        """The ends of all logs, for a test that fails."""
        ends = [f"--- {log.name}\n{log.read_text()[-1500:]}" for log in sorted(self.paths.logs.glob("*.log"))]
        return "\n".join(["", *ends])

    def residue(self) -> list[str]:
        """Processes, control groups and sockets of this state directory that are there now."""
        marks = (str(self.state), *self.claims.values())
        left = [f"{pid}: {line}" for pid, line in command_lines().items() if any(mark in line for mark in marks)]
        for uid in self.claims.values():
            left += [path for path in control_groups() if uid in Path(path).name]
        doors = default_folder(self.paths.agent)
        return left + [str(path) for path in doors.rglob("*.sock")]

    # --- as an application ---

    @asynccontextmanager
    async def asking(self, **wishes: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request to the gateway."""
        url = identities.urls(load(self.paths))["gateway"]
        trust = tls_context(self.paths.ca_certificate.read_bytes(), None)
        body = {"model": ENDPOINT.name, "messages": [{"role": "user", "content": "Count."}], **wishes}
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session,
            session.post(
                f"{url}/chat/completions", json=body, headers={"Authorization": f"Bearer {self.token}"}
            ) as response,
        ):
            yield response

    async def answered(self, tokens: int = 4) -> Mapping[str, Any] | None:
        """An answer's usage, or None while the gateway gives none."""
        try:
            async with self.asking(max_tokens=tokens) as response:
                if response.status != 200:
                    return None
                usage: Mapping[str, Any] = (await response.json())["usage"]
                self.answers += 1
                return usage
        except (aiohttp.ClientError, OSError):
            return None

    async def stream(self, times: list[float], *, tokens: int = 900) -> int:
        """One long answer; when its pieces came goes into ``times``. Answers how many tokens it had, which can be
        more: a piece waits for the last token of its character."""
        wishes = {"max_tokens": tokens, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
        last: dict[str, Any] = {}
        async with self.asking(**wishes) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                if line.startswith(b"data: {"):
                    times.append(time.monotonic())
                    last = orjson.loads(line.removeprefix(b"data: "))
        self.answers += 1
        return int((last.get("usage") or {}).get("completion_tokens", 0))


@contextmanager
def running(variables: Mapping[str, str] = SHORT) -> Iterator[Plant]:
    """A plant that is up; stopped at the end, and nothing left."""
    with kept_ports(ANY) as settings:
        made = Plant(Path(tempfile.mkdtemp(prefix="bsm-")), settings, variables)
        try:
            made.up()
            yield made
        finally:
            made.down()
            left = made.residue()
            shutil.rmtree(made.state, ignore_errors=True)
            assert left == []


async def eventually(holds: Callable[[], Awaitable[Any]], *, seconds: float, what: str) -> Any:
    """What ``holds`` says once it says something."""
    end = time.monotonic() + seconds
    while not (found := await holds()):
        assert time.monotonic() < end, f"it never came true: {what}"
        await asyncio.sleep(0.05)
    return found


def is_ready(body: Body) -> bool:
    """Ready for its present generation."""
    status = body.get("status", {})
    current = status.get("observedGeneration") == body["metadata"]["generation"]
    conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
    return current and conditions.get("Ready") == "True"


def reason(body: Body) -> str:
    """The reason of the Ready condition."""
    return next((c["reason"] for c in body.get("status", {}).get("conditions", []) if c["type"] == "Ready"), "")


def phase_of(body: Body) -> str:
    """The phase; "" before there is one."""
    return str(body.get("status", {}).get("phase", ""))


def started(pid: int) -> int:
    """When the process started, in ticks since the machine's boot."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def command_lines() -> dict[int, str]:
    """Every process of the machine but this one and its kernel's."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if line and int(folder.name) != os.getpid():
            found[int(folder.name)] = line
    return found


def control_groups() -> list[str]:
    """Every one of the machine; those of other tests come and go meanwhile."""
    return [folder for folder, _, _ in os.walk("/sys/fs/cgroup")]


def _machine() -> str:
    from bessemer.main.agent import host_name

    return host_name()

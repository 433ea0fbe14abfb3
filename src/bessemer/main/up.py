"""``bessemer up``: a factory on this machine, its parts supervised until Ctrl-C.

Every step finds what an earlier start has made, so that it may be interrupted anywhere and repeated. One supervisor
holds a state directory at a time; parts that a killed one left are adopted.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import yaml
from rich.console import Console

from bessemer.cli.verbs import UpOptions
from bessemer.core.clock import SystemClock
from bessemer.core.errors import AlreadyExists, BessemerError, Conflict, DriverError, NotFound, Unavailable
from bessemer.core.resource import API_VERSION, Key
from bessemer.drivers.process.parts import HostParts
from bessemer.drivers.process.protocol import Command
from bessemer.main import identities
from bessemer.main.process import listen_for_the_end, unless
from bessemer.main.settings import (
    TOKEN_FILE,
    Paths,
    Settings,
    host_name,
    joined,
    load,
    save,
    state_directory,
    with_ports,
)
from bessemer.main.steps import Steps
from bessemer.main.supervisor import AGENT, CONTROL, FAKE, GATEWAY, Supervisor, command, last_words

if TYPE_CHECKING:
    # Imported where it is used: the parts are started before, and read their own code meanwhile.
    from bessemer.client import Client, Transport

READY_SECONDS = 60.0
_CHECK_SECONDS = 0.5
_DEATHS_MAX = 3
LOCK, UP = "up.lock", "up"
"""The file whose lock says who supervises; it holds the supervisor's pid, and this word once everything is up."""


def up(options: UpOptions) -> int:
    """Start everything and supervise it. Raises BessemerError with what to do."""
    paths = Paths(state_directory(options.state))
    settings = load(
        paths,
        fake_hosts=options.fake_hosts,
        api_port=options.api_port,
        portal_port=options.portal_port,
        gateway_port=options.gateway_port,
    )
    if options.detach:
        return asyncio.run(_detached(paths, settings))
    return asyncio.run(_foreground(paths, settings))


@contextmanager
def held(paths: Paths) -> Iterator[Callable[[], None]]:
    """Hold the state directory; what it gives is called once all is up. Raises Conflict while another holds it."""
    paths.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(paths.state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise Conflict(f"{paths.state} is up already; `bessemer down` stops it") from error
    os.truncate(descriptor, 0)
    _note(descriptor, "")
    try:
        yield lambda: _note(descriptor, UP)
    finally:
        os.close(descriptor)


def _note(descriptor: int, word: str) -> None:
    """Write, whole, who holds the lock and how far it is."""
    os.pwrite(descriptor, f"{os.getpid()} {word}".encode(), 0)


async def _foreground(paths: Paths, settings: Settings) -> int:
    console = Console()
    steps = Steps(console)
    stop = asyncio.Event()
    listen_for_the_end(stop)
    with held(paths) as tell:
        factory = Factory(paths, await chosen(paths, settings), steps=steps)
        try:
            if await unless(stop, factory.start()):
                factory.say_addresses()
                tell()
                await stop.wait()
        finally:
            await factory.stop()
    steps.say("Stopped. Guests and engines go on; `bessemer down` stops them, too.")
    return 0


async def _detached(paths: Paths, settings: Settings) -> int:
    with held(paths):
        settings = await chosen(paths, settings)
        save(paths, settings)
    words = ("up", "--state", str(paths.state))
    argv = (sys.executable, "-m", "bessemer", *words)
    parts = HostParts()
    log = paths.logs / "up.log"
    part = await parts.start(Command(name="up", argv=argv, marker=" ".join(words), log_path=log))
    factory = Factory(paths, settings, steps=Steps(Console()))
    with factory.steps.step("Starting in the background"):
        await _told(paths, f"{part.pid} {UP}", alive=lambda: parts.alive(part), log=log)
    factory.say_addresses()
    await factory.close()
    return 0


async def _told(paths: Paths, word: str, *, alive: Callable[[], Awaitable[bool]], log: Path) -> None:
    """Return when the supervisor in the background says that everything is up. Raises DriverError where it ends."""
    lock = paths.state / LOCK
    while not (lock.exists() and lock.read_text() == word):
        if not await alive():
            raise DriverError("PartDied", f"it did not come up{last_words(log)}")
        await asyncio.sleep(0.05)


async def chosen(paths: Paths, settings: Settings) -> Settings:
    """The settings with ports: those of the parts that run, else free ones. Raises Invalid for a port that is taken."""
    if await HostParts().find(command(paths, CONTROL).marker):
        return settings
    return with_ports(settings, find_free=not paths.settings.exists())


class Factory:
    """One installation being started: its supervisor, and an administrator's client to it."""

    def __init__(self, paths: Paths, settings: Settings, *, steps: Steps) -> None:
        self.paths = paths
        self.settings = settings
        self.steps = steps
        self.clock = SystemClock()
        self.supervisor = Supervisor(HostParts(), self.clock)
        self._client: Client | None = None
        self._supervising: asyncio.Task[None] | None = None

    @property
    def host(self) -> str:
        """The local host's name."""
        return self.settings.host_name or host_name()

    @property
    def client(self) -> Client:
        """As the administrator."""
        if self._client is None:
            from bessemer.client import connect

            certificate = self.paths.certificate(identities.ADMIN)
            url = identities.urls(self.settings)["api"]
            self._client = connect(url, ca=self.paths.ca_certificate, cert=certificate)
        return self._client

    async def start(self) -> None:
        """Start or adopt every part, until the local Host is Ready."""
        with self.steps.step("Keys and certificates"):
            identities.prepare(self.paths, self.settings)
            identities.write_kubeconfig(self.paths, self.settings)
            save(self.paths, self.settings)
        with self.steps.step("Control plane: api, controller, portal") as step:
            part = await self.supervisor.start(command(self.paths, CONTROL))
            self._supervising = asyncio.create_task(self._supervise())
            # These read their code while the api does, and wait for what they need of it. An agent that has joined is
            # started once its Host is known to be there.
            await self.supervisor.start(command(self.paths, GATEWAY))
            if not joined(self.paths):
                (self.paths.agent / TOKEN_FILE).unlink(missing_ok=True)
                await self.supervisor.start(command(self.paths, AGENT))
            await self.wait_ready(lambda: self._alive(CONTROL), log=self.paths.logs / "control.log")
            await self._defaults()
            step.note = f"pid {part.pid}"
        with self.steps.step("Gateway") as step:
            part = await self.supervisor.start(command(self.paths, GATEWAY))
            step.note = f"pid {part.pid}"
        with self.steps.step(f"Agent: joins, inspects this machine, host {self.host} is Ready") as step:
            await self._enrol()
            part = await self.supervisor.start(command(self.paths, AGENT))
            await self.host_ready()
            step.note = f"pid {part.pid}"
        if self.settings.fake_hosts:
            with self.steps.step(f"Agents of {self.settings.fake_hosts} fake hosts") as step:
                part = await self.supervisor.start(command(self.paths, FAKE))
                step.note = f"pid {part.pid}, they join in the background"
        with self.steps.step("Gateway answers"):
            await self._gateway_ready()

    async def _alive(self, name: str) -> bool:
        return self.supervisor.failures(name) < _DEATHS_MAX

    async def wait_ready(self, alive: Callable[[], Awaitable[bool]], *, log: Path) -> None:
        """Return when the api answers. Raises DriverError with the place of the log where it does not."""
        deadline = self.clock.monotonic() + READY_SECONDS
        while not await _answers(self.client.transport):
            if not await alive():
                raise DriverError("PartDied", f"the control plane does not stay up{last_words(log)}")
            if self.clock.monotonic() > deadline:
                raise DriverError("PartSilent", f"the control plane does not answer{last_words(log)}")
            await self.clock.sleep(0.05)

    async def _gateway_ready(self) -> None:
        from bessemer.client import HttpTransport, tls_context

        url = identities.urls(self.settings)["gateway"].removesuffix("/v1")
        transport = HttpTransport(url, tls=tls_context(self.paths.ca_certificate.read_bytes(), None), token="")
        deadline = self.clock.monotonic() + READY_SECONDS
        try:
            while not await _answers(transport):
                if self.clock.monotonic() > deadline:
                    log = self.paths.logs / "gateway.log"
                    raise DriverError("PartSilent", f"the gateway does not answer{last_words(log)}")
                await self.clock.sleep(0.05)
        finally:
            await transport.close()

    async def _defaults(self) -> None:
        text = resources.files("bessemer.main").joinpath("defaults.yaml").read_text()
        for body in yaml.safe_load_all(text):
            await self.create(body)

    async def create(self, body: dict[str, Any]) -> bool:
        """Create an object unless it is there; whether it was made."""
        try:
            await self.client.create(body)
        except AlreadyExists:
            return False
        return True

    async def _enrol(self) -> None:
        spec = {"site": self.settings.site, "overcommitMilli": self.settings.overcommit_milli}
        made = await self.create(
            {"apiVersion": API_VERSION, "kind": "Host", "metadata": {"name": self.host}, "spec": spec}
        )
        if made or not joined(self.paths):
            self.paths.agent.mkdir(parents=True, exist_ok=True, mode=0o700)
            token = await self.client.account.host_token(self.host)
            identities.write_private(self.paths.agent / TOKEN_FILE, token.encode())

    async def host_ready(self) -> None:
        """Return when the local Host is Ready. Raises DriverError with what it waits for."""
        deadline = self.clock.monotonic() + READY_SECONDS
        last = "it has not joined"
        while self.clock.monotonic() < deadline:
            try:
                body = orjson.loads((await self.client.get(Key("Host", "", self.host))).body)
            except (NotFound, Unavailable):
                body = {}
            for condition in body.get("status", {}).get("conditions", []):
                if condition["type"] == "Ready" and condition["status"] == "True":
                    return
                if condition["type"] == "Ready":
                    last = f"{condition['reason']}: {condition['message']}"
            await self.clock.sleep(0.05)
        log = self.paths.logs / "agent.log"
        raise DriverError("HostNotReady", f"host {self.host} is not Ready: {last}; the agent's log is {log}")

    def say_addresses(self) -> None:
        """What to open, and how a browser and an OpenAI client come to trust it."""
        urls = identities.urls(self.settings)
        ca = self.paths.ca_certificate
        lines = (
            "",
            f"  Portal      {urls['portal']}   (trust {ca} in the browser)",
            f"  OpenAI API  {urls['gateway']}   (SSL_CERT_FILE={ca})",
            f"  kubectl     export KUBECONFIG={shlex.quote(str(self.paths.kubeconfig))}",
            f"  CLI         {program()} --state {shlex.quote(str(self.paths.state))} get hosts",
            "",
        )
        self.steps.say("\n".join(lines))

    async def _supervise(self) -> None:
        while True:
            await self.supervisor.check()
            await self.clock.sleep(_CHECK_SECONDS)

    async def stop(self) -> None:
        """Stop the parts; guests and engines go on."""
        await self.close()
        await self.supervisor.stop()

    async def close(self) -> None:
        """Let go of the client, and supervise no more."""
        if self._supervising is not None:
            self._supervising.cancel()
            await asyncio.wait({self._supervising})
        if self._client is not None:
            await self._client.close()


def program() -> str:
    """What to type to run us: the word, or the file where the shell would not find that."""
    ours = Path(sys.executable).with_name("bessemer")
    return "bessemer" if shutil.which("bessemer") or not ours.exists() else shlex.quote(str(ours))


async def _answers(transport: Transport) -> bool:
    from bessemer.client import Ask

    try:
        await transport.request(Ask(method="GET", path="/readyz"))
    except (BessemerError, OSError):
        return False
    return True

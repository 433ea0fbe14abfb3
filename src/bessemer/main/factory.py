"""One installation being started: parts in their order, until the local Host is Ready, and an administrator's client.

Every step finds what an earlier start has made, so that it may be interrupted anywhere and repeated.
"""

from __future__ import annotations

import asyncio
import shutil
from importlib import resources
from typing import TYPE_CHECKING, Any

import orjson
import yaml

from bessemer.core.clock import SystemClock
from bessemer.core.errors import AlreadyExists, BessemerError, DriverError, NotFound, Unavailable
from bessemer.core.resource import Key
from bessemer.core.units import show_bytes
from bessemer.drivers.process.parts import HostParts
from bessemer.main import identities
from bessemer.main.parts import AGENT, CONTROL, FAKE, GATEWAY, command
from bessemer.main.settings import METRICS_SOCKET, TOKEN_FILE, Paths, Settings, host_name, joined, save
from bessemer.main.steps import Steps
from bessemer.main.supervisor import Supervisor, last_words
from bessemer.main.watch import Watch

if TYPE_CHECKING:
    # Imported where it is used: the parts are started before, and read their own code meanwhile.
    from bessemer.client import Client, Transport

READY_SECONDS = 60.0
_DEATHS_MAX = 3
_FULL_BYTES = 1 << 20


class Factory:
    """One installation being started: its supervisor, and an administrator's client to it."""

    def __init__(self, paths: Paths, settings: Settings, *, steps: Steps, parts: HostParts | None = None) -> None:
        self.paths = paths
        self.settings = settings
        self.steps = steps
        self.clock = SystemClock()
        self.supervisor = Supervisor(parts or HostParts(), self.clock)
        self._client: Client | None = None
        self._watch = Watch(self.supervisor, paths.state / METRICS_SOCKET)

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
        """Start or adopt every part, until the local Host is Ready; they are supervised until `close`."""
        await self._watch.beside(self._start())
        self._watch.tell()

    async def hold(self) -> None:
        """Wait until cancelled. Raises what supervision raised."""
        await self._watch.beside(asyncio.Event().wait())

    async def _start(self) -> None:
        with self.steps.step("Keys and certificates"):
            identities.prepare(self.paths, self.settings)
            identities.write_kubeconfig(self.paths, self.settings)
            save(self.paths, self.settings)
        with self.steps.step("Control plane: api, controller, portal") as step:
            part = await self.supervisor.start(command(self.paths, CONTROL))
            # An agent reads its code while the api does, and waits for what it needs of it. One that has joined is
            # started once its Host is known to be there.
            if not joined(self.paths):
                (self.paths.agent / TOKEN_FILE).unlink(missing_ok=True)
                await self.supervisor.start(command(self.paths, AGENT))
            # The gateway does once this process has read its own: there are few cores, and the api is to have one.
            transport = self.client.transport
            gateway = await self.supervisor.start(command(self.paths, GATEWAY))
            await self._answers(transport, CONTROL, what="the control plane")
            step.note = f"pid {part.pid}"
        with self.steps.step(f"Agent: joins, inspects this machine, host {self.host} is Ready") as step:
            await self._enrol()
            part = await self.supervisor.start(command(self.paths, AGENT))
            await self.host_ready()
            step.note = f"pid {part.pid}"
        with self.steps.step("Gateway answers") as step:
            await self._gateway_answers()
            step.note = f"pid {gateway.pid}"
        with self.steps.step("Prices, flavors; an image and a model, imported in the background"):
            # Last of all: what they start keeps a machine busy for a while.
            await self._defaults()
        if self.settings.fake_hosts:
            with self.steps.step(f"Agents of {self.settings.fake_hosts} fake hosts") as step:
                part = await self.supervisor.start(command(self.paths, FAKE))
                step.note = f"pid {part.pid}, they join in the background"

    async def _answers(self, transport: Transport, part: str, *, what: str) -> None:
        """Return when a part answers. Raises DriverError with its last words where it does not."""
        log = self.paths.logs / f"{part}.log"
        deadline = self.clock.monotonic() + READY_SECONDS
        while not await _is_ready(transport):
            if self.supervisor.failures(part) >= _DEATHS_MAX:
                raise DriverError("PartDied", f"{what} does not stay up{self._full() or last_words(log)}")
            if self.clock.monotonic() > deadline:
                raise DriverError("PartSilent", f"{what} does not answer{last_words(log)}")
            await self.clock.sleep(0.05)

    def _full(self) -> str:
        """Why a part has no last words: nothing can be written."""
        free = shutil.disk_usage(self.paths.state).free
        return f": {self.paths.state} has {show_bytes(free)} left; make room there" if free < _FULL_BYTES else ""

    async def _gateway_answers(self) -> None:
        from bessemer.client import HttpTransport, tls_context

        url = identities.urls(self.settings)["gateway"].removesuffix("/v1")
        transport = HttpTransport(url, tls=tls_context(self.paths.ca_certificate.read_bytes(), None), token="")
        try:
            await self._answers(transport, GATEWAY, what="the gateway")
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
        from bessemer.client import an_object

        spec = {"site": self.settings.site, "overcommitMilli": self.settings.overcommit_milli}
        made = await self.create(an_object(Key("Host", "", self.host), spec))
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

    async def stop(self) -> None:
        """Stop the parts; guests and engines go on."""
        await self.close()
        await self.supervisor.stop()

    async def close(self) -> None:
        """Let go of the client, and supervise no more."""
        await self._watch.close()
        if self._client is not None:
            await self._client.close()


async def _is_ready(transport: Transport) -> bool:
    from bessemer.client import Ask

    try:
        await transport.request(Ask(method="GET", path="/readyz"))
    except (BessemerError, OSError):
        return False
    return True

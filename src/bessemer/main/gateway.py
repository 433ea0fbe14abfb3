"""The gateway's process: tables by watch, spool on disk, a listener."""

from __future__ import annotations

import asyncio
import socket
import ssl
import uuid
from collections.abc import Awaitable
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from bessemer.agent.listener import serve_metrics
from bessemer.api import listen, server_tls
from bessemer.api.accepting import Accepting
from bessemer.api.limit import network
from bessemer.api.listener import Doors, strangers_max
from bessemer.client import Ask as Request
from bessemer.client import Client, HttpTransport, tls_context
from bessemer.core.clock import Clock, SystemClock
from bessemer.drivers.addresses import Address, literal
from bessemer.drivers.bucket.real import S3Buckets
from bessemer.drivers.engine.doors import default_folder
from bessemer.drivers.fetch.reach import Reach
from bessemer.gateway import (
    Admission,
    CutOff,
    Follower,
    Front,
    Gateway,
    GatewayFacts,
    Lending,
    Logbook,
    Patience,
    Pulse,
    Reporter,
    Settler,
    Spool,
    Tables,
)
from bessemer.gateway.doors import FolderOf
from bessemer.gateway.lookups import Lookups, Resolver
from bessemer.gateway.metrics import GatewayMetrics
from bessemer.gateway.older import Older
from bessemer.gateway.outer import Outward, Services
from bessemer.gateway.upstream import watch
from bessemer.main import identities
from bessemer.main.settings import METRICS_SOCKET, Paths, Settings, fake_host_name, gateway_of, host_name

_GIVE_BACK_SECONDS = 2.0
"""What a gateway that ends may take to give back the money that it holds."""

DRAIN_SECONDS = 7.0
"""What answers that were begun may take when it ends: less than the process is given, and what it holds is given back
after that."""

_ALIVE = Request(method="GET", path="/livez")

_log = structlog.get_logger("gateway")


class Accounts:
    """What one process of a gateway keeps in ``folder``, and whom it tells of that."""

    def __init__(self, paths: Paths, settings: Settings, *, folder: Path, clock: Clock) -> None:
        self.spool = Spool(folder / "spool")
        certificate, key = paths.certificate(identities.GATEWAY)
        tls = tls_context(paths.ca_certificate.read_bytes(), (certificate.read_bytes(), key.read_bytes()))
        self.transport = HttpTransport(identities.urls(settings)["api"], tls=tls)
        self.client = Client(self.transport, plurals=None)
        self.holder = holder = _uid(folder)
        before, agents = self.spool.waiting, self.client.agents
        self.admission = Admission(
            Lending(Older(agents.lend, agents.share).ask, clock=clock, holder=holder, before=before)
        )
        self.settler = Settler(
            self.spool, agents.usage, clock=clock, gateway_uid=holder, settled=self.admission.settled
        )
        self.left = partial(agents.held, holder)
        """The projects of which the api was told that this one, or one before it, holds something."""

    async def close(self, *words: Awaitable[None]) -> None:
        """Give back what is held, and say these last ``words``; what is not settled waits for the next start."""
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(self.admission.say(last=True), *words), _GIVE_BACK_SECONDS)
        self.spool.close()
        await self.client.close()


async def run_gateway(paths: Paths, settings: Settings, *, stop: asyncio.Event, number: int = 1) -> None:
    """Run until cancelled, which ``stop`` announces; what is not settled waits in the spool for the next start.
    ``number`` tells the processes of one port apart."""
    clock, folder = SystemClock(), gateway_of(paths, number)
    accounts = Accounts(paths, settings, folder=folder, clock=clock)
    client, transport, admission = accounts.client, accounts.transport, accounts.admission
    services = Services(client.agents.endpoint_secret, clock)
    logbook = book_of(client, settings, name=accounts.holder, clock=clock)
    tables = Tables(doors_of(paths, settings), services, logbook=logbook)
    follower = Follower(client, tables, clock=clock)
    facts = GatewayFacts(
        tables=tables,
        spool=accounts.spool,
        clock=clock,
        metrics=GatewayMetrics(CollectorRegistry()),
        secret=identities.key_of(paths, identities.GATEWAY_KEY),
        tls=_doors(paths),
        patience=Patience(settings.first_byte_seconds, settings.whole_answer_seconds, settings.answer_pause_seconds),
        admission=admission,
        cut_off=CutOff(follower.silent, settings.cut_off_seconds),
        vouch=client.agents.bearer,
        outward=outward(settings),
    )
    pulse = Pulse(lambda: transport.request(_ALIVE), transport.close, listen=transport.listen, clock=clock)
    app = Gateway(facts, follower.ready)
    reporter = Reporter(
        lambda: list(tables.endpoints.values()),
        client.agents.loads,
        holder=accounts.holder,
        clock=clock,
        logs=logbook.said,
    )
    app.waking.rouse = reporter.soon
    facts.metrics.logged, facts.metrics.log_bytes = logbook.tally, lambda: logbook.room.held
    _log.info("gateway listens", address=settings.listen, port=settings.gateway_port, number=number)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(follower.run())
            group.create_task(services.run())
            group.create_task(logbook.run())
            group.create_task(accounts.settler.run())
            group.create_task(pulse.run())
            group.create_task(reporter.run())
            group.create_task(admission.run(accounts.left, clock=clock))
            group.create_task(serve_metrics(facts.metrics.registry, folder / METRICS_SOCKET))
            on = listen(settings.listen, settings.gateway_port, shared=max(settings.gateways, number) > 1)
            shown = server_tls(identities.pair_of(paths, identities.GATEWAY))
            group.create_task(serve(app, clock=clock, on=on, tls=shown, stop=stop))
    finally:
        await accounts.close(reporter.say(last=True), logbook.close())


async def serve(
    app: Gateway, *, clock: Clock, on: socket.socket, tls: ssl.SSLContext | None, stop: asyncio.Event
) -> None:
    """Serve until ``stop`` is set or the task is cancelled; then answers are finished within `DRAIN_SECONDS`. Closes
    ``on``."""
    doors = Doors(strangers_max())
    if on.family != socket.AF_UNIX:
        watch(on)  # a client that is gone without a word: its engine would work for nobody
    front = Front(
        app,
        clock,
        enter=lambda address: doors.enter(network(address)),
        leave=lambda address: doors.leave(network(address)),
        sweep=app.sweep,
    )
    app.watch(front)
    accepting = asyncio.ensure_future(Accepting(on, front.connect, tls=tls).run())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({accepting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (accepting, stopping):
            task.cancel()
        await asyncio.gather(accepting, stopping, return_exceptions=True)
        on.close()
        await front.close(DRAIN_SECONDS)


def outward(settings: Settings) -> Outward:
    """Whom this gateway may ask elsewhere, and by whose word it believes that they are who they say."""
    reach = Reach.of(settings.externals_allowed)

    def allows(host: str, address: Address | None) -> bool:
        return reach.names(host, literal(host)) if address is None else reach.allows(host, address)

    return Outward(allows, ssl.create_default_context())


def book_of(client: Client, settings: Settings, *, name: str, clock: Clock) -> Logbook:
    """What tenants want logged, in their own places. A process begun anew gives its objects other names."""
    lookups = Lookups()

    def resolver(host: str) -> Resolver:
        # Who is dialled the driver judges. Of one tenant few are worked for at a time: each name counts by itself.
        return Resolver(lookups, lambda *_: True, project=host.replace("--", "-"))

    reach = Reach.of(settings.externals_allowed)
    buckets = S3Buckets(reach, ssl.create_default_context(), resolver=resolver)
    name = f"{name[:8]}-{uuid.uuid4().hex[:8]}"
    return Logbook(buckets.open, client.workloads.kept_keys, clock=clock, name=name)


def doors_of(paths: Paths, settings: Settings) -> FolderOf:
    """Where the doors of the hosts are that share this machine: of the local one, and of the fake ones."""
    local, fake = settings.host_name or host_name(), frozenset(map(fake_host_name, range(settings.fake_hosts)))
    own, fakes = default_folder(paths.agent), default_folder(paths.fake)
    return lambda host: own if host == local else fakes if host in fake else None


def _doors(paths: Paths) -> ssl.SSLContext:
    # A door shows its host's certificate, whose name the gateway checks against the replica's host.
    context = ssl.create_default_context(cafile=str(paths.ca_certificate))
    certificate, key = paths.certificate(identities.GATEWAY)
    context.load_cert_chain(certificate, key)
    return context


def _uid(folder: Path) -> str:
    """This gateway's name, for people who look at who sent what; what is settled hangs on the spool's own uid."""
    file = folder / "uid"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        identities.write_private(file, uuid.uuid4().hex.encode())
    return file.read_text().strip()

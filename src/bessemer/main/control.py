"""Api and controller of one process, put together over one store.

The controller has no room of its own: it is the loop over the control side of KINDS.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import CollectorRegistry

from bessemer import __version__
from bessemer.api import ApiContext, Ports, Terms, listen, make_app, serve, server_tls
from bessemer.api.others import PATH
from bessemer.core.clock import SystemClock
from bessemer.core.errors import BessemerError
from bessemer.core.ports import CONTROLLER
from bessemer.drivers.fetch.pip import PipImporter
from bessemer.drivers.fetch.real import HostContent
from bessemer.drivers.guest.real import DebianGuest
from bessemer.drivers.oidc.real import HttpIssuers
from bessemer.kinds import KINDS
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.heartbeats import Heartbeats
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.kinds.fleet.queueing import Foresight, Queueing
from bessemer.kinds.inference.loads import LoadFeed
from bessemer.loop import Loop
from bessemer.loop.metrics import Metrics
from bessemer.main import identities
from bessemer.main.contents import Contents
from bessemer.main.garbage import WALKS
from bessemer.main.importer import ControlImporter
from bessemer.main.models import model_drivers
from bessemer.main.placed import PlacementFigures
from bessemer.main.settings import METRICS_SOCKET, Paths, Settings
from bessemer.main.stalls import Stalls
from bessemer.main.storage import agree, open_state
from bessemer.store.compaction import History

if TYPE_CHECKING:
    from bessemer.client import Socket

_LEAVE_SECONDS = 7.0
"""For what is at work when a controller is told to end, and its leases."""

_REPLICA_PING_SECONDS = 8.0
"""Between replicas, of which there are few: whoever reads a log through another does not wait long for one that is cut
off."""

_log = structlog.get_logger("server")


async def run_control(
    paths: Paths, settings: Settings, *, parts: tuple[str, ...], stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    """Run ``api``, ``controller`` or both until cancelled; ``ready`` is called once the api listens."""
    # The thread of commits shares the interpreter with the event loop: it is to go on once the disk has answered.
    sys.setswitchinterval(0.0005)
    control = _Control(paths, settings)
    agreed = False
    try:
        if settings.store:
            await agree(control.store, paths)
        agreed = True
        async with asyncio.TaskGroup() as group:
            for work in _works(control, paths=paths, settings=settings, parts=parts, stop=stop, ready=ready):
                group.create_task(work)
            await asyncio.Event().wait()
    finally:
        await _close(control, sign=agreed)  # else the trail is another installation's


def _works(
    control: _Control,
    *,
    paths: Paths,
    settings: Settings,
    parts: tuple[str, ...],
    stop: asyncio.Event,
    ready: Callable[[], None],
) -> Iterator[Coroutine[Any, Any, None]]:
    """What these parts do, each for ever."""
    yield control.stalls.run()
    yield control.store.tend()
    yield control.fleet.run()
    if "controller" in parts:
        loop = control.loop()
        yield _led(loop) if settings.store else loop.run()
        yield control.heartbeats(loop).run()
        yield control.contents.run()
        yield control.loads(loop).run()
    if "api" in parts:
        on = listen(settings.listen, settings.api_port)
        tls = server_tls(identities.pair_of(paths, identities.SERVER), paths.ca_certificate.read_bytes())
        app = make_app(control.api())
        yield serve(app, on=on, tls=tls, stop=stop, ready=ready, close=app.close)
        _log.info("api listens", address=settings.listen, port=settings.api_port)
    else:
        from bessemer.agent.listener import serve_metrics

        yield serve_metrics(control.registry, paths.state / "controller" / METRICS_SOCKET)
        ready()


async def _close(control: _Control, *, sign: bool) -> None:
    """The store is closed whatever comes of the rest."""
    try:
        await control.importer.close()
        if sign:
            with suppress(BessemerError):  # the next process signs what this one could not
                await control.store.audit.sign()
    finally:
        control.store.close()


async def _led(loop: Loop[Context]) -> None:
    """Run until cancelled, then let go of what is led, so that others need not wait for it."""
    running = asyncio.ensure_future(loop.run())
    try:
        await asyncio.shield(running)
    finally:
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(loop.stop(), _LEAVE_SECONDS)
        finally:
            running.cancel()


class _Control:
    """What api and controller of one process share."""

    def __init__(self, paths: Paths, settings: Settings) -> None:
        self._paths = paths
        self._settings = settings
        self._clock = SystemClock()
        self.registry = CollectorRegistry()
        self._content = HostContent(paths.content)
        self.store = open_state(paths, settings, clock=self._clock, history=History(revisions=settings.keep_revisions))
        self.registry.register(self.store.metrics)
        self.registry.register(WALKS)
        self.stalls = Stalls(self._clock)
        self.registry.register(self.stalls)
        # A file admits one process; of those that share a database each has a name of its own.
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}" if settings.store else ""
        objects = self.store.objects
        self._feed = FleetFeed(objects, self._clock, order=self._name)
        self.registry.register(PlacementFigures(self._feed.audit))
        self.fleet = Queueing(self._feed, objects, clock=self._clock)
        self.contents = Contents(
            self._content, objects, clock=self._clock, grace_seconds=settings.content_grace_seconds
        )
        self.registry.register(self.contents)
        self.importer = ControlImporter(
            DebianGuest(),
            PipImporter(self._content),
            content=self._content,
            cache=paths.cache,
            models=model_drivers(settings, self._content, sealed=self.store.sealed),
        )

    def loop(self) -> Loop[Context]:
        """The controller: the control side of every kind."""
        store = self.store
        context = Context(
            objects=store.objects,
            capacity=store.capacity,
            ledger=store.ledger,
            leases=store.leases,
            fleet=self.fleet,
            importer=self.importer,
            issuers=HttpIssuers(),
            clock=self._clock,
        )
        return Loop(
            KINDS,
            context,
            objects=store.objects,
            leases=store.leases,
            events=store.events,
            clock=self._clock,
            writer=CONTROLLER,
            metrics=Metrics(self.registry),
            workers=self._settings.workers,
            **self._rivalry(),
        )

    def _rivalry(self) -> dict[str, Any]:
        """How the loop is told from others. A file admits one process, so a successor may take the leases back at once;
        of those that share a database, one that was killed may still have a write on its way."""
        if not self._name:
            return {"holder": "control"}
        return {
            "holder": self._name,
            "lease_seconds": self._settings.controller_lease_seconds,
        }

    def heartbeats(self, loop: Loop[Context]) -> Heartbeats:
        """What tells the loop of hosts that fall silent."""
        return Heartbeats(self.store.leases, self._clock, wake=loop.wake)

    def loads(self, loop: Loop[Context]) -> LoadFeed:
        """What tells the loop of endpoints that are to have another number of replicas."""
        return LoadFeed(loop.ctx.scalers, self.store.leases, clock=self._clock, wake=loop.wake)

    @asynccontextmanager
    async def _dial(self, url: str) -> AsyncIterator[Socket]:
        """Another replica, as a replica."""
        from bessemer.client import connect

        pair = self._paths.certificate(identities.REPLICA)
        client = connect(url, ca=self._paths.ca_certificate, cert=pair, ping_seconds=_REPLICA_PING_SECONDS)
        try:
            async with client.transport.socket(PATH, {}) as socket:
                yield socket
        finally:
            await client.close()

    def api(self) -> ApiContext:
        """What the api is given."""
        store, paths, urls = self.store, self._paths, identities.urls(self._settings)
        return ApiContext(
            ports=Ports(
                objects=store.objects,
                capacity=store.capacity,
                ledger=store.ledger,
                bounds=store.bounds,
                figures=store.figures,
                leases=store.leases,
                audit=store.audit,
                sealed=store.sealed,
                events=store.events,
            ),
            kinds={kind.name: kind for kind in KINDS},
            clock=self._clock,
            ca=identities.authority_of(paths),
            replica=identities.own_url(self._settings) if self._settings.store else "api",
            dial=self._dial if self._settings.store else None,
            unheard=store.unheard,
            gateway_key=identities.key_of(paths, identities.GATEWAY_KEY),
            content=self._content.find,
            version=__version__,
            terms=replace(
                Terms(),
                agent_certificate=self._settings.certificate_days * 86_400.0,
                lease=self._settings.lease_seconds,
                portal_url=urls["portal"],
                gateway_url=urls["gateway"],
            ),
            registries=(self.registry,),
            fleet=Foresight(self._feed, self.fleet),
        )

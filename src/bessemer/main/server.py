"""``bessemer server``: some of api, controller, portal and gateway in this process.

The controller has no room of its own: it is the loop over the control side of KINDS, put together here. The gateway
is a process apart (its own event loop), because a long list must never delay a token.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from bessemer import __version__
from bessemer.api import ApiContext, Pair, Ports, Terms, listen, make_app, serve, server_tls
from bessemer.cli.verbs import ServerOptions
from bessemer.core.clock import Clock, SystemClock
from bessemer.core.errors import Invalid
from bessemer.core.ports import CONTROLLER
from bessemer.drivers.fetch.pip import PipImporter
from bessemer.drivers.fetch.real import HostContent
from bessemer.drivers.guest.real import DebianGuest
from bessemer.kinds import KINDS
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.loop import Loop
from bessemer.loop.metrics import Metrics
from bessemer.main import identities
from bessemer.main.gateway import run_gateway
from bessemer.main.importer import ControlImporter
from bessemer.main.process import run
from bessemer.main.settings import Paths, Settings, load, state_directory
from bessemer.main.web import run_portal
from bessemer.store import Store, open_store, store_kinds
from bessemer.store.compaction import History

PARTS = ("api", "controller", "portal", "gateway")
_log = structlog.get_logger("server")


def serve_parts(options: ServerOptions) -> int:
    """Run the parts until told to stop. Raises Invalid for a part that there is not."""
    unknown = set(options.parts) - set(PARTS)
    if unknown or not options.parts:
        raise Invalid(f"no part is called {', '.join(sorted(unknown)) or '(nothing)'}; there are: {', '.join(PARTS)}")
    paths = Paths(state_directory(options.state))
    settings = load(paths)
    identities.prepare(paths, settings)
    return run(_together(paths, settings, parts=options.parts))


async def _together(paths: Paths, settings: Settings, *, parts: tuple[str, ...]) -> None:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        try:
            if "gateway" in parts:
                group.create_task(run_gateway(paths, settings))
            if "portal" in parts:
                group.create_task(run_portal(paths, settings))
            if {"api", "controller"} & set(parts):
                await _control(paths, settings, parts=parts, stop=stop)
            await asyncio.Event().wait()
        finally:
            stop.set()


async def _control(paths: Paths, settings: Settings, *, parts: tuple[str, ...], stop: asyncio.Event) -> None:
    clock = SystemClock()
    store = open_store(
        paths.store,
        clock=clock,
        kinds=store_kinds(KINDS),
        seal_key=identities.key_of(paths, identities.SEAL_KEY),
        history=History(revisions=settings.keep_revisions),
    )
    content = HostContent(paths.content)
    fleet = FleetFeed(store.objects, clock)
    registry = CollectorRegistry()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(store.tend())
            group.create_task(fleet.run())
            if "controller" in parts:
                group.create_task(
                    _loop(
                        store,
                        fleet,
                        content=content,
                        clock=clock,
                        settings=settings,
                        paths=paths,
                        metrics=Metrics(registry),
                    ).run()
                )
            if "api" in parts:
                context = _api_context(store, content, clock=clock, settings=settings, paths=paths)
                on = listen(settings.listen, settings.api_port)
                ca = paths.ca_certificate.read_bytes()
                group.create_task(serve(make_app(context), on=on, tls=server_tls(_pair(paths), ca), stop=stop))
                _log.info("api listens", address=settings.listen, port=settings.api_port)
            await asyncio.Event().wait()
    finally:
        store.close()


def _loop(
    store: Store,
    fleet: FleetFeed,
    *,
    content: HostContent,
    clock: Clock,
    settings: Settings,
    paths: Paths,
    metrics: Metrics,
) -> Loop[Context]:
    context = Context(
        objects=store.objects,
        capacity=store.capacity,
        ledger=store.ledger,
        leases=store.leases,
        fleet=fleet,
        importer=ControlImporter(DebianGuest(), PipImporter(content), cache=paths.cache),
        clock=clock,
    )
    kinds: list[Any] = [kind for kind in KINDS if kind.reconcile is not None or kind.finalize is not None]
    return Loop(
        kinds,
        context,
        objects=store.objects,
        leases=store.leases,
        events=store.events,
        clock=clock,
        writer=CONTROLLER,
        holder="control",  # the store admits one process, so a successor may take the leases back at once
        metrics=metrics,
        workers=settings.workers,
    )


def _api_context(store: Store, content: HostContent, *, clock: Clock, settings: Settings, paths: Paths) -> ApiContext:
    urls = identities.urls(settings)
    return ApiContext(
        ports=Ports(
            objects=store.objects,
            capacity=store.capacity,
            ledger=store.ledger,
            leases=store.leases,
            audit=store.audit,
            sealed=store.sealed,
            events=store.events,
        ),
        kinds={kind.name: kind for kind in KINDS},
        clock=clock,
        ca=identities.authority_of(paths),
        gateway_key=identities.key_of(paths, identities.GATEWAY_KEY),
        content=content.find,
        version=__version__,
        terms=replace(
            Terms(),
            agent_certificate=settings.certificate_days * 86_400.0,
            lease=settings.lease_seconds,
            portal_url=urls["portal"],
        ),
    )


def _pair(paths: Paths) -> Pair:
    certificate, key = paths.certificate(identities.SERVER)
    return Pair(certificate.read_bytes(), key.read_bytes())


def content_path(paths: Paths) -> Path:
    """Where the control side keeps content."""
    return paths.content

"""The portal's application: its routes, and what is made at the start and closed at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bessemer import __version__
from bessemer.client import connect, tls_context
from bessemer.core.clock import Clock, SystemClock
from bessemer.kinds import KINDS
from bessemer.portal import acts, door, embedding, keys, looks, measured, outside, people, using
from bessemer.portal.assets import Assets
from bessemer.portal.desk import Desks
from bessemer.portal.draw import Pen
from bessemer.portal.guard import Guard
from bessemer.portal.playground import Keyring, Playground
from bessemer.portal.settings import PortalSettings
from bessemer.portal.visit import Site, error_page, signed_in

SWEEP_SECONDS = 15.0

_log = structlog.get_logger("portal")


def make_portal(settings: PortalSettings, *, clock: Clock | None = None) -> Starlette:
    """The application, to be served over HTTPS (its cookie is Secure) with its lifespan run."""
    clock = clock or SystemClock()
    assets = Assets()
    gateway = settings.gateway_url.rstrip("/").removesuffix("/v1")
    settings = replace(settings, gateway_url=gateway)
    facts = {
        "factory": settings.factory,
        "version": settings.version or __version__,
        "gateway": gateway,
    }
    secure = gateway.startswith("https:")
    ca = settings.ca_path.read_bytes() if settings.ca_path else None
    site = Site(
        settings=settings,
        clock=clock,
        desks=Desks(
            lambda bearer: connect(settings.api_url, ca=settings.ca_path, token=bearer), partial(Keyring, clock), clock
        ),
        pen=Pen(clock=clock, asset=assets.url, facts=facts),
        assets=assets,
        playground=Playground(gateway, tls=tls_context(ca, None) if secure else None, clock=clock),
        kinds={kind.name: kind for kind in KINDS},
    )
    app = Starlette(
        routes=routes(assets),
        middleware=[Middleware(Guard), Middleware(GZipMiddleware, minimum_size=800, compresslevel=6)],
        exception_handlers={HTTPException: _no_route},
        lifespan=_lifespan,
    )
    app.router.redirect_slashes = False  # it would lead to whatever the Host header says
    app.state.site = site
    return app


async def close_portal(app: Starlette) -> None:
    """End every stream, so that a server that stops does not wait for browsers. The sessions themselves go on."""
    site: Site = app.state.site
    await site.desks.close()


def routes(assets: Assets) -> list[Route]:
    """Every route. What is not open to strangers goes through `signed_in`."""
    at = "/in/{scope}"
    pages = [
        ("/", looks.home),
        ("/overview", looks.overview_page),
        ("/fleet", looks.fleet_page),
        ("/hosts", looks.host_list),
        ("/hosts/{name}", looks.host_page),
        (f"{at}/instances", looks.instance_list),
        (f"{at}/instances/{{name}}", looks.instance_page),
        (f"{at}/endpoints", looks.endpoint_list),
        (f"{at}/endpoints/{{name}}", looks.endpoint_page),
        (f"{at}/endpoints/{{name}}/usage", looks.endpoint_usage),
        (f"{at}/invoice", looks.invoice_page),
        (f"{at}/invoice/rows", looks.invoice_rows),
        (f"{at}/keys", keys.keys_page),
        (f"{at}/keys/{{name}}", keys.key_page),
        (f"{at}/usage", using.usage_page),
        (f"{at}/usage/figures", using.figures),
        (f"{at}/playground", using.playground_page),
        (f"{at}/quota", looks.quota_page),
        (f"{at}/members", people.members_page),
        (f"{at}/credentials", people.credentials_page),
        ("/models/{name}", measured.model_page),
        (f"{at}/models/{{name}}", measured.own_page),
        ("/live", looks.live),
        ("/search", looks.search),
        *((f"/{section}", looks.kind_page) for section in looks.KINDS),
        ("/kinds/{plural}", looks.other_page),
        (f"{at}/kinds/{{plural}}", looks.other_page),
    ]
    writes = [
        ("/hosts/{name}/{act}", acts.host_act),
        (f"{at}/members", people.member_act),
        (f"{at}/credentials", people.credential_act),
        (f"{at}/keys", keys.key_act),
        (f"{at}/instances/{{name}}/{{act}}", acts.instance_act),
        (f"{at}/endpoints/{{name}}/chat", acts.chat),
        (f"{at}/endpoints/{{name}}/embed", embedding.embed),
        (f"{at}/endpoints/{{name}}/{{act}}", acts.endpoint_act),
    ]
    return [
        Route("/healthz", _alive),
        Route("/static/{digest}/{name:path}", assets.serve),
        Route("/signin", door.show),
        Route("/signin", door.enter, methods=["POST"]),
        Route("/signin/link", door.follow, methods=["POST"]),
        Route("/signin/with/{provider}", outside.begin),
        Route("/signin/callback", outside.back),
        Route("/signout", door.leave, methods=["POST"]),
        *(Route(path, signed_in(look)) for path, look in pages),
        *(Route(path, signed_in(act), methods=["POST"]) for path, act in writes),
    ]


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _no_route(request: Request, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 500
    return error_page(request, code)


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    site: Site = app.state.site
    sweeper = asyncio.create_task(_sweep(site))
    sweeper.add_done_callback(_swept)
    try:
        yield
    finally:
        sweeper.cancel()
        await asyncio.gather(sweeper, return_exceptions=True)
        await site.desks.close()
        await site.playground.close()


async def _sweep(site: Site) -> None:
    while True:
        await site.clock.sleep(SWEEP_SECONDS)
        await site.desks.sweep()


def _swept(sweeper: asyncio.Task[None]) -> None:
    """Without its sweeper a portal would keep every desk; nobody else looks at how it ended."""
    if not sweeper.cancelled():
        _log.error("the sweeper of idle sessions ended", exc_info=sweeper.exception())

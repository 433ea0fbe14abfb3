"""Listeners for plain ASGI applications of ours: HTTPS without client certificates, bounded heads and shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import structlog
import uvicorn

from bessemer.api import BoundedProtocol, listen
from bessemer.main import identities
from bessemer.main.settings import Paths, Settings

STOP_SECONDS = 5
_log = structlog.get_logger("web")


class _Quiet(uvicorn.Server):
    """Signals are the process's own affair, not the server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def tls_of(paths: Paths, identity: str) -> ssl.SSLContext:
    """TLS that shows one of our certificates and asks for none."""
    certificate, key = paths.certificate(identity)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


async def serve_web(
    app: Any, *, host: str, port: int, tls: ssl.SSLContext, close: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Serve until cancelled; then ``close`` ends what would go on for ever, before connections are waited for."""
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ssl_context_factory=lambda config, default: tls,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = _Quiet(config)
    serving = asyncio.create_task(server.serve(sockets=[listen(host, port)]))
    try:
        await asyncio.shield(serving)
    finally:
        if close is not None:
            await close()
        server.should_exit = True
        await serving


async def run_portal(paths: Paths, settings: Settings) -> None:
    """Run the portal until cancelled."""
    from bessemer.portal import PortalSettings, close_portal, make_portal

    urls = identities.urls(settings)
    told = PortalSettings(
        api_url=urls["api"],
        gateway_url=urls["gateway"],
        ca_path=paths.ca_certificate,
        certificate=paths.certificate(identities.PORTAL),
    )
    app = make_portal(told)
    _log.info("portal listens", address=settings.listen, port=settings.portal_port)
    tls = tls_of(paths, identities.SERVER)
    await serve_web(app, host=settings.listen, port=settings.portal_port, tls=tls, close=lambda: close_portal(app))

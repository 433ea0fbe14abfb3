"""The portal's part of a process."""

from __future__ import annotations

import asyncio
import socket

import structlog

from bessemer.api import serve, server_tls
from bessemer.main import identities
from bessemer.main.settings import Paths, Settings
from bessemer.portal import PortalSettings, close_portal, make_portal

_log = structlog.get_logger("portal")


async def run_portal(paths: Paths, settings: Settings, *, on: socket.socket, stop: asyncio.Event) -> None:
    """Run until cancelled, which ``stop`` announces."""
    urls = identities.urls(settings)
    told = PortalSettings(
        api_url=urls["api"],
        gateway_url=urls["gateway"],
        ca_path=paths.ca_certificate,
        certificate=paths.certificate(identities.PORTAL),
    )
    app = make_portal(told)
    _log.info("portal listens", address=settings.listen, port=settings.portal_port)
    tls = server_tls(identities.pair_of(paths, identities.SERVER))
    await serve(app, on=on, tls=tls, stop=stop, close=lambda: close_portal(app))

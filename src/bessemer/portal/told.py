"""Signing somebody in on their behalf: the api hears from which address they come, so that one who guesses passwords
does not lock out everybody else. It believes only the portal's own certificate, which this is the one place to show."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from bessemer.client import SOURCE_HEADER, Ask, Client, HttpTransport, Socket, Transport, plurals, tls_context
from bessemer.portal.settings import PortalSettings


class Told:
    """A transport that says for whom it asks."""

    def __init__(self, inner: Transport, source: str) -> None:
        self._inner = inner
        self._headers = {SOURCE_HEADER: source}

    async def request(self, ask: Ask) -> bytes:
        return await self._inner.request(replace(ask, headers={**ask.headers, **self._headers}))

    def stream(self, ask: Ask, *, silence: float | None = None) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self._inner.stream(replace(ask, headers={**ask.headers, **self._headers}), silence=silence)

    def socket(self, path: str, query: Mapping[str, str]) -> AbstractAsyncContextManager[Socket]:
        return self._inner.socket(path, query)

    async def close(self) -> None:
        await self._inner.close()


def for_stranger(settings: PortalSettings, source: str) -> Client:
    """A client without a session, for somebody at this address. ``close`` it at the end."""
    ca = settings.ca_path.read_bytes() if settings.ca_path else None
    pair = settings.certificate
    cert = (pair[0].read_bytes(), pair[1].read_bytes()) if pair else None
    tls = tls_context(ca, cert) if settings.api_url.startswith("https:") else None
    return Client(Told(HttpTransport(settings.api_url, tls=tls), source), plurals=plurals())

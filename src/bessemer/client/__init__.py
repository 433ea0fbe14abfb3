"""The typed client of the api. It implements `core.ports.Objects` over HTTPS for those who live outside the server.

``from_kubeconfig`` makes one for people, who are told of a kind that this release has not; ``connect`` makes one for
our own parts, which name no other and are spared the table of kinds. It is not a cache: every read is a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from bessemer.client.answers import Begun, Joined, Me, Offer, SignedIn
from bessemer.client.calls import SOURCE_HEADER
from bessemer.client.kubeconfig import Connection, read_kubeconfig
from bessemer.client.objects import Client, an_object, stored
from bessemer.client.transport import PING_SECONDS, Ask, HttpTransport, Socket, Transport, Unreachable, tls_context

__all__ = [
    "SOURCE_HEADER",
    "Ask",
    "Begun",
    "Client",
    "Connection",
    "HttpTransport",
    "Joined",
    "Me",
    "Offer",
    "SignedIn",
    "Socket",
    "Transport",
    "Unreachable",
    "an_object",
    "connect",
    "from_kubeconfig",
    "plurals",
    "read_kubeconfig",
    "stored",
    "tls_context",
]


def connect(
    url: str,
    *,
    ca: Path | None = None,
    cert: tuple[Path, Path] | None = None,
    token: str = "",
    ping_seconds: float = PING_SECONDS,
) -> Client:
    """A client for ``url``. ``cert`` is (certificate, key); the files are read now. ``ping_seconds`` is a transport's.
    ``close`` it at the end."""
    pair = (cert[0].read_bytes(), cert[1].read_bytes()) if cert else None
    return _client(Connection(url, ca.read_bytes() if ca else None, pair, token, ""), None, ping_seconds=ping_seconds)


def from_kubeconfig(path: Path, *, context: str = "", token: str = "") -> Client:
    """A client for a kubeconfig's current (or the named) context; ``token`` stands in for its credentials.
    Raises Malformed."""
    found = read_kubeconfig(path, context=context)
    return _client(replace(found, cert=None, token=token) if token else found, plurals())


def _client(to: Connection, known: Mapping[str, str] | None, *, ping_seconds: float = PING_SECONDS) -> Client:
    tls = tls_context(to.ca, to.cert) if to.url.startswith("https:") else None
    return Client(HttpTransport(to.url, tls=tls, token=to.token, ping_seconds=ping_seconds), plurals=known)


def plurals() -> dict[str, str]:
    """Kind → plural, of every kind of this release."""
    from bessemer.kinds import KINDS

    return {kind.name: kind.plural for kind in KINDS}

"""The resource api: Kubernetes' conventions over `core.ports`, with who may do what, and the routes beside them.

``make_app`` builds the ASGI application from an `ApiContext`; ``serve`` runs it over TLS. `api.routes` is the table of
contents: every route names its permission there. It holds no object and no state that a second replica would miss;
what one replica alone has (the agents' sockets) is named in the hosts' leases.

What is named here is imported at its first use, so that a process which wants the certificate authority alone (every
one of ours does) is spared the application.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bessemer.api.app import Api, make_app
    from bessemer.api.authn import Passwords, Sessions
    from bessemer.api.ca import CertificateAuthority, Pair, create_ca, load_ca
    from bessemer.api.context import ApiContext, Identity, Limits, Ports, Terms
    from bessemer.api.listener import listen, serve, server_tls

__all__ = [
    "Api",
    "ApiContext",
    "CertificateAuthority",
    "Identity",
    "Limits",
    "Pair",
    "Passwords",
    "Ports",
    "Sessions",
    "Terms",
    "create_ca",
    "listen",
    "load_ca",
    "make_app",
    "serve",
    "server_tls",
]

_HOMES = MappingProxyType(
    {
        "Api": "app",
        "ApiContext": "context",
        "CertificateAuthority": "ca",
        "Identity": "context",
        "Limits": "context",
        "Pair": "ca",
        "Passwords": "authn",
        "Ports": "context",
        "Sessions": "authn",
        "Terms": "context",
        "create_ca": "ca",
        "listen": "listener",
        "load_ca": "ca",
        "make_app": "app",
        "serve": "listener",
        "server_tls": "listener",
    }
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

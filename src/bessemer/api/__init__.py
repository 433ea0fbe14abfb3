"""The resource api: Kubernetes' conventions over `core.ports`, with who may do what, and the routes beside them.

``make_app`` builds the ASGI application from an `ApiContext`; ``serve`` runs it over TLS. `api.routes` is the table of
contents: every route names its permission there. It holds no object and no state that a second replica would miss;
what one replica alone has (the agents' sockets) is named in the hosts' leases.
"""

from bessemer.api.app import Api, make_app
from bessemer.api.authn import Passwords, Sessions
from bessemer.api.ca import CertificateAuthority, Pair, create_ca, load_ca
from bessemer.api.context import ApiContext, Identity, Limits, Ports, Terms
from bessemer.api.hosts import replica_secret
from bessemer.api.serve import listen, serve, server_tls

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
    "replica_secret",
    "serve",
    "server_tls",
]

"""What the api is given: ports, kinds, and the few things of the machine that a route needs. ``main`` builds it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from prometheus_client import CollectorRegistry

from bessemer.api.bounds import Bounds
from bessemer.api.ca import CertificateAuthority, Peer
from bessemer.api.others import Dial
from bessemer.core.bounds import Bounding
from bessemer.core.clock import Clock
from bessemer.core.ports import Audit, Capacity, Events, Leases, Ledger, Objects, Sealed, Writer
from bessemer.core.resource import Kind
from bessemer.core.served import Figures
from bessemer.drivers.ldap.protocol import Directories
from bessemer.drivers.ldap.real import LibLdap
from bessemer.drivers.oidc.protocol import Issuers
from bessemer.drivers.oidc.real import HttpIssuers
from bessemer.kinds.fleet.planning import Planner

MASTERS = "system:masters"
"""The group of the platform's administrators."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request shows. ``source`` is the address it comes from."""

    peer: Peer | None = None
    authorization: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. ``name`` is a user's name, or the host's for an agent; ``session`` names the Session that says so;
    ``credential`` the ApplicationCredential that does, and ``bounds`` what that may at most (None: all that its owner
    may)."""

    kind: Literal["user", "agent", "gateway", "portal"]
    name: str
    admin: bool = False
    groups: tuple[str, ...] = ()
    session: str = ""
    provider: str = ""
    """The IdentityProvider that vouches for them, where one does."""

    bounds: Bounds | None = None
    credential: str = ""

    def writer(self, request_id: str = "", source: str = "") -> Writer:
        """How the ports name this identity."""
        kind: Literal["user", "agent", "gateway"] = "user" if self.kind == "portal" else self.kind
        name = f"{self.name}/{self.credential}" if self.credential else self.name
        return Writer(kind, name, request_id=request_id, source=source)


class Authenticator(Protocol):
    """Who a request is from."""

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        """None where nothing is shown. Raises Unauthenticated where what is shown is worth nothing."""
        ...


class Closing(Protocol):
    """Tells long-lived answers that the server stops."""

    async def wait(self) -> Any: ...

    def is_set(self) -> bool: ...


Find = Callable[[str], Awaitable[Path | None]]
"""Content by digest: its path, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Storage, as the api reaches it."""

    objects: Objects
    capacity: Capacity
    ledger: Ledger
    bounds: Bounding
    figures: Figures
    leases: Leases
    audit: Audit
    sealed: Sealed
    events: Events


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what one request, and one stranger, may ask. ``recheck_seconds``: how long a log or a console goes on
    for somebody whose session has run out; what is withdrawn ends at once."""

    body_bytes: int = 1 << 20
    yaml_bytes: int = 256 << 10
    body_seconds: float = 30.0
    depth: int = 64
    login_burst: int = 10
    login_seconds: float = 6.0
    bearer_burst: int = 100
    bearer_seconds: float = 0.1
    secrets_burst: int = 30
    secrets_seconds: float = 2.0
    bookmark_seconds: float = 60.0
    recheck_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """For how long things hold, in seconds, and where a person signs in."""

    agent_certificate: float = 30 * 86_400.0
    lease: float = 60.0
    join_token: float = 3600.0
    link: float = 900.0
    portal_session: float = 12 * 3600.0
    cli_session: float = 30 * 86_400.0
    portal_url: str = "https://127.0.0.1:7444"
    gateway_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiContext:
    """One per process. ``authenticator`` None is the product's own (certificates, sessions); ``replica`` names this
    process in leases, by the address at which others ``dial`` it; ``unheard`` says for how many seconds it has not
    known how far the database is; ``gateway_key`` makes the replicas' secrets; ``content`` finds bytes by digest;
    ``registries`` hold what else this process counts, for ``/metrics``; ``fleet`` decides for who plans."""

    ports: Ports
    kinds: Mapping[str, Kind[Any, Any]]
    clock: Clock
    ca: CertificateAuthority
    gateway_key: bytes
    content: Find
    issuers: Issuers = field(default_factory=HttpIssuers)
    directories: Directories = field(default_factory=LibLdap)
    authenticator: Authenticator | None = None
    replica: str = "api"
    dial: Dial | None = None
    unheard: Callable[[], float] = lambda: 0.0
    version: str = "0.1.0"
    limits: Limits = field(default_factory=Limits)
    terms: Terms = field(default_factory=Terms)
    registries: Sequence[CollectorRegistry] = ()
    fleet: Planner | None = None

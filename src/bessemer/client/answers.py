"""What the api answers of people and hosts, read: see `calls`, whose methods give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session. ``token`` is the bearer, shown this once; ``expires_at`` is RFC 3339."""

    token: str
    user: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class Me:
    """Who the server takes us for. ``tenants`` maps a tenant to the role in it; ``projects`` are those we may see."""

    name: str
    admin: bool
    tenants: Mapping[str, str]
    projects: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A provider by which people may sign in, and what a command line needs to ask its issuer itself."""

    name: str
    title: str
    issuer: str
    client_id: str
    scopes: tuple[str, ...]
    authorities: str
    private: bool
    plain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A sign-in that was begun: where the browser goes, and the secrets that its asker keeps."""

    url: str
    state: str
    nonce: str
    verifier: str
    issuer: str
    says_issuer: bool


@dataclass(frozen=True, slots=True)
class Joined:
    """A host's new certificate and the authority that signed it, both PEM."""

    certificate: str
    ca: str

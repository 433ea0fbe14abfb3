"""What can be asked of an OpenID issuer, in which words it answers and is refused.

All that an issuer says is hostile input: an implementation follows no redirect, reads a bounded number of bytes in a
bounded time, connects to no address that `Reach` does not allow, and gives values whose shape it has checked. Whether a
token is to be believed is not asked here: see `verify`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bessemer.core.errors import DriverError

_PAIRS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
ALGORITHMS = (*_PAIRS, "EdDSA", "Ed25519")
"""All that is ever taken, of what an issuer offers: signatures by a key pair. The last two are two names of one."""

FAILED = "IssuerFailed"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


def failed(message: str, *, internal: str = "") -> DriverError:
    """The error of an issuer that is silent, or says what cannot be used."""
    return DriverError(FAILED, message, internal=internal)


class GrantRefused(DriverError):
    """The issuer gave no tokens. ``code`` is OAuth's word: ``invalid_grant``, ``authorization_pending``, …"""

    def __init__(self, code: str) -> None:
        super().__init__("GrantRefused", f"the issuer refused: {code}")
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """An issuer and how it may be reached. ``authorities`` is PEM in place of the machine's; ``private`` allows
    addresses of private networks and of this machine, ``plain`` http to literal loopback besides https."""

    issuer: str
    authorities: str = ""
    private: bool = False
    plain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What an issuer says of itself, judged. Endpoints are URLs, "" where it has none; ``algorithms`` are those of
    `ALGORITHMS` that it signs with, ``says_issuer`` that its redirects carry ``iss``."""

    issuer: str
    authorization: str
    token: str
    jwks: str
    device: str = ""
    end_session: str = ""
    revocation: str = ""
    algorithms: tuple[str, ...] = ("RS256",)
    says_issuer: bool = False
    secret_in_body: bool = False
    """Its token endpoint takes a client's secret in the form alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """As whom we ask; a public client has no secret."""

    client_id: str
    secret: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a grant gave; "" is what it did not. ``id_token`` is not verified yet."""

    id_token: str = ""
    access_token: str = ""
    refresh_token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePrompt:
    """What a person is asked to do elsewhere; times in seconds."""

    device_code: str
    user_code: str
    url: str
    url_complete: str = ""
    interval: float = 5.0
    seconds: float = 600.0


class Issuers(Protocol):
    """Any issuer. Every method raises DriverError ``IssuerFailed`` with words for a person."""

    async def metadata(self, reach: Reach) -> Metadata:
        """Its discovery document. The issuer in it equals the one asked for, letter by letter."""
        ...

    async def keys(self, reach: Reach, metadata: Metadata) -> Sequence[Mapping[str, Any]]:
        """Its JSON Web Keys as they stand there; none is judged."""
        ...

    async def grant(self, reach: Reach, metadata: Metadata, *, party: Party, form: Mapping[str, str]) -> Tokens:
        """Ask its token endpoint. Raises GrantRefused."""
        ...

    async def device(self, reach: Reach, metadata: Metadata, *, party: Party, scope: str) -> DevicePrompt:
        """Begin a sign-in on another device. Raises GrantRefused."""
        ...

    async def revoke(self, reach: Reach, metadata: Metadata, *, party: Party, token: str) -> None:
        """Make a refresh token worth nothing, where the issuer can do that."""
        ...

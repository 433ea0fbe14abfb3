"""What a sign-in by code carries besides its code: a verifier, its challenge, the URL that a browser is sent to."""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from urllib.parse import urlencode

from bessemer.drivers.oidc.protocol import Metadata


def challenge_of(verifier: str) -> str:
    """RFC 7636's S256."""
    return urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Attempt:
    """The secrets of one sign-in by code, 256 random bits each; they stay with whoever began it."""

    state: str
    nonce: str
    verifier: str


def attempt() -> Attempt:
    """A new one."""
    return Attempt(*(secrets.token_urlsafe(32) for _ in range(3)))


def authorization_url(metadata: Metadata, made: Attempt, *, client_id: str, redirect_uri: str, scope: str) -> str:
    """Where the browser goes."""
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": scope,
        "state": made.state,
        "nonce": made.nonce,
        "code_challenge": challenge_of(made.verifier),
        "code_challenge_method": "S256",
    }
    if "offline_access" in scope.split():
        query["prompt"] = "consent"  # OpenID gives no refresh token without
    return f"{metadata.authorization}{'&' if '?' in metadata.authorization else '?'}{urlencode(query)}"

"""Whether a token is an issuer's word, and what it says. Pure: token, keys, rules and the time in, claims out.

Invariants: only a signature by a key pair counts (never ``none``, never a shared secret), by a key of that issuer which
fits the algorithm; what a token says about its own key (``jwk``, ``jku``, ``x5u``, ``x5c``) is refused, not ignored; a
member that stands twice is refused, since two readers could read two. ``kid`` is compared and never looked up anywhere.
Refusals tell a person what is wrong in general, and an attacker nothing of a key.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from bessemer.drivers.oidc.protocol import ALGORITHMS

if TYPE_CHECKING:
    # Read with the first key: a server without an issuer need not wait for it.
    from bessemer.drivers.oidc.signature import PublicKey

TOKEN_LENGTH_MAX = 16 << 10
KID_LENGTH_MAX = 256
SKEW_SECONDS = 60.0
"""How far an issuer's clock may be from ours."""
AGE_SECONDS_MAX = 86_400.0
"""A token is worth nothing so long after it was made, whatever it says itself."""
LOGOUT_SECONDS_MAX = 600.0
"""Who has left is told at once; what is told later may be an old word, told again."""
AUDIENCES_MAX = 16

_PART = re.compile(r"[A-Za-z0-9_-]+")
_OWN_KEY = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc", "epk", "apu", "apv", "p2s", "p2c"})
_ID_TYPES = frozenset({"", "jwt"})
_ACCESS_TYPES = frozenset({"at+jwt", "application/at+jwt"})
_LOGOUT_TYPES = frozenset({"", "jwt", "logout+jwt", "application/logout+jwt"})
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"


class TokenRefused(Exception):
    """Not to be believed; the text may be shown. ``unknown_key``: another look at the issuer's keys could help."""

    def __init__(self, message: str, *, unknown_key: bool = False) -> None:
        super().__init__(message)
        self.unknown_key = unknown_key


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """One public key of an issuer."""

    kid: str
    algorithms: frozenset[str]
    key: PublicKey

    @property
    def thumbprint(self) -> str:
        """RFC 7638: which key it is, whatever it is called."""
        return str(self.key.thumbprint())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a token must be. ``audiences`` are for ID tokens (and who they may be issued to), ``access`` for access
    tokens."""

    issuer: str
    algorithms: Collection[str]
    audiences: frozenset[str]
    access: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Read:
    """A token that was read and is not believed yet."""

    text: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    @property
    def issuer(self) -> str:
        """Who made it, as it says itself."""
        found = self.claims.get("iss")
        return found if isinstance(found, str) else ""


def read(token: str) -> Read:
    """Take it apart. Raises TokenRefused."""
    if len(token) > TOKEN_LENGTH_MAX:
        _refuse("it is too long")
    parts = token.split(".")
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts):
        _refuse("it is no signed token")
    header, claims = _json(parts[0]), _json(parts[1])
    if _OWN_KEY & header.keys():
        _refuse("it brings a key or an extension of its own")
    kid = header.get("kid", "")
    if not isinstance(kid, str) or len(kid) > KID_LENGTH_MAX:
        _refuse("its key's name is none")
    return Read(token, header, claims)


def keys_of(raw: Sequence[Mapping[str, Any]]) -> tuple[IssuerKey, ...]:
    """Those of an issuer's keys with which tokens may be signed; the others, and what is odd, are left out."""
    found = (_key(one) for one in raw)
    return tuple(one for one in found if one is not None)


def verified(token: Read, keys: Sequence[IssuerKey], *, rules: Rules, now: float) -> Mapping[str, Any]:
    """The claims of an ID token or an access token. Raises TokenRefused."""
    kind = _type(token)
    if kind in _ID_TYPES:
        audiences = rules.audiences | rules.access
    elif kind in _ACCESS_TYPES:
        audiences = rules.access
    else:
        _refuse("it is made for another purpose")
    _signature(token, keys, rules=rules)
    _common(token.claims, audiences, rules=rules, now=now)
    if "events" in token.claims:
        _refuse("it is made for another purpose")
    expires = _time(token.claims, "exp")
    if expires is None or expires <= now - SKEW_SECONDS:
        _refuse("it has expired")
    _subject(token.claims)
    return token.claims


def logout(token: Read, keys: Sequence[IssuerKey], *, rules: Rules, now: float) -> Mapping[str, Any]:
    """The claims of a back-channel logout token: ``sub``, ``sid`` or both. Raises TokenRefused."""
    if _type(token) not in _LOGOUT_TYPES:
        _refuse("it is made for another purpose")
    _signature(token, keys, rules=rules)
    claims = token.claims
    _common(claims, rules.audiences, rules=rules, now=now)
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict) or "nonce" in claims:
        _refuse("it tells of no logout")
    made, expires = _time(claims, "iat"), _time(claims, "exp")
    if (made or 0.0) <= now - LOGOUT_SECONDS_MAX or (expires is not None and expires <= now - SKEW_SECONDS):
        _refuse("it has expired")
    for name in ("sub", "sid"):
        if name in claims and not (isinstance(claims[name], str) and 0 < len(claims[name]) <= KID_LENGTH_MAX):
            _refuse("it names nobody")
    jti = claims.get("jti")
    if not {"sub", "sid"} & claims.keys() or not isinstance(jti, str) or not 0 < len(jti) <= KID_LENGTH_MAX:
        _refuse("it names nobody")
    return claims


# --- parts ------------------------------------------------------------------------------------------------------


def _refuse(message: str, *, unknown_key: bool = False) -> NoReturn:
    raise TokenRefused(message, unknown_key=unknown_key)


def _json(part: str) -> dict[str, Any]:
    try:
        raw = urlsafe_b64decode(part + "=" * (-len(part) % 4))
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, binascii.Error, RecursionError) as error:
        raise TokenRefused("it cannot be read") from error
    if not isinstance(value, dict):
        _refuse("it cannot be read")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a member stands twice")
    return made


def _no_number(_text: str) -> NoReturn:
    raise ValueError("no number")


def _type(token: Read) -> str:
    kind = token.header.get("typ", "")
    return kind.lower() if isinstance(kind, str) else "?"


def _signature(token: Read, keys: Sequence[IssuerKey], *, rules: Rules) -> None:
    algorithm = token.header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or algorithm not in rules.algorithms:
        _refuse("it is signed in a way that is not taken from this issuer")
    kid = token.header.get("kid", "")
    able = [key for key in keys if algorithm in key.algorithms and (not kid or key.kid == kid)]
    if not able or (not kid and len(able) > 1):
        _refuse("its issuer has no such key", unknown_key=True)
    from bessemer.drivers.oidc.signature import is_signed

    if not any(is_signed(token.text, one.key, algorithm=algorithm) for one in able[:4]):
        _refuse("its signature is not that of its issuer")


def _common(claims: Mapping[str, Any], audiences: Collection[str], *, rules: Rules, now: float) -> None:
    """Who made it, for whom, to whom, and when."""
    if claims.get("iss") != rules.issuer:
        _refuse("it is another issuer's")
    given = claims.get("aud")
    listed = given if isinstance(given, list) else [given]
    if len(listed) > AUDIENCES_MAX or not all(isinstance(one, str) for one in listed):
        _refuse("it says nobody that it is made for")
    if not set(listed) & set(audiences):
        _refuse("it is made for somebody else")
    party = claims.get("azp")
    if (party is not None or len(listed) > 1) and party not in rules.audiences | rules.access:
        _refuse("it was issued to somebody else")
    made, since = _time(claims, "iat"), _time(claims, "nbf")
    if made is None or made > now + SKEW_SECONDS or (since is not None and since > now + SKEW_SECONDS):
        _refuse("its time has not come")
    if made <= now - AGE_SECONDS_MAX - SKEW_SECONDS:
        _refuse("it was made too long ago")


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """Seconds since the epoch, or None where it is not said."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(f"its {name} is no time")
    if not math.isfinite(value) or not 0 <= value < 1 << 40:
        _refuse(f"its {name} is no time")
    return float(value)


def _subject(claims: Mapping[str, Any]) -> None:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        _refuse("it names nobody")


def _key(raw: Mapping[str, Any]) -> IssuerKey | None:
    """None for a key that is for something else, too weak, or none at all. Private parts are not read."""
    from bessemer.drivers.oidc.signature import public_key

    made = public_key(raw)
    operations = raw.get("key_ops", ["verify"])
    if made is None or raw.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    key, able = made
    only, kid = raw.get("alg"), raw.get("kid", "")
    if isinstance(only, str):
        able &= {"EdDSA", "Ed25519"} if only in ("EdDSA", "Ed25519") else {only}
    if not able or not isinstance(kid, str) or len(kid) > KID_LENGTH_MAX:
        return None
    return IssuerKey(kid, able, key)

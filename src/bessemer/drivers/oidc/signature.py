"""Signatures by joserfc, and which public keys are strong enough to make them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from bessemer.drivers.oidc.protocol import ALGORITHMS

RSA_BITS_MIN, RSA_BITS_MAX = 2048, 8192

PublicKey = RSAKey | ECKey | OKPKey

_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_ED = frozenset({"EdDSA", "Ed25519"})
_RSA = frozenset(one for one in ALGORITHMS if one[:2] in ("RS", "PS"))


class _Registry(jws.JWSRegistry):
    """joserfc's, with headers as long as we take them. What may stand in one is judged before."""

    max_header_length = 4096

    def get_alg(self, name: str) -> Any:
        """EdDSA is the elder name of Ed25519, the one curve that is taken here."""
        return super().get_alg("Ed25519" if name == "EdDSA" else name)


def is_signed(token: str, key: PublicKey, *, algorithm: str) -> bool:
    """Whether a compact token is signed by the key, in that way and no other."""
    registry = _Registry(algorithms=[algorithm, *(_ED if algorithm in _ED else ())], strict_check_header=False)
    try:
        jws.deserialize_compact(token, key, registry=registry)
    except (JoseError, ValueError):
        return False
    return True


def public_key(raw: Mapping[str, Any]) -> tuple[PublicKey, frozenset[str]] | None:
    """A JSON Web Key's public part, and the algorithms that it can be used with; None for what is no such key."""
    try:
        return _import(raw)
    except (JoseError, ValueError, TypeError, KeyError, OverflowError):
        return None


def _import(raw: Mapping[str, Any]) -> tuple[PublicKey, frozenset[str]] | None:
    kind, curve = raw.get("kty"), raw.get("crv")
    if kind == "RSA":
        rsa = RSAKey.import_key({"kty": "RSA", "n": raw["n"], "e": raw["e"]})
        sound = RSA_BITS_MIN <= rsa.raw_value.key_size <= RSA_BITS_MAX
        return (rsa, _RSA) if sound else None
    if kind == "EC" and isinstance(curve, str) and curve in _CURVES:
        ec = ECKey.import_key({name: raw[name] for name in ("kty", "crv", "x", "y")})
        return ec, frozenset({_CURVES[curve]})
    if kind == "OKP" and curve == "Ed25519":
        okp = OKPKey.import_key({name: raw[name] for name in ("kty", "crv", "x")})
        return okp, _ED
    return None

"""Issuers over HTTPS: what is asked of them, and how their answers are judged.

No redirect is followed, no proxy asked, no cookie kept; an answer is bounded in bytes and seconds (`asking`). An
address is judged where it is connected to, so that a name which resolves differently the second time gains nothing: of
private networks and this machine by permission alone, link-local (where clouds keep their secrets) and multicast
never.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote_plus, urlsplit

import orjson

from bessemer.drivers.oidc.places import judged_url
from bessemer.drivers.oidc.protocol import (
    ALGORITHMS,
    DevicePrompt,
    GrantRefused,
    Metadata,
    Party,
    Reach,
    Tokens,
    failed,
)

TEXT_LENGTH_MAX = 64 << 10
KEYS_MAX = 64
_DISCOVERY = "/.well-known/openid-configuration"
_WORD_LENGTH_MAX = 64


class HttpIssuers:
    """Implements `protocol.Issuers`. It keeps nothing; each call has a connection of its own."""

    async def metadata(self, reach: Reach) -> Metadata:
        said = await _ask(reach, reach.issuer.rstrip("/") + _DISCOVERY)
        return _metadata(reach, said)

    async def keys(self, reach: Reach, metadata: Metadata) -> Sequence[Mapping[str, Any]]:
        keys = (await _ask(reach, metadata.jwks)).get("keys")
        if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
            raise failed("the issuer's keys cannot be read")
        if len(keys) > KEYS_MAX:
            raise failed(f"the issuer lists more than {KEYS_MAX} keys")
        return keys

    async def grant(self, reach: Reach, metadata: Metadata, *, party: Party, form: Mapping[str, str]) -> Tokens:
        headers, fields = _signed(party, form, in_body=metadata.secret_in_body)
        said = await _ask(reach, metadata.token, form=fields, headers=headers)
        return Tokens(
            id_token=_text(said, "id_token"),
            access_token=_text(said, "access_token"),
            refresh_token=_text(said, "refresh_token"),
        )

    async def device(self, reach: Reach, metadata: Metadata, *, party: Party, scope: str) -> DevicePrompt:
        if not metadata.device:
            raise failed("the issuer has no sign-in by device code")
        headers, fields = _signed(party, {"scope": scope}, in_body=metadata.secret_in_body)
        said = await _ask(reach, metadata.device, form=fields, headers=headers)
        complete = _text(said, "verification_uri_complete")
        prompt = DevicePrompt(
            device_code=_text(said, "device_code"),
            user_code=_text(said, "user_code"),
            url=judged_url(reach, _text(said, "verification_uri"), what="verification_uri"),
            url_complete=judged_url(reach, complete, what="verification_uri_complete") if complete else "",
            interval=_number(said, "interval", default=5.0, low=1.0, high=60.0),
            seconds=_number(said, "expires_in", default=600.0, low=1.0, high=3600.0),
        )
        if not prompt.device_code or not prompt.user_code or not prompt.user_code.isprintable():
            raise failed("the issuer gave no code for another device")
        return prompt

    async def revoke(self, reach: Reach, metadata: Metadata, *, party: Party, token: str) -> None:
        from bessemer.drivers.oidc.asking import fetch

        if not metadata.revocation:
            return
        url = judged_url(reach, metadata.revocation, what="revocation_endpoint")
        form = {"token": token, "token_type_hint": "refresh_token"}
        headers, fields = _signed(party, form, in_body=metadata.secret_in_body)
        status, _ = await fetch(reach, url, place=urlsplit(url).hostname or "", form=fields, headers=headers)
        if status != 200:
            raise failed(f"the issuer answers with {status}")


# --- asking -----------------------------------------------------------------------------------------------------


async def _ask(
    reach: Reach, url: str, *, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The JSON object of an answer. Raises DriverError ``IssuerFailed``, and GrantRefused for OAuth's own errors."""
    # Read when an issuer is first asked: a server without one need not wait for it.
    from bessemer.drivers.oidc.asking import fetch

    judged_url(reach, url, what="URL")
    status, body = await fetch(reach, url, place=urlsplit(url).hostname or "", form=form, headers=headers or {})
    return _object(status, body, asked=form is not None)


def _object(status: int, body: bytes, *, asked: bool) -> dict[str, Any]:
    try:
        said = orjson.loads(body)
    except ValueError:
        said = None
    if asked and status in (400, 401, 403) and isinstance(said, dict):
        code = said.get("error")
        known = isinstance(code, str) and len(code) <= _WORD_LENGTH_MAX and code.replace("_", "").isalnum()
        raise GrantRefused(str(code) if known else "for no reason that it says")
    if status != 200:
        raise failed(f"the issuer answers with {status}")
    if not isinstance(said, dict):
        raise failed("the issuer answers with something else than a JSON object")
    return said


def _signed(party: Party, form: Mapping[str, str], *, in_body: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Headers and form by which a client says who it is."""
    if not party.secret:
        return {}, {**form, "client_id": party.client_id}
    if in_body:
        return {}, {**form, "client_id": party.client_id, "client_secret": party.secret}
    pair = f"{quote_plus(party.client_id)}:{quote_plus(party.secret)}"
    return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}, dict(form)


# --- reading ----------------------------------------------------------------------------------------------------


def _metadata(reach: Reach, said: Mapping[str, Any]) -> Metadata:
    if said.get("issuer") != reach.issuer:
        raise failed("the issuer calls itself by another name than spec.oidc.issuer")
    offered = said.get("id_token_signing_alg_values_supported", ["RS256"])
    algorithms = tuple(one for one in ALGORITHMS if isinstance(offered, list) and one in offered)
    if not algorithms:
        raise failed("the issuer signs with no algorithm that is taken here")
    ways = said.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    return Metadata(
        issuer=reach.issuer,
        authorization=judged_url(reach, _text(said, "authorization_endpoint"), what="authorization_endpoint"),
        token=judged_url(reach, _text(said, "token_endpoint"), what="token_endpoint"),
        jwks=judged_url(reach, _text(said, "jwks_uri"), what="jwks_uri"),
        device=_endpoint(reach, said, name="device_authorization_endpoint"),
        end_session=_endpoint(reach, said, name="end_session_endpoint"),
        revocation=_endpoint(reach, said, name="revocation_endpoint"),
        algorithms=algorithms,
        says_issuer=said.get("authorization_response_iss_parameter_supported") is True,
        secret_in_body=isinstance(ways, list) and "client_secret_basic" not in ways and "client_secret_post" in ways,
    )


def _endpoint(reach: Reach, said: Mapping[str, Any], *, name: str) -> str:
    found = _text(said, name)
    return judged_url(reach, found, what=name) if found else ""


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name, "")
    if not isinstance(value, str) or len(value) > TEXT_LENGTH_MAX:
        raise failed(f"the issuer's {name} is no text")
    return value


def _number(said: Mapping[str, Any], name: str, *, default: float, low: float, high: float) -> float:
    value = said.get(name, default)
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return min(max(float(value), low), high) if plain else default

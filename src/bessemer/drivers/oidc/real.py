"""Issuers over HTTPS.

No redirect is followed, no proxy asked, no cookie kept; an answer has at most `BYTES_MAX` bytes and comes within
`SECONDS_MAX`. An address is judged where it is connected to, so that a name which resolves differently the second time
gains nothing: of private networks and this machine by permission alone, link-local (where clouds keep their secrets)
and multicast never.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote_plus, urlsplit

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult

from bessemer.core.errors import DriverError
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

BYTES_MAX = 512 << 10
SECONDS_MAX = 8.0
URL_LENGTH_MAX = 2048
TEXT_LENGTH_MAX = 64 << 10
KEYS_MAX = 64
_DISCOVERY = "/.well-known/openid-configuration"
_WORD_LENGTH_MAX = 64


class HttpIssuers:
    """Implements `protocol.Issuers`. It keeps nothing; each call has a connection of its own."""

    async def metadata(self, reach: Reach) -> Metadata:
        said = await _ask(reach, "GET", reach.issuer.rstrip("/") + _DISCOVERY)
        return _metadata(reach, said)

    async def keys(self, reach: Reach, metadata: Metadata) -> Sequence[Mapping[str, Any]]:
        keys = (await _ask(reach, "GET", metadata.jwks)).get("keys")
        if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
            raise failed("the issuer's keys cannot be read")
        if len(keys) > KEYS_MAX:
            raise failed(f"the issuer lists more than {KEYS_MAX} keys")
        return keys

    async def grant(self, reach: Reach, metadata: Metadata, *, party: Party, form: Mapping[str, str]) -> Tokens:
        headers, fields = _signed(party, form, in_body=metadata.secret_in_body)
        said = await _ask(reach, "POST", metadata.token, form=fields, headers=headers)
        return Tokens(
            id_token=_text(said, "id_token"),
            access_token=_text(said, "access_token"),
            refresh_token=_text(said, "refresh_token"),
        )

    async def device(self, reach: Reach, metadata: Metadata, *, party: Party, scope: str) -> DevicePrompt:
        if not metadata.device:
            raise failed("the issuer has no sign-in by device code")
        headers, fields = _signed(party, {"scope": scope}, in_body=metadata.secret_in_body)
        said = await _ask(reach, "POST", metadata.device, form=fields, headers=headers)
        complete = _text(said, "verification_uri_complete")
        prompt = DevicePrompt(
            device_code=_text(said, "device_code"),
            user_code=_text(said, "user_code"),
            url=_url(reach, _text(said, "verification_uri"), what="verification_uri"),
            url_complete=_url(reach, complete, what="verification_uri_complete") if complete else "",
            interval=_number(said, "interval", default=5.0, low=1.0, high=60.0),
            seconds=_number(said, "expires_in", default=600.0, low=1.0, high=3600.0),
        )
        if not prompt.device_code or not prompt.user_code or not prompt.user_code.isprintable():
            raise failed("the issuer gave no code for another device")
        return prompt


# --- asking -----------------------------------------------------------------------------------------------------


async def _ask(
    reach: Reach,
    method: str,
    url: str,
    *,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The JSON object of an answer. Raises DriverError ``IssuerFailed``, and GrantRefused for OAuth's own errors."""
    _url(reach, url, what="a URL")
    place = urlsplit(url).hostname or ""
    try:
        connector = aiohttp.TCPConnector(resolver=_Judged(reach), ssl=_tls(reach), use_dns_cache=False)
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=SECONDS_MAX),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            ) as session,
            session.request(
                method,
                url,
                data=dict(form) if form is not None else None,
                headers={"Accept": "application/json", **(headers or {})},
                allow_redirects=False,
            ) as answer,
        ):
            return _object(answer.status, await _body(answer), asked=form is not None)
    except TimeoutError as error:
        raise failed(f"{place} does not answer within {SECONDS_MAX:.0f} s") from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise failed(f"{place} shows a certificate that nobody trusts here", internal=str(error)) from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise failed(f"{place} cannot be reached", internal=str(error)) from error


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > BYTES_MAX:
            raise failed(f"the issuer answers with more than {BYTES_MAX >> 10} KiB")
        parts.append(part)
    return b"".join(parts)


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
    basic = aiohttp.BasicAuth(quote_plus(party.client_id), quote_plus(party.secret)).encode()
    return {"Authorization": basic}, dict(form)


def _tls(reach: Reach) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=reach.authorities or None)
    except ssl.SSLError as error:
        raise failed("caBundle holds no certificates that can be read") from error


class _Judged(AbstractResolver):
    """Gives addresses that may be connected to, and no others."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        allowed = [one for one in found if _allowed(self._reach, one["host"])]
        if not allowed:
            raise failed(f"{host} stands at an address that is not allowed (allowPrivateAddress)")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


def _allowed(reach: Reach, address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found.sixtofour or found
    if found.is_loopback or (found.is_private and not found.is_link_local and not found.is_unspecified):
        return reach.private
    return found.is_global and not found.is_multicast


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
        authorization=_url(reach, _text(said, "authorization_endpoint"), what="authorization_endpoint"),
        token=_url(reach, _text(said, "token_endpoint"), what="token_endpoint"),
        jwks=_url(reach, _text(said, "jwks_uri"), what="jwks_uri"),
        device=_endpoint(reach, said, "device_authorization_endpoint"),
        end_session=_endpoint(reach, said, "end_session_endpoint"),
        algorithms=algorithms,
        says_issuer=said.get("authorization_response_iss_parameter_supported") is True,
        secret_in_body=isinstance(ways, list) and "client_secret_basic" not in ways and "client_secret_post" in ways,
    )


def _endpoint(reach: Reach, said: Mapping[str, Any], name: str) -> str:
    found = _text(said, name)
    return _url(reach, found, what=name) if found else ""


def _url(reach: Reach, text: str, *, what: str) -> str:
    """The URL. Raises DriverError for one that nobody may be sent to: another scheme, a name and password in it, an
    address that is not allowed."""
    try:
        url = urlsplit(text)
        host = url.hostname or ""
        literal = ipaddress.ip_address(host) if host and (host[0].isdigit() or ":" in host) else None
        fine = bool(host) and not url.username and not url.password and not url.fragment and url.port != 0
    except ValueError as error:
        raise failed(f"the issuer's {what} is no URL") from error
    if not fine or not text.isascii() or not text.isprintable() or " " in text or len(text) > URL_LENGTH_MAX:
        raise failed(f"the issuer's {what} is no URL")
    plain = url.scheme == "http" and reach.plain and literal is not None and literal.is_loopback
    if url.scheme != "https" and not plain:
        raise failed(f"the issuer's {what} must begin with https://")
    if literal is not None and not _allowed(reach, host):
        raise failed(f"{host} is an address that is not allowed (allowPrivateAddress)")
    return text


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name, "")
    if not isinstance(value, str) or len(value) > TEXT_LENGTH_MAX:
        raise DriverError("IssuerFailed", f"the issuer's {name} is no text")
    return value


def _number(said: Mapping[str, Any], name: str, *, default: float, low: float, high: float) -> float:
    value = said.get(name, default)
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return min(max(float(value), low), high) if plain else default

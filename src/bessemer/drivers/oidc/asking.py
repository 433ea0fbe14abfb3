"""One request to an issuer, bounded in every way: `real` says what is asked, and reads what comes."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import aiohttp

from bessemer.drivers.bounded import bounded
from bessemer.drivers.judged import Judged
from bessemer.drivers.oidc.places import is_allowed
from bessemer.drivers.oidc.protocol import Reach, failed

BYTES_MAX = 512 << 10
SECONDS_MAX = 8.0


async def fetch(
    reach: Reach, url: str, *, place: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str]
) -> tuple[int, bytes]:
    """Status and body of a GET, or of a POST where there is a ``form``. Raises DriverError ``IssuerFailed``."""
    try:
        connector = aiohttp.TCPConnector(resolver=_judged(reach), ssl=_tls(reach), use_dns_cache=False)
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=SECONDS_MAX),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            ) as session,
            session.request(
                "GET" if form is None else "POST",
                url,
                data=None if form is None else dict(form),
                headers={"Accept": "application/json", **headers},
                allow_redirects=False,
            ) as answer,
        ):
            return answer.status, await _body(answer)
    except TimeoutError as error:
        raise failed(f"{place} does not answer within {SECONDS_MAX:.0f} s") from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise failed(f"{place} shows a certificate that nobody trusts here", internal=str(error)) from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise failed(f"{place} cannot be reached", internal=str(error)) from error


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    body = await bounded(answer, BYTES_MAX)
    if body is None:
        raise failed(f"the issuer answers with more than {BYTES_MAX >> 10} KiB")
    return body


def _judged(reach: Reach) -> Judged:
    return Judged(
        lambda _, address: is_allowed(reach, address),
        lambda host: failed(f"{host} stands at an address that is not allowed (allowPrivateAddress)"),
    )


def _tls(reach: Reach) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=reach.authorities or None)
    except ssl.SSLError as error:
        raise failed("caBundle holds no certificates that can be read") from error

"""Which URLs and addresses an issuer may send us to."""

from __future__ import annotations

from urllib.parse import urlsplit

from bessemer.drivers.addresses import address_of, is_public, literal, reached
from bessemer.drivers.oidc.protocol import Reach, failed

URL_LENGTH_MAX = 2048


def is_allowed(reach: Reach, address: str) -> bool:
    """Whether a connection may go to a literal address."""
    found = reached(address_of(address))
    if found.is_link_local or found.is_multicast or found.is_unspecified:
        return False
    return is_public(found) or (reach.private and (found.is_loopback or found.is_private or found.is_global))


def judged_url(reach: Reach, text: str, *, what: str) -> str:
    """The URL. Raises DriverError for one that nobody may be sent to: another scheme, a name and password in it, an
    address that is not allowed."""
    try:
        url = urlsplit(text)
        host = url.hostname or ""
        fine = bool(host) and not url.username and not url.password and not url.fragment and url.port != 0
        address = literal(host)
    except ValueError as error:
        raise failed(f"the issuer's {what} is no URL") from error
    if not fine or not text.isascii() or not text.isprintable() or " " in text or len(text) > URL_LENGTH_MAX:
        raise failed(f"the issuer's {what} is no URL")
    plain = url.scheme == "http" and reach.plain and address is not None and address.is_loopback
    if url.scheme != "https" and not plain:
        raise failed(f"the issuer's {what} must begin with https://")
    if address is not None and not is_allowed(reach, host):
        raise failed(f"{host} is an address that is not allowed (allowPrivateAddress)")
    return text

"""Which URLs and addresses an issuer may send us to."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from bessemer.drivers.oidc.protocol import Reach, failed

URL_LENGTH_MAX = 2048


def is_allowed(reach: Reach, address: str) -> bool:
    """Whether a connection may go to a literal address."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found.sixtofour or found
    if found.is_loopback or (found.is_private and not found.is_link_local and not found.is_unspecified):
        return reach.private
    return found.is_global and not found.is_multicast


def judged_url(reach: Reach, text: str, *, what: str) -> str:
    """The URL. Raises DriverError for one that nobody may be sent to: another scheme, a name and password in it, an
    address that is not allowed."""
    try:
        url = urlsplit(text)
        host = url.hostname or ""
        fine = bool(host) and not url.username and not url.password and not url.fragment and url.port != 0
        literal = _literal(host)
    except ValueError as error:
        raise failed(f"the issuer's {what} is no URL") from error
    if not fine or not text.isascii() or not text.isprintable() or " " in text or len(text) > URL_LENGTH_MAX:
        raise failed(f"the issuer's {what} is no URL")
    plain = url.scheme == "http" and reach.plain and literal is not None and literal.is_loopback
    if url.scheme != "https" and not plain:
        raise failed(f"the issuer's {what} must begin with https://")
    if literal is not None and not is_allowed(reach, host):
        raise failed(f"{host} is an address that is not allowed (allowPrivateAddress)")
    return text


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is, or None for a name. Raises ValueError for what other readers take for an address:
    ``127.1``, ``2130706433``, ``0x7f.1``."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        if ":" in host or last.isdigit() or last.startswith("0x"):
            raise
        return None

"""Addresses as those are read who are sent to places that others name. Whom one may be sent to is each driver's own."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def address_of(text: str) -> Address:
    """An address as a resolver writes it. Raises ValueError."""
    return ipaddress.ip_address(text.partition("%")[0])


def literal(host: str) -> Address | None:
    """The address that a host is, or None for a name. Raises ValueError for what other readers take for an address:
    ``127.1``, ``2130706433``, ``0x7f.1``."""
    try:
        return address_of(host)
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        if ":" in host or last.isdigit() or last.lower().startswith("0x"):
            raise
        return None


def reached(address: Address) -> Address:
    """The address that is reached by way of this one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def is_public(address: Address) -> bool:
    """Whether it is somebody's on the internet. Of IPv6 nothing is that is not given out as such: among the rest are
    site-local addresses, and prefixes behind which a network's own translator has inner IPv4 addresses."""
    outside = address.version == 4 or not (address.is_reserved or address.is_site_local)
    return address.is_global and outside

"""Where sources may send us: to addresses of the public internet over https, and to what the operator names.

A name is resolved once and the addresses that were judged are those that are dialled, so that a name which resolves
differently the second time gains nothing. Never, whoever names it: link-local addresses, where clouds keep their
secrets, multicast, and what is no address of anybody.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from bessemer.core.errors import DriverError, Invalid
from bessemer.drivers.addresses import Address, address_of, is_public, literal, reached

REFUSED = "AddressRefused"
URL_LENGTH_MAX = 8192

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_METADATA = ipaddress.ip_address("fd00:ec2::254")


@dataclass(frozen=True, slots=True)
class Reach:
    """``hosts`` and ``networks`` are the operator's: these may be inner ones, and may be asked without TLS."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[_Network, ...] = ()

    @classmethod
    def of(cls, text: str) -> Reach:
        """Out of names, addresses and networks with commas between. Raises Invalid."""
        hosts, networks = set(), []
        for word in filter(None, (part.strip() for part in text.split(","))):
            try:
                networks.append(ipaddress.ip_network(word))
            except ValueError:
                if "/" in word or ":" in word or not word.isascii():
                    raise Invalid(f"{word[:80]!r} is no name, address or network") from None
                hosts.add(word.lower().rstrip("."))
        return cls(frozenset(hosts), tuple(networks))

    def check_url(self, text: str) -> SplitResult:
        """The URL in parts. Raises DriverError ``AddressRefused`` for one that nobody may be sent to."""
        try:
            url = urlsplit(text)
            host = url.hostname or ""
            fine = bool(host) and not url.username and not url.password and url.port != 0
        except ValueError:
            raise _refused("this is no URL") from None
        if not fine or not text.isascii() or not text.isprintable() or " " in text or len(text) > URL_LENGTH_MAX:
            raise _refused("this is no URL")
        address = _literal(host)
        if address is not None and not self.allows(host, address):
            raise inner(host)
        named = self.names(host, address)
        if url.scheme != "https" and not (url.scheme == "http" and named):
            raise _refused(f"{host} is asked over https alone, unless the operator names it (setting sourcesAllowed)")
        return url

    def allows_text(self, host: str, address: str) -> bool:
        """The same of an address as a resolver writes it."""
        return self.allows(host, address_of(address))

    def names(self, host: str, address: Address | None) -> bool:
        """Whether the operator named it."""
        named = host.lower().rstrip(".") in self.hosts
        return named or (address is not None and any(address in network for network in self.networks))

    def allows(self, host: str, address: Address) -> bool:
        """Whether a connection may go to this address of this name."""
        found = reached(address)
        if found.is_link_local or found.is_multicast or found.is_unspecified or found == _METADATA:
            return False
        return is_public(found) or self.names(host, found)


def _literal(host: str) -> Address | None:
    """The address that a host is, or None for a name. Raises DriverError for what is neither."""
    try:
        return literal(host)
    except ValueError:
        raise _refused(f"{host[:80]!r} is no name, and no address as one writes it") from None


def _refused(message: str) -> DriverError:
    return DriverError(REFUSED, message)


def inner(host: str) -> DriverError:
    """The error of a host that stands where nobody may be sent."""
    message = f"{host} stands at an inner address; the operator may name it (setting sourcesAllowed)"
    return DriverError(REFUSED, message)

"""Ports that somebody listens at later, or again: nobody else is given them meanwhile.

The kernel gives a port that was asked for and let go of to whoever asks next: to a test of another worker, while the
program that was told the number still starts. So it is not let go of: it stays bound, and is not listened at. Whoever
asks for any port is given another one; whoever is told this one may listen there, as often as it begins anew, for both
sides say SO_REUSEADDR. While nobody does, whoever dials is refused.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bessemer.main.settings import Settings, with_ports

ANY = Settings(api_port=0, portal_port=0, gateway_port=0)


def keeper(address: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """What keeps a port, any that is free where it is 0, until it is closed; by whoever inherits it, too."""
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound


@contextmanager
def held_port() -> Iterator[int]:
    """A TCP port of loopback at which nobody listens, and which nobody else is given while this holds."""
    with keeper() as held:
        yield int(held.getsockname()[1])


@contextmanager
def kept_ports(settings: Settings) -> Iterator[Settings]:
    """The settings with free ports for what is 0 or taken, which are theirs as long as the block lasts."""
    with keepers_of(settings) as (own, _):
        yield own


@contextmanager
def keepers_of(settings: Settings) -> Iterator[tuple[Settings, list[int]]]:
    """The same, and the descriptors by which they are: a process that inherits them keeps the ports as long as it
    lives."""
    own = with_ports(settings, find_free=True)
    with ExitStack() as stack:
        ports = (own.api_port, own.portal_port, own.gateway_port)
        keepers = [stack.enter_context(keeper(own.listen, port)) for port in ports]
        yield own, [each.fileno() for each in keepers]


def port_flags(settings: Settings) -> tuple[str, ...]:
    """As they are typed."""
    named = {"api": settings.api_port, "portal": settings.portal_port, "gateway": settings.gateway_port}
    return tuple(f"--{name}-port={port}" for name, port in named.items())

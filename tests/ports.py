"""Ports of an installation that begins to listen later, or again: nobody else is given them meanwhile.

They are bound here, and not listened at. So whoever asks the kernel for any port is given another one, and who is told
these may listen there, as often as it begins anew: both sides say SO_REUSEADDR.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bessemer.main.settings import Settings, with_ports

ANY = Settings(api_port=0, portal_port=0, gateway_port=0)


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
        keepers = [stack.enter_context(socket.socket()) for _ in range(3)]
        for keeper, port in zip(keepers, (own.api_port, own.portal_port, own.gateway_port), strict=True):
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            keeper.bind((own.listen, port))
        yield own, [keeper.fileno() for keeper in keepers]


def port_flags(settings: Settings) -> tuple[str, ...]:
    """As they are typed."""
    named = {"api": settings.api_port, "portal": settings.portal_port, "gateway": settings.gateway_port}
    return tuple(f"--{name}-port={port}" for name, port in named.items())

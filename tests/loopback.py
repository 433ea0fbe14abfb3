"""Ports of loopback that are told to a program before it listens there.

The kernel gives a port that was asked for and let go of to whoever asks next: to a test of another worker, while the
program that was told the number still starts. So it is not let go of: it stays bound, and is not listened at. Whoever
asks for any port is given another one; whoever is told this one may listen there, as often as it begins anew, for both
sides say SO_REUSEADDR. While nobody does, whoever dials is refused.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """A TCP port at which nobody listens, and which nobody else is given while this holds."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield int(keeper.getsockname()[1])

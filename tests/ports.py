"""Ports of loopback that are told to a program before it listens there.

The kernel gives a port that was asked for and let go of to whoever asks next: to a test of another worker, while
the program that was told the number still starts. The numbers here lie below those of which the kernel chooses, and
each is marked by a name of its own as long as it is held.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FIRST = 20_000
_CHOSEN = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES = 1000


@contextmanager
def held_port() -> Iterator[int]:
    """A TCP port at which nobody listens, and which nobody else is given while this holds."""
    end = int(_CHOSEN.read_text().split()[0])
    for _ in range(_TRIES):
        number = random.randrange(_FIRST, end)
        with socket.socket(socket.AF_UNIX) as name, socket.socket() as probe:
            try:
                name.bind(f"\0bessemer-tests-port-{number}")
                probe.bind(("127.0.0.1", number))
            except OSError:
                continue
            probe.close()
            yield number
            return
    raise AssertionError(f"no port from {_FIRST} to {end} is free")

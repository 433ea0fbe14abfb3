"""Connections on their way in: taken off a listening socket one in a turn of the loop, and shown our certificate at a
pace.

A handshake is a signature, which takes a millisecond that nobody can interrupt: a thousand that begin in one turn would
hold up everybody for a second. So a connection waits for its first bytes without TLS, costs little until they are here,
and then for its step, by turns of networks. Those that say nothing are bounded in number and time. What comes after the
handshake is the protocol's.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable

from bessemer.api.limit import network
from bessemer.core.clock import SystemClock
from bessemer.core.pace import Pace

HANDSHAKE_SECONDS = 10.0
ARRIVING_MAX = 2_048
"""Connections without a handshake, of which one address has no more than half."""

STARVED_SECONDS = 0.1
"""Until the next try where the process can open no more files."""


class Doors:
    """How many connections of a sort are open: ``most`` in all, of which one address has no more than half, so that no
    stranger keeps everybody else out."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()
        self._all = 0

    def enter(self, address: str) -> bool:
        """Whether there is room for one more; then `leave` it once."""
        if self._all >= self._most or self._open[address] >= self._most // 2:
            return False
        self._open[address] += 1
        self._all += 1
        return True

    def leave(self, address: str) -> None:
        """A connection has ended."""
        self._all -= 1
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]


class Accepting:
    """Of one listening socket. ``make`` makes the protocol of a connection; ``tls`` None is none."""

    def __init__(
        self,
        on: socket.socket,
        make: Callable[[], asyncio.Protocol],
        *,
        tls: ssl.SSLContext | None,
        pace: Pace | None = None,
    ) -> None:
        on.setblocking(False)
        self._on = on
        self._make = make
        self._tls = tls
        self._pace = pace or Pace(SystemClock(), steps=1, seconds=0.001)
        self._doors = Doors(ARRIVING_MAX)
        self._meetings: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Accept until cancelled; then what has not shaken hands is gone."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    arrived, address = await loop.sock_accept(self._on)
                except OSError:  # it has gone again, or there are no files left
                    await asyncio.sleep(STARVED_SECONDS)
                    continue
                self._begin(arrived, network(address[0]) if isinstance(address, tuple) else "")
        finally:
            for meeting in self._meetings:
                meeting.cancel()

    def _begin(self, arrived: socket.socket, source: str) -> None:
        if not self._doors.enter(source):
            arrived.close()
            return
        meeting = asyncio.ensure_future(self._meet(arrived, source))
        self._meetings.add(meeting)
        meeting.add_done_callback(self._meetings.discard)

    async def _meet(self, arrived: socket.socket, source: str) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await _first_bytes(arrived)
                await self._pace.enter(source)
                loop = asyncio.get_running_loop()
                await loop.connect_accepted_socket(self._make, arrived, ssl=self._tls)
        except (OSError, TimeoutError):  # which a failed handshake is, too
            arrived.close()
        except asyncio.CancelledError:
            arrived.close()
            raise
        finally:
            self._doors.leave(source)


async def _first_bytes(arrived: socket.socket) -> None:
    """Return once there is something to read, or the end of it."""
    loop = asyncio.get_running_loop()
    here: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not here.done():
            here.set_result(None)

    loop.add_reader(arrived.fileno(), tell)
    try:
        await here
    finally:
        loop.remove_reader(arrived.fileno())

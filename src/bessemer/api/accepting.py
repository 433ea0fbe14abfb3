"""Connections on their way in: taken off a listening socket one in a turn of the loop, and shown our certificate at a
pace.

A handshake is a signature, which takes a millisecond that nobody can interrupt: a thousand that begin in one turn would
hold up everybody for a second. So a connection waits for its first bytes without TLS, costs little until they are here,
and then for its step, by turns of networks. Those that say nothing are bounded in number and time, and apart from
them those that have said something. Where a room is full, the network that has most of it gives one up, so that
nobody's many keep another's one out. The last files that the process may open are no connection's. What comes after
the handshake is the protocol's.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial

from bessemer.api.limit import network
from bessemer.core.clock import SystemClock
from bessemer.core.descriptors import descriptors_max, kept
from bessemer.core.pace import Pace

HANDSHAKE_SECONDS = 10.0
ARRIVING_MAX, SPEAKING_MAX = 2_048, 4_096
"""Connections that have said nothing, and those whose first bytes have come and whose handshake is not done. At a step
in a millisecond all of these have theirs in time, also where they are the agents behind one address."""

ROOM_SHARE = 0.125
"""Of the files that the process may have open, for either room where that is less."""

STARVED_SECONDS = 0.1
"""Until the next try where the process can open no more files."""


def room_for(most: int) -> int:
    """How many connections a room has that would have so many."""
    return max(1, min(most, int(descriptors_max() * ROOM_SHARE)))


class Room:
    """Where the meetings of ``most`` connections may be at once, by network. Past that the network that has most of
    them gives one up: the ``eldest``, as of those that say nothing; or the newest, where the others are nearer their
    end."""

    def __init__(self, most: int, *, eldest: bool) -> None:
        self._most = most
        self._eldest = eldest
        self._networks: dict[str, dict[asyncio.Future[None], None]] = {}
        self._all = 0

    def enter(self, source: str, meeting: asyncio.Future[None]) -> asyncio.Future[None] | None:
        """Have a place; the answer is who has lost theirs for it, which may be this one."""
        self._networks.setdefault(source, {})[meeting] = None
        self._all += 1
        if self._all <= self._most:
            return None
        largest = max(self._networks, key=lambda name: len(self._networks[name]))
        theirs = self._networks[largest]
        lost = next(iter(theirs)) if self._eldest else next(reversed(theirs))
        self.leave(largest, lost)
        return lost

    def leave(self, source: str, meeting: asyncio.Future[None]) -> None:
        """Give the place up, if it has one."""
        theirs = self._networks.get(source, {})
        if meeting in theirs:
            del theirs[meeting]
            self._all -= 1
            if not theirs:
                del self._networks[source]


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
        self._silent = Room(room_for(ARRIVING_MAX), eldest=True)
        self._speaking = Room(room_for(SPEAKING_MAX), eldest=False)
        self._last = descriptors_max() - kept()
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
                # The lowest number that is free is given: at this one all others are taken.
                if arrived.fileno() >= self._last:
                    arrived.close()
                    await asyncio.sleep(STARVED_SECONDS)
                    continue
                self._begin(arrived, network(address[0]) if isinstance(address, tuple) else "")
        finally:
            for meeting in self._meetings:
                meeting.cancel()

    def _begin(self, arrived: socket.socket, source: str) -> None:
        meeting = asyncio.ensure_future(self._meet(arrived, source))
        self._meetings.add(meeting)
        meeting.add_done_callback(partial(self._met, arrived=arrived, source=source))
        _place(self._silent, source, meeting=meeting)

    def _met(self, meeting: asyncio.Task[None], *, arrived: socket.socket, source: str) -> None:
        """It has its protocol, or it has failed or was given up, perhaps before it began."""
        if meeting.cancelled():
            arrived.close()
        self._meetings.discard(meeting)
        self._silent.leave(source, meeting)
        self._speaking.leave(source, meeting)

    async def _meet(self, arrived: socket.socket, source: str) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await _first_bytes(arrived)
                await self._spoke(source)
                await self._pace.enter(source)
                loop = asyncio.get_running_loop()
                await loop.connect_accepted_socket(self._make, arrived, ssl=self._tls)
        except (OSError, TimeoutError):  # which a failed handshake is, too
            arrived.close()

    async def _spoke(self, source: str) -> None:
        """From one room to the other."""
        meeting = asyncio.current_task()
        assert meeting is not None
        self._silent.leave(source, meeting)
        _place(self._speaking, source, meeting=meeting)
        if meeting.cancelling():
            await asyncio.sleep(0)  # where it ends


def _place(room: Room, source: str, *, meeting: asyncio.Task[None]) -> None:
    lost = room.enter(source, meeting)
    if lost is not None:
        lost.cancel()


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

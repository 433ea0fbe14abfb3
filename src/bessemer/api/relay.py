"""The agents' sockets held by this process, and the streams opened over them. Which replica holds one stands in the
host's lease; with one replica, that is this one.

A socket bears `frames.STREAMS_MAX` streams, and hosts are shared: no tenant and no user has more than a part of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bessemer.core.errors import TooMany, Unavailable
from bessemer.core.frames import Mux, Stream

TENANT_STREAMS_MAX = 128
USER_STREAMS_MAX = 32
RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Reader:
    """Who opens a stream, and whose workload it is of."""

    tenant: str
    user: str


@dataclass(slots=True, eq=False)
class _Held:
    """A stream that counts; None while it is being opened."""

    reader: Reader
    stream: Stream | None = None


class Relay:
    """Muxes by host. The newest socket of a host counts: an agent that lost its connection dials again."""

    def __init__(self) -> None:
        self._muxes: dict[str, Mux] = {}
        self._held: dict[str, list[_Held]] = {}

    def join(self, host: str, mux: Mux) -> None:
        """An agent has dialled."""
        self._muxes[host] = mux

    def leave(self, host: str, mux: Mux) -> None:
        """Its socket has ended; a newer one stays."""
        if self._muxes.get(host) is mux:
            del self._muxes[host]
            self._held.pop(host, None)

    def holds(self, host: str) -> bool:
        """Whether the host's socket is here."""
        return host in self._muxes

    async def open(self, host: str, request: Mapping[str, Any], *, reader: Reader) -> Stream:
        """A stream to a host; it counts until it is closed. Raises Unavailable while its agent is not connected,
        TooMany for a reader who has their part of the host's streams."""
        mux = self._muxes.get(host)
        if mux is None:
            raise Unavailable(
                f"host {host} is not connected: its agent is away or just starting", retry_after_seconds=2
            )
        living = self._held.setdefault(host, [])
        living[:] = [held for held in living if held.stream is None or not held.stream.closed]
        _require_part(living, reader)
        mine = _Held(reader)
        living.append(mine)
        try:
            mine.stream = await mux.open(request)
        finally:
            if mine.stream is None:
                living.remove(mine)
        return mine.stream


def _require_part(living: list[_Held], reader: Reader) -> None:
    by_user = sum(held.reader.user == reader.user for held in living)
    by_tenant = sum(held.reader.tenant == reader.tenant for held in living)
    if by_user >= USER_STREAMS_MAX:
        said = f"{reader.user} has {by_user} logs and consoles open there, as many as one user may"
    elif by_tenant >= TENANT_STREAMS_MAX:
        said = f"{by_tenant} logs and consoles of tenant {reader.tenant} are open there, as many as one tenant may have"
    else:
        return
    raise TooMany(f"{said} on one host: close one", retry_after_seconds=RETRY_SECONDS)

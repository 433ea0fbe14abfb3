"""The agents' sockets held by this process, and the streams opened over them. Which replica holds one stands in the
host's lease; with one replica, that is this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bessemer.core.errors import Unavailable
from bessemer.core.frames import Mux, Stream


class Relay:
    """Muxes by host. The newest socket of a host counts: an agent that lost its connection dials again."""

    def __init__(self) -> None:
        self._muxes: dict[str, Mux] = {}

    def join(self, host: str, mux: Mux) -> None:
        """An agent has dialled."""
        self._muxes[host] = mux

    def leave(self, host: str, mux: Mux) -> None:
        """Its socket has ended; a newer one stays."""
        if self._muxes.get(host) is mux:
            del self._muxes[host]

    def holds(self, host: str) -> bool:
        """Whether the host's socket is here."""
        return host in self._muxes

    async def open(self, host: str, request: Mapping[str, Any]) -> Stream:
        """A stream to a host. Raises Unavailable while its agent is not connected."""
        mux = self._muxes.get(host)
        if mux is None:
            raise Unavailable(
                f"host {host} is not connected: its agent is away or just starting", retry_after_seconds=2
            )
        return await mux.open(request)

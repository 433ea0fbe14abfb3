"""The other replicas of the api, as one that asks them for streams of hosts whose sockets they hold. See `relayed`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

from bessemer.core.errors import BessemerError, Unavailable
from bessemer.core.frames import Mux, Stream

if TYPE_CHECKING:
    from bessemer.client import Socket  # read where another replica is asked

PATH = "/relay"
"""Of each replica: a WebSocket for the others."""

Dial: TypeAlias = "Callable[[str], AbstractAsyncContextManager[Socket]]"
"""A socket to `PATH` of the replica at that address."""


class Others:
    """One socket to each replica that was ever asked, for as long as it lasts."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._muxes: dict[str, Mux] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, replica: str, request: Mapping[str, Any]) -> Stream:
        """A stream through that replica. Raises Unavailable where it is not reached."""
        mux = self._muxes.get(replica)
        if mux is None:
            ready: asyncio.Future[Mux] = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(self._run(replica, ready))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            mux = await ready
        return await mux.open(request)

    async def close(self) -> None:
        """End every socket."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, replica: str, ready: asyncio.Future[Mux]) -> None:
        mux = None
        try:
            async with self._dial(replica) as socket:
                mux = self._muxes[replica] = Mux(socket.send, dialled=True)
                ready.set_result(mux)
                await mux.run(aiter(socket))
        except BessemerError as error:
            if not ready.done():
                why = Unavailable("the replica that holds the host's socket is not reached", retry_after_seconds=2)
                ready.set_exception(why)
                why.__cause__ = error
        finally:
            ready.cancel()
            if mux is not None and self._muxes.get(replica) is mux:
                del self._muxes[replica]

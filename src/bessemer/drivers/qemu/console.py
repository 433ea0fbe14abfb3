"""The serial console of a running guest, attached through QEMU's socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from bessemer.core.errors import DriverError
from bessemer.drivers.qemu.qmp import connected

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_CHUNK_BYTES = 64 << 10


class SerialConsole:
    """Implements `qemu.protocol.Console`. ``closing`` is all that is let go of with it."""

    def __init__(self, streams: Streams, *, closing: AsyncExitStack) -> None:
        self._reader, self._writer = streams
        self._closing = closing

    async def read(self) -> bytes:
        try:
            return await self._reader.read(_CHUNK_BYTES)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError as error:
            raise DriverError("GuestNotRunning", "the guest is gone", internal=str(error)) from error

    async def close(self) -> None:
        await self._closing.aclose()


async def attach(socket: Path, released: Callable[[], None]) -> SerialConsole:
    """Connect to the console's socket; ``released`` is called once, when it is closed or could not be reached.

    Raises DriverError ``GuestNotRunning``.
    """
    async with AsyncExitStack() as stack:
        stack.callback(released)
        try:
            streams = await stack.enter_async_context(connected(socket))
        except OSError as error:
            raise DriverError("GuestNotRunning", "the guest does not run", internal=str(error)) from error
        return SerialConsole(streams, closing=stack.pop_all())

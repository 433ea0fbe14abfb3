"""The serial console of a running guest, attached through QEMU's socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from bessemer.core.errors import DriverError
from bessemer.drivers.qemu.qmp import connected

_CHUNK_BYTES = 64 << 10


class SerialConsole:
    """Implements `qemu.protocol.Console`. ``released`` is called once, when it is closed."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        stack: AsyncExitStack,
        released: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._stack = stack
        self._released = released

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
        await self._stack.aclose()
        self._released()


async def attach(socket: Path, released: Callable[[], None]) -> SerialConsole:
    """Connect to the console's socket. Raises DriverError ``GuestNotRunning``."""
    stack = AsyncExitStack()
    try:
        reader, writer = await stack.enter_async_context(connected(socket))
    except OSError as error:
        raise DriverError("GuestNotRunning", "the guest does not run", internal=str(error)) from error
    return SerialConsole(reader, writer, stack, released)

"""A QMP conversation: one connection, a few commands, then it ends. Events are passed over."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bessemer.core.errors import DriverError

_LINE_LIMIT_BYTES = 1 << 20


class Qmp:
    """An open conversation. Make one with `talk`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def execute(self, command: str) -> Any:
        """The command's answer. Raises DriverError ``GuestUnresponsive`` when QEMU refuses it."""
        self._writer.write(json.dumps({"execute": command}).encode() + b"\n")
        await self._writer.drain()
        while True:
            said = await self.hear()
            if "error" in said:
                raise DriverError("GuestUnresponsive", "QEMU refused a command", internal=str(said["error"])[:500])
            if "return" in said:
                return said["return"]

    async def hear(self) -> dict[str, Any]:
        """The next thing that QEMU says. Raises ConnectionError when it is gone."""
        line = await self._reader.readline()
        if not line:
            raise ConnectionResetError("QEMU closed the monitor")
        said: dict[str, Any] = json.loads(line)
        return said


@asynccontextmanager
async def talk(socket: Path, *, timeout_seconds: float) -> AsyncIterator[Qmp]:
    """Connect, greet and hand over the conversation; the whole of it is bound in time.

    Raises OSError where nothing listens, DriverError ``GuestUnresponsive`` past the time.
    """
    try:
        async with asyncio.timeout(timeout_seconds), connected(socket) as (reader, writer):
            qmp = Qmp(reader, writer)
            await qmp.hear()
            await qmp.execute("qmp_capabilities")
            yield qmp
    except (TimeoutError, ValueError) as error:
        raise DriverError("GuestUnresponsive", "QEMU does not answer", internal=repr(error)) from error


@asynccontextmanager
async def connected(socket: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a socket file, however long its path: the kernel takes 107 bytes, so we go by descriptor."""
    directory = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        short = f"/proc/self/fd/{directory}/{socket.name}"
        reader, writer = await asyncio.open_unix_connection(short, limit=_LINE_LIMIT_BYTES)
    finally:
        os.close(directory)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()

"""A TCP proxy before the tests' PostgreSQL server, whose wire can be cut in two ways.

``DROP`` takes bytes and forwards none, as a middle does whose other side is gone: neither end hears of it. ``CLOSED``
ends every connection and lets nobody in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from enum import Enum, auto
from itertools import count
from pathlib import Path

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


class Wire(Enum):
    """How it is with the wire."""

    OPEN = auto()
    DROP = auto()
    CLOSED = auto()


class Proxy:
    """Listens at a free port of loopback for as long as `proxied` lasts."""

    def __init__(self, dial: Callable[[], Awaitable[tuple[Reader, Writer]]]) -> None:
        self._dial = dial
        self._wire = Wire.OPEN
        self._writers: set[Writer] = set()
        self.port = 0

    def url(self, database: str = "bessemer") -> str:
        """The database, through here."""
        return f"postgresql://bessemer@127.0.0.1:{self.port}/{database}"

    def cut(self, wire: Wire) -> None:
        """Change how it is with the wire, for the connections there are and those to come. One that has lost bytes
        stays lost."""
        self._wire = wire
        if wire is not Wire.DROP:
            for writer in self._writers:
                writer.transport.abort()

    async def serve(self, reader: Reader, writer: Writer) -> None:
        self._writers.add(writer)
        try:
            if self._wire is Wire.CLOSED:
                return
            there, back = await self._dial()
            try:
                await asyncio.wait(
                    {asyncio.ensure_future(self._pass(reader, back)), asyncio.ensure_future(self._pass(there, writer))},
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                back.transport.abort()
        except OSError:
            return
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pass(self, source: Reader, sink: Writer) -> None:
        try:
            while data := await source.read(65_536):
                if self._wire is Wire.OPEN:
                    sink.write(data)
                    await sink.drain()
        except OSError:
            return


@asynccontextmanager
async def proxied(folder: Path) -> AsyncIterator[Proxy]:
    """A proxy before the server whose socket lies in the folder."""
    async with _listening(lambda: asyncio.open_unix_connection(str(folder / ".s.PGSQL.5432"))) as proxy:
        yield proxy


@asynccontextmanager
async def balanced(ports: Sequence[int]) -> AsyncIterator[tuple[Proxy, list[int]]]:
    """A balancer before several ports, and those that it takes for well, which a test changes as health checks would;
    `Proxy.cut` has those who were connected dial anew."""
    well, turns = list(ports), count()

    async def dial() -> tuple[Reader, Writer]:
        return await asyncio.open_connection("127.0.0.1", well[next(turns) % len(well)])

    async with _listening(dial) as proxy:
        yield proxy, well


@asynccontextmanager
async def _listening(dial: Callable[[], Awaitable[tuple[Reader, Writer]]]) -> AsyncIterator[Proxy]:
    proxy = Proxy(dial)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut(Wire.CLOSED)
        await asyncio.sleep(0)

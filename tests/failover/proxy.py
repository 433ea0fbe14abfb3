"""A TCP proxy, before the tests' PostgreSQL server or an api, whose wire can be cut in several ways.

``DROP`` takes bytes and forwards none, as a middle does whose other side is gone: neither end hears of it, nor of the
other's end. ``DEAF`` lets through what the dialler sends, and nothing of what it is answered. ``CLOSED`` ends every
connection and lets nobody in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from itertools import count
from pathlib import Path

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


class Wire(Enum):
    """How it is with the wire."""

    OPEN = auto()
    DROP = auto()
    DEAF = auto()
    CLOSED = auto()


@dataclass(eq=False)
class _Passage:
    """One connection: to whoever dialled, and onwards. Once it has lost bytes it is ``lost`` that way for good."""

    front: Writer
    back: Writer | None = None
    lost_there: bool = False
    lost_back: bool = False

    def lose(self, wire: Wire) -> None:
        self.lost_there |= wire is Wire.DROP
        self.lost_back |= wire in (Wire.DROP, Wire.DEAF)

    def abort(self) -> None:
        for writer in (self.front, self.back):
            if writer is not None:
                writer.transport.abort()


class Proxy:
    """Listens at a free port of loopback for as long as `proxied` lasts."""

    def __init__(self, dial: Callable[[], Awaitable[tuple[Reader, Writer]]]) -> None:
        self._dial = dial
        self._wire = Wire.OPEN
        self._passages: set[_Passage] = set()
        self.port = 0

    def url(self, database: str = "bessemer") -> str:
        """The database, through here."""
        return f"postgresql://bessemer@127.0.0.1:{self.port}/{database}"

    def cut(self, wire: Wire) -> None:
        """Change how it is with the wire, for the connections there are and those to come. ``OPEN`` ends those there
        are, as a middle does that starts anew."""
        self._wire = wire
        for passage in [*self._passages]:
            if wire in (Wire.OPEN, Wire.CLOSED):
                passage.abort()
            else:
                passage.lose(wire)

    def mend(self) -> None:
        """Let through who dials from now on. Of a connection that has lost bytes nobody is told: a middle has forgotten
        it, and whoever still waits for it waits in vain."""
        self._wire = Wire.OPEN

    async def serve(self, reader: Reader, writer: Writer) -> None:
        passage = _Passage(writer)
        passage.lose(self._wire)
        self._passages.add(passage)
        try:
            if self._wire is Wire.CLOSED:
                return
            there, passage.back = await self._dial()
            halves = {
                asyncio.ensure_future(self._pass(reader, passage.back, lost=lambda: passage.lost_there)),
                asyncio.ensure_future(self._pass(there, writer, lost=lambda: passage.lost_back)),
            }
            _, left = await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
            if left and passage.lost_there and passage.lost_back:
                await asyncio.wait(left)
        except OSError:
            return
        finally:
            self._passages.discard(passage)
            passage.abort()

    async def _pass(self, source: Reader, sink: Writer, *, lost: Callable[[], bool]) -> None:
        try:
            while data := await source.read(65_536):
                if not lost():
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
async def before(port: int) -> AsyncIterator[Proxy]:
    """A wire to one port."""
    async with balanced([port]) as (proxy, _):
        yield proxy


@asynccontextmanager
async def _listening(dial: Callable[[], Awaitable[tuple[Reader, Writer]]]) -> AsyncIterator[Proxy]:
    proxy = Proxy(dial)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        await _refuse(server)
        server.close()
        proxy.cut(Wire.CLOSED)
        await asyncio.sleep(0)


async def _refuse(server: asyncio.Server) -> None:
    """Accept nobody any more. Of a connection that was accepted just before a server is closed asyncio lets go with a
    warning: it has a turn here to be taken on."""
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    await asyncio.sleep(0)

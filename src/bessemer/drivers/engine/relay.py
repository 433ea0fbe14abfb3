"""The process of a doorway: TLS on one side, the engine's unix socket on the other, bytes in between.

    python -I -S -B relay.py ADDRESS FINGERPRINT LISTENER DOOR USER CERTIFICATE KEY AUTHORITY MARKER

It is run as a file of its own and imports nothing of ours. ``LISTENER`` and ``DOOR`` are inherited descriptors: the
socket to accept on, and a path descriptor of the engine's socket, which is all that it reaches once it has given up
root for ``USER`` (-1: stays who it is). It reads no HTTP. SIGTERM, sent once another relay is given what comes anew:
take whoever has knocked, accept no more, and end with the last stream.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
from typing import Any

GATEWAY = "system:gateway"
STREAMS_MAX = 1024
HANDSHAKE_SECONDS = 10.0
KNOCKED_SECONDS = 0.5
"""At the end, for those whom the kernel has put in our queue: to close it would reset them."""
GREETING_SECONDS = 3.0
"""After that, for those whose handshake is under way: they are no streams yet."""
CHUNK_BYTES = 1 << 16


def main(argv: list[str]) -> int:
    """Serve until told to stop."""
    listener, door, user = (int(word) for word in argv[3:6])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(argv[6], argv[7])
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(argv[8])
    if user >= 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    asyncio.run(_Relay(f"/proc/self/fd/{door}").serve(socket.socket(fileno=listener), context))
    return 0


class _Relay:
    def __init__(self, door: str) -> None:
        self._door = door
        self._streams: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        server = await asyncio.start_server(
            self._connected,
            sock=listener,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            limit=CHUNK_BYTES,
        )
        await stop.wait()
        await asyncio.sleep(KNOCKED_SECONDS)
        server.close()
        await asyncio.sleep(GREETING_SECONDS)
        while self._streams:
            await asyncio.wait(self._streams)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            if _common_name(writer.get_extra_info("peercert")) == GATEWAY and len(self._streams) <= STREAMS_MAX:
                await self._join(reader, writer)
        except OSError:
            pass  # the engine is gone, or the gateway is
        finally:
            self._streams.discard(task)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy both ways until either side ends: an engine must hear at once that nobody listens any more."""
        inner_reader, inner_writer = await asyncio.open_unix_connection(self._door, limit=CHUNK_BYTES)
        inward = asyncio.create_task(_copy(reader, inner_writer))
        outward = asyncio.create_task(_copy(inner_reader, writer))
        try:
            await asyncio.wait((inward, outward), return_when=asyncio.FIRST_COMPLETED)
            if outward.done():
                writer.close()
                await writer.wait_closed()
        finally:
            for task in (inward, outward):
                task.cancel()
            await asyncio.gather(inward, outward, return_exceptions=True)
            inner_writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()


def _common_name(certificate: Any) -> str:
    names = [value for part in (certificate or {}).get("subject", ()) for name, value in part if name == "commonName"]
    return names[0] if len(names) == 1 else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv))

"""``/metrics`` of an agent's process, on a unix socket (0600) or a port of loopback, and nothing else.

An agent is reached by nobody from outside; this is for the collector on its own machine.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

HEAD_BYTES_MAX = 8192
HEAD_SECONDS = 5.0


async def serve_metrics(registry: CollectorRegistry, where: Path | int) -> None:
    """Serve until cancelled. ``where`` is a socket's path, or a port of 127.0.0.1. Raises OSError where it is taken."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            writer.write(_answer(head, registry))
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked has gone, or asks for nothing that is here
        finally:
            writer.close()

    if isinstance(where, Path):
        server = await asyncio.start_unix_server(answer, sock=_bound(where), limit=HEAD_BYTES_MAX)
    else:
        server = await asyncio.start_server(answer, "127.0.0.1", where, limit=HEAD_BYTES_MAX)
    async with server:
        await server.serve_forever()


def _bound(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Linux gives the socket's file the mode that the socket had: nobody else can connect, not even for a moment.
    os.fchmod(bound.fileno(), 0o600)
    # A socket's name may have 107 bytes, and a state directory lies as deep as it likes: so by descriptor.
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        bound.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
    return bound


def _answer(head: bytes, registry: CollectorRegistry) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method != b"GET" or path != b"/metrics":
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    body = generate_latest(registry)
    lines = (
        b"HTTP/1.1 200 OK",
        b"Content-Type: " + CONTENT_TYPE_LATEST.encode(),
        b"Content-Length: %d" % len(body),
        b"Connection: close",
    )
    return b"\r\n".join(lines) + b"\r\n\r\n" + body

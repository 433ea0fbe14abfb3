"""A TLS connection to a directory, as a plain socket for libldap.

libldap's own TLS waits for ever on a server that is silent in the handshake, and wants authorities as files; so TLS is
Python's. StartTLS is asked for on the bare socket and its answer read to the byte: whatever a stranger put behind it
meets the handshake, and not us. All of it is bounded by ``Place.seconds``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from bessemer.drivers.ldap.protocol import Place, failed

PORTS = {"ldaps": 636, "ldap": 389}
_START_TLS = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"
"""An ExtendedRequest (RFC 4511, 4.14.1), message 1, as it always reads."""

_ANSWER_MAX = 4096
_READ_BYTES = 1 << 16
UNTRUSTED = "the directory cannot be reached, or its certificate is not to be trusted"


@asynccontextmanager
async def tunnel(place: Place) -> AsyncIterator[socket.socket]:
    """A socket on which the directory speaks plain LDAP. Raises DriverError."""
    reader, writer = await _connected(place)
    near, far = socket.socketpair()
    mine, ours = await asyncio.open_connection(sock=far)
    pumps = [asyncio.ensure_future(_pump(reader, ours)), asyncio.ensure_future(_pump(mine, writer))]
    try:
        yield near
    finally:
        near.close()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for end in (ours, writer):
            end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_READ_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        with contextlib.suppress(OSError):
            writer.close()


async def _connected(place: Place) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        context = ssl.create_default_context(cadata=place.authorities or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        async with asyncio.timeout(place.seconds):
            return await _by_tls(place, context)
    except TimeoutError as error:
        raise failed("the directory takes too long", internal=place.url) from error
    except (OSError, ValueError) as error:  # ssl's errors are OSErrors
        raise failed(UNTRUSTED, internal=f"{place.url}: {error}"[:500]) from error


async def _by_tls(place: Place, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(place.url)
    host = url.hostname or ""
    bare = await _bare(host, url.port or PORTS.get(url.scheme, 0))
    try:
        if url.scheme == "ldap":
            await _start_tls(bare)
        return await asyncio.open_connection(sock=bare, ssl=context, server_hostname=host)
    except BaseException:
        bare.close()
        raise


async def _bare(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    last: OSError = OSError("the name leads nowhere")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        one = socket.socket(family, kind, protocol)
        one.setblocking(False)
        try:
            await loop.sock_connect(one, address)
        except OSError as error:
            one.close()
            last = error
        except BaseException:
            one.close()
            raise
        else:
            return one
    raise last


async def _start_tls(bare: socket.socket) -> None:
    """Raises DriverError where the directory will not."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(bare, _START_TLS)
    body = await _element(bare)
    # messageID 1, then an ExtendedResponse whose first element is the result code: 0.
    good = body[:4] == b"\x02\x01\x01\x78" and body[5 + _long(body[4]) :][:3] == b"\x0a\x01\x00"
    if not good:
        raise failed("the directory does not speak TLS here: use ldaps://")


async def _element(bare: socket.socket) -> bytes:
    """The value of one BER sequence, and not a byte more of what was sent."""
    tag, length = await _exactly(bare, 2)
    if tag != 0x30:
        raise failed("what answers is no directory")
    if _long(length):
        length = int.from_bytes(await _exactly(bare, _long(length)), "big")
    if length > _ANSWER_MAX:
        raise failed("what answers is no directory")
    return await _exactly(bare, length)


def _long(length: int) -> int:
    """How many bytes of length follow this one."""
    return length & 0x7F if length & 0x80 else 0


async def _exactly(bare: socket.socket, count: int) -> bytes:
    loop, found = asyncio.get_running_loop(), b""
    while len(found) < count:
        part = await loop.sock_recv(bare, count - len(found))
        if not part:
            raise failed("what answers is no directory")
        found += part
    return found

"""Answers by gzip, for clients that ask for it: long ones as they are streamed, in slices between which others run.

Level 1, since the time is the server's: it takes about as long as the rest of a list does. An answer below
`PACKED_BYTES_MIN` goes out as it is, as a Kubernetes server has it. Never packed are watches, whose lines would wait,
and what holds secrets: how well they pack would tell of them (BREACH).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterable

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from bessemer.api.accept import takes_gzip

PACKED_BYTES_MIN = 128 << 10
SLICE_BYTES = 64 << 10
"""Packed at a time: half a millisecond or so."""

_LEVEL = 1
_GZIP = 16 + zlib.MAX_WBITS
_JSON = "application/json"


def asks_gzip(request: Request) -> bool:
    """Whether the client takes gzip and would rather."""
    return takes_gzip(request.headers.getlist("accept-encoding"))


async def streamed(request: Request, parts: AsyncIterator[bytes], *, secret: bool = False) -> Response:
    """JSON in parts. For a client that does not ask nothing is looked at, held or copied; for one that does, what may
    be short is held until it is known."""
    if secret:
        return StreamingResponse(parts, media_type=_JSON)
    headers = {"Vary": "Accept-Encoding"}
    if not asks_gzip(request):
        return StreamingResponse(parts, media_type=_JSON, headers=headers)
    held, size = [], 0
    async for part in parts:
        held.append(part)
        size += len(part)
        if size > PACKED_BYTES_MIN:
            headers["Content-Encoding"] = "gzip"
            return StreamingResponse(_packed(held, parts), media_type=_JSON, headers=headers)
    return Response(b"".join(held), media_type=_JSON, headers=headers)


async def _packed(held: Iterable[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    for part in held:
        async for written in _slices(packer, part):
            yield written
    async for part in rest:
        async for written in _slices(packer, part):
            yield written
    yield packer.flush()


async def _slices(packer: zlib._Compress, part: bytes) -> AsyncIterator[bytes]:
    view = memoryview(part)
    for start in range(0, len(view), SLICE_BYTES):
        if written := packer.compress(view[start : start + SLICE_BYTES]):
            yield written
        await asyncio.sleep(0)

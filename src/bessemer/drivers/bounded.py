"""Answers of servers that nobody here answers for, read no further than they may be long."""

from __future__ import annotations

import aiohttp


async def bounded(answer: aiohttp.ClientResponse, bytes_max: int) -> bytes | None:
    """The whole body; None where it is more than ``bytes_max``, of which no more is read. Raises what aiohttp does."""
    parts, size = [], 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > bytes_max:
            return None
        parts.append(part)
    return b"".join(parts)

"""A call to the api that lasts: where who made it leaves before its answer, what the answer brings is not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

FORGET_SECONDS = 3600.0
"""What nobody has asked for in so long, and of which nothing is held, is known no more."""


class Lasting:
    """One call at a time, of those that hold some lock while they make it. One that was left is waited for by the
    next."""

    __slots__ = ("_call",)

    def __init__(self) -> None:
        self._call: asyncio.Future[Any] | None = None

    async def make(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Begin it once none is under way. Raises what it raises."""
        if self._call is not None and not self._call.done():
            await asyncio.wait({self._call})
        made = self._call = asyncio.ensure_future(call())
        made.add_done_callback(_heard)
        return await asyncio.shield(made)


def _heard(made: asyncio.Future[Any]) -> None:
    """Nobody may be there to hear of its error."""
    if not made.cancelled():
        made.exception()

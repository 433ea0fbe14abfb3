"""Work that ends together: several coroutines beside each other, until one of them has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any


async def until_first(
    tasks: Collection[asyncio.Future[Any]], *, seconds: float | None = None
) -> set[asyncio.Future[Any]]:
    """Wait until one has ended, or for so long; then cancel the others and wait for their ends, as it does where it is
    cancelled itself. Answers those that had ended by themselves. What they raise stays in them."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=seconds)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return done


async def first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Do them all until one has ended, and cancel the others. Raises what it raised."""
    done = await until_first([asyncio.ensure_future(work) for work in works])
    if (error := first_error(done)) is not None:
        raise error


async def together(*works: Coroutine[Any, Any, object]) -> None:
    """Do them all to their ends; what one raises ends the others."""
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)


def first_error(
    tasks: Collection[asyncio.Future[Any]], *, but: tuple[type[Exception], ...] | type[Exception] = ()
) -> Exception | None:
    """What the first of them that failed raised, unless it is one of ``but``; all have ended."""
    errors = (task.exception() for task in tasks if not task.cancelled())
    return next((error for error in errors if isinstance(error, Exception) and not isinstance(error, but)), None)

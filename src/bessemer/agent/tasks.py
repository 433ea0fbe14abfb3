"""Running coroutines beside each other, as the standard library leaves it to us."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Return when the first of them has, or raise what it raised; the others are cancelled and awaited."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    next(task for task in tasks if task in done).result()


async def together(*works: Coroutine[Any, Any, object]) -> None:
    """Run them all to their ends; what one raises ends the others."""
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)

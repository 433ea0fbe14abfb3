"""Running coroutines beside each other, as the standard library leaves it to us."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from bessemer.core.tasks import until_first


async def first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Return when the first of them has, or raise what it raised; the others are cancelled and awaited."""
    tasks = [asyncio.create_task(work) for work in works]
    done = await until_first(tasks)
    next(task for task in tasks if task in done).result()


async def together(*works: Coroutine[Any, Any, object]) -> None:
    """Run them all to their ends; what one raises ends the others."""
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)

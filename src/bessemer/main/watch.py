"""Supervision beside other work of a process, which ends with it: nobody would start a part again.

It tells at a unix socket how the parts stand, as every process of ours tells its metrics.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog

from bessemer.main.supervisor import Supervisor

_log = structlog.get_logger("up")


class Watch:
    """The running of one supervisor. Metrics are told at ``socket`` once `tell` was called."""

    def __init__(self, supervisor: Supervisor, socket: Path) -> None:
        self._supervisor = supervisor
        self._socket = socket
        self._supervising: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None

    async def beside(self, work: Coroutine[Any, Any, object]) -> None:
        """Do the work while parts are supervised, which goes on until `close`. Raises what either raises."""
        if self._supervising is None:
            self._supervising = asyncio.create_task(self._supervise())
        doing = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait({doing, self._supervising}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            doing.cancel()
            await asyncio.wait({doing})
        for task in done:
            task.result()

    def tell(self) -> None:
        """Tell metrics from now on."""
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell())

    async def close(self) -> None:
        """Supervise no more."""
        tasks = [task for task in (self._supervising, self._telling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _supervise(self) -> None:
        try:
            await self._supervisor.run()
        except Exception as error:
            _log.exception("supervision failed", error=str(error))
            raise

    async def _tell(self) -> None:
        # Read only now: whoever starts parts has no time for it.
        from bessemer.agent.listener import serve_metrics
        from bessemer.main.standing import registry_of

        try:
            await serve_metrics(registry_of(self._supervisor), self._socket)
        except OSError as error:
            _log.warning("metrics are not told", error=str(error))

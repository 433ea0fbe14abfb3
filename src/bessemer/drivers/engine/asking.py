"""Asking the engines of this machine, at their doors: one request, one bounded answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import aiohttp

from bessemer.core.errors import DriverError
from bessemer.drivers.engine.doors import Doors
from bessemer.drivers.engine.recipe import Recipe
from bessemer.drivers.engine.sense import engine_ended
from bessemer.drivers.process import procfs
from bessemer.drivers.process.protocol import Processes

_ANSWER_BYTES_MAX = 1 << 20


class Asking:
    """Which of the ``recipes`` an engine is of is read off its command line, so that a new agent knows it, too."""

    def __init__(self, processes: Processes, doors: Doors, *, recipes: Sequence[Recipe], seconds: float) -> None:
        self._processes = processes
        self._doors = doors
        self._recipes = recipes
        self._seconds = seconds

    async def recipe(self, uid: str) -> Recipe:
        """That of the living engine."""
        running = await self._processes.find(uid)
        if running is None:
            raise engine_ended(await self._processes.ended(uid))
        argv = procfs.arguments(running.pid)
        found = [recipe for recipe in self._recipes if recipe.runner in argv]
        if len(found) != 1:
            raise DriverError("ProbeFailed", "what runs is no engine that this agent knows", internal=repr(argv[:8]))
        return found[0]

    async def ask(self, uid: str, path: str, *, secret: str, body: dict[str, Any] | None = None) -> bytes:
        """One request at the door. The engine is hostile: its answer is bounded in time and in size."""
        if await self._processes.find(uid) is None:
            raise engine_ended(await self._processes.ended(uid))
        if not self._doors.seal(uid):
            raise DriverError("EngineStarting", "the engine has not opened its door yet")
        try:
            async with asyncio.timeout(self._seconds):
                status, raw = await _request(str(self._doors.socket(uid)), path, secret=secret, body=body)
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise DriverError("ProbeFailed", f"no answer within {self._seconds:.0f} s") from error
            if await self._processes.find(uid) is None:
                raise engine_ended(await self._processes.ended(uid)) from error
            if isinstance(error, aiohttp.ClientConnectorError):
                raise DriverError("EngineStarting", "the engine's door is not open yet", internal=str(error)) from error
            raise DriverError("ProbeFailed", "the engine broke off its answer", internal=repr(error)) from error
        if status == 503:
            raise DriverError("EngineStarting", "the engine loads its model")
        if status != 200 or len(raw) > _ANSWER_BYTES_MAX:
            raise DriverError("ProbeFailed", f"the engine answered with status {status}", internal=repr(raw[:200]))
        return raw


async def _request(door: str, path: str, *, secret: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {secret}"}
    connector = aiohttp.UnixConnector(path=door)
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        session.request("GET" if body is None else "POST", f"http://engine{path}", json=body) as response,
    ):
        raw = b""
        async for chunk in response.content.iter_any():
            raw += chunk
            if len(raw) > _ANSWER_BYTES_MAX:
                break
        return response.status, raw

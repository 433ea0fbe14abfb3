"""What every step of the demo stands on: the factory, a way to wait with a bound, and the time when it began."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any

import orjson

from bessemer.client import Client
from bessemer.core.errors import NotFound
from bessemer.core.ports import Scope
from bessemer.core.resource import Change, Key
from bessemer.main.demo.checks import failed
from bessemer.main.factory import Factory
from bessemer.main.hostdrivers import local_drivers
from bessemer.main.steps import Step, Steps

Body = dict[str, Any]


class Stage:
    """The factory, as the demo's steps use it."""

    def __init__(self, factory: Factory) -> None:
        self.factory = factory
        self.drivers = local_drivers(factory.paths.agent)
        self.began = int(time.time())

    @property
    def client(self) -> Client:
        return self.factory.client

    @property
    def steps(self) -> Steps:
        return self.factory.steps

    async def read(self, key: Key) -> Body:
        """An object's body. Raises NotFound."""
        body: Body = orjson.loads((await self.client.get(key)).body)
        return body

    async def bodies(self, scope: Scope) -> AsyncGenerator[tuple[Change, Body], None]:
        """Every object of a scope and each change of it. Whoever stops reading closes it (``aclosing``)."""
        async with aclosing(self.client.watch(scope)) as changes:
            async for change in changes:
                if isinstance(change, Change) and change.type != "DELETED":
                    yield change, orjson.loads(change.body)

    async def until(self, key: Key, good: Callable[[Body], bool], *, step: Step, seconds: float) -> Body:
        """Follow an object until it is good. Raises DriverError with its last condition when time is up."""
        seen: list[Body] = [{}]
        try:
            async with asyncio.timeout(seconds):
                return await self._follow(key, good, step=step, seen=seen)
        except TimeoutError:
            raise failed(f"{key} is not there after {seconds:g} s: {describe(seen[-1])}") from None

    async def _follow(self, key: Key, good: Callable[[Body], bool], *, step: Step, seen: list[Body]) -> Body:
        scope = Scope(kind=key.kind, namespace=key.namespace or None, name=key.name)
        async with aclosing(self.bodies(scope)) as bodies:
            async for _, body in bodies:
                seen[:] = [body]
                step.update(body.get("status", {}).get("progressPercent", 50), describe(body))
                if good(body):
                    return body
                if body.get("status", {}).get("phase") == "Failed" or _reason(body) == "DiskFull" or _is_stuck(body):
                    raise failed(f"{key}: {describe(body)}")
        raise failed(f"{key} cannot be followed")

    async def clear(self, *keys: Key) -> int:
        """Remove what an earlier demo left; the time, in whole seconds, at which nothing of it is there any more."""
        for key in keys:
            with suppress(NotFound):
                await self.client.delete(key)
                await self._gone(key)
        return int(time.time())

    async def _gone(self, key: Key) -> None:
        """Until reading it raises NotFound."""
        async with asyncio.timeout(60):
            while True:
                await self.client.get(key)
                await asyncio.sleep(0.2)


def is_ready(body: Body) -> bool:
    """Whether the Ready condition is True."""
    conditions = body.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _is_stuck(body: Body) -> bool:
    """Whether its own deadline has passed: that is as long as anybody waits."""
    conditions = body.get("status", {}).get("conditions", [])
    return any(c["type"] == "Stuck" and c["status"] == "True" for c in conditions)


def _reason(body: Body) -> str:
    """Why it is not Ready, as one word."""
    conditions = body.get("status", {}).get("conditions", [])
    return next((str(c["reason"]) for c in conditions if c["type"] == "Ready"), "")


def describe(body: Body) -> str:
    """Phase, progress, and what it waits for."""
    status = body.get("status", {})
    words = [str(status.get("phase", "Pending"))]
    for condition in status.get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] != "True":
            words.append(f"{condition['reason']}: {condition['message']}")
    return ", ".join(words)

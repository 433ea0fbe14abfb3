"""Several processes on the gateway's port, as many as the setting ``gateways`` says.

The kernel deals connections out among those that listen there. Each is a gateway like one of another machine: its own
name at the api, its own spool, its own shares of what is bounded, its own view of who is busy. The first starts the
others, and again where one has died: that one settles what its spool has and says what it holds, as any gateway that
starts. What a process left that there is not any more, because fewer are wanted, the first one settles.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from bessemer.core.clock import Clock, SystemClock
from bessemer.drivers.process.parts import HostParts
from bessemer.drivers.process.protocol import Command, Parts
from bessemer.gateway.heirs import inherit
from bessemer.gateway.spool import unread
from bessemer.main.gateway import Accounts
from bessemer.main.parts import GATEWAY, GRACE_SECONDS, command
from bessemer.main.settings import GATEWAYS_MAX, Paths, Settings, gateway_of
from bessemer.main.supervisor import Supervisor

_STOP_SECONDS = GRACE_SECONDS - 1.0
"""Less than this process is given itself."""
_LOOK_SECONDS = 1.0

_log = structlog.get_logger("gateways")

Settle = Callable[[int], Coroutine[Any, Any, None]]


async def settle_left(number: int, *, paths: Paths, settings: Settings) -> None:
    """Settle what a process left that is no more, give back what it held, and forget it. What cannot be read of its
    spool stays, for people."""
    clock, folder = SystemClock(), gateway_of(paths, number)
    accounts = Accounts(paths, settings, folder=folder, clock=clock)
    _log.info("usage of a gateway that is no more is settled", number=number, waiting=accounts.spool.waiting)
    settling = asyncio.create_task(accounts.settler.run())
    try:
        await inherit(accounts.admission.lending, accounts.left, clock=clock)
        while accounts.spool.waiting:
            await clock.sleep(_LOOK_SECONDS)
    finally:
        settling.cancel()
        await asyncio.gather(settling, return_exceptions=True)
        await accounts.close()
    if kept := unread(folder / "spool"):
        _log.error("usage of a gateway that is no more cannot be read", number=number, kept=list(map(str, kept)))
    else:
        shutil.rmtree(folder, ignore_errors=True)


async def beside(
    paths: Paths,
    settings: Settings,
    *,
    parts: Parts | None = None,
    clock: Clock | None = None,
    settle: Settle | None = None,
) -> None:
    """Keep all but the first alive until cancelled, then stop them; see to what others left. Raises what looking at
    them raises."""
    there = parts or HostParts()
    supervisor = Supervisor(there, clock or SystemClock())
    settle = settle or partial(settle_left, paths=paths, settings=settings)
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(2, settings.gateways + 1):
                await supervisor.start(command(paths, f"{GATEWAY}-{number}"))
            for number in _left(paths, settings):
                await _end(there, command(paths, f"{GATEWAY}-{number}"))
                group.create_task(settle(number))
            if settings.gateways > 1:
                await supervisor.run()
    finally:
        await supervisor.stop_at_once(grace_seconds=_STOP_SECONDS)


def _left(paths: Paths, settings: Settings) -> list[int]:
    """Those of which there is something, and that are wanted no more."""
    return [number for number in range(settings.gateways + 1, GATEWAYS_MAX + 1) if gateway_of(paths, number).exists()]


async def _end(parts: Parts, asked: Command) -> None:
    for one in await parts.find(asked.marker):
        await parts.stop(one, grace_seconds=GRACE_SECONDS)

"""``bessemer server``: some of api, controller, portal and gateway in this process.

The gateway is a process apart (its own event loop), because a long list must never delay a token. Each part is imported
where it is run: a gateway needs no database, and an api need not wait for the portal's templates.
"""

from __future__ import annotations

import asyncio
import gc
import socket

from bessemer.cli.verbs import ServerOptions
from bessemer.core.clock import SystemClock
from bessemer.core.errors import Invalid
from bessemer.main import identities
from bessemer.main.garbage import spare
from bessemer.main.process import give_back, have_read, run
from bessemer.main.settings import METRICS_SOCKET, Paths, Settings, load, state_directory

PARTS = ("api", "controller", "portal", "gateway")
_PORTAL_SECONDS = 2.0


def serve_parts(options: ServerOptions, *, number: int = 1) -> int:
    """Run the parts until told to stop; of several processes of the gateway's this is the one of that ``number``.
    Raises Invalid for a part that there is not."""
    unknown = set(options.parts) - set(PARTS)
    if unknown or not options.parts:
        raise Invalid(f"no part is called {', '.join(sorted(unknown)) or '(nothing)'}; there are: {', '.join(PARTS)}")
    paths = Paths(state_directory(options.state))
    settings = load(paths, store=options.store)
    identities.prepare(paths, settings)
    return run(_together(paths, settings, parts=options.parts, number=number))


async def _together(paths: Paths, settings: Settings, *, parts: tuple[str, ...], number: int) -> None:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        try:
            if "gateway" in parts:
                group.create_task(_gateway(paths, settings, stop=stop, number=number))
            if {"api", "controller"} & set(parts):
                from bessemer.main.control import run_control

                listens = asyncio.Event()
                group.create_task(run_control(paths, settings, parts=parts, stop=stop, ready=listens.set))
                await listens.wait()
            if "portal" in parts:
                group.create_task(_portal(paths, settings, alone=len(parts) == 1, stop=stop))
            if set(parts) == {"portal"}:
                group.create_task(_portal_metrics(paths))
            await asyncio.sleep(0)
            have_read()
            group.create_task(spare(SystemClock()))
            await give_back(SystemClock())
            await asyncio.Event().wait()
        finally:
            stop.set()


async def _gateway(paths: Paths, settings: Settings, *, stop: asyncio.Event, number: int) -> None:
    """One process of the gateway's; beside the first the others are looked after."""
    from bessemer.main.gateway import run_gateway
    from bessemer.main.gateways import beside

    async with asyncio.TaskGroup() as group:
        group.create_task(run_gateway(paths, settings, stop=stop, number=number))
        if number == 1:
            group.create_task(beside(paths, settings))


async def _portal(paths: Paths, settings: Settings, *, alone: bool, stop: asyncio.Event) -> None:
    """The portal, which listens at once and beside other parts is read when it is wanted."""
    from bessemer.api import listen

    on = listen(settings.listen, settings.portal_port)
    if not alone:
        await _knocked(on)
    from bessemer.main.portal import run_portal

    gc.freeze()  # its code, too, stays for good
    await run_portal(paths, settings, on=on, stop=stop)


async def _portal_metrics(paths: Paths) -> None:
    """What its process uses: a portal that is alone has nobody beside it who tells."""
    from prometheus_client import CollectorRegistry, ProcessCollector

    from bessemer.agent.listener import serve_metrics

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    await serve_metrics(registry, paths.state / "portal" / METRICS_SOCKET)


async def _knocked(on: socket.socket) -> None:
    """Return when somebody connects, at the latest in a moment. An api that has just started is
    waited for by agents and a gateway, and has no time to read templates for nobody."""
    loop, somebody = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(on.fileno(), somebody.set)
    try:
        async with asyncio.timeout(_PORTAL_SECONDS):
            await somebody.wait()
    except TimeoutError:
        return
    finally:
        loop.remove_reader(on.fileno())

"""``bessemer demo``: the whole road once, with real parts, from an empty directory to a paid token.

Each step does what a person would do by hand, and checks what it claims: process ids that belong to the claims, counts
that equal the engine's, a total that a second implementation gets, too. What an interrupted demo left is cleared first.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from rich.console import Console

from bessemer.cli.verbs import DemoOptions
from bessemer.core.errors import BessemerError, DriverError
from bessemer.main.demo.road import Road
from bessemer.main.down import stop_all
from bessemer.main.settings import Paths, load, with_ports
from bessemer.main.steps import Steps
from bessemer.main.up import Factory, held

DEMO_STATE = Path(".state/demo")


def demo(options: DemoOptions) -> int:
    """Take the road; 0 when every check held and, in the end, everything was stopped."""
    paths = Paths((options.state or DEMO_STATE).expanduser().absolute())
    stay = sys.stdout.isatty() if options.stay is None else options.stay
    return asyncio.run(_run(paths, options.fake_hosts, stay=stay))


async def _run(paths: Paths, fake_hosts: int, *, stay: bool) -> int:
    console = Console(soft_wrap=True)
    steps = Steps(console)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await stop_all(paths)
        with held(paths):
            settings = with_ports(load(paths, fake_hosts=fake_hosts), find_free=True)
            ok = await _until_stopped(Road(Factory(paths, settings, steps=steps)), stop)
            if ok and stay and not stop.is_set():
                console.print("\nIt stays up. Ctrl-C stops everything.")
                await stop.wait()
    except BessemerError as error:
        console.print(f"\n[red]The demo failed:[/red] {error.message}", highlight=False)
        console.print(f"Its logs are in {paths.logs}.", highlight=False)
        ok = False
    finally:
        with steps.step("Stopping everything"):
            await stop_all(paths)
    return 0 if ok else 1


async def _until_stopped(road: Road, stop: asyncio.Event) -> bool:
    """Take the road unless Ctrl-C comes first; whether it was taken to its end."""
    walk = asyncio.create_task(road.take())
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({walk, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        if not walk.done():
            walk.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await walk
        await road.close()
    if walk.cancelled():
        return False
    if (error := walk.exception()) is not None:
        if isinstance(error, TimeoutError):
            raise DriverError("DemoFailed", "a step took longer than it may") from error
        raise error
    return True

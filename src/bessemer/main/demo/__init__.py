"""``bessemer demo``: the whole road once, with real parts, from an empty directory to a paid token.

Each step does what a person would do by hand, and checks what it claims: process ids that belong to the claims, counts
that equal the engine's, a total that a second implementation gets, too. What an interrupted demo left is cleared first.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bessemer.cli.outcome import refused
from bessemer.cli.verbs import DemoOptions
from bessemer.core.errors import BessemerError, DriverError
from bessemer.main.addresses import examples
from bessemer.main.demo import scene
from bessemer.main.demo.road import Road
from bessemer.main.doctor import lacking
from bessemer.main.down import stop_all
from bessemer.main.factory import Factory
from bessemer.main.hostdrivers import local_drivers
from bessemer.main.process import listen_for_the_end, unless
from bessemer.main.settings import Paths, load, state_directory, with_ports
from bessemer.main.steps import Steps
from bessemer.main.up import has_room, held

DEMO_STATE = Path(".state/demo")
_ROOM_BYTES = 512 << 20
_INTERRUPTED = 130
_ALLOW = (
    "install bubblewrap and util-linux, and run the demo as root or allow user namespaces (sysctl "
    "user.max_user_namespaces; on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0)"
)


def demo(options: DemoOptions) -> int:
    """Take the road; 0 when every check held and, in the end, everything was stopped."""
    paths = Paths(state_directory(options.state or DEMO_STATE))
    stay = sys.stdout.isatty() if options.stay is None else options.stay
    return asyncio.run(_run(paths, options.fake_hosts, stay=stay))


async def _run(paths: Paths, fake_hosts: int, *, stay: bool) -> int:
    stop = asyncio.Event()
    listen_for_the_end(stop)
    with held(paths):
        return await _held(paths, fake_hosts, stay=stay, stop=stop)


async def _held(paths: Paths, fake_hosts: int, *, stay: bool, stop: asyncio.Event) -> int:
    console = Console(soft_wrap=True)
    steps = Steps(console)
    try:
        await _able(paths)
        has_room(paths, _ROOM_BYTES, what="the demo")
        await stop_all(paths)
        # Replicas on a fake host that is never started again would wait for it for good: a fleet does not shrink.
        fleet = max(fake_hosts, load(paths).fake_hosts)
        settings = with_ports(load(paths, fake_hosts=fleet), find_free=True)
        ok = await _walk(Factory(paths, settings, steps=steps), stay=stay, stop=stop)
        if not ok:
            steps.say("Interrupted.")
    except Exception as error:
        console.print("\n[red]The demo failed:[/red]", escape(_words(error, paths)), highlight=False)
        steps.say(f"Its logs are in {paths.logs}; `bessemer doctor` says what this machine lacks.")
        ok = False
    finally:
        with steps.step("Stopping everything"):
            await stop_all(paths)
    return 0 if ok else _INTERRUPTED if stop.is_set() else 1


async def _able(paths: Paths) -> None:
    """Raise DriverError, with what to install or allow, where this machine lacks what a guest or an engine cannot do
    without: programs, or walls."""
    missing = [f"{finding.found} ({finding.remedy})" for finding in lacking()]
    if missing:
        raise DriverError("Missing", f"this machine lacks what the demo shows: {'; '.join(missing)}")
    try:
        await local_drivers(paths.agent).processes.isolation()
    except DriverError as error:
        raise DriverError(error.reason, f"{error.message}: {_ALLOW}", internal=error.internal) from error


def _words(error: Exception, paths: Paths) -> str:
    """What happened, for a person; how we came there goes into a log where it is no error of the house."""
    if isinstance(error, BessemerError):
        return error.message
    if isinstance(error, OSError):
        return refused(error)
    paths.logs.mkdir(parents=True, exist_ok=True)
    with (paths.logs / "demo.log").open("a") as log:
        traceback.print_exception(error, file=log)
    return f"{type(error).__name__}: {error}"


async def _walk(factory: Factory, *, stay: bool, stop: asyncio.Event) -> bool:
    """Take the road unless Ctrl-C comes first, and stay until it comes; whether it was taken to its end."""
    road = Road(factory)
    try:
        ok = await unless(stop, road.take())
        if ok and stay and not stop.is_set():
            factory.steps.say(examples(factory.paths, scene.NEXT))
            factory.steps.say("\nIt stays up. Ctrl-C stops everything.")
            await unless(stop, factory.hold())
    except TimeoutError as error:
        raise DriverError("DemoFailed", "a step took longer than it may") from error
    finally:
        await road.close()
    return ok

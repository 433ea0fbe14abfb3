"""``bessemer up``: a factory on this machine, its parts supervised until Ctrl-C.

One supervisor holds a state directory at a time; parts that a killed one left are adopted. The control plane, which
takes longest, is started before this process reads most of its own code: so what is imported here is little.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bessemer.cli.verbs import UpOptions
from bessemer.core.errors import Conflict, DriverError, Invalid
from bessemer.core.units import show_bytes
from bessemer.drivers.process.parts import HostParts
from bessemer.drivers.process.protocol import Command
from bessemer.main.parts import CONTROL, GRACE_SECONDS, command, environment
from bessemer.main.process import listen_for_the_end, unless
from bessemer.main.settings import Paths, Settings, load, save, state_directory, with_kept_ports, with_ports

if TYPE_CHECKING:
    from bessemer.main.steps import Steps

ROOM_BYTES = 64 << 20
LOCK, UP = "up.lock", "up"
"""The file whose lock says who supervises; it holds the supervisor's pid, and this word once everything is up."""


def up(options: UpOptions) -> int:
    """Start everything and supervise it. Raises BessemerError with what to do."""
    paths = Paths(state_directory(options.state))
    settings = load(
        paths,
        fake_hosts=options.fake_hosts,
        api_port=options.api_port,
        portal_port=options.portal_port,
        gateway_port=options.gateway_port,
        store=options.store,
    )
    if settings.store:
        from bessemer.main.storage import located  # read by those who have a database

        located(paths, settings)
    if options.detach:
        return asyncio.run(_detached(paths, settings))
    return asyncio.run(_foreground(paths, settings))


@contextmanager
def held(paths: Paths) -> Iterator[Callable[[], None]]:
    """Hold the state directory; what it gives is called once all is up. Raises Conflict while another holds it."""
    paths.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(paths.state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        down = f"bessemer down --state {shlex.quote(str(paths.state))}"
        raise Conflict(f"{paths.state} is up already; `{down}` stops it") from error
    os.truncate(descriptor, 0)
    _note(descriptor, "")
    try:
        yield lambda: _note(descriptor, UP)
    finally:
        os.close(descriptor)


def has_room(paths: Paths, wanted: int, *, what: str) -> None:
    """Raise DriverError, with what to do, where the disk of a state directory has less than ``wanted`` bytes left."""
    free = shutil.disk_usage(paths.state).free
    if free < wanted:
        raise DriverError(
            "DiskFull",
            f"{paths.state} has {show_bytes(free)} left, and {what} needs {show_bytes(wanted)}: make room there, or "
            "choose another place with --state",
        )


def _note(descriptor: int, word: str) -> None:
    """Write, whole, who holds the lock and how far it is."""
    os.pwrite(descriptor, f"{os.getpid()} {word}".encode(), 0)


async def _foreground(paths: Paths, settings: Settings) -> int:
    stop = asyncio.Event()
    listen_for_the_end(stop)
    with held(paths) as tell:
        if not paths.store.exists():
            has_room(paths, ROOM_BYTES, what="a new installation")
        settings = await chosen(paths, settings)
        save(paths, settings)
        parts = HostParts()
        async with _first(paths, parts):
            steps = await _supervised(paths, settings, parts=parts, stop=stop, tell=tell)
    steps.say("Stopped. Guests and engines go on; `bessemer down` stops them, too.")
    return 0


async def _supervised(
    paths: Paths, settings: Settings, *, parts: HostParts, stop: asyncio.Event, tell: Callable[[], None]
) -> Steps:
    """Start the factory, and supervise it until ``stop``; ``tell`` is called once all is up."""
    from rich.console import Console

    from bessemer.main.addresses import addresses
    from bessemer.main.factory import Factory
    from bessemer.main.steps import Steps

    factory = Factory(paths, settings, steps=Steps(Console()), parts=parts)
    try:
        if await unless(stop, factory.start()):
            factory.steps.say(addresses(paths, settings))
            tell()
            await unless(stop, factory.hold())
    finally:
        await factory.stop()
    return factory.steps


@asynccontextmanager
async def _first(paths: Paths, parts: HostParts) -> AsyncIterator[None]:
    """Start the control plane, which reads its code while we read ours; the factory adopts it. Where it did not come so
    far, the control plane ends here."""
    control = command(paths, CONTROL)
    try:
        if not await parts.find(control.marker):
            paths.logs.mkdir(exist_ok=True, mode=0o700)
            await parts.start(control)
        yield
    finally:
        for part in await parts.find(control.marker):
            await parts.stop(part, grace_seconds=GRACE_SECONDS)


async def _detached(paths: Paths, settings: Settings) -> int:
    from rich.console import Console

    from bessemer.main.addresses import addresses
    from bessemer.main.factory import Factory
    from bessemer.main.steps import Steps

    with held(paths):
        settings = await chosen(paths, settings)
        save(paths, settings)
    words = ("up", "--state", str(paths.state))
    argv = (sys.executable, "-m", "bessemer", *words)
    parts = HostParts()
    log = paths.logs / "up.log"
    part = await parts.start(Command(name="up", argv=argv, marker=" ".join(words), log_path=log, env=environment()))
    factory = Factory(paths, settings, steps=Steps(Console()))
    with factory.steps.step("Starting in the background"):
        await _told(paths, f"{part.pid} {UP}", alive=lambda: parts.alive(part), log=log)
    factory.steps.say(addresses(paths, settings))
    await factory.close()
    return 0


async def _told(paths: Paths, word: str, *, alive: Callable[[], Awaitable[bool]], log: Path) -> None:
    """Return when the supervisor in the background says that everything is up. Raises DriverError where it ends."""
    from bessemer.main.supervisor import last_words

    lock = paths.state / LOCK
    while not (lock.exists() and lock.read_text() == word):
        if not await alive():
            raise DriverError("PartDied", f"it did not come up{last_words(log)}")
        await asyncio.sleep(0.05)


async def chosen(paths: Paths, settings: Settings) -> Settings:
    """The settings with ports: those of the parts that run, else free ones; 0 is what it was at an earlier start, where
    nobody has taken that. Raises Invalid for a port that is taken."""
    kept = with_kept_ports(paths, settings)
    if await HostParts().find(command(paths, CONTROL).marker):
        return kept
    try:
        return with_ports(kept, find_free=not paths.settings.exists())
    except Invalid:
        return with_ports(settings, find_free=False)

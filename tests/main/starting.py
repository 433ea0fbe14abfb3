"""An installation started as a person starts it: ``bessemer up`` in a session of its own, on a state directory."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from collections.abc import Callable

from bessemer.drivers.process.parts import HostParts
from bessemer.main.parts import ORDER, command
from bessemer.main.settings import Paths, load
from bessemer.main.up import LOCK, UP
from tests.ports import ANY, keepers_of, port_flags


async def start(
    paths: Paths, *, terminal: int | None = None, fake_hosts: int = 0, output: int = asyncio.subprocess.DEVNULL
) -> asyncio.subprocess.Process:
    """``bessemer up`` in a session of its own, on that terminal; without one what it says goes to ``output``."""

    def own_terminal() -> None:
        if terminal is not None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    read, written = (asyncio.subprocess.DEVNULL, output) if terminal is None else (terminal, terminal)
    with keepers_of(load(paths) if paths.settings.exists() else ANY) as (own, keepers):
        words = (*port_flags(own), "--fake-hosts", str(fake_hosts))
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bessemer", "up", "--state", str(paths.state), *words),
            stdin=read,
            stdout=written,
            stderr=written,
            start_new_session=True,
            preexec_fn=own_terminal,
            pass_fds=keepers,
        )


async def until(said: Callable[[], bool]) -> None:
    """Return once it is so. Raises TimeoutError after two minutes."""
    async with asyncio.timeout(120):
        while not said():
            await asyncio.sleep(0.02)


def is_up(paths: Paths) -> bool:
    """Whether the supervisor says that everything is up."""
    lock = paths.state / LOCK
    return lock.exists() and lock.read_text().endswith(f" {UP}")


async def running(paths: Paths) -> list[str]:
    """The parts that run, by name."""
    return [name for name in ORDER if await HostParts().find(command(paths, name).marker)]

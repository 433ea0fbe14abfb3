"""Our own processes on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bessemer.core.errors import DriverError
from bessemer.drivers.process import procfs
from bessemer.drivers.process.protocol import Command, Part

_POLL_SECONDS = 0.02
_KILL_SECONDS = 5.0
_LOOK_SECONDS = 0.5


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    output: Path | None,
    stdin: int | None = None,
    keep: Sequence[int] = (),
) -> int:
    """Start a program in a session of its own and return its pid. It inherits nothing but ``keep``.

    ``posix_spawn`` and no `subprocess.Popen`: nothing in this process owns the child, so nothing ends it with us.
    """
    sink = str(output or os.devnull)
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0) if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_OPEN, 1, sink, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        *((os.POSIX_SPAWN_DUP2, number, number) for number in keep),
    ]
    # Signals that our parts ignore or block are not for them to hand on.
    pid = os.posix_spawnp(
        argv[0], list(argv), dict(env), file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULTS
    )
    _await_name(pid)
    return pid


def _await_name(pid: int) -> None:
    """The kernel lets us go on a moment before the child's command line can be read, by which everybody finds it. On a
    machine that is busy with others that moment may be long."""
    for _ in range(_NAME_LOOKS):
        if any(procfs.arguments(pid)) or procfs.entry(pid) is None:
            return
        time.sleep(_NAME_LOOK_SECONDS)


_NAME_LOOKS, _NAME_LOOK_SECONDS = 4_000, 0.000_5
_DEFAULTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD)


class HostParts:
    """The product's own processes; needs no privilege."""

    def __init__(self) -> None:
        self._children: set[int] = set()

    async def start(self, command: Command) -> Part:
        if not _carries(command.argv, command.marker):
            raise ValueError(f"the marker {command.marker!r} does not end the command line of {command.name}")
        argv = command.argv if command.cwd is None else ("/usr/bin/env", "-C", str(command.cwd), *command.argv)
        try:
            command.log_path.parent.mkdir(parents=True, exist_ok=True)
            pid = spawn(argv, env=os.environ if command.env is None else command.env, output=command.log_path)
        except OSError as error:
            raise DriverError("ProcessFailed", f"{command.name} cannot be started: {error.strerror}") from error
        self._children.add(pid)
        found = procfs.entry(pid)
        return Part(pid, found.started_ticks if found else 0)

    async def find(self, marker: str) -> tuple[Part, ...]:
        procfs.reap(self._children)
        found = (procfs.entry(pid) for pid in procfs.pids() if _carries(procfs.arguments(pid), marker))
        mine = (e for e in found if e is not None and e.session == e.pid and e.user == os.geteuid())
        return tuple(Part(e.pid, e.started_ticks) for e in sorted(mine, key=lambda e: (e.started_ticks, e.pid)))

    async def alive(self, part: Part) -> bool:
        procfs.reap(self._children)
        found = procfs.entry(part.pid)
        return found is not None and found.started_ticks == part.started_ticks

    async def ended(self, part: Part) -> None:
        try:
            watched = os.pidfd_open(part.pid)
        except ProcessLookupError:
            return
        except OSError:  # too many files are open, or the kernel is an old one
            while await self.alive(part):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(_LOOK_SECONDS)
            return
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(watched, gone.set)
        try:
            # Asked only now: from here on the descriptor is of the process that had the pid, and of no later one.
            if await self.alive(part):
                await gone.wait()
        finally:
            loop.remove_reader(watched)
            os.close(watched)

    async def stop(self, part: Part, *, grace_seconds: float = 5.0) -> None:
        if await self.alive(part):
            procfs.send(part.pid, signal.SIGTERM)
        for _ in range(int(grace_seconds / _POLL_SECONDS)):
            if not await self.alive(part):
                break
            await asyncio.sleep(_POLL_SECONDS)
        deadline = time.monotonic() + _KILL_SECONDS
        # Whatever the part left in its session goes with it.
        while rest := _session(part):
            for pid in rest:
                procfs.send(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise DriverError("ProcessFailed", f"process {part.pid} does not end")
            await asyncio.sleep(_POLL_SECONDS)
            procfs.reap(self._children)


def _session(part: Part) -> tuple[int, ...]:
    """The processes of the part's session. Its pid names no other process before the last of them is gone: where it
    does, none is left of them, and what is in that session is somebody else's."""
    leader = procfs.entry(part.pid)
    if leader is not None and leader.started_ticks != part.started_ticks:
        return ()
    found = (procfs.entry(pid) for pid in procfs.pids())
    return tuple(e.pid for e in found if e and e.session == part.pid and e.started_ticks >= part.started_ticks)


def _carries(argv: Sequence[str], marker: str) -> bool:
    # At the end: a directory called "a b" must not be taken for "a".
    return f" {' '.join(argv)}".endswith(f" {marker}")

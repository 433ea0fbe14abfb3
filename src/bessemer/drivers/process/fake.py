"""Processes of a fake host: the same promises, kept in memory on an injected clock.

The object stands for the host, so it outlives the fake agent that uses it. A test makes the world go wrong through
`end`, and lets a process speak through `say`; ``on_call`` may raise around any act, which is
what a crash of the agent at that point looks like.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from bessemer.core.clock import Clock
from bessemer.core.errors import DriverError
from bessemer.core.units import show_bytes
from bessemer.drivers import Hook, no_hook
from bessemer.drivers.process import users
from bessemer.drivers.process.protocol import (
    Command,
    Confined,
    End,
    Ended,
    Isolation,
    Part,
    Running,
    Stats,
    check_uid,
)

TICKS_PER_SECOND = 100
LOG_BYTES_MAX = 4 << 20
_CODES = {End.EXITED: 0, End.CRASHED: 139}


class FakeParts:
    """Our own processes, of which nothing is real but pid and start."""

    def __init__(self, clock: Clock, *, on_call: Hook = no_hook) -> None:
        self._clock = clock
        self._on_call = on_call
        self._next_pid = 1000
        self._gone: dict[Part, asyncio.Event] = {}
        self.commands: dict[Part, Command] = {}

    async def start(self, command: Command) -> Part:
        self._on_call("parts.start")
        self._next_pid += 1
        part = Part(self._next_pid, int(self._clock.monotonic() * TICKS_PER_SECOND))
        self.commands[part] = command
        self._on_call("parts.start.done")
        return part

    async def find(self, marker: str) -> tuple[Part, ...]:
        self._on_call("parts.find")
        return tuple(part for part, command in self.commands.items() if command.marker == marker)

    async def alive(self, part: Part) -> bool:
        self._on_call("parts.alive")
        return part in self.commands

    async def ended(self, part: Part) -> None:
        if part in self.commands:
            await self._gone.setdefault(part, asyncio.Event()).wait()

    async def stop(self, part: Part, *, grace_seconds: float = 5.0) -> None:
        self._on_call("parts.stop")
        self.die(part)
        self._on_call("parts.stop.done")

    def die(self, part: Part) -> None:
        """End it behind everybody's back."""
        self.commands.pop(part, None)
        self._gone.pop(part, asyncio.Event()).set()


@dataclass(slots=True)
class _Process:
    confined: Confined
    running: Running
    started_at: float
    end: Ended | None = None
    log: deque[bytes] = field(default_factory=deque)
    log_start: int = 0
    said: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Let every follower look again."""
        self.said.set()
        self.said = asyncio.Event()


class FakeProcesses:
    """Confined processes of a fake host. ``isolation`` and ``refuse`` may be set at any time, and by uid who is
    ``idle`` and what each has read from disks."""

    def __init__(self, clock: Clock, *, on_call: Hook = no_hook, isolation: Isolation = Isolation.STRONG) -> None:
        self._clock = clock
        self._on_call = on_call
        self._isolation = isolation
        self._processes: dict[str, _Process] = {}
        self._users: dict[str, int] = {}
        self._next_pid = 20_000
        self.refuse: DriverError | None = None
        self.idle: set[str] = set()
        self.read_bytes: dict[str, int] = {}

    async def isolation(self) -> Isolation:
        self._on_call("process.isolation")
        return self._isolation

    async def start(self, confined: Confined) -> Running:
        self._on_call("process.start")
        if self.refuse is not None:
            raise self.refuse
        known = self._living(confined.uid)
        if known is None:
            known = self._spawn(confined)
        self._on_call("process.start.done")
        return known.running

    async def find(self, uid: str) -> Running | None:
        self._on_call("process.find")
        process = self._living(uid)
        return process.running if process else None

    async def running(self) -> tuple[Running, ...]:
        self._on_call("process.running")
        return tuple(p.running for _, p in sorted(self._processes.items()) if p.end is None)

    async def kill(self, uid: str) -> None:
        self._on_call("process.kill")
        self.end(uid, End.KILLED)
        self._on_call("process.kill.done")

    async def remove(self, uid: str) -> None:
        self._on_call("process.remove")
        self.end(uid, End.KILLED)
        self._processes.pop(uid, None)
        self._users.pop(uid, None)
        self._on_call("process.remove.done")

    async def stats(self, uid: str) -> Stats | None:
        self._on_call("process.stats")
        process = self._living(uid)
        if process is None:
            return None
        lived = self._clock.monotonic() - process.started_at
        half = process.confined.memory_bytes // 2
        busy = 0.0 if uid in self.idle else lived * process.confined.cores_milli / 1000
        return Stats(half, half, busy, 1, self.read_bytes.get(uid, 0))

    async def ended(self, uid: str) -> Ended | None:
        self._on_call("process.ended")
        process = self._processes.get(check_uid(uid))
        return process.end if process else None

    async def log(self, uid: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        self._on_call("process.log")
        process = self._processes.get(check_uid(uid))
        position = 0
        while process is not None:
            waiter = process.said
            position = max(position, process.log_start)
            while position < process.log_start + len(process.log):
                chunk = process.log[position - process.log_start]
                position += 1
                yield chunk
            if not follow or process.end is not None:
                return
            await waiter.wait()

    def end(self, uid: str, reason: End, *, code: int | None = None) -> None:
        """End the process as the world would: at its memory limit, by a crash, by itself. A dead one stays as it is."""
        process = self._living(uid)
        if process is None:
            return
        if reason is End.OUT_OF_MEMORY:
            limit = show_bytes(process.confined.memory_bytes)
            process.end = Ended(reason, 137, f"went past its memory limit of {limit} (it had {limit})")
        elif reason is End.KILLED:
            process.end = Ended(reason, 137, "ended on request")
        else:
            code = code if code is not None else _CODES[reason]
            process.end = Ended(reason, code, f"exit status {code}")
        process.wake()

    def say(self, uid: str, text: bytes) -> None:
        """The process prints; the oldest output goes once the log is full."""
        process = self._processes[uid]
        process.log.append(text)
        while sum(map(len, process.log)) > LOG_BYTES_MAX:
            process.log.popleft()
            process.log_start += 1
        process.wake()

    def _living(self, uid: str) -> _Process | None:
        process = self._processes.get(check_uid(uid))
        return process if process is not None and process.end is None else None

    def _spawn(self, confined: Confined) -> _Process:
        taken = set(self._users.values())
        free = next(
            number for number in range(users.FIRST_USER, users.FIRST_USER + len(taken) + 1) if number not in taken
        )
        user = self._users.setdefault(confined.uid, confined.user if confined.user is not None else free)
        self._next_pid += 1
        now = self._clock.monotonic()
        running = Running(confined.uid, self._next_pid, int(now * TICKS_PER_SECOND), user)
        process = _Process(confined, running, now)
        self._processes[confined.uid] = process
        return process

"""Keeps our own processes alive: starts what is not there, adopts what is, restarts what died, with backoff.

It holds no pid file: a part is known by its marker, ``PART --state DIR``, in its command line, so that parts of a
supervisor that was killed are adopted by the next one, and ``down`` finds them without it. It sleeps until one of them
ends, whoever started it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import DriverError
from bessemer.core.tasks import first_of
from bessemer.drivers.process.protocol import Command, Part, Parts
from bessemer.main.parts import GRACE_SECONDS

LOOK_SECONDS = 30.0
"""How often parts are looked at even where nothing was heard of them."""

_WORDS_BYTES, _WORDS_LINES = 64 << 10, 8
_log = structlog.get_logger("supervisor")


def last_words(log: Path) -> str:
    """To be put behind what happened to a part: why, as its log has it in the end, and where that lies."""
    why, place = "", f"; its log is {log}"
    for line in _end_of(log).splitlines()[-_WORDS_LINES:]:
        if line.startswith("error: "):
            why = line.removeprefix("error: ")
        elif line.startswith("{"):
            why = _error_of(line) or why
    return (f": {why}" if why else "") + ("" if "; its log is " in why else place)


def _end_of(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _WORDS_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _error_of(line: str) -> str:
    try:
        return str(json.loads(line).get("error", ""))
    except ValueError:
        return ""


@dataclass(slots=True)
class _Watched:
    command: Command
    part: Part
    started: float
    failures: int = 0
    not_before: float = 0.0
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a part stands: whether it ran at the last look, and how often it was started again."""

    name: str
    running: bool
    restarts: int


class Supervisor:
    """Supervises some parts. ``check`` is one look, ``run`` looks whenever there is reason to."""

    def __init__(
        self, parts: Parts, clock: Clock, *, longest_backoff: float = 30.0, stable_after: float = 60.0
    ) -> None:
        self._parts = parts
        self._clock = clock
        self._longest = longest_backoff
        self._stable = stable_after
        self._watched: dict[str, _Watched] = {}
        self._added = asyncio.Event()

    async def start(self, command: Command) -> Part:
        """Start a part, or adopt the one that runs."""
        found = await self._parts.find(command.marker)
        part = found[0] if found else await self._parts.start(command)
        self._watched[command.name] = _Watched(command, part, self._clock.monotonic())
        self._added.set()
        return part

    async def run(self) -> None:
        """Keep them alive until cancelled. Raises what looking at them raises."""
        while True:
            self._added.clear()
            await self._until_reason(await self.check())

    async def _until_reason(self, down: Collection[str]) -> None:
        """Return when a part ends or is added, a backoff is over, or nobody has looked for long."""
        due = [watched.not_before for name, watched in self._watched.items() if name in down]
        seconds = min([*due, self._clock.monotonic() + LOOK_SECONDS]) - self._clock.monotonic()
        works = [self._parts.ended(watched.part) for name, watched in self._watched.items() if name not in down]
        await first_of(*works, self._added.wait(), self._clock.sleep(seconds))

    async def check(self) -> Sequence[str]:
        """Restart what died; the names of what is down at this moment (waiting for its backoff)."""
        down: list[str] = []
        for name, watched in list(self._watched.items()):
            if await self._parts.alive(watched.part):
                continue
            if not await self._restart(name, watched):
                down.append(name)
        return down

    async def _restart(self, name: str, watched: _Watched) -> bool:
        now = self._clock.monotonic()
        if watched.not_before == 0.0:
            lived = now - watched.started
            watched.failures = 1 if lived >= self._stable else watched.failures + 1
            watched.not_before = now + min(self._longest, 0.5 * 2 ** (watched.failures - 1))
            _log.warning("part died", part=name, lived_seconds=round(lived, 1), log=str(watched.command.log_path))
        if now < watched.not_before:
            return False
        try:
            watched.part = await self._parts.start(watched.command)
        except DriverError as error:
            _log.error("part does not start", part=name, reason=error.reason, error=str(error))
            watched.not_before = now + self._longest
            return False
        watched.started, watched.not_before, watched.restarts = now, 0.0, watched.restarts + 1
        _log.info("part restarted", part=name, pid=watched.part.pid)
        return True

    async def stop_at_once(self, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """Stop them all beside each other: none needs another."""
        stopping = [self._parts.stop(one.part, grace_seconds=grace_seconds) for one in self._watched.values()]
        self._watched.clear()
        await asyncio.gather(*stopping)

    async def stop(self, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """Stop all parts that this supervisor started or adopted, last started first."""
        for name in reversed(list(self._watched)):
            await self._parts.stop(self._watched.pop(name).part, grace_seconds=grace_seconds)

    def standing(self) -> Sequence[Standing]:
        """Each part, in the order of starting."""
        return [Standing(name, one.not_before == 0.0, one.restarts) for name, one in self._watched.items()]

    def failures(self, name: str) -> int:
        """How often in a row a part died soon after its start."""
        return self._watched[name].failures if name in self._watched else 0

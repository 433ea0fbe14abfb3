"""Load on this machine: a `runner` process for each volley, which reaches the engine's socket and nothing else.

It is a child of the agent and ends with it. It runs as the engine's user, outside the engine's control group: what it
computes is not the engine's time, nor its memory the engine's.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import orjson

from bessemer.core.errors import DriverError
from bessemer.drivers.engine.doors import Doors
from bessemer.drivers.engine.sense import engine_ended
from bessemer.drivers.load import runner
from bessemer.drivers.load.protocol import ANSWER_BYTES_MAX, GAPS_MAX, SHOTS_MAX, Hit, Look, Volley
from bessemer.drivers.process.protocol import Processes
from bessemer.drivers.process.users import USERS

_GRACE_SECONDS = 10.0
"""After a volley's time, for what came of it to be written."""

_FOUND_BYTES_MAX = 64 << 20
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


@dataclass(slots=True)
class _Under:
    number: int
    began: float
    seconds: float
    child: subprocess.Process
    task: asyncio.Task[Sequence[Hit]]


class HostLoads:
    """Implements `protocol.Loads` for engines of these ``processes``, behind these ``doors``."""

    def __init__(self, processes: Processes, doors: Doors) -> None:
        self._processes = processes
        self._doors = doors
        self._under: dict[str, _Under] = {}

    async def begin(self, uid: str, secret: str, *, volley: Volley) -> None:
        known = self._under.get(uid)
        if known is not None and known.number == volley.number:
            return
        await self.end(uid)
        running = await self._processes.find(uid)
        if running is None:
            raise engine_ended(await self._processes.ended(uid))
        if not self._doors.seal(uid):
            raise DriverError("EngineStarting", "the engine has not opened its door yet")
        if not 0 < len(volley.shots) <= SHOTS_MAX:
            raise DriverError("LoadFailed", f"a volley has 1 to {SHOTS_MAX} requests")
        child, door = await self._spawned(uid)
        words = {
            "door": f"/proc/self/fd/{door}",
            "user": running.user + USERS if os.geteuid() == 0 else -1,
            "secret": secret,
            "seconds": volley.seconds,
            "serial": volley.serial,
            "shots": [
                {"at": shot.at, "path": shot.path, "body": dict(shot.body), "keep": shot.keep} for shot in volley.shots
            ],
            "bytesMax": ANSWER_BYTES_MAX,
            "gapsMax": GAPS_MAX,
        }
        task = asyncio.create_task(_told(child, orjson.dumps(words), volley=volley))
        self._under[uid] = _Under(volley.number, asyncio.get_running_loop().time(), volley.seconds, child, task)

    async def look(self, uid: str, number: int) -> Look | None:
        under = self._under.get(uid)
        if under is None or under.number != number:
            return None
        if not under.task.done():
            over = asyncio.get_running_loop().time() - under.began
            return Look(min(1.0, over / under.seconds))
        try:
            return Look(1.0, under.task.result())
        except DriverError:
            del self._under[uid]
            raise

    async def end(self, uid: str) -> None:
        under = self._under.pop(uid, None)
        if under is not None:
            under.task.cancel()
            # A task that has not begun yet would not end it.
            await _gone(under.child)
            with suppress(asyncio.CancelledError, DriverError):
                await under.task

    async def _spawned(self, uid: str) -> tuple[subprocess.Process, int]:
        """The child, and the number of its descriptor of the engine's socket."""
        try:
            door = os.open(self._doors.socket(uid), os.O_PATH | os.O_NOFOLLOW)
        except OSError as error:
            raise DriverError(
                "EngineStarting", "the engine has not opened its door yet", internal=str(error)
            ) from error
        try:
            if os.geteuid() == 0:
                # As for a doorway: its folder is root's alone, and whoever has no descriptor does not come this far.
                os.chmod(f"/proc/self/fd/{door}", 0o666)
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-B", runner.__file__),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(door,),
                env=_ENVIRONMENT,
                start_new_session=True,
                limit=_FOUND_BYTES_MAX,
            )
        except OSError as error:
            raise DriverError("LoadFailed", "no load can be put on the engine", internal=str(error)) from error
        finally:
            os.close(door)
        return child, door


async def _told(child: subprocess.Process, words: bytes, *, volley: Volley) -> Sequence[Hit]:
    """What the child says. Raises DriverError ``LoadFailed``; it is gone in any case."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        async with asyncio.timeout(volley.seconds + _GRACE_SECONDS):
            child.stdin.write(len(words).to_bytes(8, "big") + words)
            await child.stdin.drain()
            # Its input stays open: that it ends is how the child learns that nobody waits for it.
            said = await child.stdout.readline()
            found = [_hit(one) for one in orjson.loads(said)]
    except (TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
        raise DriverError("LoadFailed", "what came of the load cannot be read", internal=repr(error)) from error
    finally:
        await _gone(child)
    if len(found) != len(volley.shots):
        raise DriverError("LoadFailed", "what came of the load is not of it", internal=f"{len(found)} hits")
    return tuple(found)


async def _gone(child: subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        child.kill()
    await child.wait()


def _hit(said: dict[str, object]) -> Hit:
    return Hit(**{**said, "gaps": tuple(said["gaps"])})  # type: ignore[arg-type]

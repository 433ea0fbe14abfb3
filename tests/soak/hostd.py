"""The agent of a fake host as it is, but for its engines: each is a process that writes down what it makes (`engined`),
and may be killed.

``python -m tests.soak.hostd STATE LOGS``. Of the engine of a claim LOGS has ``UID.tokens``, what it wrote down, and,
while it runs, ``UID.pid``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from bessemer.agent import fake
from bessemer.cli.verbs import AgentOptions
from bessemer.core.clock import Clock
from bessemer.core.errors import DriverError
from bessemer.drivers.engine.fake import FakeEngine
from bessemer.drivers.engine.protocol import EngineSpec, ProbeResult, RunningEngine, Task
from bessemer.drivers.process.protocol import End
from bessemer.kinds import host_side
from bessemer.main.agent import run_agent

LOOK_SECONDS = 1.0


class Engines(FakeEngine):
    """Those of a fake host, each with a process at its door; what the agent asks of them is answered from memory, so
    that nothing but clients is in what they write down."""

    def __init__(self, clock: Clock, *, doors: Path | None = None, logs: Path) -> None:
        super().__init__(clock, doors=doors, load_seconds=0.0)
        self._listens = False  # its process does
        self._logs = logs
        self._work: dict[str, tuple[asyncio.subprocess.Process, asyncio.Task[None]]] = {}

    async def start(self, spec: EngineSpec) -> RunningEngine:
        if (found := await self.find(spec.uid)) is not None:
            return found
        self._doors.clear(spec.uid)
        context = str(spec.context_tokens // spec.slots)
        words = ("tests.soak.engined", self.door(spec.uid), f"{self._logs}/{spec.uid}.tokens", spec.secret, context)
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", *words)
        self._pid(spec.uid).write_text(str(process.pid))
        running = await super().start(spec)
        self._work[spec.uid] = process, asyncio.create_task(self._ended(spec.uid, process))
        return running

    async def probe(self, uid: str, secret: str, *, alias: str | None = None, task: Task = "generate") -> ProbeResult:
        if not os.path.exists(self.door(uid)) and await self.find(uid) is not None:  # noqa: ASYNC240 - in memory
            raise DriverError("EngineStarting", "its door is not there yet")
        return await super().probe(uid, secret, alias=alias, task=task)

    async def stop(self, uid: str) -> None:
        process, task = self._work.pop(uid, (None, None))
        if process is not None and task is not None:
            task.cancel()
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._pid(uid).unlink(missing_ok=True)
        await super().stop(uid)
        self._doors.remove(uid)

    def _pid(self, uid: str) -> Path:
        return self._logs / f"{uid}.pid"

    async def _ended(self, uid: str, process: asyncio.subprocess.Process) -> None:
        """It was killed."""
        await process.wait()
        self._pid(uid).unlink(missing_ok=True)
        self._work.pop(uid, None)
        await self.end(uid, End.CRASHED)


def main(state: str, logs: str) -> int:
    host_side.LOOK_FAKE_SECONDS = LOOK_SECONDS
    fake.FakeEngine = partial(Engines, logs=Path(logs))  # type: ignore[assignment,misc]
    return run_agent(AgentOptions(state=Path(state), fake=True))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

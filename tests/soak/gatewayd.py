"""A gateway's process as it is, but for where its host's doors are, for a wall clock that jumps when it is told to, and
for a note of what it sends to be settled.

``python -m tests.soak.gatewayd STATE DOORS``. SIGUSR1 puts the clock two hours on, SIGUSR2 five back. ``STATE.settled``
gets a line of each record before it is sent: spool, sequence, request, key, how it ended, tokens read and written.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from bessemer.core.clock import SystemClock
from bessemer.core.values import UsageBatch
from bessemer.gateway import Settler, Spool
from bessemer.gateway.settle import Send
from bessemer.main import gateway
from bessemer.main.settings import Paths, load

HOUR = 3600.0


class Noting(Settler):
    """Writes down what it sends, before it does."""

    def __init__(self, spool: Spool, send: Send, *, note: int, **words: Any) -> None:
        async def noted(batch: UsageBatch) -> int:
            lines = [
                f"{batch.spool_uid} {number} {one.request_id} {one.api_key} {one.ended or '-'}"
                f" {one.input_tokens} {one.output_tokens} ."
                for number, one in enumerate(batch.records, start=batch.first_sequence)
            ]
            os.write(note, "\n".join(["", *lines, ""]).encode())
            return await send(batch)

        super().__init__(spool, noted, **words)


class Jumping(SystemClock):
    """``ahead`` of the machine's by so many seconds."""

    ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead


async def main(state: str, doors: str) -> None:
    clock, paths = Jumping(), Paths(Path(state))

    def jump(hours: float) -> None:
        clock.ahead += hours * HOUR

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, jump, 2.0)
    loop.add_signal_handler(signal.SIGUSR2, jump, -5.0)
    gateway.SystemClock = lambda: clock  # type: ignore[assignment,misc]
    note = os.open(f"{state}.settled", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    gateway.Settler = partial(Noting, note=note)  # type: ignore[assignment,misc]
    gateway.doors_of = lambda *_: lambda _host: Path(doors)  # type: ignore[assignment]
    running = asyncio.ensure_future(gateway.run_gateway(paths, load(paths), stop=asyncio.Event()))
    loop.add_signal_handler(signal.SIGTERM, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""A gateway's process as it is, but for where its host's doors are, and for a wall clock that jumps when it is told to.

``python -m tests.soak.gatewayd STATE DOORS``. SIGUSR1 puts the clock two hours on, SIGUSR2 five back.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from bessemer.core.clock import SystemClock
from bessemer.main import gateway
from bessemer.main.settings import Paths, load

HOUR = 3600.0


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
    gateway.doors_of = lambda *_: lambda _host: Path(doors)  # type: ignore[assignment]
    running = asyncio.ensure_future(gateway.run_gateway(paths, load(paths), stop=asyncio.Event()))
    loop.add_signal_handler(signal.SIGTERM, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

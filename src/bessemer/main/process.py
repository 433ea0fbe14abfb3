"""What every long-running process of ours does the same way: logs, signals, an event loop, a metrics registry."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import structlog


def set_up_logs() -> None:
    """JSON lines on standard output, with UTC times; also what libraries say from warnings on."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format='{"event": "%(name)s: %(message)s"}')


async def until_told(work: Coroutine[Any, Any, None]) -> int:
    """Run ``work`` until it ends or SIGTERM or SIGINT says stop; 0, or 1 where it failed."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return 0
    except BaseExceptionGroup as group:
        structlog.get_logger("main").error("stopped by an error", exc_info=group)
        return 1
    return 0


def run(work: Coroutine[Any, Any, None]) -> int:
    """`until_told` on uvloop, with logs set up; the exit status."""
    import uvloop

    set_up_logs()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(until_told(work))

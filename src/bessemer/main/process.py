"""What every long-running process of ours does the same way: logs, signals, an event loop, a metrics registry."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import resource
import select
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

import orjson

from bessemer.core.errors import BessemerError

_LOOK_SECONDS = 1.0


def set_up_logs() -> None:
    """JSON lines on standard output, with UTC times; also what libraries say from warnings on. With
    ``BESSEMER_LOG=debug`` also what is told at that level."""
    import structlog

    level = logging.DEBUG if os.environ.get("BESSEMER_LOG") == "debug" else logging.INFO
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_line),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format='{"event": "%(name)s: %(message)s"}')


def _line(event: Mapping[str, object], *, default: Callable[[object], object]) -> bytes:
    """A line of the log. What is no proper text, as names of files may be, is escaped by the slower encoder."""
    try:
        return orjson.dumps(event, default=default)
    except orjson.JSONEncodeError:
        return json.dumps(event, default=default).encode()


def leave_no_cores() -> None:
    """No memory of ours, nor of what we start, is written to a disk when it dies: keys and secrets are in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def have_read() -> None:
    """To be called once a process has imported what it will run. That stays for good: a full collection that walked all
    of it would hold up every request meanwhile, for a tenth of a second and more."""
    gc.freeze()
    gc.enable()


def listen_for_the_end(stop: asyncio.Event) -> None:
    """Set ``stop`` at Ctrl-C, at SIGTERM, and when the terminal is closed, unless whoever started us wants that to be
    ignored (``nohup``)."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, _hung_up, stop)
    if sys.stdout.isatty():
        _look(stop)


def _look(stop: asyncio.Event) -> None:
    # A terminal that goes tells its session's leader alone, which may keep it to itself (``su``): so it is looked at.
    terminal = select.poll()
    terminal.register(sys.stdout, 0)
    if terminal.poll(0):
        _hung_up(stop)
    else:
        asyncio.get_running_loop().call_later(_LOOK_SECONDS, _look, stop)


def _hung_up(stop: asyncio.Event) -> None:
    # Nobody reads any more, and a write to a terminal that is gone is an error that must not keep us from ending well.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)
    stop.set()


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work unless ``stop`` comes first; whether it was done to its end. What it raises goes on."""
    doing, waiting = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        doing.cancel()
        await asyncio.wait({doing})
    if stop.is_set() or doing.cancelled():
        return not doing.cancelled() and doing.exception() is None
    doing.result()
    return True


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
        import structlog

        structlog.get_logger("main").error("stopped by an error", error=_first(group), exc_info=group)
        return 1
    return 0


def _first(group: BaseExceptionGroup[BaseException]) -> str:
    """The first error of a group, for a person."""
    error = next(_leaves(group))
    return str(error) if isinstance(error, BessemerError | OSError) else f"{type(error).__name__}: {error}"


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def run(work: Coroutine[Any, Any, None]) -> int:
    """`until_told` on uvloop, with logs set up; the exit status."""
    import uvloop

    leave_no_cores()
    set_up_logs()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(until_told(work))

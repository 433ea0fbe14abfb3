"""What every long-running process of ours does the same way: logs, signals, an event loop, a metrics registry."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

import orjson

from bessemer.core.clock import Clock
from bessemer.core.descriptors import raise_limit
from bessemer.core.errors import BessemerError

_LOOK_SECONDS = 1.0
_GIVE_BACK_SECONDS = 60.0
_WORTH_BYTES = 16 << 20
_QUIET_SECONDS = 1.0
_QUIET_SHARE = 0.25
_YOUNG_MAX = 50_000
"""Objects made and not yet gone since the last collection."""

FILES_WANTED = 16_384
"""For a few thousand agents and watches; who has less serves fewer."""


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


def open_what_may_be() -> None:
    """As many files as the system lets this process have, and a word in the log where that is few."""
    import structlog

    most, log = raise_limit(), structlog.get_logger("main")
    log.info("files that may be open", most=most)
    if most < FILES_WANTED:
        log.warning("few files may be open: raise the hard limit (LimitNOFILE= of the service)", most=most)


def have_read() -> None:
    """To be called once a process has imported what it will run. That stays for good: a full collection that walked all
    of it would hold up every request meanwhile, for a tenth of a second and more. Nor is what lives for a moment looked
    through each time that some of it was made: requests that wait by the hundred are walked for 20 ms, and next to
    nothing here is garbage that only a collection finds."""
    gc.freeze()
    gc.set_threshold(_YOUNG_MAX, *gc.get_threshold()[1:])
    gc.enable()


async def give_back(clock: Clock) -> None:
    """For ever: let the machine have again what was freed. Whole lists and connections by the thousand leave holes in
    the heap, which the C library keeps by itself, however large they are. While it gives them back whoever wants memory
    waits, tens of milliseconds with a large heap: so it does that seldom, where it is worth it, and while nobody asks
    for anything."""
    heap = ctypes.CDLL(None)
    trim = getattr(heap, "malloc_trim", None)
    floor = 0
    while trim is not None:  # else the C library is another
        await clock.sleep(_GIVE_BACK_SECONDS)
        while await busy(clock):
            pass
        holes = await asyncio.to_thread(_holes, heap)
        if holes > floor + _WORTH_BYTES:
            await asyncio.to_thread(trim, 0)
            floor = await asyncio.to_thread(_holes, heap)
        else:
            floor = min(floor, holes)


async def busy(clock: Clock) -> bool:
    """Whether this process had much to do in the second that passes meanwhile."""
    before = time.process_time()
    await clock.sleep(_QUIET_SECONDS)
    return time.process_time() - before > _QUIET_SHARE * _QUIET_SECONDS


def resident() -> int:
    """Bytes of this process that are in memory; 0 where the system does not say so."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


class _Mallinfo(ctypes.Structure):
    """``struct mallinfo2`` of the GNU C library: what is in use, mapped by itself and of the heap, in bytes."""

    _fields_ = (
        ("before", ctypes.c_size_t * 4),
        ("hblkhd", ctypes.c_size_t),
        ("between", ctypes.c_size_t * 2),
        ("uordblks", ctypes.c_size_t),
        ("behind", ctypes.c_size_t * 2),
    )


def _holes(heap: ctypes.CDLL) -> int:
    """Bytes of this process that are in memory and in no use that the C library knows of; what is not its own is among
    them. An older library does not say what is in use."""
    there, ask = resident(), getattr(heap, "mallinfo2", None)
    if ask is None:
        return there
    ask.restype = _Mallinfo
    said = ask()
    return there - int(said.uordblks) - int(said.hblkhd)


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
    open_what_may_be()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(until_told(work))

"""A crew: reckoning of ours that several processes do beside each other, one task each, for as long as somebody waits.

A task's process is begun afresh (spawn), hears no Ctrl-C, for that is its starter's to act on, and ends with whoever
started it: it is ended where the caller is interrupted or another task fails, and ends by itself where nobody listens
to it any more. It is for what only reckons: it inherits no file, no connection and no lock.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from bessemer.core.errors import DriverError, Invalid

Task = TypeVar("Task")
Result = TypeVar("Result")

Told = Callable[[float], None]
"""Hears how much is done, from 0 to 1."""

_STEP = 0.01
"""Of progress, between two words of it."""


def reckon(
    work: Callable[[Task, Told], Result], tasks: Sequence[Task], *, hands: int, told: Told = lambda _: None
) -> list[Result]:
    """``work`` on each task, at most ``hands`` at a time; results in the order of the tasks. ``work`` is a function of
    a module, and what goes in and comes out can be pickled. ``told`` hears how much of all is done.

    Raises Invalid as a task does, and DriverError (``WorkerEnded``) where its process ended without a result.
    """
    if hands < 2 or len(tasks) < 2:
        count = len(tasks)
        return [work(task, lambda share, n=n: told((n + share) / count)) for n, task in enumerate(tasks)]  # type: ignore[misc]
    done, results = [0.0] * len(tasks), dict[int, Result]()
    waiting, running = list(reversed(range(len(tasks)))), dict[Connection, _Worker]()
    with ExitStack() as at_the_end:
        while waiting or running:
            while waiting and len(running) < hands:
                n = waiting.pop()
                worker = _started(_Order(work, n, tasks[n]))
                at_the_end.callback(worker.end)
                running[worker.ear] = worker
            for worker, said in _heard(running):
                done[worker.number], results[worker.number] = said.done, said.result
            told(sum(done) / len(done))
    return [results[n] for n in range(len(tasks))]


@dataclass(frozen=True, slots=True)
class _Order:
    """What a worker is to do, and the number of its task."""

    work: Callable[[Any, Told], Any]
    number: int
    task: Any


@dataclass(frozen=True, slots=True)
class _Said:
    """What a worker says: how far it is, its result with the last word, or why there will be none."""

    done: float
    result: Any = None
    error: Invalid | None = None


@dataclass(frozen=True, slots=True)
class _Worker:
    """A process, the number of its task, and where it is heard."""

    number: int
    process: SpawnProcess
    ear: Connection

    def hear(self) -> _Said:
        """Its next word. Raises what went wrong there."""
        try:
            said = self.ear.recv()
        except EOFError:
            self.process.join()
            raise DriverError("WorkerEnded", f"a process that reckons ended with {self.process.exitcode}") from None
        assert isinstance(said, _Said)
        if said.error is not None:
            raise said.error
        return said

    def end(self) -> None:
        """End it, if it has not, and forget it. Harmless when repeated."""
        if not self.ear.closed:
            self.ear.close()
            self.process.terminate()
            self.process.join()


def _heard(running: dict[Connection, _Worker]) -> Iterator[tuple[_Worker, _Said]]:
    """The next words of whoever says something first. Who said the last is ended, and runs no more."""
    for worker in [running[ear] for ear in wait(list(running)) if isinstance(ear, Connection)]:
        said = worker.hear()
        if said.done == 1.0:
            running.pop(worker.ear).end()
        yield worker, said


def _started(order: _Order) -> _Worker:
    context = get_context("spawn")
    ear, mouth = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(mouth, order), daemon=True)
    resource_tracker.ensure_running()  # or `start` does, and lets signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    mouth.close()  # theirs alone, so that its end is heard when they end
    return _Worker(order.number, process, ear)


def _work(mouth: Connection, order: _Order) -> None:
    """In its own process, which took over that Ctrl-C is blocked."""
    last = 0.0

    def tell(share: float) -> None:
        nonlocal last
        if last + _STEP <= share < 1.0:
            last = share
            mouth.send(_Said(share))

    try:
        mouth.send(_Said(1.0, order.work(order.task, tell)))
    except Invalid as error:
        mouth.send(_Said(last, error=error))
    except BrokenPipeError:
        return  # nobody listens any more

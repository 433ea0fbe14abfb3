"""One turn of one name: read, reconcile, fold, write once, say when to look again.

Whatever a kind raises ends here as an outcome: a `Conflict` is a turn repeated at once, an error of ours shows its own
words, and anything else shows none of its internals. A reconcile that hangs is cancelled after `LIMIT_SECONDS`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import orjson
import structlog

from bessemer.core.clock import Clock, epoch
from bessemer.core.errors import BessemerError, Conflict, DriverError, NotFound, TooMany, Unavailable
from bessemer.core.notices import Happening
from bessemer.core.ports import UNDER, Events, Fence, Part, Stored, Writer
from bessemer.core.resource import Done, Fail, Key, Kind, Outcome, Resource, Status, Wait
from bessemer.core.taking import Telling, Within
from bessemer.loop.fold import fold, happenings, is_ready, phase_after, status_body
from bessemer.loop.leadership import Leadership, lease_of
from bessemer.loop.metrics import KindMetrics
from bessemer.loop.queue import Backoff, Cause, Queue

LIMIT_SECONDS = 600.0
PATIENCE = 3
"""Errors in a row for which a Ready object keeps its word."""

_INTERNAL = "An internal error; the step is tried again."

C = TypeVar("C")

log = structlog.get_logger(__name__)


class Access(Protocol):
    """What a turn needs of ``ports.Objects``."""

    async def get(self, key: Key) -> Stored: ...

    async def replace(
        self, body: Mapping[str, Any], writer: Writer, *, part: Part = "main", dry_run: bool = False
    ) -> Stored: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What a kind's work came to. Where it ``raised``, ``outcome`` is how that is shown, and ``after`` the seconds that
    the error itself asks to wait."""

    outcome: Outcome
    raised: bool = False
    after: float | None = None


class Phases:
    """Since when each object is in its phase, on the clock that never jumps."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[Key, tuple[str, str, float, int]] = {}

    def elapsed(self, obj: Resource[Any, Any], phase: str, *, done: int = 0) -> float:
        """Seconds in ``phase``, or since more was ``done`` than ever in it. Only an object first seen here is measured
        by its own ``phaseSince``; one of which something is ``done`` is not, for nobody kept when that was."""
        now = self._clock.monotonic()
        known = self._since.get(obj.key)
        if known is None or known[:2] != (obj.uid, phase):
            first = known is None and obj.status.phase == phase and not done
            written = obj.status.phase_since if first else None
            age = max(0.0, self._clock.now() - epoch(written)) if written else 0.0
            known = self._since[obj.key] = (obj.uid, phase, now - age, done)
        elif done > known[3]:
            known = self._since[obj.key] = (obj.uid, phase, now, done)
        return now - known[2]

    def forget(self, key: Key) -> None:
        self._since.pop(key, None)

    def mark(self, key: Key) -> tuple[str, str, float, int] | None:
        """What is known of the object, for `back`."""
        return self._since.get(key)

    def back(self, key: Key, mark: tuple[str, str, float, int] | None) -> None:
        """It did not come to that phase."""
        if mark is None:
            self._since.pop(key, None)
        else:
            self._since[key] = mark

    def forget_all(self, kind: str) -> None:
        self._since = {key: known for key, known in self._since.items() if key.kind != kind}


@dataclass(eq=False, kw_only=True)
class Work(Generic[C]):
    """Turns names into outcomes, and outcomes into one write. The queue and the leases are the loop's."""

    kinds: Mapping[str, Kind[C, Any]]
    ctx: C
    objects: Access
    events: Events | None
    clock: Clock
    writer: Writer
    metrics: Mapping[str, KindMetrics]
    queue: Queue
    leadership: Leadership
    jitter: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        self._seen: dict[Key, int] = {}
        self._errors = Backoff(1.0, 300.0, jitter=self.jitter)
        self._conflicts = Backoff(0.01, 1.0, jitter=self.jitter)
        self._phases = Phases(self.clock)
        self._acting: dict[Key, tuple[asyncio.Task[Any], float]] = {}
        self._overdue: set[Key] = set()
        self._stuck: set[Key] = set()

    def seen(self, key: Key) -> int:
        """The newest revision of the object that a turn has read or written."""
        return self._seen.get(key, 0)

    def forget(self, key: Key) -> None:
        """The object is gone."""
        self._seen.pop(key, None)
        self._errors.reset(key)
        self._conflicts.reset(key)
        self._phases.forget(key)
        self.queue.forget(key)
        self._note_stuck(key, stuck=False)

    def take_over(self, kind: str) -> None:
        """Another loop may have worked on the kind since: what was measured before that is no measure any more."""
        self._phases.forget_all(kind)

    async def turn(self, key: Key) -> None:
        """One turn. It raises nothing but cancellation."""
        fence = self.leadership.fence(key.kind)
        if fence is None:
            return
        started = self.clock.monotonic()
        under = UNDER.set(Fence(lease_of(key.kind), fence))
        outcome = "Error"
        try:
            outcome = await self._turn(key, fence)
            self._conflicts.reset(key)
        except NotFound:
            outcome = "Gone"
            self.forget(key)
        except Conflict:
            outcome = "Conflict"
            self.metrics[key.kind].retries.inc()
            self.queue.later(key, self._conflicts.next(key), cause="again")
        except BessemerError as error:  # The store is away, or refuses the write.
            self._put_off(key, type(error).__name__)
            log.warning("turn refused", **_named(key), error=str(error), internal=error.internal)
        except Exception as error:  # A stored body cannot be read, or a kind answered what is no outcome.
            self._put_off(key, type(error).__name__)
            log.exception("turn failed", **_named(key))
        finally:
            UNDER.reset(under)
        self.metrics[key.kind].reconciled(outcome, self.clock.monotonic() - started)

    def cancel_overdue(self) -> None:
        """Cancel what has been at work for longer than the limit; its turn ends as an error."""
        now = self.clock.monotonic()
        for key, (task, started) in self._acting.items():
            if now - started >= LIMIT_SECONDS and key not in self._overdue:
                self._overdue.add(key)
                task.cancel()

    async def _turn(self, key: Key, fence: int) -> str:
        kind = self.kinds[key.kind]
        stored = await self.objects.get(key)
        self._seen[key] = stored.revision
        obj = kind.resource.load(stored.body)
        act = kind.finalize if obj.deleting else kind.reconcile
        if act is None:
            return "Skipped"
        answer = await self._act(obj, act(self.ctx, obj))
        if self.leadership.fence(key.kind) != fence:
            return "Fenced"
        if obj.deleting and isinstance(answer.outcome, Done) and kind.finalizer in obj.metadata.finalizers:
            await self._let_go(stored, kind.finalizer)
            self._errors.reset(key)
            return "Finalized"
        answer, left = await self._written(kind, obj, answer=answer)
        if answer.raised:
            self._put_off(key, answer.outcome.reason, after=answer.after)
            return "Error"
        self._errors.reset(key)  # Only now: a store that refuses the write is no success.
        self._schedule(kind, key, outcome=answer.outcome, left=left)
        return type(answer.outcome).__name__

    async def _act(self, obj: Resource[Any, Any], work: Awaitable[Outcome]) -> Answer:
        """Await the kind's work and turn what it raises into what is shown. Raises Conflict."""
        key, task = obj.key, asyncio.current_task()
        assert task is not None
        self._acting[key] = (task, self.clock.monotonic())
        try:
            outcome = await work
        except Conflict:
            raise
        except asyncio.CancelledError:
            if key not in self._overdue:
                raise
            task.uncancel()
            message = f"One step ran for more than {LIMIT_SECONDS:.0f} s and was cancelled."
            return Answer(Wait(reason="TookTooLong", message=message), raised=True)
        except BessemerError as error:
            reason = error.reason if isinstance(error, DriverError) else type(error).__name__
            log.warning("reconcile refused", **_who(obj), reason=reason, error=str(error), internal=error.internal)
            after = float(error.retry_after_seconds) if isinstance(error, Unavailable | TooMany) else None
            return Answer(Wait(reason=reason, message=error.message), raised=True, after=after)
        except Exception:  # A defect of the kind: the traceback is for the log alone.
            log.exception("reconcile raised", **_who(obj))
            return Answer(Wait(reason="InternalError", message=_INTERNAL), raised=True)
        finally:
            self._acting.pop(key, None)
            self._overdue.discard(key)
        return Answer(outcome)

    async def _written(
        self, kind: Kind[C, Any], obj: Resource[Any, Any], *, answer: Answer
    ) -> tuple[Answer, float | None]:
        """`_write`. What was to be done with the status, and was not, is told by another; answers that, too."""
        within = answer.outcome.within if isinstance(answer.outcome, Wait) else None
        if within is None:
            return answer, await self._write(kind, obj, answer=answer)
        mark = self._phases.mark(obj.key)
        try:
            return answer, await self._write(kind, obj, answer=answer)
        except BessemerError as error:
            self._phases.back(obj.key, mark)
            instead = await self._act(obj, within.failed(error))
        return await self._written(kind, obj, answer=instead)

    async def _write(self, kind: Kind[C, Any], obj: Resource[Any, Any], *, answer: Answer) -> float | None:
        """Write the status if it changed, and tell what happened. Answers the seconds left to the phase's deadline."""
        outcome = answer.outcome
        phase = phase_after(obj, outcome)
        deadline = None if is_ready(outcome) else kind.deadlines.get(phase)
        done = outcome.done if isinstance(outcome, Wait) else 0
        left = None if deadline is None else deadline - self._phases.elapsed(obj, phase, done=done)
        if left is None:
            self._phases.forget(obj.key)
        # To the millisecond: what sums of floats leave of a deadline is no time that passes.
        late = left is not None and left < 0.001
        if answer.raised and not late and self._errors.failures(obj.key) < PATIENCE and _keeps_its_word(obj):
            return left
        new = fold(obj, outcome, now=self.clock.now(), overdue_after=deadline if late else None)
        within = outcome.within if isinstance(outcome, Wait) else None
        if within is not None or new != obj.status:
            failed = answer.raised or isinstance(outcome, Fail)
            told = [*outcome.happened, *happenings(obj.status, new, failed=failed)] if self.events is not None else []
            self._seen[obj.key] = await self._put(obj, new, told=told, within=within)
        self._note_stuck(obj.key, stuck=late)
        return None if late else left

    async def _put(
        self, obj: Resource[Any, Any], new: Status, *, told: Sequence[Happening], within: Within | None
    ) -> int:
        """Write the status, and with it what that tells, and what it is to be written with. Answers the revision."""
        body = status_body(obj, new)
        if within is not None:
            return await within.write(Telling(body, told))
        if self.events is None or not told:
            return (await self.objects.replace(body, self.writer, part="status")).revision
        return (await self.events.tell(body, self.writer, happenings=told)).revision

    def _schedule(self, kind: Kind[C, Any], key: Key, *, outcome: Outcome, left: float | None) -> None:
        """Set the name's timer: the outcome's wish, the phase's deadline or the resync, whichever is first."""
        # Between nine tenths and all of the interval, so that what was applied together is not read again together.
        due: float = kind.resync_seconds * (0.9 + 0.1 * self.jitter())
        cause: Cause = "resync"
        for wish in (outcome.again, left):
            if wish is not None and wish < due:
                due, cause = wish, "again"
        self.queue.later(key, due, cause=cause)

    def _put_off(self, key: Key, reason: str, *, after: float | None = None) -> None:
        """After an error: wait for as long as it asks, or for longer each time."""
        own = self._errors.next(key)
        self.metrics[key.kind].error(reason)
        self.metrics[key.kind].backoffs.inc()
        self.queue.later(key, own if after is None else after, cause="backoff")

    async def _let_go(self, stored: Stored, finalizer: str) -> None:
        """Remove the kind's finalizer; whoever wrote in between is read again, for nothing they say can keep it."""
        for _ in range(5):
            body = orjson.loads(stored.body)
            if body["metadata"]["uid"] != stored.uid or finalizer not in body["metadata"].get("finalizers", ()):
                return
            body["metadata"]["finalizers"] = [f for f in body["metadata"]["finalizers"] if f != finalizer]
            try:
                written = await self.objects.replace(body, self.writer)
            except Conflict:
                uid = stored.uid
                stored = await self.objects.get(stored.key)
                if stored.uid != uid:
                    return
                continue
            self._seen[stored.key] = written.revision
            return
        raise Conflict("The object changes faster than its finalizer can be removed.")

    def _note_stuck(self, key: Key, *, stuck: bool) -> None:
        if stuck and key not in self._stuck:
            self._stuck.add(key)
            self.metrics[key.kind].stuck.inc()
        elif not stuck and key in self._stuck:
            self._stuck.discard(key)
            self.metrics[key.kind].stuck.dec()


def _keeps_its_word(obj: Resource[Any, Any]) -> bool:
    """Whether Ready, which it had for this very intent, is not taken from it by an error that is young."""
    ready = obj.status.condition("Ready")
    known = ready is not None and ready.status == "True"
    return known and obj.status.observed_generation == obj.metadata.generation


def _named(key: Key) -> dict[str, str]:
    return {"kind": key.kind, "namespace": key.namespace, "name": key.name}


def _who(obj: Resource[Any, Any]) -> dict[str, str]:
    return {**_named(obj.key), "object_uid": obj.uid}

"""A trace over an endpoint that scales: requests come, go to the replica with least to do or wait for a slot as they do
at the gateway, and a policy is asked again and again. Pure; its time is the trace's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace

from bessemer.core.loads import SUMS, Sums
from bessemer.kinds.inference.replay.replica import Replica, Request, Speed
from bessemer.kinds.inference.replay.trace import Asked
from bessemer.kinds.inference.scaling.sight import Policy, Sight
from bessemer.kinds.inference.scaling.spec import Scale

TICK_SECONDS = 2.0
"""Between two looks of a policy: what reports of gateways allow, and Knative's own."""
_DRAWN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Case:
    """``first`` replicas are there when it begins."""

    speed: Speed
    scale: Scale
    first: int = 1


@dataclass(slots=True)
class Course:
    """What happened: ``requests`` in order; ``replica_seconds`` until the last was answered; ``times``, ``wanted``,
    ``ready`` and ``arriving`` (a second) are drawn; ``events`` are (when, from, to, why)."""

    requests: list[Request] = field(default_factory=list)
    replica_seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    arriving: list[float] = field(default_factory=list)
    events: list[tuple[float, int, int, str]] = field(default_factory=list)


class _Endpoint:
    """The replicas of it, and who waits for them."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self.now = 0.0
        self.replicas = [Replica(case.speed, 0.0, 0.0) for _ in range(case.first)]
        self.queue: deque[Request] = deque()
        self.replica_seconds = 0.0
        self._sums: dict[str, float] = dict.fromkeys(SUMS, 0)

    def go(self, until: float) -> None:
        """As far as that; who waits is given each slot at the moment at which it becomes free."""
        while self.queue and self.now < until:
            starts = [one.ready for one in self.replicas if self.now < one.ready < until and not one.leaving]
            self._all(min(starts, default=until), serves=True)
        if self.now < until:
            self._all(until)

    def come(self, request: Request) -> None:
        """One more, now."""
        self._sums["arrived"] += 1
        self.queue.append(request)
        self._serve(self.now)

    def want(self, count: int) -> None:
        """So many are to be there: what starts goes first, then who has least to do, which ends what it answers."""
        staying = [one for one in self.replicas if not one.leaving]
        for _ in range(count - len(staying)):
            self.replicas.append(Replica(self._case.speed, self.now, self.now + self._case.speed.start_seconds))
        staying.sort(key=lambda one: (one.ready <= self.now, one.busy, -one.began))
        for one in staying[: max(0, len(staying) - count)]:
            one.leaving = True
        self._retire()

    def sight(self) -> Sight:
        for one in self.replicas:
            self._count(one)
        staying = [one for one in self.replicas if not one.leaving]
        ready = sum(one.ready <= self.now for one in staying)
        return Sight(
            at=self.now,
            busy=sum(one.busy for one in self.replicas),
            waiting=len(self.queue),
            ready=ready,
            starting=len(staying) - ready,
            sums=Sums(**self._sums),
        )

    def _all(self, until: float, *, serves: bool = False) -> None:
        if serves:
            self._serve(until)
        for one in self.replicas:
            if one.busy:
                one.advance(until)
        self.replica_seconds += len(self.replicas) * (until - self.now)
        self.now = until
        self._retire()
        if serves:
            self._serve(until)

    def _retire(self) -> None:
        gone = [one for one in self.replicas if one.leaving and not one.busy]
        for one in gone:
            self._count(one)
            self.replicas.remove(one)

    def _serve(self, until: float) -> None:
        """Who waits, in order, to who is free first; of those to who has least to do."""
        there = [one for one in self.replicas if one.ready <= self.now and not one.leaving]
        if len(self.queue) == 1 and until == self.now and there:
            self._serve_one(there)
            return
        line = []
        for number, one in enumerate(there):
            at = one.free(until, now=self.now)
            if at is not None:
                line.append((at, one.busy, number))
        heapify(line)
        while self.queue and line:
            at, _, number = line[0]
            one = there[number]
            one.take(self.queue.popleft(), at)
            again = one.free(until, now=at)
            if again is None:
                heappop(line)
            else:
                heapreplace(line, (again, one.busy, number))

    def _serve_one(self, there: Sequence[Replica]) -> None:
        one = min(there, key=_busy)
        if one.busy < self._case.speed.slots:
            one.take(self.queue.popleft(), self.now)

    def _count(self, one: Replica) -> None:
        """What it began and ended since it was looked at."""
        target, sums = self._case.scale.target, self._sums
        first_most = target.ttft_ms / 1000.0 if target.ttft_ms else float("inf")
        pace_most = target.inter_token_ms / 1000.0 if target.inter_token_ms else float("inf")
        for request in one.begun:
            sums["begun"] += 1
            sums["late"] += request.first_seconds > first_most
            sums["first_seconds"] += request.first_seconds
        for request in one.ended:
            sums["answered"] += 1
            sums["input_tokens"] += request.asked.reads
            sums["output_tokens"] += request.asked.writes
            if request.asked.writes > 1:
                sums["paced"] += 1
                sums["slow"] += request.pace > pace_most
                sums["paced_tokens"] += request.asked.writes - 1
                sums["paced_seconds"] += request.done - request.first
        one.begun.clear()
        one.ended.clear()


def _busy(one: Replica) -> int:
    return one.busy


def replay(asked: Sequence[Asked], policy: Policy, *, case: Case) -> Course:
    """All of a trace, and on until the last request is answered."""
    course, endpoint = Course(), _Endpoint(case)
    wanted, came, drawn, arrivals = case.first, 0, 0.0, 0
    end = asked[-1].at if asked else 0.0
    while came < len(asked) or endpoint.queue or any(one.busy for one in endpoint.replicas):
        tick = endpoint.now + TICK_SECONDS
        while came < len(asked) and asked[came].at <= tick:
            endpoint.go(max(endpoint.now, asked[came].at))
            request = Request(asked[came])
            course.requests.append(request)
            endpoint.come(request)
            came += 1
            arrivals += 1
        endpoint.go(tick)
        sight = endpoint.sight()
        verdict = policy.decide(sight, present=wanted)
        if verdict.replicas != wanted:
            course.events.append((endpoint.now, wanted, verdict.replicas, verdict.why))
            wanted = verdict.replicas
            endpoint.want(wanted)
        if endpoint.now >= drawn:
            course.times.append(endpoint.now)
            course.wanted.append(wanted)
            course.ready.append(sight.ready)
            course.arriving.append(arrivals / _DRAWN_SECONDS)
            drawn, arrivals = drawn + _DRAWN_SECONDS, 0
        if endpoint.now > end + 7200.0:
            break  # nobody answers what is left, and nobody will
    course.replica_seconds = endpoint.replica_seconds
    return course

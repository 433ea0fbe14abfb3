"""A trace over an endpoint that scales: requests come, go to the replica with least to do or wait for a slot as they do
at the gateway, and a policy is asked again and again. Pure; its time is the trace's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from bessemer.core.loads import Sums
from bessemer.kinds.inference.replay.replica import Replica, Request, Speed
from bessemer.kinds.inference.replay.trace import Asked
from bessemer.kinds.inference.scaling.sight import Policy, Sight
from bessemer.kinds.inference.scaling.spec import Scale

TICK_SECONDS = 2.0
"""Between two looks of a policy: what reports of gateways allow, and Knative's own."""
_GLANCE_SECONDS = 0.02
"""While requests wait for a slot, until it is looked whether one is free."""
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
        self.sums = Sums()
        self.replica_seconds = 0.0

    def go(self, until: float) -> None:
        """As far as that; who waits is given what becomes free."""
        while self.queue and self.now + _GLANCE_SECONDS < until:
            self._all(self.now + _GLANCE_SECONDS)
            self._serve()
        self._all(until)
        self._serve()

    def come(self, request: Request) -> None:
        self.queue.append(request)
        self._serve()

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
        staying = [one for one in self.replicas if not one.leaving]
        ready = sum(one.ready <= self.now for one in staying)
        return Sight(
            at=self.now,
            busy=sum(one.busy for one in self.replicas),
            waiting=len(self.queue),
            ready=ready,
            starting=len(staying) - ready,
            sums=self.sums,
        )

    def _all(self, until: float) -> None:
        for one in self.replicas:
            one.advance(until)
            if one.begun or one.ended:
                self._count(one)
        self.replica_seconds += len(self.replicas) * (until - self.now)
        self.now = until
        self._retire()

    def _retire(self) -> None:
        if any(one.leaving and not one.busy for one in self.replicas):
            self.replicas = [one for one in self.replicas if not one.leaving or one.busy]

    def _serve(self) -> None:
        if not self.queue:
            return
        there = [one for one in self.replicas if not one.leaving and one.ready <= self.now]
        while self.queue and there:
            one = min(there, key=lambda one: one.busy)
            if one.busy >= self._case.speed.slots:
                return
            one.take(self.queue.popleft(), self.now)

    def _count(self, one: Replica) -> None:
        target = self._case.scale.target
        first_most = target.ttft_ms / 1000.0 if target.ttft_ms else float("inf")
        pace_most = target.inter_token_ms / 1000.0 if target.inter_token_ms else float("inf")
        begun, ended = one.begun, one.ended
        paced = [request for request in ended if request.asked.writes > 1]
        self.sums += Sums(
            answered=len(ended),
            input_tokens=sum(request.asked.reads for request in ended),
            output_tokens=sum(request.asked.writes for request in ended),
            begun=len(begun),
            late=sum(request.first_seconds > first_most for request in begun),
            first_seconds=sum(request.first_seconds for request in begun),
            paced=len(paced),
            slow=sum(request.pace > pace_most for request in paced),
            paced_tokens=sum(request.asked.writes - 1 for request in paced),
            paced_seconds=sum(request.done - request.first for request in paced),
        )
        begun.clear()
        ended.clear()


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
            endpoint.sums += Sums(arrived=1)
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

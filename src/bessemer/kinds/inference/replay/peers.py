"""Policies of others, of our own writing, to be replayed beside ours. Pure.

`Knative` is its autoscaler as documented and in `pkg/autoscaler/scaling` of knative/serving: mean concurrency over a
stable window of 60 s and a panic window of 6 s; panic where that asks for twice what is ready, and no scaling down in
it. `Waiting` is what the vLLM production stack and KEDA do: replicas by ``num_requests_waiting``, by the rule of
Kubernetes' HorizontalPodAutoscaler (``ceil(present × metric / target)``, every 15 s, tolerance 0.1, at most four or
twice as many at a time, scaled down to the most of the last 300 s).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType

from bessemer.kinds.inference.replay.run import Case
from bessemer.kinds.inference.scaling.sight import Policy, Sight, Verdict

STABLE_SECONDS, PANIC_SHARE, PANIC_FACTOR = 60.0, 0.1, 2.0
UTILISATION = 0.7
SCALE_DOWN_FACTOR = 2.0
SYNC_SECONDS, TOLERANCE, DOWN_SECONDS = 15.0, 0.1, 300.0
WAITING_TARGET = 5.0
"""Requests that wait, for each replica."""


class Knative:
    """``target`` is of one replica: a share of its slots. The panic window is a tenth of the ``stable`` one."""

    def __init__(self, case: Case, *, target: float, stable: float = STABLE_SECONDS) -> None:
        self._target = target
        self._stable = stable
        self._scale = case.scale
        self._seen: deque[tuple[float, float]] = deque()
        self._panicked: float | None = None
        self._most = 0

    def decide(self, sight: Sight, *, present: int) -> Verdict:
        now = sight.at
        self._seen.append((now, sight.busy + sight.waiting))
        while self._seen[0][0] <= now - self._stable:
            self._seen.popleft()
        stable, panic = self._mean(now, self._stable), self._mean(now, self._stable * PANIC_SHARE)
        ready = max(1, sight.ready)
        floor = math.floor(ready / SCALE_DOWN_FACTOR)
        wanted = max(math.ceil(stable / self._target), floor)
        hot = max(math.ceil(panic / self._target), floor)
        if hot / ready >= PANIC_FACTOR:
            if self._panicked is None:
                self._most = 0
            self._panicked = now
        elif self._panicked is not None and now - self._panicked > self._stable:
            self._panicked = None
        if self._panicked is not None:
            self._most = wanted = max(self._most, ready, hot)
        wanted = min(self._scale.max, max(self._scale.min, wanted))
        return Verdict(wanted, "panic" if self._panicked is not None else f"{stable:.1f} at a time")

    def _mean(self, now: float, seconds: float) -> float:
        found = [count for at, count in self._seen if at > now - seconds]
        return sum(found) / len(found)


class Waiting:
    """By those that wait."""

    def __init__(self, case: Case, *, target: float = WAITING_TARGET) -> None:
        self._target = target
        self._scale = case.scale
        self._looked = -math.inf
        self._wished: deque[tuple[float, int]] = deque()

    def decide(self, sight: Sight, *, present: int) -> Verdict:
        if sight.at - self._looked < SYNC_SECONDS:
            return Verdict(present, "")
        self._looked = sight.at
        each = sight.waiting / max(1, present)
        ratio = each / self._target
        wished = present if abs(ratio - 1.0) <= TOLERANCE else math.ceil(present * ratio)
        self._wished.append((sight.at, wished))
        while self._wished[0][0] <= sight.at - DOWN_SECONDS:
            self._wished.popleft()
        if wished > present:
            wanted = min(wished, max(2 * present, present + 4))
        else:
            wanted = min(present, max(one for _, one in self._wished))
        wanted = min(self._scale.max, max(self._scale.min, wanted))
        return Verdict(wanted, f"{sight.waiting:.0f} wait")


class Fixed:
    """As many as may be, always."""

    def __init__(self, case: Case) -> None:
        self._count = case.scale.max

    def decide(self, sight: Sight, *, present: int) -> Verdict:
        return Verdict(self._count, "fixed")


PEERS: Mapping[str, Callable[[Case], Policy]] = MappingProxyType(
    {
        "knative": lambda case: Knative(case, target=UTILISATION * case.speed.slots),
        "waiting": Waiting,
        "fixed": Fixed,
    }
)

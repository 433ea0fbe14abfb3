"""A policy that knows the whole trace beforehand, and how fast a replica is: how much a policy could know at all.

It asks for replicas a start before they are needed, and lets each go when it is not needed within a start. It is no
proof of the least: which requests to give up, where some may be, it does not choose but by a cap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bessemer.kinds.inference.replay import Asked, Case
from bessemer.kinds.inference.scaling import Sight, Verdict

SPAN_SECONDS = 6.0


def needs(asked: Sequence[Asked], case: Case) -> list[float]:
    """Replicas that each span of the trace needs, so that tokens come as fast as the target says on the mean: a
    request's prompt where it arrives, its tokens while they are written at that pace."""
    speed, target = case.speed, case.scale.target
    pace = max((target.inter_token_ms or math.inf) / 1000.0, speed.alone * 1.05)
    room = 1.0 - speed.alone / pace
    spans = int(asked[-1].at / SPAN_SECONDS) + 1
    found = [0.0] * (spans + 1)
    for one in asked:
        at = int(one.at / SPAN_SECONDS)
        found[at] += one.reads / speed.reading / room / SPAN_SECONDS
        work, lasts = one.writes * speed.batch / room / SPAN_SECONDS, max(1, round(one.writes * pace / SPAN_SECONDS))
        for span in range(at, min(spans, at + lasts)):
            found[span] += work / lasts
    return found


class Foreseen:
    """``used`` is the share of what a replica can do that is counted on, and ``most`` so many replicas there are."""

    def __init__(self, needed: Sequence[float], case: Case, *, used: float, most: int) -> None:
        self._needed = needed
        self._ahead = math.ceil((case.speed.start_seconds + 2.0) / SPAN_SECONDS) + 1
        self._used = used
        self._most = most

    def decide(self, sight: Sight, *, present: int) -> Verdict:
        at = int(sight.at / SPAN_SECONDS)
        need = max(self._needed[at : at + self._ahead], default=0.0)
        return Verdict(min(self._most, max(1, math.ceil(need / self._used))), "it is known")

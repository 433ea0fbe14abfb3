"""One replay as a value: a trace, a policy, a seed and what else decides how it goes. Equal jobs come to equal figures,
in whichever process they are done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bessemer.core.asking import Request
from bessemer.placement.demand import Mix
from bessemer.placement.replay.arrivals import churning, inflated
from bessemer.placement.replay.desk import OWN, seat
from bessemer.placement.replay.figures import Churned, Filled
from bessemer.placement.replay.moving import Allowance
from bessemer.placement.replay.run import Desk, Told, churn, fill
from bessemer.placement.replay.stays import useless
from bessemer.placement.replay.trace import Trace
from bessemer.placement.shape import Shape

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1, 1.2, 1.3)
"""Arrivals, as shares of the capacity, at which allocation is told; and where they end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """``learned`` are the requests from which the policy knows what is asked for; None: those of the trace. ``moves``
    are what may be moved; None: nothing."""

    trace: Trace
    seed: int
    policy: str = OWN
    learned: Sequence[Request] | None = None
    moves: Allowance | None = None

    def desk(self) -> Desk:
        """An empty fleet, and who decides over it."""
        learned = self.trace.requests if self.learned is None else self.learned
        # Dice of its own: who decides must not change who comes.
        dice = np.random.default_rng((self.seed, 1))
        hosts = self.trace.named_anew(self.seed)
        return seat(hosts, policy=self.policy, learned=learned, dice=dice, moves=self.moves)


@dataclass(frozen=True, slots=True, kw_only=True)
class FillJob(Job):
    """Requests come until they want ``ratio`` times the capacity, and stay."""

    ratio: float = 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class ChurnJob(Job):
    """Requests come and leave, and would want ``load`` times the capacity. ``stays``: of the warm-up, and of what is
    counted, in mean stays."""

    load: float = 0.95
    stays: tuple[float, float] = (3.0, 5.0)


def replay(job: FillJob | ChurnJob, told: Told) -> Filled | Churned:
    """Do one of either kind."""
    return replay_fill(job, told) if isinstance(job, FillJob) else replay_churn(job, told)


def replay_fill(job: FillJob, told: Told) -> Filled:
    """Do it."""
    trace, generator = job.trace, np.random.default_rng(job.seed)
    desk = job.desk()
    found = fill(
        desk,
        trace.requests,
        arrivals=inflated(trace.requests, trace.capacity_milli, ratio=job.ratio, generator=generator),
        capacity_milli=trace.capacity_milli,
        levels=sorted({level for level in LEVELS if level < job.ratio} | {job.ratio}),
        told=told,
    )
    return replace(found, useless_milli=_useless(desk, trace.requests))


def replay_churn(job: ChurnJob, told: Told) -> Churned:
    """Do it."""
    trace, generator = job.trace, np.random.default_rng(job.seed)
    visits = churning(trace.requests, trace.capacity_milli, load=job.load, stays=job.stays, generator=generator)
    desk = job.desk()
    found = churn(desk, trace.requests, visits=visits, capacity_milli=trace.capacity_milli, told=told)
    return replace(found, useless_milli=_useless(desk, trace.requests))


def _useless(desk: Desk, requests: Sequence[Request]) -> float:
    return useless(desk, Mix.of(Counter(map(Shape.of, requests))))

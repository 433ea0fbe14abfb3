"""The mark that a churn is held against: what a fleet would block that is packed anew at each arrival."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from bessemer.core.asking import Request
from bessemer.placement.replay.arrivals import Visits, churning
from bessemer.placement.replay.bound import pooled
from bessemer.placement.replay.jobs import ChurnJob, replay_churn
from bessemer.placement.replay.openb import read_hosts, read_requests
from bessemer.placement.replay.trace import Trace

NODES = ["sn,cpu_milli,memory_mib,gpu,model", "a,8000,1024,1,A", "b,8000,1024,1,A"]


def asked(*milli: int) -> tuple[Request, ...]:
    rows = [f"p{n},1000,1,1,{one}" for n, one in enumerate(milli)]
    return tuple(read_requests(["name,cpu_milli,memory_mib,num_gpu,gpu_milli", *rows]))


def coming(*times: tuple[int, float, float], warm_up: float = 0.0) -> Visits:
    indices, comes, leaves = zip(*times, strict=True)
    return Visits(np.array(indices), np.array(comes), np.array(leaves), warm_up=warm_up, end=10.0)


def test_what_fits_in_sum_is_taken_and_what_does_not_is_refused() -> None:
    trace = Trace(tuple(read_hosts(NODES)), asked(1000, 1000, 1000))
    assert pooled(trace, coming((0, 0.0, 5.0), (1, 1.0, 5.0), (2, 2.0, 9.0))) == pytest.approx(1 / 3)
    # One is gone when the third comes; and what came before the warm-up is not counted.
    assert pooled(trace, coming((0, 0.0, 1.5), (1, 1.0, 5.0), (2, 2.0, 9.0))) == 0
    assert pooled(trace, coming((0, 0.0, 5.0), (1, 1.0, 5.0), (2, 2.0, 9.0), warm_up=2.0)) == 1


def test_shares_that_go_with_nothing_take_whole_devices() -> None:
    """Two devices hold two shares of 600, though three have less than two devices' length."""
    trace = Trace(tuple(read_hosts(NODES)), asked(600, 600, 600))
    assert pooled(trace, coming((0, 0.0, 9.0), (1, 1.0, 9.0), (2, 2.0, 9.0))) == pytest.approx(1 / 3)


def test_cores_are_a_limit_too() -> None:
    trace = Trace(tuple(read_hosts(NODES)), asked(100, 100))
    greedy = replace(trace, requests=tuple(replace(one, milli_cores=9000) for one in trace.requests))
    visits = coming((0, 0.0, 9.0), (1, 1.0, 9.0))
    assert [pooled(trace, visits), pooled(greedy, visits)] == [0, 0.5]


@lru_cache
def small() -> Trace:
    nodes = [NODES[0], *(f"h{n},{32000 if n % 2 else 64000},262144,4,A" for n in range(12))]
    sizes = [(4, 1000), (1, 1000), (1, 1000), (1, 700), (1, 300), (2, 1000)]
    rows = [f"p{n},{1000 * (n % 5 + 4)},1024,{count},{milli}" for n, (count, milli) in enumerate(sizes * 3)]
    pods = read_requests(["name,cpu_milli,memory_mib,num_gpu,gpu_milli", *rows])
    return Trace(tuple(read_hosts(nodes)), tuple(pods))


@pytest.mark.parametrize("policy", ["LPG", "FGD", "BestFit"])
def test_no_policy_blocks_less_in_the_mean(policy: str) -> None:
    trace, ours, mark = small(), [], []
    for seed in range(4):
        job = ChurnJob(trace=trace, seed=seed, policy=policy, load=0.9, stays=(1.0, 4.0))
        visits = churning(
            trace.requests, trace.capacity_milli, load=0.9, stays=(1.0, 4.0), generator=np.random.default_rng(seed)
        )
        ours.append(replay_churn(job, lambda _: None).blocked)
        mark.append(pooled(trace, visits))
    assert 0 < sum(mark) < sum(ours)

"""Replays as values: every policy by its name, over the board that decides in earnest."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from bessemer.core.errors import Invalid
from bessemer.placement.policies.table import POLICIES
from bessemer.placement.replay import Filled, fill, inflated
from bessemer.placement.replay.desk import OWN, known, seat
from bessemer.placement.replay.jobs import ChurnJob, FillJob, replay
from tests.placement.replay.desks import Watched, first_fit, generator, trace

PICKY = trace(7, hosts=5, picky=0.3)


def filled(job: FillJob) -> Filled:
    done = replay(job, lambda _: None)
    assert isinstance(done, Filled)
    return done


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_fills_a_fleet_and_gives_no_more_than_there_is(policy: str) -> None:
    job = FillJob(trace=PICKY, seed=3, policy=policy, ratio=1.2)
    done = filled(job)
    assert 0.5 < done.allocated <= 1.0
    assert list(done.levels)[-1] == 1.2
    assert filled(job) == done, "equal jobs come to equal figures, dice or none"
    desk = job.desk()
    arrivals = inflated(PICKY.requests, PICKY.capacity_milli, ratio=1.2, generator=generator(3))
    fill(desk, PICKY.requests, arrivals=arrivals, capacity_milli=PICKY.capacity_milli, levels=())
    for free in (desk.fleet.cores_free, desk.fleet.memory_free, desk.fleet.device_milli):
        assert free.min() >= 0


def test_a_job_goes_to_another_process_and_is_the_same_there() -> None:
    job = FillJob(trace=PICKY, seed=3, ratio=0.5)
    assert filled(pickle.loads(pickle.dumps(job))) == filled(job)


def test_what_was_learned_elsewhere_decides() -> None:
    first, second = trace(8, hosts=12).halves()
    job = FillJob(trace=second, seed=3, ratio=1.0, learned=first.requests)
    assert filled(job).allocated > 0.5
    assert filled(replace(job, learned=())).allocated > 0.5, "who knows nothing decides all the same"


def test_first_fit_over_the_board_fills_as_much_as_first_fit() -> None:
    """Not the same hosts, for the order is another; but what fits one at a time, fits."""
    t = trace(9, hosts=8)
    arrivals = inflated(t.requests, t.capacity_milli, ratio=0.3, generator=generator())
    plain = fill(first_fit(Watched(t.hosts)), t.requests, arrivals=arrivals, capacity_milli=t.capacity_milli, levels=())
    desk = seat(t.hosts, policy="FirstFit", learned=t.requests, dice=generator())
    board = fill(desk, t.requests, arrivals=arrivals, capacity_milli=t.capacity_milli, levels=())
    assert board.allocated == plain.allocated


def test_our_own_hears_of_those_that_leave() -> None:
    heard: list[object] = []
    job = ChurnJob(trace=trace(5, hosts=5), seed=1, load=1.0, stays=(0.5, 1.5))
    assert job.desk().left != FillJob(trace=job.trace, seed=1, policy="FGD").desk().left
    done = replay(job, heard.append)
    assert done == replay(job, lambda _: None)
    assert (heard[0], heard[-1]) == (0.0, 1.0)


def test_a_policy_is_known_however_it_is_written() -> None:
    assert known("fgd") == known("FGD") == "FGD"
    assert OWN in POLICIES
    with pytest.raises(Invalid, match=r"no policy is called 'best'; there are .*BestFit"):
        known("best")

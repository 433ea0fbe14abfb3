"""What a replay counts, held against a second account; never more is given than there is."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.core.asking import Refusal, Request
from bessemer.placement import FleetArrays
from bessemer.placement.replay import Desk, Trace, Visits, churn, churning, fill, inflated, openb, spread
from bessemer.placement.replay.figures import Count, size_of, sizes_in_order, together
from tests.placement.replay.desks import Watched, first_fit, generator, trace

ONE_HOST = ("sn,cpu_milli,memory_mib,gpu,model", "n1,64000,65536,4,G2")
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli"


def small(*pods: str) -> Trace:
    rows = [f"p{n},{pod}" for n, pod in enumerate(pods)]
    return Trace(tuple(openb.read_hosts(ONE_HOST)), tuple(openb.read_requests([PODS, *rows])))


def test_a_fleet_is_filled_and_told_of_by_level() -> None:
    t = small("1000,0,1,1000", "1000,0,1,500", "1000,0,2,1000", "99000,0,1,500", "1000,0,0,0")
    arrivals = np.array([0, 4, 1, 1, 3, 2, 2, 0])
    told: list[float] = []
    done = fill(
        first_fit(Watched(t.hosts)),
        t.requests,
        arrivals=arrivals,
        capacity_milli=t.capacity_milli,
        levels=(0.5, 0.25, 1.0, 2.0),
        told=told.append,
    )
    # 1 device, cores, two halves, one with too many cores, two devices, two that are not there, one that is not there.
    assert dict(done.levels) == {0.25: 0.25, 0.5: 0.5, 1.0: 1.0, 2.0: 1.0}
    assert (done.allocated, done.unallocated_milli, done.moves) == (1.0, 0, 0)
    assert done.first_refusal == 2500 / 4000
    assert dict(done.counts) == {
        "cores": Count(1, 0, 0, 0),
        "share": Count(3, 1, 1500, 500),
        "1": Count(2, 1, 2000, 1000),
        "2": Count(2, 1, 4000, 2000),
    }
    assert told[0] == 0.0
    assert told[-1] == 1.0


def test_nobody_refused_has_no_first_refusal() -> None:
    t = small("1000,0,1,1000", "99000,0,0,0")
    done = fill(first_fit(Watched(t.hosts)), t.requests, arrivals=np.array([0, 1]), capacity_milli=4000, levels=())
    assert done.first_refusal is None, "what wants no device is counted apart"
    assert done.counts["cores"].refused == 1
    assert done.unallocated_milli == 3000


def test_refusals_of_either_kind_count_alike() -> None:
    t = small("1000,0,1,1000")
    for no in (None, Refusal(reasons=())):
        desk = Desk(Watched(t.hosts), lambda _, no=no: no)  # type: ignore[misc]
        done = fill(desk, t.requests, arrivals=np.array([0, 0]), capacity_milli=4000, levels=())
        assert (done.allocated, done.counts["1"].refused) == (0.0, 2)


@pytest.mark.parametrize("seed", range(3))
def test_filling_gives_no_more_than_there_is_and_loses_nothing(seed: int) -> None:
    t = trace(seed, picky=0.3)
    fleet = Watched(t.hosts)
    arrivals = inflated(t.requests, t.capacity_milli, ratio=1.3, generator=generator(seed))
    done = fill(
        first_fit(fleet), t.requests, arrivals=arrivals, capacity_milli=t.capacity_milli, levels=(0.5, 1.0, 1.3)
    )
    _agrees(done.counts, t, arrivals.tolist())
    assert fleet.held_milli == t.capacity_milli - done.unallocated_milli
    assert done.allocated == fleet.held_milli / t.capacity_milli == done.levels[1.3]
    assert done.levels[0.5] <= done.levels[1.0] <= done.levels[1.3] <= 1.0
    assert sum(c.came_milli - c.refused_milli for c in done.counts.values()) == fleet.held_milli
    assert sum(c.came - c.refused for c in done.counts.values()) == len(fleet.account)


def _agrees(counts: object, t: Trace, came: list[int]) -> None:
    sizes = [size_of(t.requests[n]) for n in came]
    assert {size: count.came for size, count in counts.items()} == {  # type: ignore[attr-defined]
        size: sizes.count(size) for size in set(sizes)
    }


def visits(*each: tuple[int, float, float], warm_up: float, end: float) -> Visits:
    indices, comes, leaves = zip(*each, strict=True)
    return Visits(np.array(indices), np.array(comes), np.array(leaves), warm_up=warm_up, end=end)


def test_who_leaves_makes_room_and_means_are_over_time() -> None:
    t = small("1000,0,2,1000", "1000,0,4,1000")
    fleet = Watched(t.hosts)
    passing = visits(
        (0, 0.0, 3.0), (0, 1.0, 9.0), (0, 2.0, 5.0), (0, 3.0, 4.0), (1, 3.5, 9.0), (0, 4.0, 20.0), warm_up=2.0, end=10.0
    )
    done = churn(first_fit(fleet), t.requests, visits=passing, capacity_milli=4000)
    # 4 devices to time 3, where one leaves as another comes; that one leaves at 4 for the last; two from 9 on.
    assert done.allocated == pytest.approx((7 * 4 + 1 * 2) / (8 * 4))
    # Before the warm-up nothing counts; the third comes to a full house, the fourth in time, the fifth never fits.
    assert dict(done.counts) == {"2": Count(3, 1, 6000, 2000), "4": Count(1, 1, 4000, 4000)}
    assert done.blocked == pytest.approx(6 / 10)
    assert fleet.held_milli == 2000


def test_nobody_who_comes_after_the_warm_up_is_no_error() -> None:
    t = small("1000,0,4,1000")
    done = churn(
        first_fit(Watched(t.hosts)),
        t.requests,
        visits=visits((0, 0.5, 2.5), warm_up=1.0, end=3.0),
        capacity_milli=4000,
    )
    assert (done.allocated, done.blocked, dict(done.counts)) == (0.75, 0.0, {})


@pytest.mark.parametrize("load", [0.8, 1.1])
def test_churn_gives_no_more_than_there_is_and_loses_nothing(load: float) -> None:
    t = trace(5, hosts=8)
    fleet = Watched(t.hosts)
    passing = churning(t.requests, t.capacity_milli, load=load, stays=(2.0, 4.0), generator=generator(5))
    done = churn(first_fit(fleet), t.requests, visits=passing, capacity_milli=t.capacity_milli)
    _agrees(done.counts, t, passing.indices[passing.comes >= 2.0].tolist())
    assert 0.0 < done.allocated <= 1.0
    assert 0.0 <= done.blocked < 1.0
    there = {int(uid) for uid in fleet.account}
    assert all(passing.leaves[n] > passing.end for n in there), "whose time was over has gone"
    for uid in list(fleet.account):
        fleet.drop(uid)
    fresh = Watched(t.hosts)
    for free in ("cores_free", "memory_free", "device_milli"):
        assert (getattr(fleet, free) == getattr(fresh, free)).all(), "all that was taken came back"


def test_equal_seeds_have_equal_figures() -> None:
    t = trace(6)

    def run(seed: int) -> object:
        arrivals = inflated(t.requests, t.capacity_milli, ratio=1.2, generator=generator(seed))
        fleet: FleetArrays = Watched(t.named_anew(seed))
        return fill(first_fit(fleet), t.requests, arrivals=arrivals, capacity_milli=t.capacity_milli, levels=(1.0,))

    assert run(1) == run(1) != run(2)


def test_means_and_sums() -> None:
    assert spread([2.0]).deviation == 0.0
    assert (spread([1.0, 2.0, 3.0]).mean, spread([1.0, 2.0, 3.0]).deviation) == (2.0, 1.0)
    assert sizes_in_order(["8", "1", "share", "16", "cores"]) == ["cores", "share", "1", "8", "16"]
    both = together([{"1": Count(1, 0, 1000, 0)}, {"share": Count(2, 1, 900, 450), "1": Count(1, 1, 1000, 1000)}])
    assert dict(both) == {"share": Count(2, 1, 900, 450), "1": Count(2, 1, 2000, 1000)}
    assert size_of(Request(tenant="", milli_cores=0, memory_bytes=0, device_count=1, device_milli=999)) == "share"

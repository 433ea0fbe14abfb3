"""Small fleets against the best that there is: an integer program, itself against every way to place a few requests."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from bessemer.core.asking import Request
from bessemer.placement import HostFacts

BENCH = Path(__file__).resolve().parents[2] / "bench"

WORLDS = 24


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("_optimum")


def by_hand(hosts: Sequence[HostFacts], requests: Sequence[Request]) -> int:
    """Each request on each device of each host, or on each host, or nowhere: all of it tried."""

    @cache
    def most(n: int, free: tuple[tuple[int, int, tuple[int, ...]], ...]) -> int:
        if n == len(requests):
            return 0
        one, best = requests[n], most(n + 1, free)
        for h, (cores, memory, devices) in enumerate(free):
            if cores < one.milli_cores or memory < one.memory_bytes:
                continue
            for after in taken(one, devices):
                host = (cores - one.milli_cores, memory - one.memory_bytes, tuple(sorted(after)))
                rest = most(n + 1, (*free[:h], host, *free[h + 1 :]))
                best = max(best, one.device_count * one.device_milli + rest)
        return best

    return most(
        0,
        tuple(
            (1000 * host.inventory.threads, host.inventory.memory_bytes, (1000,) * len(host.inventory.devices))
            for host in hosts
        ),
    )


def taken(one: Request, devices: tuple[int, ...]) -> Iterator[list[int]]:
    """The devices after it, each way."""
    if one.device_milli < 1000:
        for d, milli in enumerate(devices):
            if milli >= one.device_milli:
                yield [*devices[:d], milli - one.device_milli, *devices[d + 1 :]]
        return
    if devices.count(1000) >= one.device_count:
        rest = list(devices)
        for _ in range(one.device_count):
            rest[rest.index(1000)] = 0
        yield rest


@pytest.mark.parametrize("seed", range(8))
def test_the_program_is_as_good_as_every_way_to_place(known: ModuleType, seed: int) -> None:
    trace = known.world(seed, hosts=2, ratio=1.2)
    few = trace.requests[:9]
    assert known.optimum(trace.hosts, few) == by_hand(trace.hosts, few)


def test_the_gap_to_the_optimum_is_small(known: ModuleType) -> None:
    ours, best = [], []
    for seed in range(WORLDS):
        trace = known.world(seed)
        ours.append(known.filled(trace, seed=seed))
        best.append(known.optimum(trace.hosts, trace.requests))
        assert ours[-1] <= best[-1] <= trace.capacity_milli
    assert sum(ours) >= 0.9 * sum(best)

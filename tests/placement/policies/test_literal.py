"""Each policy against a second implementation that loops over hosts, devices and typical shapes one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.placement.demand import WHOLE, Mix, Outlook
from bessemer.placement.policies import Policy
from bessemer.placement.policies.fgd import Fgd
from bessemer.placement.policies.potential import Potential, tuned
from bessemer.placement.policies.published import BestFit, DotProd, FirstFit, GpuClustering, GpuPacking
from bessemer.placement.shape import Shape
from bessemer.placement.states import States
from tests.placement.policies import literal
from tests.placement.shapes import mixes, shapes, states

Literal = Callable[[Shape, literal.Host], tuple[float, int]]


def check(policy: Policy, expected: Literal, *, shape: Shape, hosts: States) -> None:
    """Equal on every host on which it fits."""
    found = policy.costs(shape, hosts)
    assert found.value.dtype == np.float64
    assert found.value.shape == found.milli.shape == (len(hosts),)
    for b, host in enumerate(literal.hosts_of(hosts)):
        if literal.fits(shape, host):
            assert (found.value[b], found.milli[b]) == expected(shape, host)


@settings(max_examples=60, deadline=None)
@given(mixes, shapes(), states())
def test_fgd(mix: Mix, shape: Shape, hosts: States) -> None:
    typical = mix.typical()

    def expected(shape: Shape, host: literal.Host) -> tuple[float, int]:
        rise, milli = literal.fgd(shape, host, typical=typical)
        return -math.floor(100 / (1 + math.exp(float(rise) / 1000))), milli

    check(Fgd(mix), expected, shape=shape, hosts=hosts)


@settings(max_examples=60, deadline=None)
@given(mixes, shapes(), states())
def test_fgd_exact(mix: Mix, shape: Shape, hosts: States) -> None:
    typical = mix.typical()

    def expected(shape: Shape, host: literal.Host) -> tuple[float, int]:
        rise, milli = literal.fgd(shape, host, typical=typical)
        return float(rise), milli

    check(Fgd(mix, exact=True), expected, shape=shape, hosts=hosts)


@settings(max_examples=100, deadline=None)
@given(mixes, shapes(), states(), st.sampled_from((0.0, 0.25, 1.0)), st.integers(0, 1000))
def test_potential(mix: Mix, shape: Shape, hosts: States, turnover: float, seed: int) -> None:
    waste = np.random.default_rng(seed).integers(-300, 300, WHOLE + 1).astype(np.float64)
    waste[0] = 0.0
    tuning = tuned(turnover)
    typical = mix.typical(tuning.share, by_devices=tuning.by_devices)
    cores_each = mix.cores_per_device
    of_left_over = waste.copy()
    of_left_over[WHOLE] = np.round((waste[WHOLE] - 1000 * tuning.whole / tuning.waste) * 2**20) / 2**20

    def stranded(host: literal.Host) -> float:
        return max(host.free() - host.cores / cores_each, 0.0) if cores_each else 0.0

    largest = max(typical.count, default=0)

    def block(host: literal.Host) -> float:
        if largest < 2 or sum(model != "" for _, model in host.devices) < largest:
            return 0.0
        whole = sum(milli == WHOLE for milli, _ in host.devices)
        return 1000 * tuning.blocks * (min(whole, int(largest)) / int(largest)) ** 5

    def expected(shape: Shape, host: literal.Host) -> tuple[float, int]:
        rises = []
        for milli, after in literal.ways(shape, host):
            fragments = literal.fragment(after, typical) - literal.fragment(host, typical)
            wasted = sum(Fraction(of_left_over[m]) for m, _ in after.devices)
            wasted -= sum(Fraction(of_left_over[m]) for m, _ in host.devices)
            rise = tuning.fragments * float(fragments) + tuning.waste * float(wasted) + block(host) - block(after)
            rises.append((round(rise, 6), milli))
        rise, milli = min(rises)
        (_, after), *_ = literal.ways(shape, host)
        rise += tuning.strand * (stranded(after) - stranded(host))
        return rise / 1000 / (tuning.step if shape.device_count else tuning.idle_step), milli

    found = Potential(Outlook(mix=mix, waste=waste, turnover=turnover)).costs(shape, hosts)
    for b, host in enumerate(literal.hosts_of(hosts)):
        if literal.fits(shape, host):
            steps, milli = expected(shape, host)
            # The last digit of a sum of three terms may fall on either side of a step.
            assert found.value[b] in {math.floor(steps - 1e-9), math.floor(steps + 1e-9)}
            assert found.milli[b] == milli


@settings(max_examples=60, deadline=None)
@given(shapes(), states())
def test_published(shape: Shape, hosts: States) -> None:
    rules: tuple[tuple[Policy, Callable[[Shape, literal.Host], int]], ...] = (
        (BestFit(), literal.best_fit),
        (DotProd(), literal.dot_prod),
        (GpuClustering(), literal.clustering),
        (GpuPacking(), literal.packing),
        (FirstFit(), lambda _shape, _host: 0),
    )
    for policy, rule in rules:
        check(
            policy,
            lambda shape, host, rule=rule: (rule(shape, host), literal.least_free(shape, host)),  # type: ignore[misc]
            shape=shape,
            hosts=hosts,
        )


@settings(max_examples=40, deadline=None)
@given(mixes, shapes(), states())
def test_a_host_costs_the_same_alone_and_among_many(mix: Mix, shape: Shape, hosts: States) -> None:
    for policy in (Fgd(mix), Potential(Outlook(mix=mix, turnover=0.25))):
        together = policy.costs(shape, many(hosts, times=600))
        alone = policy.costs(shape, hosts)
        assert np.array_equal(together.value, np.tile(alone.value, 600))
        assert np.array_equal(together.milli, np.tile(alone.milli, 600))


def many(hosts: States, *, times: int) -> States:
    """The same hosts over and over."""
    return States(
        cores=np.tile(hosts.cores, times),
        memory=np.tile(hosts.memory, times),
        milli=np.tile(hosts.milli, (times, 1)),
        model=np.tile(hosts.model, (times, 1)),
        sizes=np.tile(hosts.sizes, (times, 1)),
        models=hosts.models,
    )

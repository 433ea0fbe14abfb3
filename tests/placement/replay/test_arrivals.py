"""Who comes when: the artefact's rule to the letter, and what theory says of a loss system."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bessemer.core.asking import Request
from bessemer.core.errors import Invalid
from bessemer.placement.replay import churning, inflated
from tests.placement.replay.desks import generator, trace


def by_the_artefact(pods: Sequence[tuple[int, int]], capacity: int, *, ratio: float, seed: int) -> list[int]:
    """The rule written down once more, over (devices, thousandths of each)."""
    dice = np.random.default_rng(seed)
    chosen = list(dice.permutation(len(pods)))
    wanted = [number * milli for number, milli in pods]
    total = sum(wanted)
    if total > ratio * capacity:
        while total > ratio * capacity:
            place = dice.integers(len(chosen))
            total -= wanted[chosen[place]]
            chosen.pop(place)
        return [int(n) for n in chosen]
    while True:
        n = int(dice.integers(len(pods)))
        if total + pods[n][1] > ratio * capacity:
            return [int(n) for n in chosen]
        total += wanted[n]
        chosen.append(n)


@pytest.mark.parametrize("ratio", [0.3, 0.98, 1.3])
@pytest.mark.parametrize("seed", [42, 43])
def test_inflation_is_the_artefacts(ratio: float, seed: int) -> None:
    t = trace(3)
    pods = [(r.device_count, r.device_milli if r.device_count else 0) for r in t.requests]
    came = inflated(t.requests, t.capacity_milli, ratio=ratio, generator=generator(seed))
    assert came.tolist() == by_the_artefact(pods, t.capacity_milli, ratio=ratio, seed=seed)


def test_inflation_ends_at_its_ratio_and_brings_everyone_once_before_it_repeats() -> None:
    t = trace(2)
    came = inflated(t.requests, t.capacity_milli, ratio=1.3, generator=generator())
    wanted = sum(t.requests[n].device_count * t.requests[n].device_milli for n in came.tolist())
    assert 1.3 * t.capacity_milli - 8000 < wanted <= 1.3 * t.capacity_milli + 8000
    assert sorted(came[: len(t.requests)].tolist()) == list(range(len(t.requests)))


def test_a_load_comes_about() -> None:
    t = trace(4)
    visits = churning(t.requests, t.capacity_milli, load=0.9, stays=(10.0, 190.0), generator=generator())
    stays = visits.leaves - visits.comes
    wanted = np.array([r.device_count * r.device_milli for r in t.requests])[visits.indices]
    assert stays.mean() == pytest.approx(1.0, rel=0.02)
    assert (wanted * stays).sum() / 200.0 / t.capacity_milli == pytest.approx(0.9, rel=0.03)
    assert (np.diff(visits.comes) >= 0).all()
    assert visits.comes[-1] < visits.end == 200.0
    gaps = np.diff(visits.comes)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05), "exponential"


def test_equal_seeds_bring_equal_visits() -> None:
    t = trace(4)
    one, other, third = (
        churning(t.requests, t.capacity_milli, load=0.9, stays=(1.0, 2.0), generator=generator(seed))
        for seed in (7, 7, 8)
    )
    assert one.indices.tolist() == other.indices.tolist() != third.indices.tolist()
    assert one.leaves.tolist() == other.leaves.tolist()


def test_without_devices_there_is_no_load_to_speak_of() -> None:
    requests = [Request(tenant="t", milli_cores=1000, memory_bytes=0)]
    with pytest.raises(Invalid, match="no request wants a device"):
        inflated(requests, 1000, ratio=1.3, generator=generator())
    with pytest.raises(Invalid, match="no request wants a device"):
        churning(requests, 1000, load=0.9, stays=(1.0, 2.0), generator=generator())

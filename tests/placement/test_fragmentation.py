"""Fragmentation against the paper's definition, host by host and device by device."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Allocation
from bessemer.core.units import GIB
from bessemer.placement import FleetArrays, Hold
from bessemer.placement.demand import Mix
from bessemer.placement.fragmentation import ModelUse, fragmentation, stand_of
from bessemer.placement.shape import Shape
from tests.placement.hosts import ask, fleet, host


def uses(there: FleetArrays, mix: Mix) -> dict[str, ModelUse]:
    return {use.model: use for use in fragmentation(stand_of(there), mix)}


def shape(count: int, *, cores: int = 1, milli: int = 1000, models: tuple[str, ...] = ()) -> Shape:
    return Shape.of(ask(cores, device_count=count, device_milli=milli, device_models=frozenset(models)))


def test_what_fits_nothing_that_is_asked_for_is_of_no_use() -> None:
    there = fleet(host("a", gpus=4), host("b", gpus=4), host("c", gpus=2, model="A100"))
    there.hold("x", Hold("a", ("gpu0", "gpu1"), ()))
    there.hold("y", Hold("b", ("gpu0",), (), 400))
    found = uses(there, Mix.of({shape(4, models=("H100",)): 1.0, shape(1, models=("H100",)): 3.0}))
    h100 = found["H100"]
    assert (h100.devices, h100.free_milli, h100.whole, h100.largest) == (8, 5600, 5, 3)
    # Nowhere are four free: to a quarter of requests all is useless, to the others the begun device.
    assert h100.useless_milli == pytest.approx(0.25 * 5600 + 0.75 * 600)
    assert h100.stranded_milli == 0
    assert h100.shape == shape(1, models=("H100",))
    # Nobody asks for these.
    assert (found["A100"].useless_milli, found["A100"].shape) == (2000, None)


@given(st.lists(st.floats(0.1, 100.0), min_size=2, max_size=6))
def test_what_serves_everybody_is_of_use_to_the_last_bit(weights: list[float]) -> None:
    there = fleet(host("a", gpus=8, threads=64), host("b", gpus=8, threads=64))
    mix = Mix.of({shape(count + 1): weight for count, weight in enumerate(weights)})
    (use,) = fragmentation(stand_of(there), mix)
    assert use.useless_milli is not None
    assert "-" not in f"{use.useless_milli:.2f} {use.stranded_milli:.2f}"


def test_what_lacks_cores_is_stranded() -> None:
    there = fleet(host("a", gpus=4, nodes=1, threads=8))
    mix = Mix.of({shape(1, cores=4): 1.0})
    there.hold("x", Hold("a", ("gpu0",), (Allocation(numa_node=0, milli_cores=6000, memory_bytes=GIB),)))
    (use,) = fragmentation(stand_of(there), mix)
    assert (use.free_milli, use.useless_milli, use.stranded_milli) == (3000, 3000, 3000)


def test_hosts_that_take_nothing_new_and_fake_ones_are_apart() -> None:
    there = fleet(
        host("a", gpus=2),
        host("b", gpus=2, schedulable=False),
        host("c", gpus=2, reachable=False),
        host("d", gpus=2, fake=True),
    )
    real, fake = fragmentation(stand_of(there), Mix())
    assert (real.fake, real.devices, real.free_milli, real.closed_milli) == (False, 6, 2000, 4000)
    assert (fake.fake, fake.devices, fake.free_milli) == (True, 2, 2000)
    assert real.useless_milli is None


def literal(there: FleetArrays, mix: Mix, model: str) -> float:
    """The definition, word by word."""
    asked = [
        (s, n) for s, n in zip(mix.shapes, mix.counts, strict=True) if not s.device_models or model in s.device_models
    ]
    total, every = 0.0, sum(n for _, n in asked)
    for row, name in enumerate(there.names):
        assert name
        cores, memory = int(there.cores_free[row].sum()), int(there.memory_free[row].sum())
        devices = [(d.model, int(there.device_milli[row, column])) for column, d in enumerate(there.devices(row))]
        for wanted, count in asked:
            able = [
                free
                for of, free in devices
                if free >= wanted.device_milli and (not wanted.device_models or of in wanted.device_models)
            ]
            fits = len(able) >= wanted.device_count and cores >= wanted.milli_cores and memory >= wanted.memory_bytes
            for of, free in devices:
                if of == model and not (fits and free >= wanted.device_milli):
                    total += free * count / every
    return total


shapes = st.builds(
    lambda count, cores, milli, model: shape(count, cores=cores, milli=milli if count == 1 else 1000, models=model),
    st.integers(1, 4),
    st.integers(1, 9),
    st.sampled_from((250, 600, 1000)),
    st.sampled_from(((), ("H100",), ("A100",), ("A100", "H100"))),
)
held = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from((250, 500, 1000)), st.integers(0, 3)), max_size=6
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(shapes, st.integers(1, 9), min_size=1, max_size=5), held)
def test_it_is_the_definition(counts: dict[Shape, int], holds: list[tuple[int, int, int, int]]) -> None:
    there = fleet(host("h0", gpus=4), host("h1", gpus=4, model="A100"), host("h2", gpus=2))
    for n, (where, device, milli, cores) in enumerate(holds):
        if int(there.device_milli[where, device]) >= milli and there.device_sound[where, device]:
            part = Allocation(numa_node=0, milli_cores=cores * 1000, memory_bytes=0)
            there.hold(str(n), Hold(f"h{where}", (f"gpu{device}",), (part,), milli))
    mix = Mix.of({one: float(n) for one, n in counts.items()})
    for model, use in uses(there, mix).items():
        taken = [one for one in mix.shapes if not one.device_models or model in one.device_models]
        assert use.useless_milli is not None
        assert use.useless_milli == pytest.approx(literal(there, mix, model) if taken else use.free_milli)
        assert use.stranded_milli is not None
        assert -1e-6 <= use.stranded_milli <= use.useless_milli + 1e-6 <= use.free_milli + 2e-6

"""Random shapes, mixes and states, small enough for second implementations that look at everything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from bessemer.placement.demand import Mix
from bessemer.placement.shape import Shape
from bessemer.placement.states import SIZES, States

MODELS = ("A", "B", "C")
SHARES = (50, 190, 300, 470, 500, 810, 999)
CORES = (0, 1_000, 4_000, 7_500, 16_000)

models = st.sampled_from([frozenset[str](), frozenset({"A"}), frozenset({"B", "C"})])


def shape(cores: int = 1000, count: int = 0, *, milli: int = 1000, models: Sequence[str] = ()) -> Shape:
    """One with the memory that all have here."""
    return Shape(
        milli_cores=cores,
        memory_bytes=1,
        device_count=count,
        device_milli=milli,
        device_models=frozenset(models),
    )


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    count = draw(st.sampled_from((0, 1, 1, 1, 2, 3)))
    milli = draw(st.sampled_from((*SHARES, 1000))) if count == 1 else 1000
    chosen = draw(models) if count else frozenset[str]()
    return shape(draw(st.sampled_from(CORES)), count, milli=milli, models=sorted(chosen))


mixes = st.dictionaries(shapes(), st.integers(1, 50), max_size=8).map(Mix.of)


@st.composite
def states(draw: st.DrawFn) -> States:
    hosts, devices = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    model = np.array(
        [[draw(st.integers(-1, len(MODELS) - 1)) for _ in range(devices)] for _ in range(hosts)], dtype=np.int32
    )
    free = st.one_of(st.just(1000), st.sampled_from((0, 190, 500, 530, 810)), st.integers(0, 1000))
    milli = np.array([[draw(free) for _ in range(devices)] for _ in range(hosts)], dtype=np.int64)
    return States(
        cores=np.array([draw(st.integers(-2_000, 40_000)) for _ in range(hosts)], dtype=np.int64),
        memory=np.full(hosts, 1 << 30, dtype=np.int64),
        milli=np.where(model < 0, 0, milli),
        model=model,
        sizes=np.array([[draw(st.integers(0, 1)) for _ in range(SIZES)] for _ in range(hosts)], dtype=np.int64),
        models=MODELS,
    )

"""`Mix`: which shapes are asked for and how often; `Arrivals` learns one from a stream.

A mix is a value: equal counts make equal mixes, in whatever order they came. What fragmentation is measured against are
its typical shapes (Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient
Descent", USENIX ATC 2023, §4.1: a task class is its cores, devices and model; memory is none of it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bessemer.placement.shape import Shape
from bessemer.placement.vectors import Ints

Floats = NDArray[np.float64]

TYPICAL_SHARE = 0.95
"""The artefact of the paper above takes the most frequent classes that make up 95 % of arrivals."""

MOST = 256
"""There are never more typical shapes than these, however many different ones tenants think of."""

GRAIN = 2.0**-30
"""Weights are multiples of it. Sums of weights times thousandths of devices are then exact in double precision, in any
order: a host costs the same alone and among thousands, on every machine."""


@dataclass(frozen=True, slots=True)
class Typical:
    """M shapes that stand for all: ``cores`` [M] milli-cores, ``count`` [M] devices, ``milli`` [M] thousandths of each,
    ``models`` [M] those that will do (none: any), ``weight`` [M] how often, 1 all together."""

    cores: Ints
    count: Ints
    milli: Ints
    models: tuple[frozenset[str], ...]
    weight: Floats

    def __len__(self) -> int:
        return len(self.models)


@dataclass(frozen=True)
class Mix:
    """``shapes`` [S], the most frequent first, and ``counts`` [S], how often each is asked for, in any unit.
    ``version`` is another whenever the mix is."""

    shapes: tuple[Shape, ...] = ()
    counts: tuple[float, ...] = ()
    version: int = 0

    @classmethod
    def of(cls, counts: Mapping[Shape, float], *, version: int = 0) -> Mix:
        kept = sorted(((shape, n) for shape, n in counts.items() if n > 0), key=lambda pair: (-pair[1], _rank(pair[0])))
        return cls(tuple(shape for shape, _ in kept), tuple(float(n) for _, n in kept), version)

    def typical(self, share: float = TYPICAL_SHARE, *, by_devices: float = 0.0) -> Typical:
        """The classes that weigh most, as many as make up ``share`` of the weight, at most `MOST`.

        A request weighs 1 with ``by_devices`` 0, as in the artefact; its devices with 1 (so large requests matter as
        much as what they would earn); in between both, each as a part of its own total.
        """
        classes: dict[tuple[int, int, int, frozenset[str]], float] = {}
        every, devices = sum(self.counts) or 1.0, self.devices or 1.0
        for shape, count in zip(self.shapes, self.counts, strict=True):
            weight = (1 - by_devices) * count / every + by_devices * count * shape.milli / (1000 * devices)
            key = (shape.milli_cores, shape.device_count, shape.device_milli, shape.device_models)
            classes[key] = classes.get(key, 0.0) + weight
        ranked = sorted(classes.items(), key=lambda pair: (-pair[1], pair[0][:3], sorted(pair[0][3])))
        wanted, reached = share * sum(classes.values()), 0.0
        chosen: list[tuple[tuple[int, int, int, frozenset[str]], float]] = []
        for key, weight in ranked:
            if reached >= wanted or weight <= 0 or len(chosen) == MOST:
                break
            chosen.append((key, weight))
            reached += weight
        weights = np.array([weight for _, weight in chosen], dtype=np.float64) / (reached or 1.0)
        numbers = np.array([key[:3] for key, _ in chosen], dtype=np.int64).reshape(-1, 3)
        models = tuple(key[3] for key, _ in chosen)
        cores, count_of, milli = numbers.T
        return Typical(cores, count_of, milli, models, np.round(weights / GRAIN) * GRAIN)

    def distance(self, other: Mix) -> float:
        """How different what they ask for is, however much of it: 0 for the same, 1 for nothing in common. Half of the
        sum of differences between the parts that shapes have (the total variation distance)."""
        ours, theirs = self._parts(), other._parts()
        return sum(abs(ours.get(shape, 0.0) - theirs.get(shape, 0.0)) for shape in ours.keys() | theirs.keys()) / 2

    def _parts(self) -> Mapping[Shape, float]:
        every = sum(self.counts) or 1.0
        return {shape: count / every for shape, count in zip(self.shapes, self.counts, strict=True)}

    @cached_property
    def devices(self) -> float:
        """Devices asked for, all together, in the unit of the counts."""
        return sum(count * shape.milli for shape, count in zip(self.shapes, self.counts, strict=True)) / 1000

    @cached_property
    def cores_per_device(self) -> float:
        """Milli-cores that go with a thousandth of a device, in requests that have devices; 0 where none do."""
        having = [(shape, count) for shape, count in zip(self.shapes, self.counts, strict=True) if shape.device_count]
        cores = sum(count * shape.milli_cores for shape, count in having)
        return cores / (1000 * self.devices) if having else 0.0

    @cached_property
    def shares(self) -> Mapping[int, float]:
        """How often a share of one device is asked for, by its thousandths."""
        sizes: dict[int, float] = {}
        for shape, count in zip(self.shapes, self.counts, strict=True):
            if shape.shared:
                sizes[shape.device_milli] = sizes.get(shape.device_milli, 0.0) + count
        return dict(sorted(sizes.items()))


class Arrivals:
    """What was asked for, the older the less it counts: an arrival weighs 1/e of what it did after ``memory`` others.

    It remembers ``most`` shapes at least and twice as many at most; then the rarest are forgotten, so that tenants who
    never ask for the same twice use up no memory.
    """

    def __init__(self, *, memory: float = 10_000.0, most: int = 512) -> None:
        self.seen = 0
        self._growth = 1.0 + 1.0 / memory
        self._most = most
        self._unit = 1.0
        self._weights: dict[Shape, float] = {}

    def saw(self, shape: Shape) -> None:
        """Count one more."""
        self.seen += 1
        self._unit *= self._growth
        self._weights[shape] = self._weights.get(shape, 0.0) + self._unit
        if self._unit > 1e100:
            self._weights = {shape: weight / self._unit for shape, weight in self._weights.items()}
            self._unit = 1.0
        if len(self._weights) > 2 * self._most:
            ranked = sorted(self._weights.items(), key=lambda pair: (-pair[1], _rank(pair[0])))
            self._weights = dict(ranked[: self._most])

    def mix(self) -> Mix:
        """As it is now, in arrivals."""
        return Mix.of({shape: weight / self._unit for shape, weight in self._weights.items()}, version=self.seen)


def _rank(shape: Shape) -> tuple[object, ...]:
    """An order of shapes that equal counts are settled by."""
    return (
        shape.milli_cores,
        shape.memory_bytes,
        shape.device_count,
        shape.device_milli,
        sorted(shape.device_models),
        shape.numa,
        shape.same_switch,
        shape.same_nvlink,
    )

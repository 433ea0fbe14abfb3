"""`class_plan`: which shapes go to which class of hosts, were all of them placed at once.

A configuration program: shapes are spread over classes so that as many devices as possible are used at a load of all
devices; within a class, devices are cut into whole ones and into patterns of shares (Gilmore and Gomory 1961), and
cores and memory suffice together. A relaxation: hosts of one class are one big host, and where a host has devices of
several models, any of them serves who accepts one. It is followed only where it matters: on scarce classes, those that
are asked for by shapes that fit nearly nowhere else.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from bessemer.core.units import GIB
from bessemer.placement.demand.mix import Floats, Mix
from bessemer.placement.demand.solver import Program
from bessemer.placement.demand.waste import WHOLE, generated, rounded
from bessemer.placement.hostclass import HostClass
from bessemer.placement.shape import Shape
from bessemer.placement.vectors import Bools

SHAPES, CLASSES, PATTERNS = 512, 32, 200
"""The most frequent shapes and the classes with most devices, as many as these; further ones are in no plan. With more
patterns than these, only those are used that sufficed for the cutting-stock program."""

SCARCE = 0.15
"""A class is scarce when more than this part of its devices is wanted by shapes that fit on less than this part of all
that there are."""

UNSERVED = 8.0
"""What a request without devices that finds no place costs, in devices: more than any that its cores could serve."""

ShapeKey = tuple[int, int, int, int, frozenset[str]]


@dataclass(frozen=True, eq=False)
class Plan:
    """S shapes over K classes: ``share`` [S, K] what part of the requests for each shape goes to each class,
    ``reduced`` [S, K] what one more there would cost, in devices, and ``scarce`` [K]."""

    shapes: Mapping[ShapeKey, int]
    classes: Mapping[HostClass, int]
    share: Floats
    reduced: Floats
    scarce: Bools

    def index(self, shape: Shape) -> int | None:
        """The row of a shape, or None where the plan has none."""
        return self.shapes.get(shape_key(shape))


def shape_key(shape: Shape) -> ShapeKey:
    """What of a shape a plan tells apart."""
    return (shape.milli_cores, shape.memory_bytes, shape.device_count, shape.device_milli, shape.device_models)


def class_plan(mix: Mix, hosts: Mapping[HostClass, int]) -> Plan | None:
    """The plan for ``hosts`` of each class; None where no class is scarce, or the program does not end well."""
    task = _Task.of(mix, hosts)
    if not task.shapes or not task.devices.sum() or not task.scarce.any():
        return None
    cuts = _cuts(rounded(mix.shares))
    columns = _columns(task, cuts.ways)
    solution = _program(task, columns, cuts=cuts).solve(interior=True)
    if solution is None:
        return None
    share = np.zeros(task.fits.shape)
    reduced = np.zeros(task.fits.shape)
    there = columns.cell >= 0
    share[there] = solution.values[columns.cell[there]] / np.broadcast_to(task.demand[:, None], there.shape)[there]
    if any(shape.device_models for shape in task.shapes):
        # Without wishes for models, the program is so degenerate that its reduced costs say nothing.
        reduced[there] = solution.reduced[columns.cell[there]]
    return Plan(
        shapes={shape_key(shape): s for s, shape in enumerate(task.shapes)},
        classes={kind: k for k, kind in enumerate(task.classes)},
        share=share,
        reduced=reduced,
        scarce=task.scarce,
    )


@dataclass(frozen=True, eq=False)
class _Task:
    """S shapes and K classes: ``demand`` [S] requests when devices are asked for as there are, ``hosts`` [K],
    ``devices`` [K] of all hosts of a class, ``fits`` [S, K]."""

    shapes: Sequence[Shape]
    classes: Sequence[HostClass]
    demand: Floats
    hosts: Floats
    devices: Floats
    fits: Bools

    @classmethod
    def of(cls, mix: Mix, hosts: Mapping[HostClass, int]) -> _Task:
        merged: dict[ShapeKey, float] = {}
        first: dict[ShapeKey, Shape] = {}
        for shape, count in zip(mix.shapes, mix.counts, strict=True):
            key = shape_key(shape)
            merged[key] = merged.get(key, 0.0) + count
            first.setdefault(key, shape)
        shapes = [first[key] for key in sorted(merged, key=lambda key: -merged[key])[:SHAPES]]
        ranked = sorted(hosts, key=lambda kind: (-hosts[kind] * kind.device_count, _order(kind)))
        classes = [kind for kind in ranked if hosts[kind] > 0][:CLASSES]
        counts = np.array([hosts[kind] for kind in classes], dtype=np.float64)
        devices = counts * np.array([kind.device_count for kind in classes], dtype=np.float64)
        wanted: Floats = np.array([merged[shape_key(shape)] for shape in shapes], dtype=np.float64)
        each: Floats = np.array([shape.milli / 1000 for shape in shapes], dtype=np.float64)
        load = float(devices.sum()) / max(float((wanted * each).sum()), 1e-9)
        fits = np.array([[kind.fits(shape) for kind in classes] for shape in shapes], dtype=np.bool_)
        return cls(shapes, classes, wanted * load, counts, devices, fits.reshape(len(shapes), len(classes)))

    @property
    def scarce(self) -> Bools:
        """[K]: see `SCARCE`."""
        reach = (self.fits * self.devices).sum(axis=1) / max(float(self.devices.sum()), 1.0)
        each: Floats = np.array([shape.milli / 1000 for shape in self.shapes], dtype=np.float64)
        narrow = self.demand * each * (reach < SCARCE)
        wanted = (self.fits * narrow[:, None]).sum(axis=0)
        chosen: Bools = wanted > SCARCE * np.maximum(self.devices, 1.0)
        return chosen


@dataclass(frozen=True, eq=False)
class _Columns:
    """Where variables stand: ``cell`` [S, K] requests for a shape on a class (-1: it does not fit), ``unserved`` [S]
    (-1 for those with devices), ``cut`` [K] the first of a class's patterns, after which whole devices come."""

    cell: NDArray[np.int64]
    unserved: NDArray[np.int64]
    cut: NDArray[np.int64]
    count: int


def _columns(task: _Task, patterns: int) -> _Columns:
    cell = np.full(task.fits.shape, -1, dtype=np.int64)
    cells = int(task.fits.sum())
    cell[task.fits] = np.arange(cells)
    idle = np.array([not shape.device_count for shape in task.shapes], dtype=np.bool_)
    unserved = np.full(len(task.shapes), -1, dtype=np.int64)
    unserved[idle] = cells + np.arange(int(idle.sum()))
    start = cells + int(idle.sum())
    cut = start + np.arange(len(task.classes)) * (patterns + 1)
    return _Columns(cell, unserved, cut, start + len(task.classes) * (patterns + 1))


def _program(task: _Task, columns: _Columns, *, cuts: _Cuts) -> Program:
    """Maximise the devices in use."""
    cost = np.zeros(columns.count)
    for s, shape in enumerate(task.shapes):
        cost[columns.cell[s][columns.cell[s] >= 0]] = -shape.milli / 1000
        if columns.unserved[s] >= 0:
            cost[columns.unserved[s]] = UNSERVED
    program = Program(cost)
    for k in range(len(task.classes)):
        _class_rows(program, task, columns=columns, cuts=cuts, k=k)
    for s, shape in enumerate(task.shapes):
        here = [int(column) for column in columns.cell[s] if column >= 0]
        if shape.device_count:
            program.row(here, [1.0] * len(here), upper=float(task.demand[s]))
        else:
            here.append(int(columns.unserved[s]))
            program.row(here, [1.0] * len(here), lower=float(task.demand[s]), upper=float(task.demand[s]))
    return program


def _class_rows(program: Program, task: _Task, *, columns: _Columns, cuts: _Cuts, k: int) -> None:
    """Cores, memory, devices, shares by size, and whole devices of the k-th class."""
    kind, hosts, first = task.classes[k], float(task.hosts[k]), int(columns.cut[k])
    here = [(int(columns.cell[s, k]), shape) for s, shape in enumerate(task.shapes) if columns.cell[s, k] >= 0]
    at = [column for column, _ in here]
    program.row(at, [shape.milli_cores / 1000 for _, shape in here], upper=hosts * kind.milli_cores / 1000)
    program.row(at, [shape.memory_bytes / GIB for _, shape in here], upper=hosts * kind.memory_bytes / GIB)
    last = first + cuts.ways
    program.row(range(first, last + 1), [1.0] * (cuts.ways + 1), upper=float(task.devices[k]))
    served: list[list[int]] = [[] for _ in cuts.sizes]
    for column, shape in here:
        if shape.shared:
            served[bisect_left(cuts.sizes, shape.device_milli)].append(column)
    for shares, cutting in zip(served, cuts.having, strict=True):
        made = [first + way for way, _ in cutting]
        program.row(shares + made, [1.0] * len(shares) + [-count for _, count in cutting], upper=0.0)
    whole = [(column, float(shape.device_count)) for column, shape in here if shape.device_count and not shape.shared]
    program.row([column for column, _ in whole] + [last], [count for _, count in whole] + [-1.0], upper=0.0)


@dataclass(frozen=True, slots=True)
class _Cuts:
    """``ways`` to cut a device; of each of ``sizes``, ascending, which ways have it, and how often: ``having``."""

    sizes: Sequence[int]
    having: Sequence[Sequence[tuple[int, float]]]
    ways: int


def _cuts(sizes: Mapping[int, float]) -> _Cuts:
    """All maximal ways, or, where those are too many, the ones that sufficed for the cutting-stock program."""
    lengths = sorted(sizes)
    ways = [list(reversed(way)) for way in islice(_maximal(tuple(reversed(lengths)), WHOLE), PATTERNS + 1)]
    if len(ways) > PATTERNS:
        found = generated(sizes)
        ways = [[pattern.get(i, 0) for i in range(len(lengths))] for pattern in (found[0] if found else ())]
    having = [[(w, float(way[i])) for w, way in enumerate(ways) if way[i]] for i in range(len(lengths))]
    return _Cuts(lengths, having, len(ways) if lengths else 0)


def _maximal(lengths: tuple[int, ...], left: int) -> Iterator[tuple[int, ...]]:
    """Every way to cut ``left`` into ``lengths``, the longest first, that leaves less than the shortest."""
    if not lengths:
        return
    if len(lengths) == 1:
        yield (left // lengths[0],)
        return
    for count in range(left // lengths[0], -1, -1):
        for rest in _maximal(lengths[1:], left - count * lengths[0]):
            yield (count, *rest)


def _order(kind: HostClass) -> tuple[object, ...]:
    return (kind.milli_cores, kind.memory_bytes, kind.devices)

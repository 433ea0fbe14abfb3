"""The published rules that ours is compared with, each as the FGD artefact has it (hkust-adsl/kubernetes-scheduler-
simulator, plugins BestFitScore, DotProductScore, GpuClusteringScore, GpuPackingScore, RandomScore), with its whole
points: a score of so many of a hundred, of which the minus is the cost. A share is taken from the device with least
free, as the artefact is set up for them (gpuSelMethod "best"); by Random from any ("random").
"""

from __future__ import annotations

import numpy as np

from bessemer.placement.demand import WHOLE
from bessemer.placement.policies import Costs
from bessemer.placement.policies.ways import fullest, usable
from bessemer.placement.shape import Shape
from bessemer.placement.states import States
from bessemer.placement.vectors import Ints

HOST_CORES = 128_000
HOST_MILLI = 8 * WHOLE
"""The largest host of the published trace, by which the artefact norms what is free: milli-cores and thousandths."""


class BestFit:
    """Least left of cores and devices, each as a part of the largest host's, in equal weight."""

    name = "BestFit"
    version = 0

    def costs(self, shape: Shape, states: States) -> Costs:
        cores = (states.cores - shape.milli_cores) / HOST_CORES
        devices = (states.milli.sum(axis=1) - shape.milli) / HOST_MILLI
        return Costs(-np.floor((1.0 - 0.5 * cores - 0.5 * devices) * 100.0), fullest(shape, states))


class DotProd:
    """Where what is free and what is asked for are least aligned (Grandl et al., "Multi-resource Packing for Cluster
    Schedulers", SIGCOMM 2014, turned about by the artefact)."""

    name = "DotProd"
    version = 0

    def costs(self, shape: Shape, states: States) -> Costs:
        cores = states.cores / HOST_CORES * (shape.milli_cores / HOST_CORES)
        devices = states.milli.sum(axis=1) / HOST_MILLI * (shape.milli / HOST_MILLI)
        return Costs(-np.floor(100.0 * (1.0 - (cores + devices) / 2.0)), fullest(shape, states))


class GpuClustering:
    """Like to like: hosts that hold claims of the same number of devices, best those that hold no other (Xiao et al.,
    "Gandiva", OSDI 2018); among equals the fuller one."""

    name = "GpuClustering"
    version = 0

    def costs(self, shape: Shape, states: States) -> Costs:
        if not shape.device_count:
            return _nothing(shape, states)
        alike = states.sizes[:, 0 if shape.shared else min(shape.device_count, states.sizes.shape[1] - 1)] > 0
        sorts = (states.sizes > 0).sum(axis=1)
        used = 25 * (HOST_MILLI - states.milli.sum(axis=1)) // HOST_MILLI
        score = used + np.where(alike, np.where(sorts == 1, 75, 50), np.where(sorts == 0, 25, 0))
        return Costs(-score.astype(np.float64), fullest(shape, states))


class GpuPacking:
    """Devices in use first, then free ones of hosts in use, then of free hosts (Weng et al., "MLaaS in the Wild",
    NSDI 2022); in each case as few free ones as will do."""

    name = "GpuPacking"
    version = 0

    def costs(self, shape: Shape, states: States) -> Costs:
        if not shape.device_count:
            return _nothing(shape, states)
        free = (states.milli == WHOLE).sum(axis=1)
        chosen = np.sort(np.where(usable(shape, states), states.milli, WHOLE + 1), axis=1)[:, : shape.device_count]
        opened = (chosen == WHOLE).sum(axis=1)
        filled = (chosen * 100 // WHOLE).sum(axis=1)
        score = np.where(opened > 0, np.maximum(50 - opened, 33), np.maximum(100 - filled // 10, 50))
        untouched = free == (states.model >= 0).sum(axis=1)
        score = np.where(untouched, np.maximum(33 - free, free), score)
        return Costs(-score.astype(np.float64), fullest(shape, states))


class FirstFit:
    """Every place is as good: the fixed order of hosts decides."""

    name = "FirstFit"
    version = 0

    def costs(self, shape: Shape, states: States) -> Costs:
        return _nothing(shape, states)


class Random:
    """Any place. The dice are handed in; each throw is a version of its own, so that none is ever kept."""

    name = "Random"

    def __init__(self, dice: np.random.Generator) -> None:
        self.version = 0
        self._dice = dice

    def costs(self, shape: Shape, states: States) -> Costs:
        self.version += 1
        return Costs(self._dice.random(len(states)), self._any(shape, states))

    def _any(self, shape: Shape, states: States) -> Ints:
        """[B]: what is free of any device of which a share could be had; 0 for what is no share."""
        if not shape.shared or not states.milli.shape[1]:
            return fullest(shape, states)
        thrown = np.where(usable(shape, states), self._dice.random(states.milli.shape), -1.0)
        one: Ints = np.take_along_axis(states.milli, thrown.argmax(axis=1)[:, None], axis=1)[:, 0]
        return one


def _nothing(shape: Shape, states: States) -> Costs:
    milli: Ints = fullest(shape, states)
    return Costs(np.zeros(len(states)), milli)

"""`Fragments`: how much of what is free could serve nothing that is typical, by tables.

The measure is FGD's (Weng et al., USENIX ATC 2023, §4.1): for each typical shape, the free devices of the host that it
could not use, whole ones too where cores or devices are too few for one; weighted by how often it is asked for. It is
cheap here: shapes that want equal devices are one group, of which a step function of free cores says how many there
are; and what a device contributes to each group stands in a table over its free thousandths. So a host is a sum of D
rows of G.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bessemer.placement.demand.mix import Floats, Typical
from bessemer.placement.demand.waste import WHOLE
from bessemer.placement.states import States
from bessemer.placement.vectors import Ints

Cells = NDArray[np.int32]

_COUNT = 1 << 20
"""In a cell, one usable device is `_COUNT` plus its free thousandths: sums hold both, for up to 1,000 devices."""

_ROW = WHOLE + 1

_TABLES = 64
"""So many models have tables of their own, a megabyte each at most; a further one counts as one that nobody names."""


class Fragments:
    """Made for one `Typical`. Shapes without devices leave all that is free a fragment, before and after: they matter
    by their weight alone."""

    def __init__(self, typical: Typical) -> None:
        groups: dict[tuple[int, frozenset[str], int], list[int]] = {}
        for m in np.flatnonzero(typical.count > 0):
            key = (int(typical.milli[m]), typical.models[m], int(typical.count[m]))
            groups.setdefault(key, []).append(int(m))
        self._milli = np.array([milli for milli, _, _ in groups], dtype=np.int64)
        self._models = [models for _, models, _ in groups]
        self._need = np.array([count * _COUNT for _, _, count in groups], dtype=np.int64)
        self.weight = float(typical.weight.sum())
        self._levels: Ints = np.unique(typical.cores)
        self._weights = np.zeros((len(self._levels) + 1, len(groups)))
        for g, members in enumerate(groups.values()):
            for member in members:
                level = int(self._levels.searchsorted(typical.cores[member]))
                self._weights[level + 1 :, g] += typical.weight[member]
        self._named: frozenset[str] = frozenset[str]().union(*self._models)
        # The first rows are those of any model that nobody names.
        self._cells: Cells = self._cells_of(None)
        self._starts: dict[str, int] = {}
        self._seen: tuple[str, ...] = ()
        self._offsets: Ints = np.zeros(1, dtype=np.int64)

    def rows(self, states: States) -> Ints | int:
        """[B, D]: where in the table the rows of each device's model begin; 0 where no shape names a model."""
        if not self._named:
            return 0
        models = tuple(states.models)
        if models != self._seen:
            self._make_room([name for name in dict.fromkeys(models) if name in self._named - self._starts.keys()])
            # The last is for "no device", whose number is -1.
            self._offsets = np.array([self._starts.get(name, 0) for name in models] + [0], dtype=np.int64)
            self._seen = models
        offsets: Ints = self._offsets[states.model]
        return offsets

    def cells(self, milli: Ints, rows: Ints | int) -> Cells:
        """[…, G]: what devices with ``milli`` […] free contribute to each group."""
        return self._cells.take(milli if isinstance(rows, int) else milli + rows, axis=0)

    def usable(self, sums: NDArray[np.int64], cores: Ints) -> Floats:
        """[…]: thousandths that typical shapes can use, in the mean of them; what is free, times ``weight``, less these
        is the fragment. ``sums`` […, G] of `cells` over devices; ``cores`` […] free, or 1 wide where sums are wider."""
        weights = self._weights.take(self._levels.searchsorted(cores, side="right"), axis=0)
        found: Floats = np.where(sums >= self._need, (sums & (_COUNT - 1)) * weights, 0.0).sum(axis=-1)
        return found

    def _make_room(self, models: list[str]) -> None:
        """Tables for models that have none yet."""
        new = models[: _TABLES - len(self._starts)]
        for name in new:
            self._starts[name] = (len(self._starts) + 1) * _ROW
        self._cells = np.concatenate([self._cells, *map(self._cells_of, new)])

    def _cells_of(self, model: str | None) -> Cells:
        """[WHOLE + 1, G] for devices of one model; None is any that no shape names."""
        free = np.arange(_ROW)[:, None]
        accepted = np.array([not models or model in models for models in self._models], dtype=np.bool_)
        cells: Cells = np.where(accepted & (free >= self._milli), _COUNT + free, 0).astype(np.int32)
        return cells

"""Linear programs, solved by HiGHS: minimise ``cost · x`` where ``lower ≤ A x ≤ upper`` and ``x ≥ 0``.

Each solution is the best there is, or there is none: neither a limit that was reached nor a program without an answer
leaves half a one behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from bessemer.placement.demand.mix import Floats

if TYPE_CHECKING:
    from highspy import HighsLp

BOUNDS: Mapping[str, str | float | int | bool] = MappingProxyType(
    {"output_flag": False, "threads": 1, "time_limit": 60.0, "simplex_iteration_limit": 200_000}
)
"""No program runs longer. What is asked for here takes a tenth of a second; steps, unlike seconds, are equal on every
machine."""

INTERIOR: Mapping[str, str | float | int | bool] = MappingProxyType(
    {"solver": "ipm", "run_crossover": "off", "ipm_iteration_limit": 200}
)


@dataclass(frozen=True, slots=True)
class Solution:
    """``values`` [columns]; ``reduced`` [columns], what a unit more of each would cost; ``prices`` [rows], what a unit
    of each row's bound is worth."""

    values: Floats
    reduced: Floats
    prices: Floats


@dataclass(slots=True)
class Program:
    """A program under construction: rows of (column, factor), each with its bounds; ``cost`` is a value a column."""

    cost: Sequence[float] | Floats
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])
    columns: list[int] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)

    def row(
        self, columns: Sequence[int], factors: Sequence[float], *, lower: float = -np.inf, upper: float = np.inf
    ) -> None:
        self.columns.extend(columns)
        self.factors.extend(factors)
        self.starts.append(len(self.columns))
        self.lower.append(lower)
        self.upper.append(upper)

    def solve(self, *, interior: bool = False) -> Solution | None:
        """With ``interior``: the middle of what is optimal, by the interior point method without crossover, and not one
        of its corners; shares between equals are then equal."""
        # Not at the top: 12 MB that only who derives prices needs.
        import highspy

        solver = highspy.Highs()
        for option, value in {**BOUNDS, **(INTERIOR if interior else {})}.items():
            solver.setOptionValue(option, value)
        solver.passModel(self._model())
        # What presolve reduced to nothing may come back with prices that are none; then without it.
        for presolve in ("choose", "off"):
            solver.setOptionValue("presolve", presolve)
            solver.run()
            if solver.getModelStatus() == highspy.HighsModelStatus.kOptimal:
                found = solver.getSolution()
                return Solution(np.array(found.col_value), np.array(found.col_dual), np.array(found.row_dual))
        return None

    def _model(self) -> HighsLp:
        import highspy

        model = highspy.HighsLp()
        count = len(self.cost)
        model.num_col_, model.num_row_ = count, len(self.lower)
        model.col_cost_ = np.asarray(self.cost, dtype=np.float64)
        model.col_lower_ = np.zeros(count)
        model.col_upper_ = np.full(count, highspy.kHighsInf)
        model.row_lower_ = np.asarray(self.lower, dtype=np.float64)
        model.row_upper_ = np.asarray(self.upper, dtype=np.float64)
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = np.asarray(self.starts, dtype=np.int32)
        model.a_matrix_.index_ = np.asarray(self.columns, dtype=np.int32)
        model.a_matrix_.value_ = np.asarray(self.factors, dtype=np.float64)
        return model

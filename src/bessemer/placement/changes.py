"""`Changes`: which rows changed, for readers who keep something of each."""

from __future__ import annotations

import numpy as np

from bessemer.placement.vectors import Ints

KEPT = 1 << 14
"""Changes that are remembered at least. To look at more rows than that one by one is no cheaper than to look at all."""


class Changes:
    """The last `KEPT` changes, and twice as many at most. A reader remembers the ``position`` up to which it has read:
    0 for who has read nothing, though a reader may as well begin at any."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._forgotten = 0

    @property
    def position(self) -> int:
        """After the last change."""
        return self._forgotten + len(self._rows)

    def add(self, row: int) -> None:
        """One more."""
        if len(self._rows) == 2 * KEPT:
            del self._rows[:KEPT]
            self._forgotten += KEPT
        self._rows.append(row)

    def since(self, position: int) -> Ints | None:
        """The rows that changed after ``position``, each once and in order; None where that is forgotten, and all rows
        must be looked at."""
        if position < self._forgotten:
            return None
        rows = sorted(set(self._rows[position - self._forgotten :]))
        return np.array(rows, dtype=np.int64)

"""`Changes`: which rows changed, for readers who keep something of each.

Of a row stands when it changed last: in earnest, and in thought. A thought takes back what it changed, so whoever did
not look while it lasted has nothing to look at anew, and whoever did looks once at what it touched.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from bessemer.placement.vectors import Ints

LATELY = 32
"""Changes that are remembered by themselves: a decision has few to look at, and rows there are many."""

_NONE: Ints = np.zeros(0, dtype=np.int64)


class Changes:
    """A reader remembers the ``position`` up to which it has read: 0 for who has read nothing, though a reader may as
    well begin at any. Positions never come twice; one is odd for who read in thought."""

    def __init__(self) -> None:
        self._count = 0
        self._began = 0
        self._depth = 0
        self._rows = 0
        # When each row changed: in earnest, in thought.
        self._last: tuple[Ints, Ints] = (_NONE, _NONE)
        # The last in earnest, by their positions.
        self._lately: deque[tuple[int, int]] = deque([(0, -1)], LATELY)

    @property
    def position(self) -> int:
        """After the last change."""
        return 2 * self._count + (self._depth > 0)

    def begin(self) -> None:
        """What changes from here on, until the same number of `end`, is taken back by then."""
        if not self._depth:
            self._began = self._count
        self._depth += 1

    def end(self) -> None:
        """What was changed since `begin` is as it was."""
        self._depth -= 1

    def add(self, row: int) -> None:
        """One more."""
        if row >= len(self._last[0]):
            room = np.zeros(max(64, row + 1 - len(self._last[0]), len(self._last[0])), dtype=np.int64)
            self._last = (np.append(self._last[0], room), np.append(self._last[1], room))
        self._rows = max(self._rows, row + 1)
        self._count += 1
        self._last[self._depth > 0][row] = self._count
        if not self._depth:
            self._lately.append((self._count, row))

    def since(self, position: int) -> Ints:
        """The rows that are not as who read up to ``position`` read them, each once and in order."""
        if position == self.position:
            return _NONE
        at, in_thought = divmod(position, 2)
        if not in_thought and not self._depth and self._lately[0][0] <= at:
            return np.array(sorted({row for when, row in self._lately if when > at}), dtype=np.int64)
        earnest, thought = (last[: self._rows] for last in self._last)
        moved = earnest > at
        if in_thought:
            moved |= thought > at
        elif self._depth:
            moved |= thought > self._began
        return np.flatnonzero(moved)

"""`Census`: how many of each shape hosts of each class hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from bessemer.placement.hostclass import HostClass
from bessemer.placement.shape import Shape


class Census:
    """Counts what it is told; what is held by a host that is away is of no class."""

    def __init__(self) -> None:
        self._counts: dict[Shape, Counter[HostClass | None]] = {}

    def of(self, shape: Shape) -> Mapping[HostClass | None, int]:
        """By class."""
        return self._counts.get(shape, {})

    def copy(self) -> Census:
        """One that counts on by itself."""
        other = Census()
        other._counts = {shape: Counter(counts) for shape, counts in self._counts.items()}
        return other

    def add(self, shape: Shape | None, kind: HostClass | None, *, count: int) -> None:
        """``count`` more, or fewer. Who says no shape is not counted."""
        if shape is None:
            return
        counts = self._counts.setdefault(shape, Counter())
        counts[kind] += count
        if not counts[kind]:
            del counts[kind]
        if not counts:
            del self._counts[shape]

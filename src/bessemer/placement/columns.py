"""How the fleet's arrays are declared: each once, where it has its type, and whoever goes over them goes by that.

What makes them and lets them grow, what asks whether another may land on a host, whether two hosts are alike, or
whether a number still means the same, has no list of its own: an array that is not declared is none of the fleet's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from bessemer.placement.vectors import NONE

Width = Literal["nodes", "devices", "others"]
"""A column for each of the widest host's."""


@dataclass(frozen=True, slots=True)
class Column:
    """Of an array [rows, *``widths``]. ``open``: it tells who may land on a host, whatever hardware is there;
    ``derived``: it sums up what others say of the hardware. ``numbers`` names the `Numbers` that tell what its values
    mean: the fleet's own, which may be others for the same host each time. ``vacant`` is what a row has that is
    nobody's; None: `NONE` in arrays of indices, 0 in others."""

    widths: tuple[Width | int, ...] = ()
    open: bool = False
    derived: bool = False
    numbers: str = ""
    vacant: int | None = None


NODES = Column(("nodes",))
DEVICES = Column(("devices",))
OTHERS = Column(("others",))


@dataclass(frozen=True, slots=True)
class Declared:
    """An array's column, and the type of its values."""

    column: Column
    kind: type[np.generic]

    def empty(self, rows: int, wide: Mapping[Width, int]) -> NDArray[Any]:
        """Of rows that are nobody's."""
        column = self.column
        shape = (rows, *(width if isinstance(width, int) else wide[width] for width in column.widths))
        usual = NONE if self.kind is np.int32 else 0
        return np.full(shape, usual if column.vacant is None else column.vacant, dtype=self.kind)


def declared(arrays: type) -> Mapping[str, Declared]:
    """The arrays of a class and of those above it, in the order in which they stand."""
    hints = get_type_hints(arrays, include_extras=True)
    found: dict[str, Declared] = {}
    for name, hint in hints.items():
        if get_origin(hint) is Annotated:
            array, column = get_args(hint)
            (kind,) = get_args(get_args(array)[1])
            found[name] = Declared(column, kind)
    return MappingProxyType(found)

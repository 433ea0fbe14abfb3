"""The types of the arrays, and what some of their numbers mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Smalls = NDArray[np.int32]

NONE = -1
"""In an array of indices: there is none."""

WHOLE = 1000
"""Thousandths of a device."""


def thousandths(memory: Ints, wanted: int) -> Ints:
    """Of devices with so much ``memory``, how many thousandths hold ``wanted`` bytes, rounded up; more than `WHOLE`
    where they do not."""
    known = np.maximum(memory, 1)
    each: Ints = np.where(memory >= wanted, -(-wanted * WHOLE // known), WHOLE + 1)
    return each

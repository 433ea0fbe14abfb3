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

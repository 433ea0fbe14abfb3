"""What the tensors of a model come to, and the bounds of what any file may say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bessemer.drivers.weights.protocol import refused, shown

TENSORS_MAX = 100_000
PARAMETERS_MAX = 1 << 50
WORD_LENGTH_MAX = 100

BOUNDS = {
    "layers": 1 << 12,
    "hidden": 1 << 24,
    "heads": 1 << 16,
    "kv_heads": 1 << 16,
    "head_dim": 1 << 16,
    "experts": 1 << 16,
    "context_tokens": 1 << 31,
    "vocabulary": 1 << 26,
    "rank": 1 << 20,
}
"""The most that a model may say of itself; what is past it is no model, and sums made of it would be no numbers."""


@dataclass(slots=True)
class Tensors:
    """Those of one model, counted as they are read. A name stands once in all files of a model."""

    names: set[str] = field(default_factory=set)
    parameters: int = 0
    size_bytes: int = 0
    by_type: Counter[str] = field(default_factory=Counter)
    rank: int = 0
    """That of the matrices of an adapter; 0 while there are none."""

    def add(self, name: str, shape: Iterable[int], *, kind: str, size_bytes: int) -> None:
        """Count one. Raises DriverError."""
        if name in self.names:
            raise refused(f"two tensors are called {shown(name)}")
        if len(self.names) >= TENSORS_MAX:
            raise refused(f"it has more than {TENSORS_MAX} tensors")
        self.names.add(name)
        self.parameters += elements(shape, name=name)
        if self.parameters > PARAMETERS_MAX:
            raise refused("it has more numbers than a model can have")
        self.size_bytes += size_bytes
        self.by_type[kind] += size_bytes

    @property
    def kind(self) -> str:
        """How most of the bytes are stored."""
        return max(sorted(self.by_type), key=lambda name: self.by_type[name], default="")


def elements(shape: Iterable[int], *, name: str) -> int:
    """Their number. Raises DriverError for what cannot be one."""
    count = 1
    for length in shape:
        count *= length
        if not 0 <= count <= PARAMETERS_MAX:
            raise refused(f"tensor {shown(name)} has no size that a tensor can have")
    return count


def bounded(name: str, value: Any) -> int:
    """A number that a file says of its model, 0 where it says none. Raises DriverError past `BOUNDS`."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    if not 0 <= value <= BOUNDS[name] or value != int(value):
        raise refused(f"no model has {shown(str(value))} for {name}")
    return int(value)


def word(value: Any) -> str:
    """A short text from a file, "" for anything else."""
    plain = isinstance(value, str) and len(value) <= WORD_LENGTH_MAX and value.isascii() and value.isprintable()
    return value if plain else ""

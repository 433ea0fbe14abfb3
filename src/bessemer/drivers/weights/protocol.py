"""What can be asked of a model's files, in which words they are refused.

Nothing in them is believed before it is judged, and nothing is executed: a reader is bounded in bytes, counts and
depth, whatever a file says of its own size. A model is refused as a whole for one file that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bessemer.core.errors import DriverError
from bessemer.core.inference import ModelFacts

REFUSED = "WeightsRefused"
PICKLED = "PickleRefused"

NAMED_MAX = 80
"""How much of a file's own words an error repeats."""


def refused(message: str) -> DriverError:
    """The error of files that cannot be a model, or not one that is safe to read."""
    return DriverError(REFUSED, message)


def shown(text: str) -> str:
    """Words from a file, as they may stand in a message."""
    return repr(text[:NAMED_MAX])


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a model: its path within the model, whose ending says what it is taken for, and where it lies."""

    path: str
    file: Path


class Weights(Protocol):
    """Reads models."""

    async def facts(self, parts: Sequence[Part]) -> ModelFacts:
        """What the files of one model say together.

        Raises DriverError: ``PickleRefused`` (a file that runs code when it is loaded, by its name or its bytes),
        ``WeightsRefused`` (no weights, of two formats, cut short, or not as their format says).
        """
        ...

"""What is known of an endpoint at a moment, and what is decided of it: the two values that a policy is between. Pure.

Sums run on: they are since whoever counts began, and one sight is taken from the next (`since`). Whoever counts begins
anew with a lower one, and is then worth nothing until the sight after that.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """``arrived`` and ``answered`` are requests; of ``begun`` answers the first token took ``first_seconds`` together,
    and of ``late`` longer than the target; ``paced_tokens`` came after others in ``paced_seconds``, those of ``slow``
    out of ``paced`` answers slower, on the mean, than the target."""

    arrived: float = 0
    answered: float = 0
    input_tokens: float = 0
    output_tokens: float = 0
    begun: float = 0
    late: float = 0
    first_seconds: float = 0.0
    paced: float = 0
    slow: float = 0
    paced_tokens: float = 0
    paced_seconds: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(**{name: getattr(self, name) + getattr(other, name) for name in SUMS})

    def __sub__(self, other: Sums) -> Sums:
        return Sums(**{name: getattr(self, name) - getattr(other, name) for name in SUMS})

    @property
    def counted_anew(self) -> bool:
        """Of a difference: whether it is less than nothing."""
        return any(getattr(self, name) < 0 for name in SUMS)


SUMS = tuple(field.name for field in fields(Sums))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """``at`` in seconds of a clock that never goes back. ``busy`` requests are answered, ``waiting`` wait for a slot or
    for a replica; of the replicas so many are ``ready``, others ``starting``. ``kv_share`` is the fullest cache of keys
    and values, None where no engine says it."""

    at: float
    busy: float = 0.0
    waiting: float = 0.0
    ready: int = 0
    starting: int = 0
    sums: Sums = Sums()
    kv_share: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """So many replicas are wanted, and ``why``, in words."""

    replicas: int
    why: str


class Policy(Protocol):
    """Decides again and again, of one endpoint, from what it sees; it remembers what it saw."""

    def decide(self, sight: Sight, *, present: int) -> Verdict:
        """``present`` are those that were wanted last."""
        ...

"""What is known of an endpoint at a moment, and what is decided of it: the two values that a policy is between. Pure.

Sums run on (`core.loads.Sums`): one sight's are taken from the next one's. Whoever counts may begin anew, with lower
ones, which are worth nothing until the sight after that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from bessemer.core.loads import Sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """``at`` in seconds of a clock that never goes back. ``busy`` requests are answered, ``waiting`` wait for a slot or
    for a replica; of the replicas so many are ``ready``, others ``starting``. ``kv_share`` is how full the caches of
    keys and values are, on the mean; None where no engine says it, or they are half empty."""

    at: float
    busy: float = 0.0
    waiting: float = 0.0
    ready: int = 0
    starting: int = 0
    sums: Sums = field(default_factory=Sums)
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

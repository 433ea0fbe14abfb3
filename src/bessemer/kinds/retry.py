"""When to try again on a host: what failed, how often, and until when to leave it alone.

The record stands in ``Claim.status.detail["retry"]``, so it survives the agent. Times are of the wall clock, which may
jump: a wait that is longer than the backoff could ever be counts as over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 300.0
CALM_SECONDS = 600.0
"""After running so long, what failed before counts no more."""


@dataclass(frozen=True, slots=True)
class Retry:
    """``failures`` in a row, and not again before ``until`` (epoch seconds)."""

    failures: int = 0
    until: float = 0.0

    @staticmethod
    def read(detail: Mapping[str, Any]) -> Retry:
        """From a claim's detail; anything odd reads as a fresh start."""
        kept = detail.get("retry")
        if not isinstance(kept, Mapping):
            return Retry()
        failures, until = kept.get("failures"), kept.get("until")
        if not isinstance(failures, int) or not isinstance(until, int | float):
            return Retry()
        return Retry(failures, float(until))

    def dump(self) -> dict[str, Any]:
        return {"failures": self.failures, "until": self.until}

    def failed(self, now: float) -> Retry:
        """One more failure: 1, 2, 4 … 300 seconds."""
        failures = self.failures + 1
        return Retry(failures, now + self._backoff(failures))

    def left(self, now: float) -> float:
        """Seconds until the next try; 0 when it is time."""
        left = self.until - now
        return left if 0 < left <= self._backoff(self.failures) else 0.0

    @staticmethod
    def _backoff(failures: int) -> float:
        return float(min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(failures - 1, 20))) if failures else 0.0

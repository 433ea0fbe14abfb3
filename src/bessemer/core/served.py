"""How endpoints answered: what was asked, how long it took until a first token came and between tokens, as sums that
add up over keys, endpoints and time.

It bills nothing: that is the ledger's. Quantiles are read from counts within fixed bounds, as Prometheus's
``histogram_quantile`` reads them, so that sums over anything have some.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from bessemer.core.reconcile import Accounts
from bessemer.core.values import UsageRecord

FIRST_MS = (
    *(5, 10, 20, 35, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 7500, 10_000),
    *(15_000, 20_000, 30_000, 60_000, 120_000),
)
"""Upper bounds, in milliseconds from a request to the first token of its stream; behind the last there is one more
count, of all that took longer."""

BETWEEN_MS = (*(1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300, 500, 1000, 2000),)
"""The same of a stream's mean time from one token to the next."""

SUMS = (
    "requests",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "cancelled",
    "cut",
    "killed",
    "first_ms",
    "between_ms",
    "between_tokens",
)
"""``cancelled``, ``cut`` and ``killed`` are requests, by how they ended; ``first_ms`` is of those that streamed,
``between_ms`` the time that ``between_tokens`` took behind their first ones."""

FIRST = tuple(f"first_{number:02d}" for number in range(len(FIRST_MS) + 1))
BETWEEN = tuple(f"between_{number:02d}" for number in range(len(BETWEEN_MS) + 1))
COLUMNS = (*SUMS, *FIRST, *BETWEEN)

_FIRST_AT, _BETWEEN_AT = len(SUMS), len(SUMS) + len(FIRST)
_AT: Mapping[str, int] = {name: place for place, name in enumerate(SUMS)}

FINE_SECONDS, COARSE_SECONDS = 300, 3600
"""Over how long is summed: five minutes, which are kept for `FINE_KEPT_SECONDS`, and an hour, for good."""

FINE_KEPT_SECONDS = 8 * 86_400
LATE_SECONDS = 7 * 86_400
"""What is settled so long after it was answered counts when it is settled: the clock of its gateway was wrong, more
likely than not."""

By = Literal["key", "endpoint", "member", "model"]


@dataclass(slots=True)
class Served:
    """``values`` are in the order of `COLUMNS`."""

    values: list[int] = field(default_factory=lambda: [0] * len(COLUMNS))

    def take(self, record: UsageRecord) -> None:
        """One request more. A whole answer that is no stream says no ``first_token_ms``, and has no pace."""
        values = self.values
        values[0] += 1
        values[1] += record.input_tokens
        values[2] += record.cached_input_tokens
        values[3] += record.output_tokens
        if record.ended is not None and record.ended in _AT:
            values[_AT[record.ended]] += 1
        if not record.first_token_ms:
            return
        values[_AT["first_ms"]] += record.first_token_ms
        values[_FIRST_AT + bisect_left(FIRST_MS, record.first_token_ms)] += 1
        gaps = record.output_tokens - 1
        if gaps > 0:
            taken = max(0, record.latency_ms - record.first_token_ms)
            values[_AT["between_ms"]] += taken
            values[_AT["between_tokens"]] += gaps
            values[_BETWEEN_AT + bisect_left(BETWEEN_MS, taken / gaps)] += 1

    def add(self, values: Iterable[int]) -> None:
        """Other sums, in the same order."""
        self.values = [mine + int(more) for mine, more in zip(self.values, values, strict=True)]

    def __getitem__(self, name: str) -> int:
        return self.values[_AT[name]]

    def first(self) -> Pace | None:
        """Milliseconds until the first token; None where nothing streamed."""
        counts = self.values[_FIRST_AT:_BETWEEN_AT]
        many = sum(counts)
        return _pace(counts, FIRST_MS, mean=self["first_ms"] / many) if many else None

    def between(self) -> Pace | None:
        """Milliseconds from token to token: the mean is over tokens, the quantiles over requests."""
        counts, gaps = self.values[_BETWEEN_AT:], self["between_tokens"]
        return _pace(counts, BETWEEN_MS, mean=self["between_ms"] / gaps) if gaps else None


@dataclass(frozen=True, slots=True)
class Pace:
    """Milliseconds, of ``count`` requests."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float


def _pace(counts: Sequence[int], bounds: Sequence[int], *, mean: float) -> Pace:
    p50, p95, p99 = (quantile(counts, bounds, part=part) for part in (0.5, 0.95, 0.99))
    return Pace(sum(counts), round(mean, 2), p50, p95, p99)


def quantile(counts: Sequence[int], bounds: Sequence[int], *, part: float) -> float:
    """The value below which that part of the counts lies, even between two bounds; the last bound where it is past
    that."""
    rank, passed = part * sum(counts), 0
    for place, bound in enumerate(bounds):
        here = counts[place]
        if here and passed + here >= rank:
            below = bounds[place - 1] if place else 0
            return round(below + (bound - below) * (rank - passed) / here, 2)
        passed += here
    return float(bounds[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Of a project (its uid), from ``start`` to ``end`` (epoch seconds) in steps of ``step`` seconds, all multiples of
    ``grain``, which is `FINE_SECONDS` or `COARSE_SECONDS`; of one ``endpoint`` and one ``key`` by name, or any."""

    project_uid: str
    by: By
    start: int
    end: int
    step: int
    grain: int
    endpoint: str = ""
    key: str = ""


class Figures(Accounts, Protocol):
    """How endpoints answered, as it was settled."""

    def steps(self, asked: Asked) -> AsyncIterator[tuple[int, Mapping[tuple[str, str], Served]]]:
        """For each step in which anything was answered, when it began, and the sums by name and model."""
        ...

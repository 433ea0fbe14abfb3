"""What a line of an invoice opens to: the first of its ledger rows. All of them are in the export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bessemer.core.values import LedgerEntry
from bessemer.portal import words

ROWS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A ledger row as a line's drill shows it."""

    id: int
    what: str
    claim: str
    held: str
    at: str


def first_of(text: str) -> tuple[str, int]:
    """Of ``3-5,9`` as an invoice writes it the first `ROWS_SHOWN` rows, and how many more there are."""
    kept: list[str] = []
    left, more = ROWS_SHOWN, 0
    for first, last in _ranges(text):
        count = min(left, last - first + 1)
        if count:
            kept.append(str(first) if count == 1 else f"{first}-{first + count - 1}")
        left -= count
        more += last - first + 1 - count
    return ",".join(kept), more


def in_ranges(text: str) -> set[int]:
    """``3-5,9`` → {3, 4, 5, 9}. Raises ValueError for anything else, and for more than `ROWS_SHOWN` rows."""
    found: set[int] = set()
    for first, last in _ranges(text):
        if last - first >= ROWS_SHOWN or len(found) > ROWS_SHOWN:
            raise ValueError("too many rows")
        found.update(range(first, last + 1))
    return found


def _ranges(text: str) -> Iterator[tuple[int, int]]:
    for part in text.split(","):
        low, _, high = part.partition("-")
        yield int(low), int(high or low)


def cores_held(milli: int) -> str:
    """``1 core``, ``2.5 cores``."""
    return f"{words.cores(milli)} core" + ("" if milli == 1000 else "s")


def row(entry: LedgerEntry) -> LedgerRow:
    """One row, in words."""
    if entry.kind == "tokens":
        held = f"{entry.input_tokens:,} in ({entry.cached_input_tokens:,} cached), {entry.output_tokens:,} out"
        return LedgerRow(entry.id, "tokens", entry.api_key, held, words.utc(entry.at))
    parts = [cores_held(entry.milli_cores), words.gib(entry.memory_bytes)]
    if entry.devices:
        parts.insert(0, f"{entry.milli_devices / 1000:g} × {words.device(entry.device_model)}")
    what = f"{entry.kind}: {entry.state}" if entry.state else entry.kind
    return LedgerRow(entry.id, what, entry.host, ", ".join(parts), words.utc(entry.at))

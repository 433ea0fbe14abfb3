"""From ledger rows to what they say: corrections applied, and each claim's rows as segments of time in one state.

Rules, which the second implementation in ``tests/oracle`` follows too:

* A correction takes the place of the row that it names, with that row's kind and time; of several the last counts,
  and a correction may name a correction.
* A claim's quantities stand in its open row: the hardware does not change while the claim lives.
* A segment lasts from a row to the claim's next one; the last one, while no close row ends it, to the asked end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bessemer.core.values import BillingState, LedgerEntry

_CORRECTABLE = (
    "devices",
    "milli_cores",
    "memory_bytes",
    "requests",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
)


@dataclass(frozen=True, slots=True)
class Segment:
    """``claim`` (its open row) was in ``state`` from ``start`` to ``end``, epoch seconds; ``rows`` say so."""

    claim: LedgerEntry
    state: BillingState
    start: int
    end: int
    rows: tuple[int, ...]

    @property
    def seconds(self) -> int:
        return self.end - self.start


def effective(entries: Iterable[LedgerEntry]) -> Sequence[LedgerEntry]:
    """The rows in order with corrections applied and taken out; a corrected row keeps its id, kind and time."""
    rows: dict[int, LedgerEntry] = {}
    stands_for: dict[int, int] = {}
    for entry in sorted(entries, key=lambda e: e.id):
        if entry.kind != "correction":
            rows[entry.id] = entry
            continue
        named = entry.corrects if entry.corrects is not None else entry.id
        target = stands_for.get(named, named)
        if target in rows:
            stands_for[entry.id] = target
            quantities = {name: getattr(entry, name) for name in _CORRECTABLE}
            rows[target] = rows[target].model_copy(update=quantities)
    return list(rows.values())


def segments(rows: Sequence[LedgerEntry], *, start: int, end: int) -> Iterator[Segment]:
    """What each claim was, clipped to ``[start, end)``; empty segments are left out."""
    by_claim: dict[str, list[LedgerEntry]] = {}
    for row in rows:
        if row.kind != "tokens":
            by_claim.setdefault(row.claim_uid, []).append(row)
    for claim_rows in by_claim.values():
        yield from _of_claim(claim_rows, start=start, end=end)


def _of_claim(rows: Sequence[LedgerEntry], *, start: int, end: int) -> Iterator[Segment]:
    opened = rows[0]
    state: BillingState = "deploying"
    for index, row in enumerate(rows):
        if row.kind == "close":
            return
        state = row.state or state
        after = rows[index + 1] if index + 1 < len(rows) else None
        since, until = max(row.at, start), min(after.at if after else end, end)
        if until > since:
            # What came after the asked end is no part of it: the same window names the same rows for ever.
            ids = (opened.id, row.id, after.id) if after and after.at < end else (opened.id, row.id)
            yield Segment(opened, state, since, until, ids)

"""From ledger rows to what they say: corrections applied, and each claim's rows as segments of time in one state.

Rules, which the second implementation in ``tests/oracle`` follows too:

* A correction takes the place of the row that it names, with that row's kind and time; of several the last counts,
  and a correction may name a correction.
* A claim's quantities stand in its open row: the hardware does not change while the claim lives.
* A segment lasts from a row to the claim's next one; the last one, while no close row ends it, to the asked end.

Rows are taken one by one, so that a long account needs no more memory than a short one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bessemer.core.values import QUANTITIES, BillingState, LedgerEntry


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


class Corrections:
    """What rows are to be read as. Corrections come before what they correct, in the order of their ids."""

    def __init__(self) -> None:
        self._stands_for: dict[int, int] = {}
        self._quantities: dict[int, dict[str, int]] = {}

    def note(self, entry: LedgerEntry) -> None:
        """Take a correction."""
        named = entry.corrects if entry.corrects is not None else entry.id
        target = self._stands_for[entry.id] = self._stands_for.get(named, named)
        self._quantities[target] = {name: getattr(entry, name) for name in QUANTITIES}

    def applied(self, row: LedgerEntry) -> LedgerEntry:
        """The row as it counts; it keeps its id, kind and time."""
        quantities = self._quantities.get(row.id)
        return row.model_copy(update=quantities) if quantities is not None else row


@dataclass(slots=True)
class _Held:
    """A claim up to its latest row."""

    opened: LedgerEntry
    latest: LedgerEntry
    state: BillingState


class Claims:
    """Segments of ``[start, end)`` from the rows of claims, as they come: only claims that go on are remembered.

    Rows of one claim come in their order; those of several may come in any.
    """

    def __init__(self, start: int, end: int) -> None:
        self._start = start
        self._end = end
        self._held: dict[str, _Held] = {}

    @property
    def running(self) -> int:
        """How many claims have no end before the asked one."""
        return sum(held.opened.kind == "open" for held in self._held.values())

    def standing(self) -> Iterator[LedgerEntry]:
        """The open rows of the claims that go on."""
        return (held.opened for held in self._held.values())

    def take(self, row: LedgerEntry) -> Segment | None:
        """Take the next row of a claim; the segment that it ends, if that is within the time."""
        if row.at >= self._end:
            # What came after the asked end is no part of it: the same window names the same rows for ever.
            return None
        held = self._held.get(row.claim_uid)
        segment = self._segment(held, until=row.at, ended_by=(row.id,)) if held is not None else None
        if row.kind == "close":
            self._held.pop(row.claim_uid, None)
        elif held is None:
            self._held[row.claim_uid] = _Held(row, row, row.state or "deploying")
        else:
            held.latest, held.state = row, row.state or held.state
        return segment

    def rest(self) -> Iterator[Segment]:
        """What goes on at the end."""
        for held in self._held.values():
            segment = self._segment(held, until=self._end)
            if segment is not None:
                yield segment

    def _segment(self, held: _Held, *, until: int, ended_by: tuple[int, ...] = ()) -> Segment | None:
        since = max(held.latest.at, self._start)
        if until <= since:
            return None
        return Segment(held.opened, held.state, since, until, (held.opened.id, held.latest.id, *ended_by))


def in_order(entries: Iterable[LedgerEntry]) -> Sequence[LedgerEntry]:
    """Corrections first, then all else, both in the order of their ids."""
    return sorted(entries, key=lambda entry: (entry.kind != "correction", entry.id))

"""How far history reaches back. The floor is a counter: whoever asks for a revision before it is told so (Expired)."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, delete, select

from bessemer.store.schema import changes
from bessemer.store.transaction import COUNTER, SET_COUNTER, Tx

_OLDEST = select(changes.c.revision, changes.c.at).order_by(changes.c.revision).limit(bindparam("count"))
_DROP = delete(changes).where(changes.c.revision <= bindparam("floor"))
AT_ONCE = 200
"""No other write begins meanwhile. A minute of 100 placements a second leaves tens of thousands to be dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A change is kept while it is among the newest ``revisions`` and younger than ``seconds``."""

    revisions: int = 20_000
    seconds: int = 86_400


def compact(tx: Tx, history: History) -> int:
    """Drop some of the oldest changes that are past either bound; answers how many."""
    newest = tx.one(COUNTER, of_name="revision")[0]
    young, early = newest - history.revisions, int(tx.now) - history.seconds
    dropped = 0
    floor = 0
    for revision, at in tx.all(_OLDEST, count=AT_ONCE):
        if revision > young and at >= early:
            break
        floor = revision
        dropped += 1
    if dropped:
        tx.run(_DROP, floor=floor)
        tx.run(SET_COUNTER, of_name="floor", value=floor)
    return dropped

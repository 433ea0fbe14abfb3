"""What a page was told when it asked for a list: the objects, and whether that is all of them. Less is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bessemer.portal.parts import Cell, Row


@dataclass(frozen=True, slots=True)
class Listed:
    """``bodies``, and ``more`` where there are others; ``hidden`` where the session may not look."""

    bodies: Sequence[Mapping[str, Any]] = ()
    more: bool = False
    hidden: bool = False


def caveats(listed: Listed, *, what: str, plural: str) -> Iterator[Row]:
    """Rows that say what is missing of ``what``; ``plural`` lists all of it at the command line."""
    if listed.hidden:
        yield Row(f"row-hidden-{plural}", (Cell(f"You may not see {what}.", "empty"),))
    elif listed.more:
        text = f"Only the first {len(listed.bodies)} of {what} are shown. All of them: bessemer get {plural}"
        yield Row(f"row-more-{plural}", (Cell(text, "empty"),))

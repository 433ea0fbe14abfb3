"""`core.bounds.Bounding` over the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bessemer.core.bounds import Answer, Ask, Bound
from bessemer.core.errors import QuotaExceeded
from bessemer.store import bounds
from bessemer.store.writer import Committer


class BoundsTable:
    """Implements `core.bounds.Bounding`. Each call has the writers' line: what it says is true at one commit."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    async def hold(self, project: str, ask: Ask) -> Answer:
        """Give out all that is wanted, or nothing. Raises Invalid."""
        try:
            return await self._committer.submit(lambda tx: bounds.hold(tx, project, ask=ask))
        except QuotaExceeded as error:
            nothing = replace(ask, wants=(), anew=False)
            answer = await self._committer.submit(lambda tx: bounds.hold(tx, project, ask=nothing))
            return replace(answer, stands=False, lacks=error.message)

    async def standing(self, scopes: Sequence[str]) -> Sequence[Bound]:
        """The bounds of up to four scopes."""
        return await self._committer.submit(lambda tx: bounds.standing(tx, scopes))

    async def held_by(self, holder: str) -> Sequence[str]:
        """The projects of whose bounds a gateway holds something."""
        return await self._committer.submit(lambda tx: bounds.held_by(tx, holder))

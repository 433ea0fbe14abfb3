"""Devices handed to guests, of which no disk goes to a second one before it is wiped."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.drivers.passthrough.protocol import Handed, Passthrough, Wanted
from bessemer.drivers.wipe.wipes import Wipes


class CleanPassthrough:
    """Implements `passthrough.protocol.Lending` over ``inner``, which knows nothing of what is written."""

    def __init__(self, inner: Passthrough, wipes: Wipes) -> None:
        self._inner = inner
        self._wipes = wipes

    async def hand(self, uid: str, wanted: Sequence[Wanted]) -> tuple[Handed, ...]:
        await self._wipes.asked(uid, wanted)
        handed = await self._inner.hand(uid, wanted)
        await self._wipes.handed(uid)
        return handed

    async def give_back(self, uid: str) -> None:
        await self._inner.give_back(uid)

    async def end(self, uid: str, wanted: Sequence[Wanted] = ()) -> None:
        # What was never taken for it, no guest of it has had, whatever its Claim says.
        had = uid in await self._inner.uids()
        await self._wipes.ending(uid, wanted if had else ())
        await self._inner.give_back(uid)
        # Not before: what is wiped is off the record, and were given back once more it would be wiped once more.
        await self._wipes.end(uid)

    async def uids(self) -> frozenset[str]:
        return await self._inner.uids() | await self._wipes.uids()

"""Asks an api of whichever release: one that is older answers for a quota's tokens and money by a call of their own.

It refuses to hear of their meters among others (422), and does not say that it tells of them. Then the share is asked
for first and the rest behind it; where that lacks, what was given stays unused, or is said again, as after an answer
that was lost. One that is older still knows no bounds, or no money: whoever knows of some, from another, lets them
stand, and serves nobody by that one. All of it goes once no such release is beside this one any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

from bessemer.core.bounds import OF_QUOTA
from bessemer.core.errors import Invalid, Malformed
from bessemer.gateway.lending import AskBounds

_TOKENS, _MONEY = OF_QUOTA


class AskShare(Protocol):
    """What such an api answers to a gateway that wants so much of a minute, and says so of money."""

    def __call__(
        self, project: str, *, meter: str, amount: int, money: Mapping[str, Any] | None = None
    ) -> Awaitable[Mapping[str, Any]]: ...


class Older:
    """Of one gateway; ``_numbers`` are of its last statements of money, by project."""

    def __init__(self, lend: AskBounds, share: AskShare) -> None:
        self._lend = lend
        self._share = share
        self._numbers: dict[str, int] = {}
        self._bounded: set[str] = set()

    async def ask(self, project: str, *, bounds: Mapping[str, Any]) -> Mapping[str, Any]:
        """As the newest api answers. Raises what the call does."""
        said: Mapping[str, Any] | None = None
        try:
            said = await self._lend(project, bounds=bounds)
        except (Invalid, Malformed):
            pass  # it is older, or says so again to what is asked of it then
        if said is None or "quota" not in said:
            said = await self._both(project, bounds, said=said)
        if any(one["meter"] not in OF_QUOTA for one in said["bounds"]):
            self._bounded.add(project)
        return said

    async def _both(
        self, project: str, bounds: Mapping[str, Any], *, said: Mapping[str, Any] | None
    ) -> Mapping[str, Any]:
        wants = {one["meter"]: one["amount"] for one in bounds["wants"] if one["meter"] in OF_QUOTA}
        level = wants.get(_MONEY, 0 if bounds["anew"] else None)
        after = self._numbers.get(project, 0) if level is not None and bounds["after"] is not None else None
        wish = {"holder": bounds["holder"], "micro": level or 0, "after": after}
        share = await self._shared(project, wants.get(_TOKENS, 0), money=wish)
        words = share["words"]
        if words:
            share = await self._shared(project, 0, money={**wish, "micro": 0, "after": None})  # what there is
        purse = share.get("money")
        stands = not words and (level is None or purse is None or purse["stands"])
        if said is None:
            others = [one for one in bounds["wants"] if one["meter"] not in OF_QUOTA]
            said = await self._rest(project, {**bounds, "wants": others if stands else []})
        return {
            **said,
            "stands": said["stands"] and stands,
            "words": words or said["words"],
            "prices": purse["prices"] if purse is not None else said["prices"],
            "bounds": [*said["bounds"], *_told(project, share, words=words)],
        }

    async def _shared(self, project: str, tokens: int, *, money: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            share = await self._share(project, meter=_TOKENS, amount=tokens, money=money)
        except Malformed:  # it knows nothing of money that is held
            if project in self._numbers:
                raise
            share = await self._share(project, meter=_TOKENS, amount=tokens)
        if (purse := share.get("money")) is not None:
            self._numbers[project] = purse["number"]
        return share

    async def _rest(self, project: str, bounds: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return await self._lend(project, bounds=bounds)
        except Malformed:  # it knows of no bounds
            if project in self._bounded:
                raise
            return {"number": bounds["after"] or 0, "stands": True, "words": "", "prices": {}, "bounds": []}


def _told(project: str, share: Mapping[str, Any], *, words: str) -> list[dict[str, Any]]:
    """What it says of the quota, as bounds; how large these are it does not say."""
    place, told = f"project/{project}", list[dict[str, Any]]()
    if share["left"] is not None:
        left, amount = share["left"], share["amount"]
        minute = {"bound": left + amount, "left": left, "seconds": share["seconds"]}
        told.append({"scope": place, "meter": _TOKENS, **minute, "hint": words})
    if (purse := share.get("money")) is not None:
        left = purse["left"]
        money = {"bound": max(0, left), "left": max(0, left), "over": max(0, -left)}
        told.append({"scope": place, "meter": _MONEY, **money, "hint": words})
    return told

"""`Audit`: some hosts at a time, what the arrays say is compared with what the store says.

The arrays follow changes and are never read anew, so a slip would stay for as long as the process. What the feed seems
not to have heard of is looked at twice, for it may be under way. What differs is logged, counted, and mended by setting
that host anew. One host after the other, each at most once an hour: an audit of all takes hours, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, NotFound
from bessemer.core.ports import Objects, Scope, Stored
from bessemer.core.resource import Change, Key
from bessemer.kinds.fleet.holds import hold_of
from bessemer.kinds.fleet.told import Told
from bessemer.placement import Hold
from bessemer.placement.mending import set_anew

PACE_SECONDS = 60.0
ROUND_SECONDS = 3600.0
HOSTS_MAX = 30
"""So many hosts are looked at in one go, and fewer where all of them take less than a round."""

SETTLE_SECONDS = 5.0
"""After it whatever was on its way has arrived."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Truth:
    """A host and its claims as the store has them."""

    host: Stored
    claims: dict[str, Stored]


class Audit:
    """``looked`` and ``found`` count hosts."""

    def __init__(self, told: Told, objects: Objects, *, clock: Clock) -> None:
        self.looked = 0
        self.found = 0
        self._told = told
        self._objects = objects
        self._clock = clock
        self._last = ""

    async def run(self) -> None:
        """Audit the fleet, for ever."""
        while True:
            await self._clock.sleep(PACE_SECONDS)
            try:
                await self.look(self._next())
            except (BessemerError, LookupError, OverflowError, ValueError) as error:
                log.warning("audit interrupted", error=str(error)[:500])

    async def look(self, names: Sequence[str]) -> None:
        """Compare these hosts with the store, and mend what differs."""
        doubtful: dict[str, set[str]] = {}
        for name in names:
            self.looked += 1
            truth = await self._truth(name)
            if truth is not None and (unheard := self._right(truth)):
                doubtful[name] = unheard
        if not doubtful:
            return
        await self._clock.sleep(SETTLE_SECONDS)
        for name, before in doubtful.items():
            truth = await self._truth(name)
            if truth is not None:
                self._catch_up(truth, before=before)

    def _next(self) -> Sequence[str]:
        """The hosts after those that were looked at last, in order of names."""
        names = sorted(self._told.heard)
        count = min(HOSTS_MAX, -(-len(names) * int(PACE_SECONDS) // int(ROUND_SECONDS)))
        ahead = [name for name in names if name > self._last] + names
        chosen = ahead[:count]
        self._last = chosen[-1] if chosen else ""
        return chosen

    async def _truth(self, name: str) -> _Truth | None:
        """None where the host is gone by now."""
        try:
            host = await self._objects.get(Key("Host", "", name))
        except NotFound:
            return None
        page = await self._objects.list(Scope(kind="Claim", host=name))
        return _Truth(host, {claim.uid: claim for claim in page.items})

    def _right(self, truth: _Truth) -> set[str]:
        """Set right what the arrays made of what the feed heard; what it may not have heard, as `_unheard` has it."""
        name = truth.host.key.name
        if self._told.heard.get(name) == truth.host.revision:
            self._report(name, set_anew(self._told.arrays, self._told.facts(truth.host.body)))
        return {about for about, *_ in self._unheard(truth)}

    def _catch_up(self, truth: _Truth, *, before: set[str]) -> None:
        """Hear now what was not heard ``before`` either: the feed may also know more than what was read."""
        unheard = [(words, hear) for about, words, hear in self._unheard(truth) if about in before]
        self._report(truth.host.key.name, [words for words, _ in unheard])
        for _, hear in unheard:
            hear()

    def _unheard(self, truth: _Truth) -> list[tuple[str, str, Callable[[], None]]]:
        """What the store has and the feed has not: about which claim ("": the host), in words, and how to hear it."""
        told, name = self._told, truth.host.key.name
        held = self._told.arrays.held.at(name)
        found: list[tuple[str, str, Callable[[], None]]] = []
        if told.heard.get(name, 0) < truth.host.revision:
            words = f"revision {truth.host.revision} of the host was not heard of"
            found.append(("", words, partial(told.host_changed, _change(truth.host))))
        for uid in sorted(held.keys() & told.known["Claim"] - truth.claims.keys()):
            found.append((uid, f"claim {uid} is gone", partial(told.claim_gone, uid)))
        for uid, claim in sorted(truth.claims.items()):
            if _otherwise(held.get(uid), claim):
                found.append((uid, f"claim {uid} is not counted as it is", partial(self._hear, uid, claim)))
        return found

    def _hear(self, uid: str, claim: Stored) -> None:
        self._told.claim_gone(uid)
        self._told.claim_changed(_change(claim))

    def _report(self, name: str, differences: Sequence[str]) -> None:
        if differences:
            self.found += 1
            log.error("placement's arrays differed from the store", host=name, differences=list(differences)[:20])


def _change(stored: Stored) -> Change:
    return Change(stored.revision, "MODIFIED", stored.key, stored.uid, stored.host, stored.body)


def _otherwise(held: Hold | None, claim: Stored) -> bool:
    """Whether a claim holds something else than what is counted. On what terms it does follows later; and what the feed
    left out, since no sense can be made of it, stays out."""
    try:
        right = hold_of(_change(claim))
    except ValueError:
        return False
    return held is None or replace(held, tenure=right.tenure) != right

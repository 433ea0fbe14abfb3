"""What is refused leaves a row in the trail, as far as one asker's refusals are few; of the rest, how many they were.

In each window an asker gets `ROWS_EACH` rows, and one more at its end that counts what came after. Somebody known is an
asker by name; of strangers, who showed a credential that is worth nothing, each address is one, all of them share
`ROWS_STRANGERS`, and one row counts their rest. Names are cut to what an object's may be, and stand in printable ASCII:
no text that a database cannot keep spares its asker the row. So nobody fills the disk by asking for what they may not
have, and none of these refusals is lost without being counted; who shows nothing at all is told so, and that is all. In
bounded memory: past `ASKERS_MAX`, askers are counted as one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import structlog

from bessemer.api.limit import network
from bessemer.api.names import plain
from bessemer.core.clock import Clock, rfc3339
from bessemer.core.errors import BessemerError
from bessemer.core.ports import Audit, Writer
from bessemer.core.resource import Key

log = structlog.get_logger(__name__)

ROWS_EACH = 20
ROWS_STRANGERS = 200
WINDOW_SECONDS = 600.0
ASKERS_MAX = 10_000
REASON_CHARACTERS_MAX = 500
NAME_CHARACTERS_MAX = 253
_STRANGERS = Writer("system", "strangers")
_OTHERS = Writer("system", "others")


class Refusal(NamedTuple):
    """One act that was refused, as a row of the trail says it."""

    writer: Writer
    verb: str
    key: Key
    reason: str


@dataclass(slots=True)
class _Asker:
    """Rows that were written in this window, how many were only counted, and the last of those; ``writer``
    signs the count."""

    writer: Writer
    rows: int = 0
    more: int = 0
    last: Refusal | None = None


class Refusals:
    """Run it with `run`; it writes what was counted at the end of each window."""

    def __init__(self, audit: Audit, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock
        self._known: dict[str, _Asker] = {}
        self._addresses: dict[str, _Asker] = {}
        self._strangers = _Asker(_STRANGERS)
        self._since = clock.now()

    async def known(self, refusal: Refusal) -> None:
        """Somebody whose name is sure was refused."""
        writer = refusal.writer
        asker = _asker(self._known, f"{writer.kind}:{writer.name}", writer=writer)
        await self._note(asker, refusal, full=asker.rows >= ROWS_EACH)

    async def stranger(self, refusal: Refusal) -> None:
        """Somebody was refused of whom only the address is sure."""
        address = _asker(self._addresses, network(refusal.writer.source), writer=_STRANGERS)
        full = address.rows >= ROWS_EACH or self._strangers.rows >= ROWS_STRANGERS
        address.rows += not full
        await self._note(self._strangers, refusal, full=full)

    async def run(self) -> None:
        """Write the counts of each window until cancelled."""
        while True:
            await self._clock.sleep(WINDOW_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write what was counted, and begin anew."""
        askers, since = [*self._known.values(), self._strangers], rfc3339(self._since)
        self._known, self._addresses, self._strangers = {}, {}, _Asker(_STRANGERS)
        self._since = self._clock.now()
        for asker in askers:
            if asker.last is not None:
                await self._count(asker, asker.last, since=since)

    async def _count(self, asker: _Asker, last: Refusal, *, since: str) -> None:
        reason = f"{asker.more} more refusals since {since}; the last: {last.verb}: {last.reason}"
        writer = replace(asker.writer, request_id=last.writer.request_id, source=last.writer.source)
        try:
            await self._audit.deny(writer, "refused", _cut(last.key), _told(reason))
        except BessemerError as error:
            log.warning("a count of refusals was not kept", writer=writer.name, count=asker.more, error=error.message)

    async def _note(self, asker: _Asker, refusal: Refusal, *, full: bool) -> None:
        if full:
            asker.more += 1
            asker.last = refusal
            return
        asker.rows += 1
        await self._audit.deny(refusal.writer, refusal.verb, _cut(refusal.key), _told(refusal.reason))


def _cut(key: Key) -> Key:
    """What was asked for may be no name of an object: a path may be as long as its asker likes."""
    return Key(key.kind, _told(key.namespace, NAME_CHARACTERS_MAX), _told(key.name, NAME_CHARACTERS_MAX))


def _told(text: str, longest: int = REASON_CHARACTERS_MAX) -> str:
    """Text as a row says it; what is escaped is longer than what was asked for."""
    return plain(text[:longest], longest)[:longest]


def _asker(askers: dict[str, _Asker], name: str, *, writer: Writer) -> _Asker:
    if name not in askers and len(askers) >= ASKERS_MAX:
        name, writer = _OTHERS.name, _OTHERS
    return askers.setdefault(name, _Asker(writer))

"""A project's ledger as pages need it. It may have a million rows a week and be asked for by every open page, on the
loop that api and controller share: rows are read as they come, with a turn for others between a few of them, as plain
JSON, and what was added up once is not read again.

`rows` are those of one workload, `chosen` those that somebody names, `Spent` what went through an endpoint over time.
Nothing here is billed by; an invoice is the api's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson

from bessemer.client import Ask, Client
from bessemer.client.objects import lines
from bessemer.core.clock import Clock
from bessemer.core.errors import Unavailable
from bessemer.core.resource import Key
from bessemer.core.values import LedgerEntry
from bessemer.metering.rows import Corrections

Row = Mapping[str, Any]
Read = Callable[[int, int], AsyncGenerator[Row, None]]
"""The rows of ``[since, until)`` of one workload, corrections first."""

ROWS_AT_ONCE = 200
PATIENCE_SECONDS = 1.0
"""How long an answer waits for old rows to be added up, before it tells of those that are."""
HOUR, WEEK = 3600, 168 * 3600
_MINUTE = 60
_LATE_SECONDS = 60
"""A row may be told of so long after its time: clocks jump, and several api replicas append."""
_SILENCE_SECONDS = 60.0
_END = b"]}"


async def rows(
    client: Client, project: str, *, since: int, until: int, workload: str = ""
) -> AsyncGenerator[Row, None]:
    """The ledger rows of a workload (all of the project's without one) as the api sends them, in its order; close it.
    Raises NotFound, Unavailable where they do not come to their end."""
    query = {"from": str(since), "to": str(until), "workload": workload}
    ask = Ask(method="GET", path=client.paths.of(Key("Project", "", project), "ledger"), query=query)
    number, ended = 0, False
    stream = client.transport.stream(ask, silence=_SILENCE_SECONDS)
    async with stream as parts, aclosing(lines(parts)) as whole:
        async for line in whole:
            ended = line == _END
            if number and not ended:
                yield orjson.loads(line.removesuffix(b","))
            number += 1
            if number % ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
    if not ended:
        raise Unavailable("the ledger broke off")


async def chosen(source: AsyncGenerator[Row, None], wanted: Collection[int]) -> list[LedgerEntry]:
    """The rows with those ids, in their order. It reads no further than it must."""
    found: list[LedgerEntry] = []
    async with aclosing(source) as all_rows:
        async for row in all_rows:
            if row["id"] in wanted:
                found.append(LedgerEntry.model_validate(row))
            if len(found) == len(wanted):
                break
    return sorted(found, key=lambda entry: entry.id)


@dataclass(slots=True)
class _Sums:
    """Requests, tokens in and tokens out by the minute, of rows that are taken one by one; ``recent`` are the ids of
    the youngest, ``noted`` of corrections."""

    minutes: dict[int, list[int]] = field(default_factory=dict)
    recent: dict[int, int] = field(default_factory=dict)
    noted: set[int] = field(default_factory=set)
    newest: int = 0
    _corrections: Corrections = field(default_factory=Corrections)
    _corrected: set[int | None] = field(default_factory=set)

    def take(self, row: Row, *, keep: int) -> None:
        """``keep`` is from when on ids are remembered."""
        if row["kind"] == "correction":
            self._corrections.note(LedgerEntry.model_validate(row))
            self.noted.add(row["id"])
            self._corrected.add(row["corrects"])
            return
        if row["id"] in self._corrected:
            row = self._corrections.applied(LedgerEntry.model_validate(row)).dump()
        sums = self.minutes.setdefault(row["at"] // _MINUTE * _MINUTE, [0, 0, 0])
        for place, name in enumerate(("requests", "inputTokens", "outputTokens")):
            sums[place] += row.get(name, 0)
        self.newest = max(self.newest, row["id"])
        if row["at"] >= keep:
            self.recent[row["id"]] = row["at"]

    def join(self, other: _Sums) -> None:
        """Take what was added up elsewhere."""
        for minute, more in other.minutes.items():
            self.minutes[minute] = [a + b for a, b in zip(self.minutes.get(minute, (0, 0, 0)), more, strict=True)]
        self.newest = max(self.newest, other.newest)


class Spent:
    """What went through one endpoint, by the minute, of a week at most. ``newest`` is the last ledger row of it.

    The last hour is read at once, what is new since then at each look, and what is older behind the answers, a day
    and then a week. A correction changes what was added up already: then all is read anew.
    """

    def __init__(self, read: Read, *, clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._turn = asyncio.Lock()
        self._behind: asyncio.Task[None] | None = None
        self._begun = float("-inf")
        self._forget()

    @property
    def newest(self) -> int:
        return self._sums.newest

    async def look(self, length: int, *, patience: float = PATIENCE_SECONDS) -> bool:
        """Learn what is new; whether ``length`` seconds back are known by now. Raises what reading raises."""
        asked = self._clock.monotonic()
        async with self._turn:
            if self._begun < asked:
                begun = self._clock.monotonic()
                await self._forward()
                self._begun = begun
        now = int(self._clock.now())
        if self._reaches(now - length):
            return True
        if self._behind is None or self._behind.done():
            self._behind = asyncio.create_task(self._back(now - length))
            self._behind.add_done_callback(_seen)
        behind = self._behind
        await asyncio.wait([behind], timeout=patience)
        if behind.done() and not behind.cancelled():
            behind.result()
        return self._reaches(now - length)

    def points(self, *, start: int, end: int, step: int) -> dict[str, list[int]]:
        """``{"at", "requests", "in", "out"}`` of the steps of ``[start, end)`` that are known, oldest first."""
        first = max(start, self._since // step * step)
        sums = [[at, 0, 0, 0] for at in range(first, end, step)]
        for minute, spent in self._sums.minutes.items():
            if first <= minute < end:
                here = sums[(minute - first) // step]
                here[1:] = [a + b for a, b in zip(here[1:], spent, strict=True)]
        return {name: [one[place] for one in sums] for place, name in enumerate(("at", "requests", "in", "out"))}

    def close(self) -> None:
        """Read no more."""
        if self._behind is not None:
            self._behind.cancel()

    def _forget(self) -> None:
        self._sums = _Sums()
        self._since = self._until = 0

    def _reaches(self, back: int) -> bool:
        return 0 < self._since <= back // _MINUTE * _MINUTE

    async def _forward(self) -> None:
        """What is new, or the last hour."""
        now = int(self._clock.now())
        fresh = not self._until
        since = now // _MINUTE * _MINUTE - HOUR if fresh else self._until - _LATE_SECONDS
        found = await self._gather(since, now + 1, but=self._sums.recent)
        if not fresh and found.noted - self._sums.noted:
            self._forget()
            return await self._forward()
        if fresh:
            self._since, self._sums.noted = since, found.noted
        self._sums.join(found)
        self._until = max(self._until, now + 1)
        kept = self._until - _LATE_SECONDS
        self._sums.recent = {i: at for i, at in (self._sums.recent | found.recent).items() if at >= kept}
        for minute in [m for m in self._sums.minutes if m < now - WEEK - HOUR * 2]:
            del self._sums.minutes[minute]
        return None

    async def _back(self, to: int) -> None:
        """A day back, then as far as is asked for."""
        to = to // _MINUTE * _MINUTE
        for since in (max(to, self._until // _MINUTE * _MINUTE - 24 * HOUR), to):
            sums, until = self._sums, self._since
            if since >= until:
                continue
            found = await self._gather(since, until)
            if sums is not self._sums:
                return  # all was forgotten meanwhile
            sums.join(found)
            self._since = since

    async def _gather(self, since: int, until: int, *, but: Collection[int] = ()) -> _Sums:
        found = _Sums()
        async with aclosing(self._read(since, until)) as all_rows:
            async for row in all_rows:
                # Rows of claims come along, whenever they were.
                if row["kind"] == "correction" or (
                    row["kind"] == "tokens" and since <= row["at"] < until and row["id"] not in but
                ):
                    found.take(row, keep=until - _LATE_SECONDS)
        return found


def _seen(task: asyncio.Task[None]) -> None:
    """Whoever looks next is told of an error; where nobody does, nobody is."""
    if not task.cancelled():
        task.exception()

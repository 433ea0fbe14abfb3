"""Who asks, by what is known of their bounds, and what one request of theirs holds: values that change, no calls."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from bessemer.core.money import Prices
from bessemer.gateway.lasting import Lasting
from bessemer.gateway.meter import Counts
from bessemer.gateway.need import Need
from bessemer.gateway.record import AnyRecord
from bessemer.gateway.vessels import KNOWN, NOBODYS, Lent, Row, Vessel

Place = tuple[str, str]
"""A scope and the name of a meter."""


@dataclass(slots=True)
class Account:
    """A project's. ``number`` is of the gateway's last statement; ``fresh``: of this process none stands yet;
    ``minute`` tells the minutes apart of what is given."""

    number: int = 0
    fresh: bool = True
    minute: int = 0
    prices: Prices = field(default_factory=Prices)
    vessels: dict[Place, Vessel] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    asking: Lasting = field(default_factory=Lasting)

    @property
    def idle(self) -> bool:
        """Whether nothing is held of any bound, by any word that stands."""
        if self.turn.locked():
            return False
        return not any(one.level or one.stated for one in self.vessels.values() if not one.given)

    @property
    def money(self) -> int:
        """What is free here of money, of whosever bound most is."""
        return max((one.have for one in self.vessels.values() if one.unit == "micro"), default=0)

    def hear(
        self, scopes: Iterable[str], lent: Lent, *, wants: Sequence[tuple[Vessel, int]], asked_at: float
    ) -> tuple[Vessel, ...]:
        """The vessels of these scopes, as the api says that they are, with what was wanted where that was given; what
        has no bound any more is forgotten, and what was held by a word that does not stand is nobody's."""
        self.number = lent.number
        if any(KNOWN[said.meter].unit == "micro" for said in lent.bounds):
            self.prices = lent.prices  # of what is no money none are said: those that others go by stand
        there = {(said.scope, said.meter): said for said in lent.bounds}
        mine = set(scopes)
        for place, vessel in self.vessels.items():
            if place[0] in mine and place not in there:
                vessel.active, vessel.over = False, 0
                vessel.give_up()
            elif not (lent.stands or lent.words or vessel.given):
                vessel.give_up()
        another = False
        for place, said in there.items():
            if place not in self.vessels:
                self.vessels[place] = Vessel(said.scope, KNOWN[said.meter])
            another = self.vessels[place].hear(said, asked_at=asked_at) or another
        self.minute += another
        if lent.stands and not lent.words:
            self.fresh = False
            for vessel, more in wants:
                vessel.got(more, asked_at=asked_at)
        for place, said in there.items():
            self.vessels[place].give_up(said.over)
        return tuple(self.vessels[place] for place in there if place[0] in mine)


@dataclass(slots=True)
class Known:
    """What is known of who asks: which bounds are theirs, until it is asked again at ``ends``. ``of`` is what the key
    said of its own; until ``good`` what is here of all of them may be used; ``used``: since the last round."""

    account: Account
    row: Row = NOBODYS
    ends: float = -math.inf
    good: float = -math.inf
    of: bytes | None = None
    used: bool = False
    again: asyncio.Task[None] | None = None

    def hear(self, vessels: tuple[Vessel, ...], *, ends: float, of: bytes | None) -> None:
        """So it is until then."""
        if vessels != self.row.vessels:
            self.row = Row(vessels)
        self.ends, self.of = ends, of
        self.good = -math.inf

    def take(self, need: Need, *, prices: Prices, now: float) -> Ticket | None:
        """Hold what a request needs of all of them, at these prices. None where it is not all here."""
        row, account = self.row, self.account
        if now >= self.good:
            self.good = min((one.good for one in row.vessels), default=math.inf)
            if now >= self.good:
                return None
        micro = need.cost(prices) if row.priced else 0
        if not row.take(need.tokens, micro):
            return None
        self.used = True
        lines = row.lines(now)
        return Ticket(need, row, account, prices, micro, account.minute, lines)


class Ticket(msgspec.Struct, eq=False):
    """What one request holds, given back once (`leave`). ``writes`` is what the gateway lets each of its answers write,
    where that is less than was asked for; None else. ``lines`` of a head go with its answer; ``micro`` is what it may
    cost, where money is bounded."""

    need: Need
    row: Row = NOBODYS
    account: Account | None = None
    prices: Prices | None = None
    micro: int = 0
    minute: int = 0
    lines: bytes = b""
    writes: int | None = None
    spent: bool = False

    @property
    def names(self) -> list[str] | None:
        """The bounds of which it holds what it comes to, as a record says them; None where there are none."""
        return self.row.names

    @property
    def held_micro(self) -> int | None:
        """What it holds of a quota's money, as a record says it."""
        return (self.micro or None) if self.row.money else None

    def spend(self, record: AnyRecord) -> tuple[Row, int, int] | None:
        """Of what is spent so much waits to be settled as the record comes to, and the rest is free: the tokens and the
        money that are owed."""
        row = self.row
        if not row.spends or self.spent:
            return None
        self.spent = True
        read, written, tokens, micro = record.input_tokens, record.output_tokens, self.need.tokens, 0
        if row.priced and self.prices is not None:
            due = self.prices.of(record.model) if self.prices.models else self.prices
            micro = due.tokens(read=read, cached=record.cached_input_tokens, written=written)
            micro = min(micro, self.micro)
        tokens = min(tokens, read + written)
        row.spend(self.need.tokens - tokens, self.micro - micro)
        return row, tokens, micro

    def leave(self, tokens: int) -> None:
        """The request is over, and came to so many tokens: what it did not use is the next one's. What it has spent is
        owed by now. Once."""
        row, account = self.row, self.account
        if account is None:
            return
        if row.spends and not self.spent:
            row.spend(self.need.tokens, self.micro)
            row.spare()
        row.leave(self.need.tokens - tokens, minute=self.minute == account.minute)

    def billed(self, counts: Counts, model: str = "") -> Counts:
        """What of an answer of that ``model`` is billed: where it is bounded, no more than was held for it, whatever
        its engine says, and whoever came to answer since."""
        if not self.row.spends:
            return counts
        need, prices = self.need, self.prices
        written, read = counts.output_tokens, counts.input_tokens
        if written > need.writes or read > need.tokens - written:
            written = min(written, need.writes)
            read = min(read, need.tokens - written)
            counts = Counts(read, min(counts.cached_input_tokens, read), written)
        if prices is not None and prices.models and self.row.priced and model not in need.models:
            held, cached = prices.over(need.models), counts.cached_input_tokens
            return Counts(*prices.of(model).within(held, read=read, cached=cached, written=written))
        return counts

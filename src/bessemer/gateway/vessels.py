"""What one gateway has of the bounds of whoever asks: values that change, no calls.

Invariant of what is spent or under way: what is free here, what requests hold and what they have spent and nobody has
settled are together what the gateway says that it holds. Between two statements none of it grows.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

from bessemer.core.bounds import BUSY_SECONDS, METERS, Meter, Unit
from bessemer.core.money import HOLD_SECONDS, Prices
from bessemer.gateway.lasting import Lasting
from bessemer.gateway.meter import Counts
from bessemer.gateway.purse import AHEAD, REQUESTS_AHEAD, Held, Need, known
from bessemer.gateway.record import AnyRecord

SLACK_SECONDS = 5.0
"""By which two answers may disagree about when a period ends: what calls to the api take."""

_LINES = b"x-ratelimit-limit-%b: %%d\r\nx-ratelimit-remaining-%b: %%d\r\n"
_RESET = b"x-ratelimit-reset-%b: %%b\r\n"
_REQUESTS, _TOKENS = (
    (_LINES % (unit, unit), (_LINES + _RESET) % (unit, unit, unit)) for unit in (b"requests", b"tokens")
)

Place = tuple[str, str]
"""A scope and the name of a meter."""


@dataclass(frozen=True, slots=True)
class Said:
    """One bound in the answer of the api: ``left`` is what nobody has, ``seconds`` until its period ends."""

    scope: str
    meter: str
    bound: int
    left: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Lent:
    """What the api answers: as `core.bounds.Answer`; ``words`` say what lacks."""

    number: int
    stands: bool
    words: str
    prices: Prices
    bounds: Sequence[Said]

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Lent:
        """From the answer of the api; meters that only a newer one knows are left to it."""
        return cls(
            number=said["number"],
            stands=said["stands"],
            words=said["words"],
            prices=Prices(**known(Prices, said["prices"])),
            bounds=[Said(**known(Said, one)) for one in said["bounds"] if one["meter"] in METERS],
        )


@dataclass(slots=True, eq=False)
class Vessel:
    """Of one bound. ``have`` is free; ``ends`` is when the period does, ``good`` until when what is held here is held
    by the api's count, too; ``number`` tells the minutes apart of what is given."""

    scope: str
    meter: Meter
    bound: int = 0
    have: int = 0
    left: int = 0
    ends: float = math.inf
    good: float = -math.inf
    number: int = 0
    busy: int = 0
    owed: int = 0
    stated: int = 0
    used: bool = False
    active: bool = True
    """Whether there is such a bound, as far as is known; one that is stated again finds what was held of it."""
    unit: Unit = field(init=False)
    given: bool = field(init=False)
    """Whether what is here counts already, used or not."""
    spent: str = field(init=False)
    """How a record calls it, where it is settled; "" else."""

    def __post_init__(self) -> None:
        self.unit, self.given = self.meter.unit, self.meter.way == "given"
        name = f"{self.scope.partition('/')[0]} {self.meter.name}"
        self.spent = name if self.meter.way == "spent" else ""

    @property
    def level(self) -> int:
        """What the gateway holds in all."""
        return self.have + self.busy + self.owed

    @property
    def remaining(self) -> int:
        """What there is yet, as far as is known here."""
        return max(0, self.have + self.left)

    def covers(self, amount: int, now: float) -> bool:
        """Whether so much is here, and may be used."""
        return self.have >= amount and now < (self.ends if self.given else self.good)

    def void(self, now: float) -> None:
        """What is of a minute that is over, or was held by a word of too long ago, is nobody's here."""
        if now >= (self.ends if self.given else self.good):
            self.have = 0

    def wants(self, amount: int, *, ahead: bool) -> int:
        """How much more is asked for where ``amount`` is needed."""
        missing = amount - self.have
        return max(missing, min(self.left // AHEAD, REQUESTS_AHEAD * amount)) if ahead else missing

    def hear(self, said: Said, *, asked_at: float) -> None:
        """What the api says of it."""
        ends = asked_at + said.seconds if said.seconds is not None else math.inf
        if self.given and ends > self.ends + SLACK_SECONDS:
            # Another minute, which may have begun while this was asked: what is left of the one before is void.
            self.have, self.number = 0, self.number + 1
        self.bound, self.left, self.ends, self.active = said.bound, said.left, ends, True

    def got(self, amount: int, *, asked_at: float) -> None:
        """So much more is here by an answer; of what is held, the level stands that was stated."""
        self.have += amount
        self.stated = self.level
        self.good = asked_at + (BUSY_SECONDS if self.meter.way == "busy" else HOLD_SECONDS) - SLACK_SECONDS


class Part(msgspec.Struct, gc=False):
    """What one request holds of a vessel."""

    vessel: Vessel
    amount: int
    number: int


@dataclass(slots=True)
class Known:
    """What is known of who asks: which bounds are theirs, until it is asked again at ``ends``. ``of`` is what the key
    said of its own; ``names`` are those that a record names, None where there are none."""

    vessels: tuple[Vessel, ...] = ()
    ends: float = -math.inf
    of: bytes | None = None
    again: asyncio.Task[None] | None = None
    names: list[str] | None = None
    _requests: tuple[Vessel, ...] = ()
    _tokens: tuple[Vessel, ...] = ()

    def hear(self, vessels: tuple[Vessel, ...], *, ends: float, of: bytes | None) -> None:
        """So it is until then."""
        self.vessels, self.ends, self.of = vessels, ends, of
        self.names = [one.spent for one in vessels if one.spent] or None
        self._requests = tuple([one for one in vessels if one.unit == "requests"])
        self._tokens = tuple([one for one in vessels if one.unit == "tokens"])

    def lines(self, now: float) -> bytes:
        """What OpenAI's clients read: of requests and of tokens the bound of which the least is left."""
        said = b""
        if self._requests:
            said = _told(self._requests, _REQUESTS, now=now)
        if self._tokens:
            said += _told(self._tokens, _TOKENS, now=now)
        return said


def told(vessels: Sequence[Vessel], now: float) -> bytes:
    """What they read where it is refused, of all that judge a request."""
    known = Known()
    known.hear(tuple(vessels), ends=now, of=None)
    return known.lines(now)


def _told(vessels: Sequence[Vessel], words: tuple[bytes, bytes], *, now: float) -> bytes:
    least = vessels[0]
    for one in vessels[1:]:
        if one.remaining < least.remaining:
            least = one
    if least.ends == math.inf:
        return words[0] % (least.bound, least.remaining)
    return words[1] % (least.bound, least.remaining, _duration(math.ceil(least.ends - now)))


@lru_cache(maxsize=128)
def _duration(seconds: int) -> bytes:
    """As OpenAI writes it: ``6m0s``."""
    minutes, rest = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (b"%dh" % hours if hours else b"") + (b"%dm" % minutes if hours or minutes else b"") + b"%ds" % rest


@dataclass(slots=True)
class Account:
    """A project's. ``number`` is of the gateway's last statement; ``fresh``: of this process none stands yet."""

    number: int = 0
    fresh: bool = True
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

    def hear(self, scopes: Iterable[str], lent: Lent, *, asked_at: float) -> tuple[Vessel, ...]:
        """The vessels of these scopes, as the api says that they are; what has no bound any more is forgotten."""
        self.number, self.prices = lent.number, lent.prices if lent.bounds else self.prices
        there = {(said.scope, said.meter): said for said in lent.bounds}
        mine = set(scopes)
        for place, vessel in self.vessels.items():
            if place[0] in mine and place not in there:
                vessel.active, vessel.have = False, 0
        for place, said in there.items():
            if place not in self.vessels:
                self.vessels[place] = Vessel(said.scope, METERS[said.meter])
            self.vessels[place].hear(said, asked_at=asked_at)
        return tuple(self.vessels[place] for place in there if place[0] in mine)

    def amount(self, vessel: Vessel, need: Need) -> int:
        """What a request needs of it."""
        unit = vessel.unit
        if unit == "tokens":
            return need.tokens
        return self.prices.most(need.tokens, writes=need.writes) if unit == "micro" else 1

    def take(self, vessels: Sequence[Vessel], need: Need, *, now: float) -> tuple[Part, ...] | None:
        """Hold what a request needs of all of them. None where it is not all here."""
        tokens, micro, parts = need.tokens, -1, []
        for vessel in vessels:
            amount = 1
            if vessel.unit == "tokens":
                amount = tokens
            elif vessel.unit == "micro":
                amount = micro = self.prices.most(tokens, writes=need.writes) if micro < 0 else micro
            if vessel.have < amount or now >= (vessel.ends if vessel.given else vessel.good):
                return None
            parts.append(Part(vessel, amount, vessel.number))
        for part in parts:
            vessel = part.vessel
            vessel.have -= part.amount
            vessel.used = True
            if not vessel.given:
                vessel.busy += part.amount
        return tuple(parts)

    def spend(self, parts: Sequence[Part], record: AnyRecord) -> list[tuple[Vessel, int]]:
        """Of what is spent so much waits to be settled as the record comes to, and the rest is free."""
        owed = []
        for part in parts:
            vessel = part.vessel
            if not vessel.spent:
                continue
            cost = 1
            if vessel.unit == "tokens":
                cost = record.input_tokens + record.output_tokens
            elif vessel.unit == "micro":
                read, cached, written = record.input_tokens, record.cached_input_tokens, record.output_tokens
                cost = self.prices.tokens(read=read, cached=cached, written=written)
            cost = min(cost, part.amount)
            vessel.busy -= part.amount
            vessel.owed += cost
            vessel.have += part.amount - cost
            owed.append((vessel, cost))
        return owed


class Ticket(msgspec.Struct, eq=False):
    """What one request holds, given back once (`Admission.leave`). ``writes`` is what the gateway lets each of its
    answers write, where that is less than was asked for; None else. ``lines`` of a head go with its answer. ``names``
    are the bounds of which it holds what it comes to, as a record says them; None where there are none."""

    held: Held
    need: Need
    parts: tuple[Part, ...] = ()
    account: Account | None = None
    writes: int | None = None
    lines: bytes = b""
    spent: bool = False
    names: list[str] | None = None

    def leave(self, tokens: int) -> None:
        """The request is over, and came to so many tokens; what it has spent is owed by now."""
        for part in self.parts:
            vessel = part.vessel
            if not vessel.given:
                if not (self.spent and vessel.spent):
                    vessel.busy -= part.amount
                    vessel.have += part.amount
            elif vessel.unit == "tokens" and vessel.number == part.number:
                vessel.have += part.amount - tokens

    def billed(self, counts: Counts) -> Counts:
        """What of an answer is billed: where it is bounded, no more than was held for it, whatever its engine says."""
        if self.held.prices is None and self.names is None:
            return counts
        need = self.need
        written, read = counts.output_tokens, counts.input_tokens
        if written <= need.writes and read <= need.tokens - written:
            return counts
        written = min(written, need.writes)
        read = min(read, need.tokens - written)
        return Counts(read, min(counts.cached_input_tokens, read), written)

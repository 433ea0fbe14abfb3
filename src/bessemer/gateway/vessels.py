"""What one gateway has of the bounds of whoever asks: values that change, no calls.

Invariant of what is spent or under way: what is free here, what requests hold and what they have spent and nobody has
settled are together the ``level`` that the gateway says that it holds. What a request takes leaves what is free and not
the level; between two statements that never grows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from bessemer.core.bounds import BUSY_SECONDS, METERS, OF_QUOTA, Meter, Unit
from bessemer.core.money import HOLD_SECONDS, Prices
from bessemer.gateway.need import Need

AHEAD = 8
"""What is asked for is at least this part of what is left: a call to the api serves several requests."""

REQUESTS_AHEAD = 64
"""It is asked for no more requests than these, as large as the present one, but of a minute, of which nobody holds
anything for long: what others have shrinks by it."""

SLACK_SECONDS = 5.0
"""By which two answers may disagree about when a period ends: what calls to the api take."""

MONEY = "spend_micro"
"""What a quota has of money, by which its gateways' holds are older than names of bounds in records."""

KNOWN = {**METERS, **OF_QUOTA}
"""The meters of which there are vessels, by name."""
_LINES = b"x-ratelimit-limit-%b: %%d\r\nx-ratelimit-remaining-%b: %%d\r\n"
_RESET = b"x-ratelimit-reset-%b: %%b\r\n"
_REQUESTS, _TOKENS = (
    (_LINES % (unit, unit), (_LINES + _RESET) % (unit, unit, unit)) for unit in (b"requests", b"tokens")
)


@dataclass(frozen=True, slots=True)
class Said:
    """One bound in the answer of the api: ``left`` is what nobody has, ``seconds`` until its period ends; ``over`` by
    how much it is passed. ``whose`` scope's it is, where not ``scope``'s; ``hint``: what may be done about it."""

    scope: str
    meter: str
    bound: int
    left: int
    seconds: float | None = None
    over: int = 0
    whose: str = ""
    hint: str = ""


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
            prices=Prices.heard(said["prices"]),
            bounds=[Said(**known(Said, one)) for one in said["bounds"] if one["meter"] in KNOWN],
        )


def known(of: Any, said: Mapping[str, Any]) -> dict[str, Any]:
    """What a dataclass has fields for: an api of a newer release may say more."""
    return {name: said[name] for name in of.__dataclass_fields__ if name in said}


@dataclass(slots=True, eq=False)
class Vessel:
    """Of one bound. ``have`` is free, of ``level`` that the gateway holds in all; ``ends`` is when the period does,
    ``good`` until when what is here may be used."""

    scope: str
    meter: Meter
    bound: int = 0
    have: int = 0
    left: int = 0
    ends: float = math.inf
    good: float = -math.inf
    level: int = 0
    stated: int = 0
    over: int = 0
    """By how much it is passed: nothing is here that is free."""
    active: bool = True
    """Whether there is such a bound, as far as is known; one that is stated again finds what was held of it."""
    whose: str = ""
    hint: str = ""
    unit: Unit = field(init=False)
    given: bool = field(init=False)
    """Whether what is here counts already, used or not."""

    def __post_init__(self) -> None:
        self.unit, self.given = self.meter.unit, self.meter.way == "given"

    @property
    def remaining(self) -> int:
        """What there is yet, as far as is known here."""
        return max(0, self.have + self.left)

    def covers(self, amount: int, now: float) -> bool:
        """Whether so much is here, and may be used."""
        return self.have >= amount and now < self.good

    def void(self, now: float) -> None:
        """What is of a minute that is over, or was held by a word of too long ago, is nobody's here."""
        if now >= self.good:
            self.give_up()

    def give_up(self, amount: int | None = None) -> None:
        """Of what is free so much, or all, is held no more."""
        less = self.have if amount is None else max(0, min(amount, self.have))
        self.have -= less
        self.level -= less

    def wants(self, amount: int, *, ahead: bool) -> int:
        """How much more is asked for where ``amount`` is needed."""
        missing, part = amount - self.have, self.left // AHEAD
        return max(missing, part if self.given else min(part, REQUESTS_AHEAD * amount)) if ahead else missing

    def hear(self, said: Said, *, asked_at: float) -> bool:
        """What the api says of it. Whether another minute has begun, maybe while this was asked: what is left of the
        one before is void."""
        ends = asked_at + said.seconds if said.seconds is not None else math.inf
        another = self.given and ends > self.ends + SLACK_SECONDS
        if another:
            self.give_up()
        self.bound, self.left, self.ends, self.active = said.bound, said.left, ends, True
        self.whose, self.hint = said.whose, said.hint
        if self.given:
            self.good = ends
        self.over = said.over
        return another

    def got(self, amount: int, *, asked_at: float) -> None:
        """So much more is here by an answer; of what is held, the level stands that was stated."""
        self.have += amount
        self.level += amount
        if not self.given:
            self.stated = self.level
            self.good = asked_at + (BUSY_SECONDS if self.meter.way == "busy" else HOLD_SECONDS) - SLACK_SECONDS

    def amount(self, need: Need, prices: Prices) -> int:
        """What a request needs of it."""
        if self.unit == "tokens":
            return need.tokens
        return need.cost(prices) if self.unit == "micro" else 1


class Row:
    """The vessels of whoever asks, by what a request needs of each: one, its tokens, its money; and by what becomes of
    that. ``names`` are those that a record names, None where there are none; ``money``: a quota's is among them;
    ``priced``: any is; ``spends``: there are some of which it is settled what a request came to."""

    __slots__ = (
        "_given_tokens",
        "_held_ones",
        "_micro",
        "_ones",
        "_spent_micro",
        "_spent_ones",
        "_spent_tokens",
        "_tokens",
        "_told",
        "money",
        "names",
        "priced",
        "spends",
        "vessels",
    )

    def __init__(self, vessels: Sequence[Vessel]) -> None:
        self.vessels = tuple(vessels)
        units: dict[str, list[Vessel]] = {"requests": [], "concurrent": [], "tokens": [], "micro": []}
        for one in vessels:
            units[one.unit].append(one)
        spent = [one for one in vessels if one.meter.way == "spent"]
        told = (units["requests"], _REQUESTS), (units["tokens"], _TOKENS)
        self._told = [(those[0], tuple(those[1:]), *words) for those, words in told if those]
        self._ones = (*units["requests"], *units["concurrent"])
        self._tokens, self._micro = tuple(units["tokens"]), tuple(units["micro"])
        self._held_ones = tuple(units["concurrent"])
        self._given_tokens = tuple([one for one in self._tokens if one.given])
        self._spent_ones = tuple([one for one in spent if one.unit == "requests"])
        self._spent_tokens = tuple([one for one in spent if one.unit == "tokens"])
        self._spent_micro = self._micro
        self.spends, self.priced = bool(spent), bool(self._micro)
        self.money = any(one.meter.name == MONEY for one in spent)
        named = [one for one in spent if one.meter.name != MONEY]
        self.names = [f"{one.scope.partition('/')[0]} {one.meter.name}" for one in named] or None

    @property
    def stands(self) -> bool:
        """Whether there are all of these bounds yet: one that is stated again may have another vessel by now."""
        return all(one.active for one in self.vessels)

    def take(self, tokens: int, micro: int) -> bool:
        """Hold what a request needs of all of them, where that is here."""
        short = False
        for one in self._ones:
            one.have = have = one.have - 1
            if have < 0:
                short = True
        for one in self._tokens:
            one.have = have = one.have - tokens
            if have < 0:
                short = True
        for one in self._micro:
            one.have = have = one.have - micro
            if have < 0:
                short = True
        if short:
            self._put_back(tokens, micro)
        return not short

    def _put_back(self, tokens: int, micro: int) -> None:
        for one in self.vessels:
            one.have += {"tokens": tokens, "micro": micro}.get(one.unit, 1)

    def spend(self, tokens: int, micro: int) -> None:
        """So much less than was taken of what is spent is owed; the rest is free."""
        for one in self._spent_tokens:
            one.have += tokens
        for one in self._spent_micro:
            one.have += micro

    def leave(self, tokens: int, *, minute: bool) -> None:
        """It is over: who was answered at a time is no more, and of the ``minute``, if that is yet the same, so many
        tokens are free."""
        for one in self._held_ones:
            one.have += 1
        if minute:
            for one in self._given_tokens:
                one.have += tokens

    def spare(self) -> None:
        """Of what is spent nothing was: what is counted by requests is free, too."""
        for one in self._spent_ones:
            one.have += 1

    def settled(self, tokens: int, micro: int) -> None:
        """What was owed is in the ledger."""
        for one in self._spent_ones:
            one.level -= 1
        for one in self._spent_tokens:
            one.level -= tokens
        for one in self._spent_micro:
            one.level -= micro

    def lines(self, now: float) -> bytes:
        """What OpenAI's clients read: of requests and of tokens the bound of which the least is left."""
        said = b""
        for first, others, words, ending in self._told:
            least = first
            remaining = least.have + least.left
            for one in others:
                left = one.have + one.left
                if left < remaining:
                    least, remaining = one, left
            remaining = max(remaining, 0)
            ends = least.ends
            if ends == math.inf:
                said += words % (least.bound, remaining)
            else:
                said += ending % (least.bound, remaining, _duration(int(ends - now) + 1))
        return said


NOBODYS = Row(())
"""Of whom nothing is bounded."""


@lru_cache(maxsize=128)
def _duration(seconds: int) -> bytes:
    """As OpenAI writes it: ``6m0s``."""
    minutes, rest = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (b"%dh" % hours if hours else b"") + (b"%dm" % minutes if hours or minutes else b"") + b"%ds" % rest

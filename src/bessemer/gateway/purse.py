"""What one gateway has of a project's minute: tokens, and the money that they may cost. Values that change, no calls.

Invariant of the money: ``have`` that is free, what requests under way hold and what they have spent and nobody has
settled are together what the gateway says that it holds. Between two statements none of it grows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import msgspec

from bessemer.core.money import Prices
from bessemer.gateway.lasting import Lasting

AHEAD = 8
"""What is asked for is at least this part of what is left: a call to the api serves several requests."""

REQUESTS_AHEAD = 64
"""Money is held for no more requests than these, as large as the present one: others' budgets shrink by it."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What the api says of money: its prices, the ``number`` of the statement that stands, whether this one does, and
    what nobody has."""

    prices: Prices
    number: int
    stands: bool
    left: int

    @classmethod
    def read(cls, said: Mapping[str, Any] | None) -> Bound | None:
        """From the answer of the api."""
        return cls(**{**known(cls, said), "prices": Prices(**known(Prices, said["prices"]))}) if said else None


class Need(msgspec.Struct, frozen=True, gc=False):
    """The most that a request may amount to in tokens, and how many of these it may write."""

    tokens: int
    writes: int


class Held(msgspec.Struct, frozen=True, gc=False):
    """What one request holds. ``amount`` of tokens is of the minute ``number``, ``micro`` are money at ``prices``; 0
    and None where nothing bounds them."""

    project: str
    amount: int = 0
    number: int = 0
    id: int = 0
    micro: int = 0
    prices: Prices | None = None
    need: Need = Need(0, 0)


@dataclass(slots=True)
class Money:
    """``prices`` are None where nothing is bounded; ``number`` is of the last statement, ``stated`` what that said;
    ``under`` is what is busy and owed together; ``used``: since the last round."""

    prices: Prices | None = None
    have: int = 0
    left: int = 0
    number: int = 0
    stated: int = 0
    busy: dict[int, int] = field(default_factory=dict)
    owed: dict[str, int] = field(default_factory=dict)
    under: int = 0
    used: bool = False

    @property
    def level(self) -> int:
        """What the gateway holds in all."""
        return self.have + self.under

    def spend(self, id: int, request_id: str, *, cost: int, micro: int) -> None:
        """Of what is busy so much is owed, and the rest is free; nothing where it is not busy any more."""
        if self.busy.pop(id, None) is not None:
            self.owed[request_id] = cost
            self.have += micro - cost
            self.under -= micro - cost

    def leave(self, id: int) -> None:
        """What is busy yet is free."""
        micro = self.busy.pop(id, 0)
        self.have += micro
        self.under -= micro

    def settled(self, request_id: str) -> None:
        """It is owed no more."""
        self.under -= self.owed.pop(request_id, 0)

    def cost(self, need: Need) -> int:
        """What has to be held for it."""
        return self.prices.most(need.tokens, writes=need.writes) if self.prices is not None else 0

    def missing(self, need: Need) -> int:
        """What of that is not here."""
        return max(0, self.cost(need) - self.have)

    def ahead(self, missing: int) -> int:
        """What is asked for where so much is missing."""
        return max(missing, min(self.left // AHEAD, REQUESTS_AHEAD * missing))

    def hear(self, bound: Bound | None, *, asked: int) -> None:
        """What the api answers to a statement of so much more. What is passed is given up, as far as it is free."""
        if bound is None:
            self.prices, self.have, self.number, self.left = None, 0, 0, 0
            return
        self.prices, self.number, self.left = bound.prices, bound.number, max(0, bound.left)
        # Where the statement did not stand, nobody but this gateway knows of what is free here.
        self.have = max(0, self.have + asked + min(0, bound.left)) if bound.stands else 0


@dataclass(slots=True)
class Purse:
    """A project's, of one minute. ``number`` tells its minutes apart; ``bounded`` is of its tokens, None before anybody
    has said; ``ends`` is when what is here may not be used any more."""

    bounded: bool | None = None
    have: int = 0
    left: int = 0
    ends: float = 0.0
    number: int = 0
    money: Money = field(default_factory=Money)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    asking: Lasting = field(default_factory=Lasting)
    again: asyncio.Task[None] | None = None

    @property
    def free(self) -> bool:
        """Whether nothing is bounded, as far as is known."""
        return self.bounded is False and self.money.prices is None

    def covers(self, need: Need, now: float) -> bool:
        """Whether a request that needs so much may go on."""
        if self.bounded is None or (now >= self.ends and not self.free):
            return False
        return (not self.bounded or self.have >= need.tokens) and self.money.missing(need) == 0

    def at_once(self, project: str, need: Need, *, id: int, now: float) -> Held | None:
        """Hold it, where a request that needs so much may go on: what `covers` says, and `take` does, in one step."""
        bounded, money = self.bounded, self.money
        if bounded is None or (bounded and self.have < need.tokens):
            return None
        micro = money.prices.most(need.tokens, writes=need.writes) if money.prices is not None else 0
        if money.have < micro or (now >= self.ends and not self.free):
            return None
        return self._held(project, need, id=id, micro=micro)

    def take(self, project: str, need: Need, *, id: int) -> Held:
        """Hold it."""
        return self._held(project, need, id=id, micro=self.money.cost(need))

    def _held(self, project: str, need: Need, *, id: int, micro: int) -> Held:
        money, tokens = self.money, need.tokens if self.bounded else 0
        self.have -= tokens
        if micro:
            money.have -= micro
            money.under += micro
            money.busy[id] = micro
            money.used = True
        return Held(project, tokens, self.number, id, micro, money.prices, need)


def known(of: Any, said: Mapping[str, Any]) -> dict[str, Any]:
    """What a dataclass has fields for: an api of a newer release may say more."""
    return {one.name: said[one.name] for one in fields(of) if one.name in said}

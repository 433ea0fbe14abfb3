"""What quantities cost at most, in whole micro-units, and what is held of a bound before it is spent.

Invariant: each meter is rounded up, so that a sum over parts is never less than an invoice's line over the whole, which
is rounded once. It bills nothing: that is ``metering``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from bessemer.core.units import GIB, SECONDS_PER_HOUR

FIRST_SECONDS = SECONDS_PER_HOUR
"""For how long a bound of money must have room where a Claim is taken."""

HOLD_SECONDS = 3600
"""For how long what a gateway held is kept for what its spool may bring, once nothing is heard of it."""

STATED_MAX = 1 << 53
"""The largest number, of money or of tokens, that a gateway may ask for."""

_TOKENS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Of a plan, in micro-units: of a million tokens, and of an hour of a core, a GiB and a device (by model, ``*`` for
    any other)."""

    currency: str = "EUR"
    input: int = 0
    cached: int = 0
    output: int = 0
    core_hour: int = 0
    memory_gib_hour: int = 0
    device_hour: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, plan: Mapping[str, Any]) -> Self:
        """From a PricePlan's spec as JSON, which its kind has judged."""
        rates = plan.get("rates", {})
        return cls(
            currency=plan.get("currency", "EUR"),
            input=rates.get("millionInputTokens", 0),
            cached=rates.get("millionCachedInputTokens", 0),
            output=rates.get("millionOutputTokens", 0),
            core_hour=rates.get("coreHour", 0),
            memory_gib_hour=rates.get("memoryGibHour", 0),
            device_hour=rates.get("deviceHour", {}),
        )

    def tokens(self, *, read: int, cached: int, written: int) -> int:
        """What tokens cost; those that were ``read`` include the cached ones."""
        # Each rounded up, written out: it is asked of every request.
        fresh = read - cached if read > cached else 0
        return (
            -(-fresh * self.input // _TOKENS) - (-cached * self.cached // _TOKENS) - (-written * self.output // _TOKENS)
        )

    def most(self, tokens: int, *, writes: int) -> int:
        """The most that so many tokens may cost in all, of which at most ``writes`` are written."""
        read, cost = self.input if self.input > self.cached else self.cached, tokens
        cost *= read
        if self.output > read:
            cost += (writes if writes < tokens else tokens) * (self.output - read)
        return 2 - (-cost // _TOKENS) if cost else 0  # of the three meters each is rounded up

    def hours(self, seconds: int, *, milli_cores: int, memory_bytes: int, milli_devices: int, model: str) -> int:
        """What hardware costs for a time."""
        device = self.device_hour.get(model, self.device_hour.get("*", 0))
        return (
            _up(milli_cores * seconds * self.core_hour, 1000 * SECONDS_PER_HOUR)
            + _up(memory_bytes * seconds * self.memory_gib_hour, GIB * SECONDS_PER_HOUR)
            + _up(milli_devices * seconds * device, 1000 * SECONDS_PER_HOUR)
        )


def _up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A gateway's statement: that ``holder`` holds ``micro`` of a project's money in all. ``after`` is the number of
    its last one; None states nothing and only asks."""

    holder: str
    micro: int
    after: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Purse:
    """What the store says of a bound of money: that ``holder``'s statement is by now the one of that ``number``;
    whether this call's ``stands``; and what is ``left`` that nobody holds or has spent, less than 0
    where it is passed."""

    prices: Prices
    number: int
    stands: bool
    left: int

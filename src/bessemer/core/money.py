"""What quantities cost at most, in whole micro-units, and what is held of a bound before it is spent.

Invariant: each meter is rounded up, so that a sum over parts is never less than an invoice's line over the whole, which
is rounded once. It bills nothing: that is ``metering``.

Tokens have rates of their own for models that a plan names, by the name that a record of usage says (`said_of`). Who
may be answered by several is held by the dearest of each sort; what is billed goes by who answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from bessemer.core.units import GIB, SECONDS_PER_HOUR

FIRST_SECONDS = SECONDS_PER_HOUR
"""For how long a bound of money must have room where a Claim is taken."""

HOLD_SECONDS = 3600
"""For how long a gateway of which nothing is heard is served from what it holds. What it held stays held for what its
spool may bring, until that is settled, or somebody says that it is lost (`core.spools`)."""

STATED_MAX = 1 << 53
"""The largest number, of money or of tokens, that a gateway may ask for."""

OUTSIDE = "external/"
"""What stands before the name of a model that a service elsewhere has: whoever makes the endpoint chooses that name."""

_TOKENS = 1_000_000

Rate = tuple[int, int, int]
"""Micro-units of a million tokens: read, read from the cache, written."""


def said_of(model: str, *, project: str = "", adapter: str = "") -> str:
    """What a record says of who answered: a Model by its name, a ProjectModel with the ``project`` whose it is, and the
    adapter behind either."""
    name = f"{project}/{model}" if project else model
    return f"{name}:{adapter}" if adapter else name


def bare(said: str) -> str:
    """The model's own name, of what a record says."""
    if said.startswith(OUTSIDE):
        return said.removeprefix(OUTSIDE)
    return said.partition(":")[0].rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Of a plan, in micro-units: of a million tokens, and of an hour of a core, a GiB and a device (by model, ``*`` for
    any other). ``models`` are rates of tokens of those whom the plan names."""

    currency: str = "EUR"
    input: int = 0
    cached: int = 0
    output: int = 0
    core_hour: int = 0
    memory_gib_hour: int = 0
    device_hour: Mapping[str, int] = field(default_factory=dict)
    models: Mapping[str, Rate] = field(default_factory=dict)

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
            models={
                name: (one["millionInputTokens"], one["millionCachedInputTokens"], one["millionOutputTokens"])
                for name, one in plan.get("models", {}).items()
            },
        )

    @classmethod
    def heard(cls, said: Mapping[str, Any]) -> Self:
        """From what `told` says; an api of another release may say more, or nothing of models."""
        read, cached, written = said.get("general") or (said.get(sort, 0) for sort in ("input", "cached", "output"))
        models = {name: (rate[0], rate[1], rate[2]) for name, rate in said.get("models", {}).items()}
        return cls(currency=said.get("currency", "EUR"), input=read, cached=cached, output=written, models=models)

    def told(self) -> dict[str, Any]:
        """What a gateway is told of tokens. One of a release that knows of no models reads the first four alone: it
        holds by the dearest that anybody may cost, so that what is billed is never more than it held."""
        read, cached, written = (max(sort) for sort in zip(self.rate, *self.models.values(), strict=True))
        said: dict[str, Any] = {"currency": self.currency, "input": read, "cached": cached, "output": written}
        return said | ({"general": self.rate, "models": dict(self.models)} if self.models else {})

    @property
    def rate(self) -> Rate:
        """Of tokens, of whom the plan does not name."""
        return self.input, self.cached, self.output

    def of(self, model: str) -> Self:
        """Those by which tokens are billed of whom a record calls ``model``: its own where the plan names it, else the
        general ones. An adapter has its base's; one that the plan names, its own where they are dearer."""
        return self.over((model,)) if self.models else self

    def over(self, models: Iterable[str]) -> Self:
        """Those by which is held what any of these may answer: of each sort the dearest."""
        if not self.models:
            return self
        rates = [rate for model in models for rate in self._rates(model)] or [self.rate]
        read, cached, written = (max(sort) for sort in zip(*rates, strict=True))
        return replace(self, input=read, cached=cached, output=written, models={})

    def _rates(self, model: str) -> Iterator[Rate]:
        base, _, adapter = (model, "", "") if model.startswith(OUTSIDE) else model.partition(":")
        yield self.models.get(base, self.rate)
        if adapter in self.models:
            yield self.models[adapter]

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

    def within(self, held: Prices, *, read: int, cached: int, written: int) -> Rate:
        """As many tokens of each sort, at most these, as cost no more than these do at the prices that they are
        ``held`` by: read, cached among them, written."""
        fresh = _part(max(0, read - cached), held=held.input, due=self.input)
        found = _part(cached, held=held.cached, due=self.cached)
        return fresh + found, found, _part(written, held=held.output, due=self.output)

    def hours(self, seconds: int, *, milli_cores: int, memory_bytes: int, milli_devices: int, model: str) -> int:
        """What hardware costs for a time."""
        device = self.device_hour.get(model, self.device_hour.get("*", 0))
        return (
            _up(milli_cores * seconds * self.core_hour, 1000 * SECONDS_PER_HOUR)
            + _up(memory_bytes * seconds * self.memory_gib_hour, GIB * SECONDS_PER_HOUR)
            + _up(milli_devices * seconds * device, 1000 * SECONDS_PER_HOUR)
        )


def _part(count: int, *, held: int, due: int) -> int:
    return count * held // due if due > held else count


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

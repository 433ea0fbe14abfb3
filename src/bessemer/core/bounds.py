"""Limits and budgets of whoever asks endpoints: a key, a member, a project, a tenant. All of these must have room.

A bound is of a scope (``key/PROJECT/NAME``, ``member/TENANT/USER``, ``project/NAME``, ``tenant/NAME``) and a meter,
which says of what, and within which period of the store's clock (UTC). There are three ways to keep a meter: what is
``given`` out of a minute counts, used or not; what is ``spent`` counts as it is settled, beside what gateways hold of
it; what is ``busy`` is only held. A project's and its tenant's quota of tokens and money (`core.quota`) is held beside
them, by its own meters. Pure values: who moves them is ``store``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol

from pydantic import Field

from bessemer.core.money import STATED_MAX, Prices
from bessemer.core.resource import ApiModel, tenant_of

Period = Literal["Day", "Month", "Total"]
Way = Literal["given", "spent", "busy"]
Unit = Literal["requests", "tokens", "micro", "concurrent"]
Span = Literal["minute", "day", "month", "total", ""]

BUSY_SECONDS = 90
"""For how long what a gateway said is under way there counts, once nothing is heard of it."""

_MINUTE, _DAY = 60, 86_400


class Limits(ApiModel):
    """Upper bounds of what may be asked; None is no bound."""

    requests_per_minute: int | None = Field(
        None, ge=0, le=STATED_MAX, description="Requests in each minute of the clock."
    )
    requests_per_day: int | None = Field(
        None, ge=0, le=STATED_MAX, description="Requests that are answered in each day (UTC)."
    )
    tokens_per_minute: int | None = Field(
        None, ge=0, le=STATED_MAX, description="Tokens, read and written, in each minute of the clock."
    )
    tokens_per_day: int | None = Field(
        None, ge=0, le=STATED_MAX, description="Tokens, read and written, in each day (UTC)."
    )
    concurrent: int | None = Field(None, ge=0, le=STATED_MAX, description="Requests that are answered at a time.")


class Budget(ApiModel):
    """What may be spent on tokens within a period; None is no bound."""

    period: Period = Field("Month", description="Each day or month (UTC), or Total: in all.")
    micro: int | None = Field(
        None, ge=0, le=STATED_MAX, description="Money, in millionths of the currency of the tenant's plan."
    )
    tokens: int | None = Field(None, ge=0, le=STATED_MAX, description="Tokens, read and written.")


@dataclass(frozen=True, slots=True)
class Meter:
    """One of the register. ``title`` is what people read."""

    name: str
    unit: Unit
    way: Way
    period: Span
    title: str

    def start(self, now: float) -> int:
        """When the present period began, in epoch seconds; 0 of one that has no end."""
        if self.period == "month":
            at = datetime.fromtimestamp(now, UTC)
            return int(datetime(at.year, at.month, 1, tzinfo=UTC).timestamp())
        seconds = {"minute": _MINUTE, "day": _DAY}.get(self.period, 0)
        return int(now) // seconds * seconds if seconds else 0

    def end(self, now: float) -> int | None:
        """When the present period ends, in epoch seconds; None of one that does not."""
        if self.period == "month":
            at = datetime.fromtimestamp(now, UTC)
            year, month = (at.year + 1, 1) if at.month == 12 else (at.year, at.month + 1)
            return int(datetime(year, month, 1, tzinfo=UTC).timestamp())
        seconds = {"minute": _MINUTE, "day": _DAY}.get(self.period, 0)
        return self.start(now) + seconds if seconds else None


def _register() -> dict[str, Meter]:
    meters = [
        Meter("requests/minute", "requests", "given", "minute", "requests per minute"),
        Meter("tokens/minute", "tokens", "given", "minute", "tokens per minute"),
        Meter("concurrent", "concurrent", "busy", "", "requests at a time"),
        Meter("requests/day", "requests", "spent", "day", "requests per day"),
    ]
    spans: dict[Span, str] = {"day": "this day", "month": "this month", "total": "in all"}
    for period, words in spans.items():
        meters.append(Meter(f"tokens/{period}", "tokens", "spent", period, f"tokens {words}"))
        meters.append(Meter(f"micro/{period}", "micro", "spent", period, f"spend {words}"))
    return {meter.name: meter for meter in meters}


METERS: Mapping[str, Meter] = _register()
"""The register by name."""

OF_QUOTA: Mapping[str, Meter] = {
    meter.name: meter
    for meter in (
        Meter("tokens_per_minute", "tokens", "given", "minute", "tokens per minute"),
        Meter("spend_micro", "micro", "spent", "month", "spend this month"),
    )
}
"""Of a quota, what gateways hold of it, by the names of `core.quota`: for them a bound of the project's scope, which is
that of the project or of its tenant of which less is left."""


def bounds_of(limits: Limits | None, budget: Budget | None) -> dict[str, int]:
    """Meter → bound, of those that have one. A budget of a day's tokens and a limit of them are one bound: the less."""
    found: dict[str, int] = {}
    said = limits or Limits()
    for name, bound in (
        ("requests/minute", said.requests_per_minute),
        ("requests/day", said.requests_per_day),
        ("tokens/minute", said.tokens_per_minute),
        ("tokens/day", said.tokens_per_day),
        ("concurrent", said.concurrent),
    ):
        if bound is not None:
            found[name] = bound
    period = budget.period.lower() if budget is not None else ""
    for unit in ("micro", "tokens"):
        bound = getattr(budget, unit) if budget is not None else None
        if bound is not None:
            found[f"{unit}/{period}"] = min(bound, found.get(f"{unit}/{period}", bound))
    return found


def scopes_of(project: str, *, key: str = "", owner: str = "") -> tuple[str, ...]:
    """Whose bounds a request of that key is judged by; ``owner`` is whose key it is, "" where it is the project's."""
    tenant = tenant_of(project)
    found = [f"key/{project}/{key}"] if key else []
    found += [f"member/{tenant}/{owner}"] if owner else []
    return (*found, f"project/{project}", f"tenant/{tenant}")


def concerns(scope: str, project: str) -> bool:
    """Whether who speaks of a project may speak of that scope."""
    kind, _, rest = scope.partition("/")
    if kind in ("key", "member"):
        above, _, name = rest.partition("/")
        return bool(name) and above == (project if kind == "key" else tenant_of(project))
    return scope in (f"project/{project}", f"tenant/{tenant_of(project)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """Of one bound: of a meter that is given, ``amount`` more of it; of any other, that the gateway holds ``amount`` of
    it in all."""

    scope: str
    meter: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a gateway, ``holder``, wants of a project's bounds, all of it or nothing; and of whose bounds it wants to
    hear. ``after`` is the number of its last statement of the project; None states nothing. ``anew``: what it held
    before, and does not name here, it does not hold any more, but for a quota's money (`store.lent`)."""

    holder: str
    after: int | None
    key: str = ""
    owner: str = ""
    anew: bool = False
    wants: Sequence[Want] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One bound as it stands. ``used`` is given out or spent within the present period, ``held`` is beside that held by
    gateways; ``until`` is when the period ends (epoch seconds), None where it does not. ``whose`` scope's it is, where
    that is not ``scope``; ``hint``: what may be done about it, for people."""

    scope: str
    meter: str
    bound: int
    used: int
    held: int
    until: int | None
    whose: str = ""
    hint: str = ""

    @property
    def left(self) -> int:
        return max(0, self.bound - self.used - self.held)

    @property
    def over(self) -> int:
        """By how much it is passed: it was lowered."""
        return max(0, self.used + self.held - self.bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the store says to an `Ask`: which bounds there are; the ``number`` of the statement that is the gateway's
    last by now, and whether this one ``stands``. ``lacks`` says in words which bound has no room: then nothing was
    given, and nothing stated."""

    number: int
    stands: bool
    bounds: Sequence[Bound] = ()
    prices: Prices = field(default_factory=Prices)
    lacks: str = ""


class Bounding(Protocol):
    """The port: bounds as the store keeps them. They are stated by the objects that have them."""

    async def hold(self, project: str, ask: Ask) -> Answer:
        """Give out all that is wanted, or nothing, and let the statement stand with it. A call whose answer is lost may
        give out twice of what is given: less is used than may be, never more; a statement may be made again. Where
        something lacks nothing is given, and the answer ``lacks``. Raises Invalid."""
        ...

    async def standing(self, scopes: Sequence[str]) -> Sequence[Bound]:
        """The bounds of up to four scopes, by scope and meter."""
        ...

    async def held_by(self, holder: str) -> Sequence[str]:
        """The names of the projects of whose bounds a gateway holds something, by its statements."""
        ...

"""Limits and budgets: what gateways are given of them, and what is left of a key's."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import Field
from starlette.responses import Response

from bessemer.api.plans import plan_of
from bessemer.api.resources import load
from bessemer.api.state import Call, answer
from bessemer.core.bounds import METERS, Answer, Ask, Bound, Want, scopes_of
from bessemer.core.clock import rfc3339
from bessemer.core.money import STATED_MAX
from bessemer.core.resource import ApiModel, tenant_of

WANTS_MAX = 1000
"""Bounds of one call: a gateway says again what it holds in several."""


class Wanted(ApiModel):
    """Of one bound: so much more, or in all (`core.bounds.Want`)."""

    scope: str = Field(max_length=512)
    meter: str = Field(max_length=32)
    amount: int = Field(ge=0, le=STATED_MAX)


class Asked(ApiModel):
    """As `core.bounds.Ask`."""

    holder: str = Field(min_length=1, max_length=63)
    after: int | None = Field(None, ge=0, le=STATED_MAX)
    key: str = Field("", max_length=253)
    owner: str = Field("", max_length=253)
    anew: bool = False
    wants: list[Wanted] = Field(default_factory=list, max_length=WANTS_MAX)

    def ask(self) -> Ask:
        wants = [Want(scope=one.scope, meter=one.meter, amount=one.amount) for one in self.wants]
        return Ask(holder=self.holder, after=self.after, key=self.key, owner=self.owner, anew=self.anew, wants=wants)


async def lend(call: Call, asked: Asked) -> Response:
    """POST projects/NAME/shares with ``bounds``: all that a gateway wants of them, or nothing."""
    given = await call.state.ports.bounds.hold(call.about.name, asked.ask())
    return answer(told(given, now=call.state.context.clock.now()))


def told(given: Answer, *, now: float) -> dict[str, Any]:
    """As a gateway reads it: ``seconds`` are until a bound's period ends, ``words`` what lacks. ``quota``: what the
    quotas bound is among it."""
    bounds = [
        {
            "scope": one.scope,
            "meter": one.meter,
            "bound": one.bound,
            "left": one.left,
            "seconds": max(0.0, one.until - now) if one.until is not None else None,
            "over": one.over,
            "whose": one.whose,
            "hint": one.hint,
        }
        for one in given.bounds
    ]
    said = {"number": given.number, "stands": given.stands, "words": given.lacks, "quota": True}
    return {**said, "prices": given.prices.told(), "bounds": bounds}


async def use(call: Call) -> Response:
    """GET namespaces/PROJECT/apikeys/NAME/use: each bound of the key and of those above it, and what is left."""
    key = await load(call, call.about)
    project, owner = key.key.namespace, orjson.loads(key.body)["spec"].get("owner") or ""
    standing = await call.state.ports.bounds.standing(scopes_of(project, key=key.key.name, owner=owner))
    money = any(METERS[one.meter].unit == "micro" for one in standing)
    currency = (await plan_of(call, tenant_of(project))).currency if money else ""
    return answer({"bounds": [_shown(one, currency=currency) for one in standing]})


def _shown(one: Bound, *, currency: str) -> dict[str, Any]:
    meter = METERS[one.meter]
    shown = {
        "scope": one.scope,
        "meter": one.meter,
        "title": meter.title,
        "unit": meter.unit,
        "limit": one.bound,
        "used": one.used,
        "held": one.held,
        "left": one.left,
        "until": rfc3339(one.until) if one.until is not None else None,
    }
    return shown | ({"currency": currency} if meter.unit == "micro" else {})

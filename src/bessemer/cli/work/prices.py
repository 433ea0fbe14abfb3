"""What the command line does for prices of a model: what vettings derived, what a plan asks, and a plan of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from bessemer.cli import render
from bessemer.cli.work.objects import list_all
from bessemer.client import Client, an_object
from bessemer.core.errors import Forbidden, Invalid, NotFound
from bessemer.core.money import Prices, Rate, said_of
from bessemer.core.ports import Scope
from bessemer.core.resource import Key, tenant_of
from bessemer.core.units import show_money
from bessemer.kinds.inference.models import find

FIELDS = ("millionInputTokens", "millionCachedInputTokens", "millionOutputTokens")
WORDS = ("input", "cached input", "output")


@dataclass(frozen=True, slots=True)
class Priced:
    """Of the model that a plan knows by ``name``: what was ``derived`` from ``vettings``, and the ``plan`` (name and
    spec) that there is."""

    name: str
    derived: Rate
    vettings: Sequence[str]
    plan: str
    spec: Mapping[str, Any]

    @property
    def asks(self) -> Rate:
        """What the plan asks now."""
        return Prices.read(self.spec).of(self.name).rate

    def body(self, called: str = "") -> dict[str, Any]:
        """Another plan, with these rates of the model and all else as it is in this one."""
        rates = dict(zip(FIELDS, self.derived, strict=True))
        said = {**self.spec, "models": {**self.spec.get("models", {}), self.name: rates}}
        return an_object(Key("PricePlan", "", called or f"{self.plan}-{self.name.rpartition('/')[2]}"), said)

    def text(self) -> str:
        """Both beside each other."""
        currency = self.spec.get("currency", "EUR")
        own = "its own" if self.name in self.spec.get("models", {}) else "those of any model"
        head = f"model {self.name} by {_list(self.vettings)}; PricePlan {self.plan} asks {own}"
        rows = [
            [word, show_money(derived, currency), show_money(now, currency), _change(now, derived)]
            for word, derived, now in zip(WORDS, self.derived, self.asks, strict=True)
        ]
        return f"{head}\n\n{render.columns(['A MILLION TOKENS', 'DERIVED', 'ASKED NOW', ''], rows)}"


async def priced(client: Client, model: str, *, vettings: Sequence[str], project: str, plan: str) -> Priced:
    """What these vettings found, or all of the model in the project: the dearest of each sort, beside a plan, or the
    one of the project's tenant. Raises Invalid for a vetting of another model, of a fake host, or in another currency,
    or that found none."""
    if not plan:
        tenant = await _body(client, Key("Tenant", "", tenant_of(project)))
        plan = tenant["spec"].get("pricePlan", "standard")
    spec = (await _body(client, Key("PricePlan", "", plan)))["spec"]
    if vettings:
        found = [await _body(client, Key("Vetting", project, name)) for name in vettings]
    else:
        found = [one for one in await list_all(client, Scope(kind="Vetting", namespace=project)) if _counts(one, model)]
        if not found:
            raise Invalid(f"no vetting in {project} has found prices of model {model}: `bessemer model vet {model}`")
    rates = [_rate(one, model=model, plan=plan, currency=spec.get("currency", "EUR")) for one in found]
    read, cached, written = (max(sort) for sort in zip(*rates, strict=True))
    names = [one["metadata"]["name"] for one in found]
    named = await _named(client, model, project=project)
    if all(one["spec"].get("task") == "embed" for one in found):
        # They wrote nothing, and say nothing of what that costs: whoever answers by the model pays what it did.
        written = Prices.read(spec).of(named).rate[2]
    return Priced(named, (read, cached, written), names, plan, spec)


async def take(client: Client, of: Priced, *, called: str) -> str:
    """Make the plan; what was done. Raises what the api refuses: that there is one of that name with other prices."""
    body = of.body(called)
    key = Key("PricePlan", "", body["metadata"]["name"])
    try:
        there = (await _body(client, key))["spec"]
    except NotFound:
        await client.create(body)
        return f"priceplan/{key.name} created: tenants are billed by it once their spec.pricePlan names it."
    if Prices.read(there) == Prices.read(body["spec"]):
        return f"priceplan/{key.name} has these prices already."
    raise Invalid(f"PricePlan {key.name} is there with other prices, which never change: choose another --name")


def _counts(vetting: Mapping[str, Any], model: str) -> bool:
    status = vetting.get("status", {})
    return bool(vetting["spec"]["model"] == model and status.get("prices") and not status.get("fake"))


def _rate(vetting: Mapping[str, Any], *, model: str, plan: str, currency: str) -> Rate:
    name, status = vetting["metadata"]["name"], vetting.get("status", {})
    prices = status.get("prices")
    if vetting["spec"]["model"] != model:
        raise Invalid(f"vetting {name} is of model {vetting['spec']['model']}")
    if prices is None or status.get("fake"):
        raise Invalid(f"vetting {name} {'ran on a fake host' if prices else 'has found no prices'}")
    if prices["currency"] != currency:
        raise Invalid(f"vetting {name} is in {prices['currency']}, plan {plan} in {currency}")
    read, cached, written = (prices[field] for field in FIELDS)
    return read, cached, written


async def _named(client: Client, model: str, *, project: str) -> str:
    """As plans name what an endpoint of the project means by that name: a project's model has the project before it."""
    try:
        found = await find(client, project, name=model)
    except Forbidden:  # who sees one project alone
        found = None
    return said_of(model, project=(found.metadata.namespace or "") if found is not None else "")


async def _body(client: Client, key: Key) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads((await client.get(key)).body)
    return body


def _list(names: Sequence[str]) -> str:
    return f"vetting{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _change(now: int, then: int) -> str:
    if now == then:
        return "the same"
    return f"{(then - now) / now:+.0%}" if now else "free until now"

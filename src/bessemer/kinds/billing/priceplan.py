"""PricePlan: what quantities cost. Prices meet quantities only when an invoice is derived, so it can be derived again.

Prices are integers in micro-units of the currency: per hour of a device, a core or a GiB of memory while a claim is in
a billed state, and per million tokens, which may differ by model. They are kept for good, for they are what every
invoice of the past is derived with: other prices are another plan. A plan goes only when no tenant is billed by it. It
bills nothing itself: that is ``metering``. A tenant's people read the plan by which it is billed; what others pay is
not theirs to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.ports import Stored
from bessemer.core.resource import ALL, READ, Column, Done, Kind, Outcome, Resource, Status, Wait
from bessemer.kinds.context import Context
from bessemer.kinds.fields import ShortText, at, duplicates, unchangeable
from bessemer.kinds.parts import made_of
from bessemer.kinds.tenancy.tenant import Tenant
from bessemer.metering.plan import Plan, Rates, TokenRates

__all__ = ["KIND", "PricePlan", "PricePlanSpec", "Rates"]

_WHY = "invoices of the past are derived with it; make another plan and name it in the Tenant"

DEADLINES: Mapping[str, float] = {"Pending": 120.0, "Terminating": 600.0}


class PricePlanSpec(Plan):
    description: ShortText = Field("", description="Whom it is for.")


class PricePlanStatus(Status):
    phase: Literal["Pending", "Active", "Terminating"] = Field(
        "Pending", description="Where it is in its life, in one word."
    )
    message: str = Field("", description="What it waits for or what is wrong, in words; empty when all is well.")


class PricePlan(Resource[PricePlanSpec, PricePlanStatus]):
    KIND = "PricePlan"

    status: PricePlanStatus = Field(default_factory=PricePlanStatus)


def validate(new: PricePlan, old: PricePlan | None) -> Sequence[Cause]:
    """One currency and one set of rates for good; what describes it may change."""
    causes = [*duplicates("spec.billedStates", new.spec.billed_states)]
    if old is not None:
        causes += unchangeable("spec.currency", new=new.spec.currency, old=old.spec.currency, why=_WHY)
        was, wanted = old.spec.rates.dump(), new.spec.rates.dump()
        for rate in sorted(was.keys() | wanted.keys()):
            causes += unchangeable(f"spec.rates.{rate}", new=wanted.get(rate), old=was.get(rate), why=_WHY)
        # One that joins would price anew what its tokens were billed by until now.
        for name in sorted(new.spec.models.keys() | old.spec.models.keys()):
            one, other = new.spec.models.get(name), old.spec.models.get(name)
            causes += unchangeable(f"spec.models.{name}", new=_said(one), old=_said(other), why=_WHY)
        billed = [sorted(plan.spec.billed_states) for plan in (new, old)]
        causes += unchangeable("spec.billedStates", new=billed[0], old=billed[1], why=_WHY)
    return causes


def _said(rates: TokenRates | None) -> object:
    return rates.dump() if rates is not None else None


async def reconcile(ctx: Context, plan: PricePlan) -> Outcome:
    """There is nothing to do but to say so."""
    return Done(status=plan.status.model_copy(update={"phase": "Active"}))


async def finalize(ctx: Context, plan: PricePlan) -> Outcome:
    """Wait until no tenant is billed by it."""

    def billed(tenant: Stored) -> bool:
        return Tenant.load(tenant.body).spec.price_plan == plan.metadata.name

    users = len(await made_of(ctx.objects, ctx.parts, part=plan.key, kind="Tenant", still=billed))
    if not users:
        return Done()
    # Each of them reads it: who the others are, is not theirs to know.
    message = f"{users} tenant{'s are' if users > 1 else ' is'} billed by it"
    status = plan.status.model_copy(update={"phase": "Terminating", "message": message})
    return Wait(reason="InUse", message=message, status=status, remedy="Give these tenants another plan.")


KIND: Kind[Context, PricePlan] = Kind(
    resource=PricePlan,
    plural="priceplans",
    namespaced=False,
    short_names=("pp",),
    rights={
        "admin": ALL,
        "auditor": READ,
        "tenant-admin": READ,
        "member": READ,
        "reader": READ,
        "billing-reader": READ,
    },
    columns=(
        Column(name="Currency", value=at("spec", "currency", default="EUR")),
        Column(name="Core-hour", value=at("spec", "rates", "coreHour", default=0), type="integer"),
        Column(name="GiB-hour", value=at("spec", "rates", "memoryGibHour", default=0), type="integer"),
        Column(name="Description", value=at("spec", "description"), wide=True),
    ),
    validate=validate,
    reconcile=reconcile,
    finalize=finalize,
    deadlines=DEADLINES,
)

"""PricePlan: what quantities cost. Prices meet quantities only when an invoice is derived, so it can be derived again.

Prices are integers in micro-units of the currency: per hour of a device, a core or a GiB of memory while a claim is in a
billed state, and per million tokens.
"""

from __future__ import annotations

from pydantic import Field

from bessemer.core.resource import ApiModel, Resource, Status
from bessemer.core.values import BillingState
from bessemer.kinds.fields import ShortText


class Rates(ApiModel):
    """Micro-units. ``device_hour`` is by device model, ``*`` for any other."""

    device_hour: dict[str, int] = Field(default_factory=dict)
    core_hour: int = Field(0, ge=0)
    memory_gib_hour: int = Field(0, ge=0)
    million_input_tokens: int = Field(0, ge=0)
    million_cached_input_tokens: int = Field(0, ge=0)
    million_output_tokens: int = Field(0, ge=0)


class PricePlanSpec(ApiModel):
    description: ShortText = ""
    currency: str = Field("EUR", pattern="^[A-Z]{3}$")
    rates: Rates = Field(default_factory=Rates)
    billed_states: list[BillingState] = Field(
        default_factory=lambda: ["running", "stopped"],
        description="Time in deploying and lost is the platform's own cost unless named here.",
    )


class PricePlanStatus(Status):
    pass


class PricePlan(Resource[PricePlanSpec, PricePlanStatus]):
    KIND = "PricePlan"

    status: PricePlanStatus = Field(default_factory=PricePlanStatus)

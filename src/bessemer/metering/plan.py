"""Prices as values. Integers in micro-units of the currency; the kind PricePlan is this with a description."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from bessemer.core.money import bare
from bessemer.core.resource import ApiModel
from bessemer.core.values import BillingState, nothing

Micro = Annotated[int, Field(ge=0, le=10**15)]
"""Micro-units of a currency; the bound keeps every product in the range that all JSON readers hold exactly."""


MODELS_MAX = 1000
"""Of a plan: gateways hear of all of them with each share."""

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,320}")


def _named(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError("a model's name has 1 to 320 characters, none of them a control character")
    return name


# As a pattern it would be `patternProperties` in the description, into which kubectl does not look.
ModelName = Annotated[str, AfterValidator(_named)]


class TokenRates(ApiModel):
    """Micro-units, of the tokens of one model."""

    million_input_tokens: Micro = Field(description="A million tokens that were read and not cached.")
    million_cached_input_tokens: Micro = Field(description="A million tokens that were read from the cache.")
    million_output_tokens: Micro = Field(description="A million tokens that were written.")


class Rates(ApiModel):
    """Micro-units. ``device_hour`` is by device model, ``*`` for any other."""

    device_hour: dict[str, Micro] = Field(
        default_factory=dict, description="A device for an hour, by model; * is any other."
    )
    core_hour: Micro = Field(0, description="A core for an hour.")
    memory_gib_hour: Micro = Field(0, description="A GiB of memory for an hour.")
    million_input_tokens: Micro = Field(0, description="A million tokens that were read and not cached.")
    million_cached_input_tokens: Micro = Field(0, description="A million tokens that were read from the cache.")
    million_output_tokens: Micro = Field(0, description="A million tokens that were written.")

    def device(self, model: str) -> int:
        """The price of one device of that model for an hour."""
        return self.device_hour.get(model, self.device_hour.get("*", 0))


def _held_states() -> list[BillingState]:
    return ["running", "stopped"]


class Plan(ApiModel):
    """What is billed, and at which price."""

    currency: str = Field("EUR", pattern="^[A-Z]{3}$", description="Three letters; kept for good.")
    rates: Rates = Field(default_factory=Rates)
    models: dict[ModelName, TokenRates] = Field(
        default_factory=dict,
        max_length=MODELS_MAX,
        exclude_if=nothing,
        description="Rates of tokens of single models: a Model or an adapter by its name, a ProjectModel as "
        "PROJECT/NAME, the model of a service elsewhere as external/NAME; all others by rates.",
    )
    billed_states: list[BillingState] = Field(
        default_factory=_held_states,
        description="Time in deploying and lost is the platform's own cost unless named here.",
    )

    def shown(self, model: str) -> str:
        """What a line calls the model that a record says: its bare name, as in lines of before plans named any, where
        this one names none."""
        return model if self.models else bare(model)

"""What there is of each model, how much of it is of no use for what is asked for, and what that costs.

Measured when somebody asks, in a thread upon arrays that are apart from those that decide, and kept for a moment, so
that many who ask cost no more than one. Money is at the list price: that of the PricePlan ``standard``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson
from pydantic import Field

from bessemer.core.clock import Clock
from bessemer.core.errors import NotFound, Unavailable
from bessemer.core.ports import Objects
from bessemer.core.resource import ApiModel, Key
from bessemer.core.units import show_bytes
from bessemer.kinds.fleet.planning import Planner
from bessemer.metering.plan import Plan
from bessemer.placement.fragmentation import ModelUse, fragmentation, stand_of
from bessemer.placement.shape import Shape

KEPT_SECONDS = 10.0
LIST = "standard"
"""The price plan of whoever has no other."""


class Money(ApiModel):
    """Micro-units of the currency for an hour."""

    price: int = Field(description="What one device costs.")
    idle: int = Field(description="What those that are free would earn.")
    useless: int | None = Field(None, description="What those would that serve nothing that is asked for.")


class ModelFigures(ApiModel):
    """Of the GPUs of one model. Devices are counted in thousandths, since shares of them are sold."""

    model: str = Field(description="The model.")
    fake: bool = Field(False, description="Whether their hosts are fake.")
    devices: int = Field(description="Sound devices.")
    unsound: int = Field(0, description="Others.")
    free_milli: int = Field(description="Thousandths that are free on hosts that take something new.")
    closed_milli: int = Field(0, description="Thousandths that are free on hosts that do not.")
    whole: int = Field(description="Devices that are free entirely.")
    largest: int = Field(description="The most of these on one host.")
    useless_milli: int | None = Field(
        None, description="Thousandths, expected, that serve nothing that is asked for; absent before anything was."
    )
    stranded_milli: int | None = Field(None, description="Of these, for want of cores or memory alone.")
    largest_shape: str = Field("", description="The largest that is asked for and still fits somewhere.")
    money: Money | None = Field(None, description="What that is worth; absent without a list price.")


class FleetReport(ApiModel):
    hosts: int = Field(description="Hosts, fake ones too.")
    shapes: int = Field(description="Different shapes that are asked for.")
    currency: str = Field("", description="Three letters; empty without a list price.")
    models: list[ModelFigures] = Field(default_factory=list, description="By model, fake hosts last.")


class FleetFigures:
    """The last measure, for so long."""

    def __init__(self, fleet: Planner | None, objects: Objects, *, clock: Clock) -> None:
        self._fleet = fleet
        self._objects = objects
        self._clock = clock
        self._until = 0.0
        self._last: asyncio.Task[FleetReport] | None = None

    async def now(self) -> FleetReport:
        """Raises Unavailable where there is no fleet, or it was not read yet."""
        if self._fleet is None or not self._fleet.ready():
            raise Unavailable("The fleet is still being read.", retry_after_seconds=1)
        last = self._last
        failed = last is not None and last.done() and (last.cancelled() or last.exception() is not None)
        if last is None or failed or self._clock.monotonic() >= self._until:
            self._until = self._clock.monotonic() + KEPT_SECONDS
            last = self._last = asyncio.ensure_future(self._measured(self._fleet))
        # Who goes away meanwhile ends it for nobody else.
        return await asyncio.shield(last)

    async def _measured(self, fleet: Planner) -> FleetReport:
        stand, mix = stand_of(fleet.arrays), fleet.own.outlook.mix
        plan = await self._prices()
        uses = await asyncio.to_thread(fragmentation, stand, mix)
        return FleetReport(
            hosts=len(stand.states),
            shapes=len(mix.shapes),
            currency=plan.currency if plan is not None else "",
            models=[_figures(use, plan) for use in uses],
        )

    async def _prices(self) -> Plan | None:
        try:
            spec = orjson.loads((await self._objects.get(Key("PricePlan", "", LIST))).body)["spec"]
        except NotFound:
            return None
        return Plan.model_validate({name: value for name, value in spec.items() if name != "description"})


def _figures(use: ModelUse, plan: Plan | None) -> ModelFigures:
    useless = None if use.useless_milli is None else round(use.useless_milli)
    money = None
    if plan is not None:
        price = plan.rates.device(use.model)
        lost = None if useless is None else useless * price // 1000
        money = Money(price=price, idle=use.free_milli * price // 1000, useless=lost)
    return ModelFigures(
        model=use.model,
        fake=use.fake,
        devices=use.devices,
        unsound=use.unsound,
        free_milli=use.free_milli,
        closed_milli=use.closed_milli,
        whole=use.whole,
        largest=use.largest,
        useless_milli=useless,
        stranded_milli=None if use.stranded_milli is None else round(use.stranded_milli),
        largest_shape=shape_words(use.shape) if use.shape is not None else "",
        money=money,
    )


def shape_words(shape: Shape) -> str:
    """``8 H100, 64 cores, 512 GiB``."""
    models: Sequence[str] = sorted(shape.device_models) or ("device" if shape.milli <= 1000 else "devices",)
    count = f"{shape.milli / 1000:g}"
    return f"{count} {' or '.join(models)}, {shape.milli_cores / 1000:g} cores, {show_bytes(shape.memory_bytes)}"

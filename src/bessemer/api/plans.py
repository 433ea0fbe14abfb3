"""A tenant's price plan, as whoever makes an invoice or says a currency reads it."""

from __future__ import annotations

import orjson

from bessemer.api.state import Call
from bessemer.core.errors import NotFound
from bessemer.core.resource import Key
from bessemer.metering.plan import Plan


async def plan_of(call: Call, tenant: str) -> Plan:
    """The tenant's price plan; one without prices where it is gone, since quantities stay true."""
    objects = call.state.ports.objects
    try:
        above = orjson.loads((await objects.get(Key("Tenant", "", tenant))).body)
        name = above["spec"].get("pricePlan", "standard")
        spec = orjson.loads((await objects.get(Key("PricePlan", "", name))).body)["spec"]
    except NotFound:
        return Plan()
    return Plan.model_validate({k: v for k, v in spec.items() if k != "description"})

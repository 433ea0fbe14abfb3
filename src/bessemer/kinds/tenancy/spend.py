"""What a tenant or project has spent in the present month, told to its quota out of the ledger, which is the truth.

It is looked at again and again while there is a bound, and rarely where the ledger is long: a look takes a small part
of the time. So a bound is seen to be passed a little late, by what was spent since the last look, and nothing new comes
from then on; what runs goes on, and is billed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import orjson

from bessemer.core.errors import NotFound
from bessemer.core.ports import Scope
from bessemer.core.resource import Key, tenant_of
from bessemer.kinds.context import Context
from bessemer.metering.invoice import Account
from bessemer.metering.plan import Plan

METER = "spend_micro"
LOOK_SECONDS = 30.0
PART = 20
"""A look may take this part of the time until the next."""


async def tell(ctx: Context, scope: str, *, projects: Iterable[str], plan: str) -> float:
    """Tell the scope's quota what its projects (by uid) have spent; answers the seconds until the next look."""
    began = ctx.clock.monotonic()
    now = ctx.clock.now()
    first = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    prices, total = await prices_of(ctx, plan), 0
    for uid in projects:
        account = Account(prices, start=int(first.timestamp()), end=int(now) + 1)
        async for entry in ctx.ledger.window(start=int(first.timestamp()), end=int(now) + 1, project_uid=uid):
            account.take(entry)
        total += account.invoice().total_micro
    await ctx.capacity.told(scope, meter=METER, used=total)
    return max(LOOK_SECONDS, PART * (ctx.clock.monotonic() - began))


async def prices_of(ctx: Context, plan: str) -> Plan:
    """The prices of a plan; none where it is gone: quantities stay true."""
    try:
        spec = orjson.loads((await ctx.objects.get(Key("PricePlan", "", plan))).body)["spec"]
    except NotFound:
        return Plan()
    return Plan.model_validate({field: value for field, value in spec.items() if field != "description"})


async def projects_of(ctx: Context, tenant: str) -> list[str]:
    """The uids of the tenant's projects."""
    page = await ctx.objects.list(Scope(kind="Project"))
    return [stored.uid for stored in page.items if tenant_of(stored.key.name) == tenant]

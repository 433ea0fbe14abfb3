"""What a tenant or project has spent in the present month, told to its quota out of the ledger, which is the truth.

Tokens are counted as they are settled, too; hours are counted here alone, and so ahead: what runs until the next look,
and the first hour of each claim. It is looked at again and again while there is a bound, and rarely where the ledger is
long: a look takes a small part of the time. What runs past the bound goes on, and is billed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

import orjson

from bessemer.core.errors import NotFound
from bessemer.core.money import FIRST_SECONDS
from bessemer.core.resource import Key
from bessemer.kinds.context import Context
from bessemer.metering.invoice import Account
from bessemer.metering.plan import Plan

METER = "spend_micro"
LOOK_SECONDS = 30.0
PART = 20
"""A look may take this part of the time until the next."""

SLACK_SECONDS = 30
"""By which a look may come late, and the clocks of those who write the ledger may disagree."""


async def tell(ctx: Context, scope: str, *, projects: Iterable[str], plan: str, upto: int) -> float:
    """Tell the scope's quota what its projects (by uid) have spent, with what runs of them until the next look; answers
    the seconds until that. ``upto`` was the ledger's last row before it was asked for the projects: one whose first row
    came between is behind it, where the store counts it."""
    began, now = ctx.clock.monotonic(), int(ctx.clock.now())
    month = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    start, end = int(month.timestamp()), now + SLACK_SECONDS
    prices, accounts = await prices_of(ctx, plan), []
    for uid in projects:
        account = Account(prices, start=start, end=end)
        async for entry in ctx.ledger.window(start=start, end=end, project_uid=uid):
            if entry.id <= upto:
                account.take(entry)
        accounts.append(account)
    took = ctx.clock.monotonic() - began
    again = max(LOOK_SECONDS, PART * took)
    until = now + math.ceil(took + again) + SLACK_SECONDS
    total = sum(account.ahead(FIRST_SECONDS, until=until) + account.invoice().total_micro for account in accounts)
    await ctx.capacity.told(scope, meter=METER, used=total, upto=upto)
    return again


async def prices_of(ctx: Context, plan: str) -> Plan:
    """The prices of a plan; none where it is gone: quantities stay true."""
    try:
        spec = orjson.loads((await ctx.objects.get(Key("PricePlan", "", plan))).body)["spec"]
    except NotFound:
        return Plan()
    return Plan.model_validate({field: value for field, value in spec.items() if field != "description"})

"""What Tenant and Project say of their quota: the bounds are held by the transaction that takes, this only shows."""

from __future__ import annotations

from bessemer.core.quota import Quota, Use, said, show_amount
from bessemer.kinds.context import Context

LOOK_SECONDS = 30.0
"""How often one that is over its quota is looked at again."""


async def bound(ctx: Context, scope: str, *, quota: Quota, revision: str) -> str:
    """Let the bounds hold that the object of that revision asks for.

    "" where all is within them, else what is over and what follows from it.
    """
    await ctx.capacity.set_quota(scope, quota, revision=revision)
    over = [_words(use) for use in await ctx.capacity.use(scope) if use.limit is not None and use.used > use.limit]
    return f"over its quota, so nothing new starts: {'; '.join(over)}" if over else ""


def _words(use: Use) -> str:
    return f"{show_amount(use.meter, use.used)} of {said(use.meter, use.limit or 0)}"

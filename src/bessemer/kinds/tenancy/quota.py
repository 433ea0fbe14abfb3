"""What Tenant and Project say of their quota: the bounds are held by the transaction that takes, this only shows."""

from __future__ import annotations

from bessemer.core.units import show_bytes
from bessemer.core.values import Quota, Use
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
    limit = use.limit or 0
    if use.meter == "milli_cores":
        return f"{use.used / 1000:g} of {limit / 1000:g} cores"
    if use.meter == "memory_bytes":
        return f"{show_bytes(use.used)} of {show_bytes(limit)} of memory"
    return f"{use.used} of {limit} {use.meter.removeprefix('devices/').replace('*', 'devices')}"

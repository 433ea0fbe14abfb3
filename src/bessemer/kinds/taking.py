"""A place that is taken with the status that says so: one transaction, and one wait for the disk."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from bessemer.core.asking import Decision
from bessemer.core.errors import BessemerError, Taken
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Outcome, Resource
from bessemer.core.taking import Telling, Within
from bessemer.kinds import workload
from bessemer.kinds.context import Context
from bessemer.kinds.workload import Make


async def taking(
    ctx: Context,
    made: Resource[Any, Any],
    *,
    decision: Decision,
    make: Make,
    failed: Callable[[BessemerError], Awaitable[Outcome]],
) -> Within:
    """For the outcome that says where the only replica of a workload goes. ``failed`` hears why nothing was taken:
    QuotaExceeded, Walled, Taken, Conflict, where the name is another's or the workload has changed, and whatever else
    keeps the store from it."""
    claim = await workload.claim_for(ctx, made, decision=decision, make=make, replica=0)
    name = f"{made.uid}/0"

    async def write(tells: Telling) -> int:
        # Held in the arrays while the transaction is under way: others decide meanwhile, and would want the same place.
        ctx.fleet.assume(decision, name)
        try:
            *_, told = await ctx.capacity.take([claim], CONTROLLER, terms=make.terms.revision, tells=tells)
        except BessemerError as error:
            ctx.fleet.forget(name, lost=isinstance(error, Taken))
            raise
        return told.revision

    return Within(write, failed)

"""Who may plan in a project: whoever may create something there that can be planned."""

from __future__ import annotations

from bessemer.api.access import Target
from bessemer.api.context import Identity
from bessemer.api.credentials import require
from bessemer.api.state import Call
from bessemer.core.errors import Forbidden, NotFound
from bessemer.kinds.asks import ASKS


async def require_planner(call: Call, who: Identity, *, namespace: str) -> None:
    """Raises NotFound for a project that may not be known, Forbidden else."""
    refusal: Forbidden | NotFound | None = None
    for kind in ASKS:
        shown = call.state.resources.of_kind(kind)
        if shown is None:
            continue
        try:
            await may_create(call, who, on=Target(shown, namespace))
        except (Forbidden, NotFound) as error:
            refusal = refusal or error
        else:
            return
    if refusal is not None:
        raise refusal


async def may_create(call: Call, who: Identity, *, on: Target) -> None:
    """One, within the bounds of their credential. Raises NotFound, Forbidden."""
    require(who, "create", on=on)
    await call.state.access.require(who, "create", on=on)

"""What gateways hold of limits, budgets and money, and the word that a spool is lost for good: for administrators."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from starlette.responses import Response

from bessemer.api import body as bodies
from bessemer.api.state import Call, answer
from bessemer.core.errors import Malformed
from bessemer.core.spools import SpoolHold


async def standing(call: Call) -> Response:
    """GET /spools: what each gateway holds for each project, and when it was heard of."""
    return answer({"holds": _shown(await call.state.ports.spools.standing())})


async def forget(call: Call) -> Response:
    """POST /spools/forget: the spool of the gateway ``{"holder": NAME}`` is lost for good; what it held. Raises
    NotFound where it holds nothing, Conflict where it was heard of a moment ago."""
    limits = call.state.context.limits
    raw = await bodies.read(call.request, limits)
    said = bodies.as_object(bodies.parse_json(raw or b"{}", limits.depth))
    await call.still()
    holder = said.get("holder")
    if not isinstance(holder, str) or not holder:
        raise Malformed("holder is a gateway's name")
    return answer({"holds": _shown(await call.state.ports.spools.forget(holder, call.writer))})


def _shown(held: Iterable[SpoolHold]) -> list[dict[str, Any]]:
    return [
        {
            "holder": one.holder,
            "project": one.project,
            "heardAt": one.heard_at,
            "parts": [asdict(part) for part in one.parts],
        }
        for one in held
    ]

"""Pages of those who ask models: how a project's endpoints answered over time, and the playground."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.responses import JSONResponse, RedirectResponse, Response

from bessemer.core.errors import Malformed
from bessemer.portal import code
from bessemer.portal.facts import EndpointFact, PlanFact, ProjectFact
from bessemer.portal.ledger import HOUR, WEEK
from bessemer.portal.pages import playing, usage
from bessemer.portal.pages.shell import EVERYTHING, SHELL_KINDS
from bessemer.portal.people import place_of, project_of
from bessemer.portal.visit import Visit

WINDOWS: Mapping[str, tuple[int, int]] = {"hour": (HOUR, 300), "day": (24 * HOUR, 900), "week": (WEEK, 2 * HOUR)}
"""Window of the plots → its length and its step, seconds."""
BY = ("endpoint", "key", "member", "model")
ROWS_SHOWN = 50
_NAME_MAX = 253


async def usage_page(visit: Visit) -> Response:
    """The usage of a project. Usage is a project's: of everything, that of the first that has endpoints."""
    scope = await place_of(visit)
    await visit.desk.see(*SHELL_KINDS)
    if scope == EVERYTHING and (first := _first(visit)):
        return RedirectResponse(f"/in/{first}/usage", 303)
    return visit.show(partial(usage.build, visit.desk, scope))


def _first(visit: Visit) -> str:
    """A project with endpoints before one without; "" where there is none."""
    busy = {one.project for one in visit.desk.all(EndpointFact)}
    names = [one.name for one in visit.desk.all(ProjectFact)]
    return next((name for name in names if name in busy), names[0] if names else "")


async def figures(visit: Visit) -> Response:
    """What the plots draw: ``by``, ``window``, ``endpoint`` and ``key`` as asked; the api's answer, of whole steps."""
    project, query = await project_of(visit), visit.request.query_params
    by, (length, step) = query.get("by", "endpoint"), WINDOWS.get(query.get("window", ""), WINDOWS["hour"])
    if by not in BY:
        raise Malformed(f"by is one of {', '.join(BY)}")
    only = {name: query[name] for name in ("endpoint", "key") if query.get(name)}
    if any(len(name) > _NAME_MAX for name in only.values()):
        raise Malformed("a name is shorter than that")
    end = int(visit.site.clock.now()) // step * step + step
    found: dict[str, Any] = await visit.desk.client.projects.usage(
        project, since=end - length, until=end, by=by, step=str(step), most=str(ROWS_SHOWN), **only
    )
    return JSONResponse(found, headers={"Cache-Control": "no-store"})


async def playground_page(visit: Visit) -> Response:
    """Every model of the scope, to be talked to with all that a request can say."""
    scope = await place_of(visit)
    await visit.desk.see(*SHELL_KINDS, PlanFact)
    gate = code.Gate(visit.site.settings.gateway_url, visit.site.settings.ca_path)
    chosen = visit.request.query_params.get("model", "")[:_NAME_MAX]
    return visit.show(partial(playing.build, visit.desk, scope, gate=gate, chosen=chosen))

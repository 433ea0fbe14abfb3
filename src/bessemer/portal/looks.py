"""The pages that one looks at: each sees to it that the desk follows what the page shows, then draws it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import orjson
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from bessemer.core.errors import Malformed, NotFound, TooMany
from bessemer.core.ports import Scope, Stored
from bessemer.core.resource import Key, Kind
from bessemer.portal import code, ledger
from bessemer.portal.desk import STREAMS_MAX, TABS_MAX
from bessemer.portal.facts import (
    ClaimFact,
    EndpointFact,
    EventFact,
    Fact,
    FlavorFact,
    HostFact,
    InstanceFact,
    KeyFact,
    PlanFact,
    ProjectFact,
    TenantFact,
)
from bessemer.portal.ledger import HOUR, WEEK
from bessemer.portal.pages import drill, endpoints, fleet, hosts, instances, invoices, objects, overview, quota
from bessemer.portal.pages.chart import Memo
from bessemer.portal.pages.invoices import Month
from bessemer.portal.pages.shell import EVERYTHING, SHELL_KINDS, others, within
from bessemer.portal.stream import EventStream, Stream
from bessemer.portal.visit import Visit

_WORK: tuple[type[Fact], ...] = (EventFact, FlavorFact, PlanFact)
INVOICES_SHOWN = 50
WINDOWS: Mapping[str, tuple[int, int]] = {"hour": (HOUR, 60), "day": (24 * HOUR, 900), "week": (WEEK, 7200)}
"""Window of a usage plot → its length and its step, seconds."""
KINDS: Mapping[str, str] = {
    "models": "Model",
    "images": "Image",
    "flavors": "Flavor",
    "priceplans": "PricePlan",
    "projects": "Project",
    "tenants": "Tenant",
    "users": "User",
}
"""Pages that are the table of one kind."""


async def _see(visit: Visit, *kinds: type[Fact]) -> None:
    """Follow what the shell and the page show."""
    admins = (HostFact,) if visit.desk.me.admin else ()
    await visit.desk.see(*SHELL_KINDS, *admins, *kinds)


def _admin_only(visit: Visit) -> None:
    if not visit.desk.me.admin:
        raise NotFound("there is nothing here")


async def home(visit: Visit) -> Response:
    return RedirectResponse("/fleet" if visit.desk.me.admin else "/overview", 303)


async def fleet_page(visit: Visit) -> Response:
    _admin_only(visit)
    await _see(visit, ClaimFact, *_WORK)
    return visit.show(partial(fleet.build, visit.desk, Memo()))


async def overview_page(visit: Visit) -> Response:
    await _see(visit, *_WORK)
    return visit.show(partial(overview.build, visit.desk))


async def host_list(visit: Visit) -> Response:
    _admin_only(visit)
    await _see(visit, ClaimFact)
    return visit.show(partial(hosts.build_list, visit.desk))


async def host_page(visit: Visit) -> Response:
    _admin_only(visit)
    await _see(visit, ClaimFact, *_WORK)
    name = visit.part("name")
    body = code.manifest(await _body(visit, Key("Host", "", name)))
    return visit.show(partial(hosts.build, visit.desk, name, body=body))


async def instance_list(visit: Visit) -> Response:
    await _see(visit, *_WORK)
    return visit.show(partial(instances.build_list, visit.desk, visit.part("scope")))


async def instance_page(visit: Visit) -> Response:
    key = Key("Instance", visit.part("scope"), visit.part("name"))
    await _see(visit, ClaimFact, *_WORK)
    visit.desk.one(InstanceFact, key.name, project=key.namespace)
    body = code.manifest(await _body(visit, key))
    deadlines = visit.site.kinds["Instance"].deadlines
    return visit.show(partial(instances.build, visit.desk, key, body=body, deadlines=deadlines), log=key)


async def endpoint_list(visit: Visit) -> Response:
    await _see(visit, *_WORK)
    return visit.show(partial(endpoints.build_list, visit.desk, visit.part("scope")))


async def endpoint_page(visit: Visit) -> Response:
    key = Key("Endpoint", visit.part("scope"), visit.part("name"))
    await _see(visit, ClaimFact, KeyFact, *_WORK)
    fact = visit.desk.one(EndpointFact, key.name, project=key.namespace)
    body = code.manifest(await _body(visit, key))
    gate = code.Gate(visit.site.settings.gateway_url, visit.site.settings.ca_path)
    build = partial(endpoints.build, visit.desk, key, body=body, gate=gate)
    spent = visit.desk.spent(key.namespace, fact.uid)

    async def ask() -> None:
        """Whether something was settled since; the browser fetches what it shows of it."""
        await spent.look(HOUR)

    return visit.show(lambda: build(settled=spent.newest), ask=ask)


async def endpoint_usage(visit: Visit) -> Response:
    """What went through an endpoint, step by step, for the plot: columns of equal length. ``whole`` says that they
    reach back as far as the window; else the rows before them are still being added up."""
    project, name = visit.part("scope"), visit.part("name")
    await visit.desk.see(EndpointFact)
    fact = visit.desk.one(EndpointFact, name, project=project)
    length, step = WINDOWS.get(visit.request.query_params.get("window", ""), WINDOWS["hour"])
    spent = visit.desk.spent(project, fact.uid)
    whole = await spent.look(length)
    end = int(visit.site.clock.now()) // step * step + step
    points = spent.points(start=end - length, end=end, step=step)
    return JSONResponse({**points, "step": step, "whole": whole}, headers={"Cache-Control": "no-store"})


# --- money ------------------------------------------------------------------------------------------------------


async def invoice_page(visit: Visit) -> Response:
    scope = visit.part("scope")
    await _see(visit, PlanFact)
    within(visit.desk, scope)
    month = invoices.month_of(visit.request.query_params.get("month", ""), visit.site.clock.now())
    held = invoices.Held(month, await _bills(visit, scope, month=month))

    async def ask() -> None:
        month = invoices.month_of(held.month.key, visit.site.clock.now())
        held.bills, held.month = await _bills(visit, scope, month=month), month

    build = partial(invoices.build_list, visit.desk, held=held)
    if scope != EVERYTHING:
        build = partial(invoices.build, visit.desk, scope, held=held)
    return visit.show(build, ask=ask if month.open else None)


async def _bills(visit: Visit, scope: str, *, month: Month) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """The invoices of a scope: (project, invoice)."""
    everything = [project.name for project in visit.desk.all(ProjectFact)][:INVOICES_SHOWN]
    projects = everything if scope == EVERYTHING else [scope]
    asked = (visit.desk.client.projects.invoice(project, month.start, month.end) for project in projects)
    return list(zip(projects, await asyncio.gather(*asked), strict=True))


async def quota_page(visit: Visit) -> Response:
    scope = visit.part("scope")
    await _see(visit)
    within(visit.desk, scope)
    held = quota.Held(await _meters(visit, scope))

    async def ask() -> None:
        held.meters = await _meters(visit, scope)

    return visit.show(partial(quota.build, visit.desk, scope, held=held), ask=ask)


async def _meters(visit: Visit, scope: str) -> quota.Meters:
    """Of a project and its tenant, or of the tenants that the session sees."""
    projects = visit.desk.client.projects
    if scope != EVERYTHING:
        return await projects.use(scope)
    tenants = [tenant.name for tenant in visit.desk.all(TenantFact)][:INVOICES_SHOWN]
    found = await asyncio.gather(*(projects.tenant_use(tenant) for tenant in tenants))
    return [meter for meters in found for meter in meters]


async def invoice_rows(visit: Visit) -> Response:
    """The ledger rows of one line, drawn, for the line to open."""
    project, query = visit.part("scope"), visit.request.query_params
    try:
        wanted = drill.in_ranges(query.get("rows", ""))
        since, until = int(query.get("from", "")), int(query.get("to") or visit.site.clock.now())
    except ValueError as error:
        raise Malformed("rows, from and to are whole numbers") from error
    source = ledger.rows(visit.desk.client, project, since=since, until=until, workload=query.get("of", ""))
    async with visit.desk.reading:
        rows = [drill.row(entry) for entry in await ledger.chosen(source, wanted)]
    return HTMLResponse(visit.site.pen.plain("ledger.html", rows=rows))


# --- any kind ---------------------------------------------------------------------------------------------------


async def kind_page(visit: Visit) -> Response:
    """The table of a kind that belongs to no project."""
    section = visit.request.url.path.rpartition("/")[2]
    kind = visit.site.kinds[KINDS[section]]
    if section == "users":
        _admin_only(visit)
    return await _table(visit, kind, section=section)


async def other_page(visit: Visit) -> Response:
    """The table of a kind that no page was made for."""
    plural = visit.part("plural")
    shown = others(tuple(visit.site.kinds.values()), admin=visit.desk.me.admin)
    kind = next((kind for kind in shown if kind.plural == plural), None)
    if kind is None:
        raise NotFound("there is nothing here")
    return await _table(visit, kind, section=f"kinds/{plural}")


async def _table(visit: Visit, kind: Kind[Any, Any], *, section: str) -> Response:
    await _see(visit)
    scope = visit.part("scope") or EVERYTHING
    projects = within(visit.desk, scope)
    namespace = scope if projects is not None and kind.namespaced else None
    bodies, total = await _listed(visit, Scope(kind=kind.name, namespace=namespace))
    # The tab keeps what it needs to draw the page again: rows, not the objects that they were made of.
    rows = objects.rows(kind, bodies, scope=scope)
    return visit.show(partial(objects.build, visit.desk, kind, section=section, scope=scope, rows=rows, total=total))


async def _listed(visit: Visit, scope: Scope) -> tuple[Sequence[Mapping[str, Any]], int | None]:
    """The first objects that the session may see, and how many there are, where the api says so."""
    items: list[Stored] = []
    after = ""
    while True:
        page = await visit.desk.client.list(scope, limit=objects.ROWS_SHOWN, after=after)
        items += page.items
        after = page.next
        if not after or len(items) >= objects.ROWS_SHOWN:
            break
    total = len(items) + page.remaining if page.remaining or not after else None
    return [orjson.loads(stored.body) for stored in items[: objects.ROWS_SHOWN]], total


# --- live -------------------------------------------------------------------------------------------------------


async def live(visit: Visit) -> Response:
    """The stream of a browser's tabs: ``tab=TOKEN:NUMBER``, once for each. Raises TooMany."""
    if visit.desk.streams >= STREAMS_MAX:
        text = f"this session has {STREAMS_MAX} live streams open, which is the most: close a window"
        raise TooMany(text, retry_after_seconds=10)
    tabs, lost = [], []
    for asked in visit.request.query_params.getlist("tab")[:TABS_MAX]:
        token, _, number = asked.partition(":")
        tab = visit.desk.tabs.get(token)
        if tab is None:
            lost.append(token)
        else:
            tabs.append((tab, int(number) if number.isascii() and number.isdigit() else -1))
    return EventStream(Stream(visit.desk, tabs, lost=lost, draw=visit.site.pen.part).events())


async def search(visit: Visit) -> Response:
    """Everything that one may see whose name holds the words, in groups of at most eight."""
    await _see(visit)
    words = visit.request.query_params.get("q", "").lower().strip()[:100]
    return JSONResponse({"groups": find(visit, words)}, headers={"Cache-Control": "no-store"})


def find(visit: Visit, words: str) -> list[dict[str, Any]]:
    """``[{"name", "hits": [{"text", "note", "href"}]}]``."""
    desk = visit.desk
    groups: list[tuple[str, list[tuple[str, str, str]]]] = [
        (
            "Instances",
            [
                (i.name, f"{i.project}, {i.phase}", f"/in/{i.project}/instances/{i.name}")
                for i in desk.all(InstanceFact)
            ],
        ),
        (
            "Endpoints",
            [
                (e.name, f"{e.project}, {e.phase}", f"/in/{e.project}/endpoints/{e.name}")
                for e in desk.all(EndpointFact)
            ],
        ),
        (
            "Projects",
            [(p.name.replace("--", " / "), "project", f"/in/{p.name}/instances") for p in desk.all(ProjectFact)],
        ),
        ("Hosts", [(h.name, "fake host" if h.fake else "host", f"/hosts/{h.name}") for h in desk.all(HostFact)]),
    ]
    found = []
    for name, rows in groups:
        hits = [row for row in rows if words in row[0].lower()][:8]
        if hits:
            found.append({"name": name, "hits": [{"text": t, "note": n, "href": h} for t, n, h in hits]})
    return found


async def _body(visit: Visit, key: Key) -> Mapping[str, Any]:
    body: dict[str, Any] = orjson.loads((await visit.desk.client.get(key)).body)
    return body

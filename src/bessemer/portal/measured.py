"""The page of a model: the platform's, or a project's own, with what was measured of it as far as one may see that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import orjson
from starlette.responses import RedirectResponse, Response

from bessemer.core.errors import NotFound
from bessemer.core.ports import Scope, Stored
from bessemer.core.resource import Key, tenant_of
from bessemer.portal import code
from bessemer.portal.facts import FlavorFact, HostFact
from bessemer.portal.pages import models
from bessemer.portal.pages.models import Held
from bessemer.portal.pages.shell import SHELL_KINDS, within
from bessemer.portal.visit import Visit

Body = Mapping[str, Any]
_LISTED, _LISTED_MAX = 500, 5000
_NAME_MAX = 512


async def model_page(visit: Visit) -> Response:
    """One of the platform's."""
    return await _show(visit, Key("Model", "", visit.part("name")))


async def own_page(visit: Visit) -> Response:
    """What the name means in the project: its own model, one that its tenant shares, or the platform's."""
    project, name = visit.part("scope"), visit.part("name")
    await visit.desk.see(*SHELL_KINDS)
    within(visit.desk, project)
    known = await _listed(visit, Scope(kind="ProjectModel", name=name))
    bodies = {stored.key.namespace: orjson.loads(stored.body) for stored in known}
    if project in bodies:
        return await _show(visit, Key("ProjectModel", project, name))
    shared = (
        other
        for other in sorted(bodies)
        if tenant_of(other) == tenant_of(project) and bodies[other]["spec"].get("shared")
    )
    other = next(shared, "")
    asked = visit.request.url.query
    to = (f"/in/{other}" if other else "") + f"/models/{quote(name, safe='')}" + (f"?{asked}" if asked else "")
    return RedirectResponse(to, 303)


async def _show(visit: Visit, key: Key) -> Response:
    desk = visit.desk
    await desk.see(*SHELL_KINDS, FlavorFact, *((HostFact,) if desk.me.admin else ()))
    body = await _body(visit, key)
    flavors = [orjson.loads(stored.body) for stored in await _listed(visit, Scope(kind="Flavor"))]
    devices = {one.model: one.memory_bytes for host in desk.all(HostFact) for one in host.devices if one.memory_bytes}
    wanted = visit.request.query_params.get("vetting", "")[:_NAME_MAX]
    held = await _held(visit, body, wanted=wanted)
    held.fit = models.fit_of(body, flavors, devices=devices, chosen=held.chosen)

    async def ask() -> None:
        """What was measured since; the page stays with the vetting that it shows."""
        now = await _held(visit, await _body(visit, key), wanted=wanted or held.shown)
        held.model, held.shorts, held.chosen = now.model, now.shorts, now.chosen

    manifest = code.manifest(body)
    return visit.show(partial(models.build, desk, key, held=held, body=manifest), ask=ask)


async def _listed(visit: Visit, scope: Scope) -> Sequence[Stored]:
    """What the session may see of a kind, in pages; of very many the first."""
    items: list[Stored] = []
    after = ""
    while True:
        page = await visit.desk.client.list(scope, limit=_LISTED, after=after)
        items += page.items
        after = page.next
        if not after or len(items) >= _LISTED_MAX:
            return items


async def _body(visit: Visit, key: Key) -> Body:
    found: dict[str, Any] = orjson.loads((await visit.desk.client.get(key)).body)
    return found


async def _held(visit: Visit, body: Body, *, wanted: str) -> Held:
    """The model with its vettings, the newest first; of one of them all that it says. Raises NotFound where the one
    that is ``wanted`` is none of its."""
    meta, name = body["metadata"], body["metadata"]["name"]
    own, shared = meta.get("namespace", ""), bool(body["spec"].get("shared"))
    found = [orjson.loads(stored.body) for stored in await _listed(visit, Scope(kind="Vetting"))]
    found = [one for one in found if one["spec"]["model"] == name and _of_it(one, body, own=own, shared=shared)]
    shorts = sorted((models.short_of(one) for one in found), key=lambda short: short.created, reverse=True)
    shorts = shorts[: models.VETTINGS_SHOWN]
    by_key = {models.named(one): one for one in found}
    if wanted and wanted not in by_key:
        raise NotFound(f"there is no vetting {wanted} of it")
    shown = wanted or next((one.key for one in shorts if one.rate), shorts[0].key if shorts else "")
    # A tab keeps what it needs to draw the page again.
    status = {word: value for word, value in body.get("status", {}).items() if word not in ("files", "history")}
    files = len(body.get("status", {}).get("files", ())) or 1
    return Held({**body, "status": status}, files, tuple(shorts), by_key.get(shown))


def _of_it(vetting: Body, model: Body, *, own: str, shared: bool) -> bool:
    """Whether it measured these very bytes; of one that has measured nothing, whether it names this model."""
    project, vetted = vetting["metadata"]["namespace"], vetting.get("status", {}).get("vetted")
    if vetted:
        return bool(vetted["digest"] == model.get("status", {}).get("digest"))
    return not own or project == own or (shared and tenant_of(project) == tenant_of(own))

"""What the pages of members and of credentials do: list, and write in the session's own name.

A refusal is shown on the page, with what was written. A secret is drawn once, into the answer of the request that made
it, and kept by nobody here.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import orjson
from starlette.responses import RedirectResponse, Response

from bessemer.client import an_object
from bessemer.core.clock import rfc3339
from bessemer.core.errors import BessemerError, Forbidden, Malformed, NotFound, Unavailable
from bessemer.core.ports import Scope, Stored
from bessemer.core.resource import Key, tenant_of
from bessemer.portal import forms
from bessemer.portal.forms import NOTHING, Halfway, Said
from bessemer.portal.live import Page
from bessemer.portal.pages import credentials, members
from bessemer.portal.pages.lists import Listed
from bessemer.portal.pages.objects import ROWS_SHOWN
from bessemer.portal.pages.shell import EVERYTHING, SHELL_KINDS, within
from bessemer.portal.visit import Visit, code_of

Body = Mapping[str, Any]
DAY_SECONDS = 86_400
DAYS_MAX = 3650


def _any(_body: Body) -> bool:
    return True


async def _list(
    visit: Visit, kind: str, *, namespace: str | None = None, fits: Callable[[Body], bool] = _any
) -> Listed:
    """The first of those of a kind that ``fits``, whatever number of others stand before them."""
    scope, found, after = Scope(kind=kind, namespace=namespace), [], ""
    while True:
        try:
            page = await visit.desk.client.list(scope, limit=ROWS_SHOWN, after=after)
        except Forbidden:
            return Listed(hidden=True)
        found += [body for body in (orjson.loads(stored.body) for stored in page.items) if fits(body)]
        after = page.next
        if not after or len(found) > ROWS_SHOWN:
            return Listed(found[:ROWS_SHOWN], more=len(found) > ROWS_SHOWN)


async def _one(visit: Visit, key: Key) -> Listed:
    """A list of one object, or the word that the session may not see it."""
    try:
        return Listed([orjson.loads((await visit.desk.client.get(key)).body)])
    except (Forbidden, NotFound):
        return Listed(hidden=True)


async def place_of(visit: Visit) -> str:
    """The scope of the page. Raises NotFound for another's project."""
    await visit.desk.see(*SHELL_KINDS)
    within(visit.desk, visit.part("scope"))
    return visit.part("scope")


async def project_of(visit: Visit) -> str:
    scope = await place_of(visit)
    if scope == EVERYTHING:
        raise NotFound("this is done in a project")
    return scope


def show_said(
    visit: Visit, build: Callable[[Said], Page], *, ask: Callable[[], Awaitable[None]], said: Said, code: int
) -> Response:
    """A page whose first picture says above what was ``said``: those that follow, by itself, do not repeat it."""
    once = [said]
    response = visit.show(lambda: build(once.pop() if once else NOTHING), ask=ask)
    response.status_code = code
    return response


# --- credentials --------------------------------------------------------------------------------------------------


async def credentials_page(visit: Visit) -> Response:
    return await _credentials(visit, await place_of(visit))


async def _credentials(visit: Visit, scope: str, *, said: Said = NOTHING, code: int = 200) -> Response:
    namespace = None if scope == EVERYTHING else scope
    held = credentials.Held(await _list(visit, "ApplicationCredential", namespace=namespace))

    async def ask() -> None:
        held.credentials = await _list(visit, "ApplicationCredential", namespace=namespace)

    def build(above: Said) -> Page:
        return credentials.build(visit.desk, scope, held=held, said=above)

    return show_said(visit, build, ask=ask, said=said, code=code)


async def credential_act(visit: Visit) -> Response:
    """Make one, make it a new secret, or revoke it."""
    project = await project_of(visit)
    written = await forms.read(visit.request)
    name, act = written.get("name", ""), written.get("act", "")
    key, client = Key("ApplicationCredential", project, name), visit.desk.client
    try:
        if act == "revoke":
            await client.delete(key)
            return RedirectResponse(f"/in/{project}/credentials", 303)
        if act == "new":
            await client.create(an_object(key, _credential(written, now=visit.site.clock.now())))
        elif act != "rotate":
            raise Malformed("there is no such act")
        token = await _secret(visit, key, fresh=act == "new")
    except BessemerError as error:
        return await _credentials(visit, project, said=forms.refused(error, written), code=code_of(error))
    return await _credentials(visit, project, said=Said(secret=token, name=name))


async def _secret(visit: Visit, key: Key, *, fresh: bool) -> str:
    """A new secret. Raises Halfway where a ``fresh`` credential gets none: it is there, and its name is taken."""
    try:
        return await visit.desk.client.account.credential_token(key.namespace, key.name)
    except BessemerError as error:
        if not fresh:
            raise
        text = f"{key.name} was made, and has no secret yet: {error.message}. Press New secret in its row."
        raise Halfway(text) from error


def _credential(written: Mapping[str, str], *, now: float) -> dict[str, Any]:
    days = written.get("days", "")
    if not (days.isascii() and days.isdigit()) or not 1 <= int(days) <= DAYS_MAX:
        raise Malformed(f"it is good for 1 to {DAYS_MAX} days")
    return {
        "description": written.get("description", ""),
        "expiresAt": rfc3339(now + int(days) * DAY_SECONDS),
        "reach": "tenant" if written.get("reach") == "tenant" else "project",
        **{name: forms.words(written.get(name, "")) for name in ("roles", "verbs", "kinds", "networks")},
    }


# --- members ------------------------------------------------------------------------------------------------------


async def members_page(visit: Visit) -> Response:
    return await _members(visit, await place_of(visit))


async def _members(visit: Visit, scope: str, *, said: Said = NOTHING, code: int = 200) -> Response:
    held = await _who(visit, scope)

    async def ask() -> None:
        new = await _who(visit, scope)
        held.bindings, held.tenants, held.roles = new.bindings, new.tenants, new.roles

    def build(above: Said) -> Page:
        return members.build(visit.desk, scope, held=held, said=above)

    return show_said(visit, build, ask=ask, said=said, code=code)


async def _who(visit: Visit, scope: str) -> members.Held:
    if scope == EVERYTHING:
        return members.Held(await _list(visit, "RoleBinding"), await _list(visit, "Tenant"), Listed())
    tenant = tenant_of(scope)
    bindings = await _list(visit, "RoleBinding", fits=partial(members.about, project=scope))
    roles = await _list(visit, "Role", fits=lambda body: tenant_of(body["metadata"]["name"]) == tenant)
    return members.Held(bindings, await _one(visit, Key("Tenant", "", tenant)), roles)


async def member_act(visit: Visit) -> Response:
    """Let somebody in, give them another role, or take it."""
    project = await project_of(visit)
    written = await forms.read(visit.request)
    try:
        await _change(visit, project, written=written)
    except BessemerError as error:
        return await _members(visit, project, said=forms.refused(error, written), code=code_of(error))
    return RedirectResponse(f"/in/{project}/members", 303)


async def _change(visit: Visit, project: str, *, written: Mapping[str, str]) -> None:
    act, role = written.get("act", ""), written.get("role", "")
    if act in ("new", "change") and not role:
        raise Malformed("choose a role")
    if act == "new":
        scope = {"tenant": tenant_of(project)} if written.get("where") == "tenant" else {"project": project}
        await _bind(visit, role, kind=written.get("kind", ""), who=written.get("who", ""), scope=scope)
        return
    what, name, kind, who = [*written.get("name", "").split("/", 3), "", "", "", ""][:4]
    if act not in ("change", "remove") or what not in ("tenant", "binding"):
        raise Malformed("there is no such act")
    role = role if act == "change" else ""
    if what == "tenant":
        await _in_tenant(visit, name, who=who, role=role)
    else:
        await _in_binding(visit, name, kind=kind, who=who, role=role)


async def _bind(visit: Visit, role: str, *, kind: str, who: str, scope: Mapping[str, str]) -> Stored:
    """A binding of its own for each, so that one is changed without the others."""
    tenant = scope.get("tenant") or tenant_of(scope["project"])
    key = Key("RoleBinding", "", f"{tenant}--{secrets.token_hex(5)}")
    spec = {"role": role, "subjects": [{"kind": kind, "name": who}], "scope": scope}
    return await visit.desk.client.create(an_object(key, spec))


async def _in_tenant(visit: Visit, tenant: str, *, who: str, role: str) -> None:
    """A member of the Tenant itself gets that role, or goes where it is ""."""
    key = Key("Tenant", "", tenant)
    body = orjson.loads((await visit.desk.client.get(key)).body)
    kept = [{**one, "role": role} if one["user"] == who else one for one in body["spec"].get("members", ())]
    kept = [one for one in kept if one["user"] != who or role]
    await visit.desk.client.patch(key, _as_read(body, {"members": kept}))


async def _in_binding(visit: Visit, name: str, *, kind: str, who: str, role: str) -> None:
    """Somebody of a binding gets that role, or goes where it is "". What is new is there before the old one goes."""
    client, key = visit.desk.client, Key("RoleBinding", "", name)
    stored = await client.get(key)
    body = orjson.loads(stored.body)
    subjects = body["spec"].get("subjects", [])
    rest = [one for one in subjects if (one["kind"], one["name"]) != (kind, who)]
    if len(rest) == len(subjects):
        raise NotFound(f"{kind} {who} is not there any more")
    if rest:
        made = None
        if role:
            scope = body["spec"].get("scope") or {"tenant": tenant_of(name)}
            made = await _bind(visit, role, kind=kind, who=who, scope=scope)
        try:
            await client.patch(key, _as_read(body, {"subjects": rest}))
        except BessemerError as error:
            if made is not None:
                await _take_back(visit, made, who=who, because=error)
            raise
    elif role:
        await client.patch(key, _as_read(body, {"role": role}))
    else:
        await client.delete(key, uid=stored.uid, revision=str(stored.revision))


async def _take_back(visit: Visit, made: Stored, *, who: str, because: BessemerError) -> None:
    """The old binding stands: the new one goes. Raises Halfway where it does not, or where nobody answered: without
    the new one they might hold no role."""
    text = f"{who} holds the new role, by binding {made.key.name}, and may hold the one before too: {because.message}"
    halfway = Halfway(f"{text}. Look, and remove one of them.")
    if isinstance(because, Unavailable):
        raise halfway from because
    try:
        await visit.desk.client.delete(made.key, uid=made.uid)
    except NotFound:
        pass
    except BessemerError as error:
        raise halfway from error


def _as_read(body: Body, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A patch that is refused where somebody has changed the object since."""
    return {"metadata": {"resourceVersion": body["metadata"]["resourceVersion"]}, "spec": dict(spec)}

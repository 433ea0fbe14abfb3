"""What the pages of keys do: list, make with bounds, show what is left, give a new token, revoke.

A token is drawn once, into the answer of the request that made it, and kept by nobody here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from types import MappingProxyType
from typing import Any

from starlette.responses import RedirectResponse, Response

from bessemer.client import an_object
from bessemer.core.clock import rfc3339
from bessemer.core.errors import BessemerError, Cause, Forbidden, Invalid, Malformed, NotFound
from bessemer.core.resource import Key
from bessemer.portal import forms
from bessemer.portal.facts import EndpointFact, KeyFact, PlanFact
from bessemer.portal.forms import NOTHING, Halfway, Said
from bessemer.portal.pages import keys
from bessemer.portal.pages.shell import SHELL_KINDS
from bessemer.portal.people import DAY_SECONDS, DAYS_MAX, place_of, project_of
from bessemer.portal.reading import LIMITS
from bessemer.portal.visit import Visit, code_of

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "metadata.name": "name",
        "spec.description": "description",
        "spec.owner": "owner",
        "spec.endpoints": "endpoints",
        "spec.networks": "networks",
        "spec.expiresAt": "days",
        "spec.priority": "priority",
        **{f"spec.limits.{name}": name for name in LIMITS},
        "spec.budget.micro": "money",
        "spec.budget.tokens": "tokens",
        "spec.budget.period": "period",
    }
)
"""Path in an ApiKey → field of the form."""

_PERIODS = ("Day", "Month", "Total")
_MICRO = 1_000_000
_MONEY = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_DIGITS_MAX = 15
"""Of a number: more is past every bound that the api takes."""


async def _see(visit: Visit) -> None:
    await visit.desk.see(*SHELL_KINDS, KeyFact, PlanFact)


async def keys_page(visit: Visit) -> Response:
    """The list, and the form of a new one."""
    scope = await place_of(visit)
    await _see(visit)
    return visit.show(partial(keys.build_list, visit.desk, scope))


async def key_page(visit: Visit) -> Response:
    """One key, and what is left of what bounds it."""
    project = await project_of(visit)
    await _see(visit)
    key = Key("ApiKey", project, visit.part("name"))
    visit.desk.one(KeyFact, key.name, project=project)
    held = keys.Held()

    async def ask() -> None:
        try:
            held.bounds = await visit.desk.client.account.key_use(project, key.name)
        except Forbidden:
            held.hidden = True
        except NotFound:
            held.bounds = ()  # it was revoked: the page goes with the key itself

    await ask()
    return visit.show(partial(keys.build, visit.desk, key, held=held), ask=ask)


async def key_act(visit: Visit) -> Response:
    """Make one, give it a new token, or revoke it."""
    project = await project_of(visit)
    await _see(visit)
    written = await forms.read(visit.request)
    name, act = written.get("name", ""), written.get("act", "")
    key, client = Key("ApiKey", project, name), visit.desk.client
    try:
        if act == "revoke":
            await client.delete(key)
            return RedirectResponse(f"/in/{project}/keys", 303)
        if act == "new":
            await client.create(an_object(key, spec_of(visit, project, written=written)))
        elif act != "token":
            raise Malformed("there is no such act")
        token = await _token(visit, key, fresh=act == "new")
    except BessemerError as error:
        said = forms.refused(error, written, fields=FIELDS)
        return _list(visit, project, said=said, code=code_of(error))
    return _list(visit, project, said=Said(secret=token, name=name))


def _list(visit: Visit, project: str, *, said: Said, code: int = 200) -> Response:
    """The list, whose first picture says above what was ``said``; those that follow do not repeat it."""
    once = [said]
    response = visit.show(lambda: keys.build_list(visit.desk, project, said=once.pop() if once else NOTHING))
    response.status_code = code
    response.headers["Cache-Control"] = "no-store"
    return response


async def _token(visit: Visit, key: Key, *, fresh: bool) -> str:
    """A new token. Raises Halfway where a ``fresh`` key gets none: it is there, and its name is taken."""
    try:
        return await visit.desk.client.account.key_token(key.namespace, key.name)
    except BessemerError as error:
        if not fresh:
            raise
        text = f"{key.name} was made, and has no token yet: {error.message}. Press New token on its page."
        raise Halfway(text) from error


def spec_of(visit: Visit, project: str, *, written: Mapping[str, str]) -> dict[str, Any]:
    """An ApiKey's spec from what was written. Raises Invalid with a cause for each field that cannot be read."""
    wrong: list[Cause] = []
    here = {one.name for one in visit.desk.all(EndpointFact) if one.project == project}
    endpoints = forms.words(written.get("endpoints", ""))
    if unknown := [name for name in endpoints if name.partition(":")[0] not in here]:
        wrong.append(Cause("spec.endpoints", f"there is no endpoint {', '.join(unknown)} in this project"))
    said: dict[str, Any] = {"endpoints": endpoints, "networks": forms.words(written.get("networks", ""))}
    said |= {name: written.get(name, "") for name in ("description", "owner", "priority")}
    if (days := _whole(written, "days", wrong=wrong, path="spec.expiresAt")) is not None:
        if not 1 <= days <= DAYS_MAX:
            wrong.append(Cause("spec.expiresAt", f"it is good for 1 to {DAYS_MAX} days, or for ever where it is empty"))
        else:
            said["expiresAt"] = rfc3339(visit.site.clock.now() + days * DAY_SECONDS)
    limits = {name: _whole(written, name, wrong=wrong, path=f"spec.limits.{name}") for name in LIMITS}
    said["limits"] = {name: bound for name, bound in limits.items() if bound is not None}
    said["budget"] = _budget(written, wrong=wrong)
    if wrong:
        raise Invalid("Some of it cannot be read: what is wrong stands beside each field.", wrong)
    return {name: value for name, value in said.items() if value}


def _budget(written: Mapping[str, str], *, wrong: list[Cause]) -> dict[str, Any]:
    """Money and tokens within a period; nothing where neither is said."""
    found: dict[str, Any] = {}
    if text := written.get("money", "").replace(",", ""):
        if _MONEY.fullmatch(text) is None:
            wrong.append(Cause("spec.budget.micro", "is an amount as 25 or 0.50"))
        else:
            found["micro"] = int(Decimal(text) * _MICRO)
    if (tokens := _whole(written, "tokens", wrong=wrong, path="spec.budget.tokens")) is not None:
        found["tokens"] = tokens
    period = written.get("period") or "Month"
    if period not in _PERIODS:
        wrong.append(Cause("spec.budget.period", f"is one of {', '.join(_PERIODS)}"))
    return {**found, "period": period} if found else {}


def _whole(written: Mapping[str, str], name: str, *, wrong: list[Cause], path: str) -> int | None:
    """A whole number; None where nothing was written."""
    text = written.get(name, "").replace(",", "").replace(" ", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > _DIGITS_MAX:
        wrong.append(Cause(path, "is a whole number, or empty for no bound"))
        return None
    return int(text)

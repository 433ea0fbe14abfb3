"""Who shows a token of an issuer to a gateway, and in which projects they may ask its endpoints.

They may where they could make a key. It is judged as if it were shown here; a gateway asks again and again, so nothing
is promised for longer than the moment.
"""

from __future__ import annotations

from pydantic import Field, ValidationError
from starlette.responses import Response

from bessemer.api import body as bodies
from bessemer.api.access import Target
from bessemer.api.state import Call, answer
from bessemer.core.errors import Malformed, Unauthenticated
from bessemer.core.resource import ApiModel
from bessemer.kinds.tenancy.apikey import ApiKey

PROJECTS_MAX = 1000
"""Of one answer; who may ask in more names the one that is meant."""


class Shown(ApiModel):
    """A token, and the project that is meant, or "" for any."""

    token: str = Field(max_length=16_384)
    project: str = Field("", max_length=253)


async def judge(call: Call) -> Response:
    """POST bearers: ``{"user", "projects"}``, of the projects the one that is meant; user "" where it is nobody's."""
    raw = await bodies.read(call.request, call.state.context.limits)
    await call.still()
    try:
        shown = Shown.model_validate_json(raw)
    except ValidationError as error:
        raise Malformed("a token is shown, and perhaps a project meant") from error
    try:
        who = await call.state.federation.bearer(shown.token)
    except Unauthenticated:
        return answer({"user": "", "projects": []})
    keys, access = call.state.resources.of_kind(ApiKey.KIND), call.state.access
    assert keys is not None, "it is one of ours"
    if shown.project:
        may = access.may(who, "create", on=Target(keys, shown.project))
        return answer({"user": who.name, "projects": [shown.project] if may else []})
    seen = access.seen(who, "create", on=Target(keys))
    projects = sorted(project for project, names in seen.items() if names is None)
    return answer({"user": who.name, "projects": projects[:PROJECTS_MAX]})

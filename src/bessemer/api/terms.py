"""What a tenant's terms say of a write in one of its projects: the taints that are borne, the flavors, images and
models that are named. What a body says anew is refused by its field, with what would be accepted.

Whether something is named that the tenant may not use, that is another's, or that is nowhere, is one answer: so nobody
learns by asking what there is. It decides nothing that a race could undo: placement and the store look again. Beside
that, what a body says of others of its project is judged here: whether endpoints answer for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from bessemer.api.access import Target
from bessemer.api.admission import Body, priority_causes, toleration_causes
from bessemer.api.errors import invalid
from bessemer.api.names import show
from bessemer.api.state import Call
from bessemer.core.errors import Cause, NotFound
from bessemer.core.resource import Key
from bessemer.kinds.fields import named
from bessemer.kinds.inference.endpoint import Endpoint
from bessemer.kinds.inference.endpoint.circles import circles
from bessemer.kinds.inference.model import Model
from bessemer.kinds.inference.models import find_own
from bessemer.kinds.tenancy.tenant import Allowed


async def require_terms(call: Call, target: Target, *, body: Body, old: Body | None) -> None:
    """Of a namespaced object. Raises Invalid."""
    terms, tenant = call.state.directory.terms(target.tenant), f"tenant {target.tenant}"
    causes = toleration_causes(body, old, tenant=tenant, bearable=terms.bearable)
    causes += priority_causes(body, old, tenant=tenant, most=terms.max_priority)
    before = {(path, name) for path, _, name in _named(target, old)}
    for path, kind, name in _named(target, body if terms.allowed else None):
        among = terms.allowed.get(kind.lower())
        if (
            among is not None
            and (path, name) not in before
            and not await _admitted(call, among, key=Key(kind, "", name))
            and not await _own(call, target, kind=kind, name=name)
        ):
            words = f"Forbidden: {show(name)}: {tenant} may use {among}"
            causes.append(Cause(path, words, "FieldValueForbidden"))
    if target.resource.stored == Endpoint.KIND:
        causes += await circles(call.state.ports.objects, body, old=old)
    if causes:
        raise invalid(target.subject, causes)


def _named(target: Target, body: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    return list(named(target.resource.references, body)) if body is not None else []


async def _admitted(call: Call, among: Allowed, *, key: Key) -> bool:
    """By name alone where there are no labels to ask for."""
    if among.admits(key.name, {}):
        return True
    if not among.match_labels:
        return False
    try:
        found = orjson.loads((await call.state.ports.objects.get(key)).body)
    except NotFound:
        return False
    return among.admits(key.name, found["metadata"].get("labels", {}))


async def _own(call: Call, target: Target, *, kind: str, name: str) -> bool:
    """Whether it is the tenant's own, and no wall's matter."""
    objects = call.state.ports.objects
    return kind == Model.KIND and await find_own(objects, target.namespace, name=name) is not None

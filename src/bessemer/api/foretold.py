"""What a dry run of a create says would come of the object: the status that its kind has a preview of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import orjson

from bessemer.api.state import Call
from bessemer.core.clock import Clock
from bessemer.core.errors import Unavailable
from bessemer.core.ports import Capacity, Objects, Stored
from bessemer.kinds.fleet.planning import Planner


@dataclass(frozen=True, slots=True)
class _Looks:
    """Implements ``kinds.context.Looks``."""

    objects: Objects
    capacity: Capacity
    fleet: Planner
    clock: Clock


async def foretold(call: Call, stored: Stored) -> Stored:
    """What a dry run would have stored, with that status; as it is where its kind has no preview. Raises Unavailable
    where the fleet is not known."""
    kind, context = call.about.resource.source, call.state.context
    if kind.preview is None:
        return stored
    if context.fleet is None:
        raise Unavailable("this server keeps no fleet; ask another", retry_after_seconds=10)
    looks = _Looks(context.ports.objects, context.ports.capacity, context.fleet, context.clock)
    body = orjson.loads(stored.body)
    # As it is read where it is stored: one that nobody made has no revision.
    made = kind.resource.model_validate(body)
    body["status"] = (await kind.preview(looks, made)).dump()
    return replace(stored, body=orjson.dumps(body))

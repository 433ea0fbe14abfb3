"""What gateways say of endpoints that scale: kept in their leases, where controllers read it (`core.loads`). For whom
requests wait while no replica is there is noted on the Endpoint, which wakes its controller at once, wherever that is.
"""

from __future__ import annotations

from contextlib import suppress

import orjson
from pydantic import ValidationError
from starlette.responses import Response

from bessemer.api import body as bodies
from bessemer.api.state import Call, answer
from bessemer.core.clock import epoch, rfc3339
from bessemer.core.errors import Conflict, Malformed, NotFound
from bessemer.core.loads import HEARD_SECONDS, LOADS, WOKEN, EndpointLoad, LoadReport
from bessemer.core.ports import Writer
from bessemer.core.resource import Key

_PATIENCE_SECONDS = 0.1
"""For which a report waits to be written with others; one that wakes somebody does not."""
_AGAIN_SECONDS = 10.0
"""From when on who was woken, and has nobody yet, is woken again."""
_TRIES = 3
_WRITER = Writer("system", "waking")
"""A gateway writes no object: it says that it is asked, and the api notes when."""


async def report(call: Call) -> Response:
    """POST loads: all that a gateway has to say now. A gateway that ends says so with ``last``."""
    raw = await bodies.read(call.request, call.state.context.limits)
    await call.still()
    try:
        said = LoadReport.model_validate_json(raw)
    except ValidationError as error:
        raise Malformed("a report is of a gateway's endpoints") from error
    leases, name = call.state.ports.leases, f"{LOADS}{said.holder}"
    if call.query.get("last") == "true":
        await leases.release(name, said.holder)
        return answer({})
    asleep = [said.loads[at] for at in said.asleep if 0 <= at < len(said.loads)]
    for load in asleep:
        await _wake(call, load)
    note = orjson.dumps(said.dump()).decode()
    await leases.acquire(name, said.holder, HEARD_SECONDS, note=note, patience=0.0 if asleep else _PATIENCE_SECONDS)
    return answer({})


async def _wake(call: Call, load: EndpointLoad) -> None:
    """Note on it that it is waited for, unless that was noted lately. What does not scale, or is gone, sleeps on."""
    objects, now = call.state.ports.objects, call.state.context.clock.now()
    for _ in range(_TRIES):
        with suppress(Conflict):
            try:
                stored = await objects.get(Key("Endpoint", load.project, load.name))
            except NotFound:
                return
            body = orjson.loads(stored.body)
            said = body["metadata"].setdefault("annotations", {})
            lately = WOKEN in said and 0 <= now - _time(said[WOKEN]) < _AGAIN_SECONDS
            if stored.uid != load.uid or not body["spec"].get("scale") or lately:
                return
            said[WOKEN] = rfc3339(now)
            await objects.replace(body, _WRITER)
            return


def _time(said: str) -> float:
    try:
        return epoch(said)
    except ValueError:
        return 0.0

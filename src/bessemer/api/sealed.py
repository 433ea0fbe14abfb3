"""Under which keys sealed values are, and a round that brings them under the current one: for administrators.

No key comes by here. A rotation is made where the key-encryption key is (a file, a KMS); every process follows it by
itself within a minute, and this asks for it at once.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from bessemer.api import body as bodies
from bessemer.api.state import Call, answer
from bessemer.core.errors import Malformed
from bessemer.core.ports import SealedKeys
from bessemer.core.resource import Key


async def state(call: Call) -> Response:
    """GET /sealed: how many data keys and values are under which key. Raises Unavailable."""
    return answer(_shown(await call.state.ports.sealed.keys()))


async def rotate(call: Call) -> Response:
    """POST /sealed/rotate: follow the current key now; with ``{"values": true}`` seal every value anew, too. Raises
    Unavailable where some of it waits."""
    limits = call.state.context.limits
    raw = await bodies.read(call.request, limits)
    said = bodies.as_object(bodies.parse_json(raw or b"{}", limits.depth))
    await call.still()
    values = said.get("values", False)
    if not isinstance(values, bool):
        raise Malformed("values is true or false")
    await call.state.ports.audit.note(call.writer, "rotate", key=Key("Sealed", "", "values" if values else "keys"))
    return answer(_shown(await call.state.ports.sealed.rotate(values=values)))


def _shown(keys: SealedKeys) -> dict[str, Any]:
    return {"current": keys.current, "dataKeys": dict(keys.data_keys), "values": dict(keys.values), "left": keys.left}

"""What a model's source is shown: a hub's token, or keys of a bucket. Sealed with the Model, never shown again."""

from __future__ import annotations

import orjson
from starlette.responses import Response

from bessemer.api import body as bodies
from bessemer.api.resources import load
from bessemer.api.state import Call, answer
from bessemer.core.errors import Malformed
from bessemer.drivers.fetch.protocol import AUDIENCE
from bessemer.kinds.inference.model import SOURCE_SECRET
from bessemer.kinds.inference.sources import ModelSource, place_of

FIELDS = frozenset(("token", "accessKey", "secretKey", "sessionToken"))
LENGTH_MAX = 4096


async def keep(call: Call) -> Response:
    """POST models/NAME/token: in the place of what was kept; ``{}`` takes it away. It is used from the next try on, and
    for the source that the model has now: one that is named later is not told."""
    limits = call.state.context.limits
    said = bodies.as_object(bodies.parse_json(await bodies.read(call.request, limits), limits.depth))
    if not said.keys() <= FIELDS:
        raise Malformed(f"these can be kept: {', '.join(sorted(FIELDS))}")
    for name, value in said.items():
        # They become headers.
        if not isinstance(value, str) or len(value) > LENGTH_MAX or not value.isascii() or not value.isprintable():
            raise Malformed(f"{name} must be printable ASCII of at most {LENGTH_MAX} characters")
    model = await load(call, call.about)
    if said:
        said = {**said, AUDIENCE: _audience(model.body)}
    await call.still()
    await call.note(model)
    await call.state.ports.sealed.put(model.uid, SOURCE_SECRET, orjson.dumps(said))
    return answer({})


def _audience(body: bytes) -> str:
    """Raises Malformed for a model whose source is shown nothing."""
    source = ModelSource.model_validate(orjson.loads(body)["spec"]["source"])
    found = "" if source.wheel is not None else place_of(source).audience
    if not found:
        raise Malformed("a hub, a bucket or a URL can be shown a token; this model comes from elsewhere")
    return found

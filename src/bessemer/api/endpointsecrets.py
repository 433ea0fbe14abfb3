"""What a service elsewhere is shown, by which an Endpoint is answered: sealed with it, and told to gateways alone.

It is bound to where the service stood when it was set, path and all: who may change the URL sends nobody's secret
anywhere else, nor to another's part of a host that many share.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.responses import Response

from bessemer.api import body as bodies
from bessemer.api.resources import load
from bessemer.api.state import Call, answer
from bessemer.core.errors import Conflict, Invalid, Malformed
from bessemer.kinds.inference.endpoint.forms import SECRET_MARK

FIELD = "external"
LENGTH_MAX = 4096
_TRIES = 5


async def keep(call: Call) -> Response:
    """POST endpoints/NAME/secret: in the place of what was kept; ``{}`` takes it away. Gateways hear of it by a mark
    on the Endpoint that says nothing of it."""
    limits = call.state.context.limits
    said = bodies.as_object(bodies.parse_json(await bodies.read(call.request, limits), limits.depth))
    secret = said.get("secret", "")
    # It becomes a header.
    fine = isinstance(secret, str) and len(secret) <= LENGTH_MAX and secret.isascii() and secret.isprintable()
    if not said.keys() <= {"secret"} or not fine:
        raise Malformed(f"secret must be printable ASCII of at most {LENGTH_MAX} characters")
    endpoint = await load(call, call.about)
    body: dict[str, Any] = orjson.loads(endpoint.body)
    at, path = _place(body)
    if not at:
        raise Invalid("a secret is shown to a service elsewhere, and the endpoint has no spec.external")
    await call.still()
    await call.note(endpoint)
    ports = call.state.ports
    await ports.sealed.put(endpoint.uid, FIELD, orjson.dumps({"secret": secret, "at": at, "path": path}))
    await _mark(call, body, sealed=bool(secret))
    return answer({})


async def _mark(call: Call, body: dict[str, Any], *, sealed: bool) -> None:
    """Say on the Endpoint that its secret is another. It is sealed by now, so whoever wrote something else of the
    Endpoint meanwhile is read again. Raises Conflict where that never ends, or it is another Endpoint."""
    uid = body["metadata"]["uid"]
    for left in reversed(range(_TRIES)):
        kept = {n: v for n, v in (body["metadata"].get("annotations") or {}).items() if n != SECRET_MARK}
        body["metadata"]["annotations"] = {**kept, **({SECRET_MARK: secrets.token_hex(8)} if sealed else {})}
        try:
            await call.state.ports.objects.replace(body, call.writer)
            return
        except Conflict:
            body = orjson.loads((await load(call, call.about)).body)
            if not left or body["metadata"]["uid"] != uid:
                raise


async def tell(call: Call) -> Response:
    """GET endpoints/NAME/secret: for gateways; "" where none was set for where the service stands now. With it goes
    where that is: a gateway may believe for a moment that it stands elsewhere."""
    endpoint = await load(call, call.about)
    await call.note(endpoint)
    sealed = await call.state.ports.sealed.get(endpoint.uid, FIELD)
    kept: Mapping[str, str] = orjson.loads(sealed) if sealed else {}
    at, path = _place(orjson.loads(endpoint.body))
    # One that an older release has kept says no path, and is of any.
    secret = kept.get("secret", "") if (kept.get("at"), kept.get("path", path)) == (at, path) else ""
    return answer({"secret": secret, "at": at, "path": path}, headers={"Cache-Control": "no-store"})


def _place(body: Mapping[str, Any]) -> tuple[str, str]:
    """Where the service stands: ``https://host:port`` and ``/path``; "" where there is none."""
    url = (body["spec"].get("external") or {}).get("url", "")
    parts = urlsplit(url)
    return (f"{parts.scheme}://{parts.netloc}".lower(), parts.path.rstrip("/") or "/") if url else ("", "")

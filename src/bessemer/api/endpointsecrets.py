"""What an Endpoint's gateways show to others: to a service elsewhere by which it is answered, and to the bucket where
its prompts are logged. Sealed with it, and told to gateways alone.

Each is bound to where that stood when it was set, a service's path and all: who may change the URL sends nobody's
secret anywhere else, nor to another's part of a host that many share.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.responses import Response

from bessemer.api import body as bodies
from bessemer.api.resources import load
from bessemer.api.state import Call, answer
from bessemer.core.errors import Conflict, Invalid, Malformed
from bessemer.kinds.inference.endpoint.forms import SECRET_MARK
from bessemer.kinds.inference.endpoint.prompts import KEYS_MARK, PromptLog

FIELD, LOGGING = "external", "logging"
LENGTH_MAX = 4096
KEYS = frozenset(("accessKey", "secretKey", "sessionToken"))
_TRIES = 5


@dataclass(frozen=True, slots=True)
class _Kept:
    """One of the two: under which name it is sealed, by which mark gateways hear of it, and what it is."""

    field: str
    mark: str
    said: Mapping[str, Any]
    given: bool


async def keep(call: Call) -> Response:
    """POST endpoints/NAME/secret: in the place of what was kept; ``{}`` takes it away, and ``{"logging": {}}`` the
    bucket's keys. Gateways hear of it by a mark on the Endpoint that says nothing of it."""
    limits = call.state.context.limits
    said = bodies.as_object(bodies.parse_json(await bodies.read(call.request, limits), limits.depth))
    logging = "logging" in said
    kept = _logging(said) if logging else _external(said)
    endpoint = await load(call, call.about)
    body: dict[str, Any] = orjson.loads(endpoint.body)
    place = _bucket(body) if logging else _place(body)
    at = place["at"]
    if not at and logging:
        raise Invalid("these are a bucket's keys, and the endpoint has no spec.logging")
    if not at:
        raise Invalid("a secret is shown to a service elsewhere, and the endpoint has no spec.external")
    await call.still()
    await call.note(endpoint)
    ports = call.state.ports
    await ports.sealed.put(endpoint.uid, kept.field, orjson.dumps({**kept.said, **place}))
    await _mark(call, body, mark=kept.mark, sealed=kept.given)
    return answer({})


def _external(said: Mapping[str, Any]) -> _Kept:
    """Raises Malformed."""
    secret = said.get("secret", "")
    if not said.keys() <= {"secret"} or not _fine(secret):
        raise Malformed(f"secret must be printable ASCII of at most {LENGTH_MAX} characters")
    return _Kept(FIELD, SECRET_MARK, {"secret": secret}, bool(secret))


def _logging(said: Mapping[str, Any]) -> _Kept:
    """Raises Malformed."""
    keys = said["logging"]
    if said.keys() != {"logging"} or not isinstance(keys, dict) or not keys.keys() <= KEYS:
        raise Malformed(f"these can be kept: {', '.join(sorted(KEYS))}")
    if not all(_fine(value) for value in keys.values()):
        raise Malformed(f"each must be printable ASCII of at most {LENGTH_MAX} characters")
    if keys and not (keys.get("accessKey") and keys.get("secretKey")):
        raise Malformed("accessKey and secretKey belong together")
    return _Kept(LOGGING, KEYS_MARK, {"keys": keys}, bool(keys))


def _fine(value: Any) -> bool:
    """Whether it can become a header."""
    return isinstance(value, str) and len(value) <= LENGTH_MAX and value.isascii() and value.isprintable()


async def _mark(call: Call, body: dict[str, Any], *, mark: str, sealed: bool) -> None:
    """Say on the Endpoint that its secret is another. It is sealed by now, so whoever wrote something else of the
    Endpoint meanwhile is read again. Raises Conflict where that never ends, or it is another Endpoint."""
    uid = body["metadata"]["uid"]
    for left in reversed(range(_TRIES)):
        kept = {n: v for n, v in (body["metadata"].get("annotations") or {}).items() if n != mark}
        body["metadata"]["annotations"] = {**kept, **({mark: secrets.token_hex(8)} if sealed else {})}
        try:
            await call.state.ports.objects.replace(body, call.writer)
            return
        except Conflict:
            body = orjson.loads((await load(call, call.about)).body)
            if not left or body["metadata"]["uid"] != uid:
                raise


async def tell(call: Call) -> Response:
    """GET endpoints/NAME/secret: for gateways; "" where none was set for where the service stands now. With it goes
    where that is: a gateway may believe for a moment that it stands elsewhere. The same of the bucket's keys."""
    endpoint = await load(call, call.about)
    await call.note(endpoint)
    body: dict[str, Any] = orjson.loads(endpoint.body)
    place, bucket = _place(body), _bucket(body)
    kept = await _unsealed(call, endpoint.uid, field=FIELD, place=place)
    said: dict[str, Any] = {"secret": kept.get("secret", ""), **place}
    if bucket["at"]:
        kept = await _unsealed(call, endpoint.uid, field=LOGGING, place=bucket)
        said["logging"] = {"keys": kept.get("keys", {}), **bucket}
    return answer(said, headers={"Cache-Control": "no-store"})


async def _unsealed(call: Call, uid: str, *, field: str, place: Mapping[str, str]) -> Mapping[str, Any]:
    """What was kept for there; nothing where that was elsewhere."""
    sealed = await call.state.ports.sealed.get(uid, field)
    kept: Mapping[str, Any] = orjson.loads(sealed) if sealed else {}
    # One that an older release has kept says no path, and is of any.
    return kept if all(kept.get(name, said if name == "path" else "") == said for name, said in place.items()) else {}


def _bucket(body: Mapping[str, Any]) -> dict[str, str]:
    """The bucket where its prompts are logged; "" where they are not."""
    said = body["spec"].get("logging")
    return {"at": PromptLog.model_validate(said).audience if said else ""}


def _place(body: Mapping[str, Any]) -> dict[str, str]:
    """Where the service stands: ``https://host:port`` and ``/path``; "" where there is none."""
    url = (body["spec"].get("external") or {}).get("url", "")
    parts = urlsplit(url)
    at, path = (f"{parts.scheme}://{parts.netloc}".lower(), parts.path.rstrip("/") or "/") if url else ("", "")
    return {"at": at, "path": path}

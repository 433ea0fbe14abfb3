"""The public routes: health, version, discovery, OpenAPI; and this process's figures for the administrator.

OpenAPI is made of the kinds in a thread: the first time it takes a moment that the loop has not.
"""

from __future__ import annotations

import asyncio
from functools import partial

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from bessemer.api import fleetfigures
from bessemer.api.discovery import AGGREGATED, OPENAPI_V2, OPENAPI_V2_ASKED, openapi_place
from bessemer.api.documents import JSON, serve
from bessemer.api.health import told
from bessemer.api.state import Call, answer
from bessemer.core.errors import Unavailable

_UNDER_ITS_HASH = {"Cache-Control": "public, max-age=31536000, immutable"}


async def healthy(call: Call) -> Response:
    """GET /healthz, /livez: the process answers."""
    return PlainTextResponse("ok")


async def ready(call: Call) -> Response:
    """GET /readyz: its database answers, it knows its tenants, hears of what others change, and is not stopping. 503
    says which of these fails; ``verbose`` says it of each."""
    state = call.state
    checks = {"ping": True, "database": await state.database.answers(), "tenants": await _knows(call)}
    checks["watches"] = state.following.current
    checks["shutdown"] = not state.closing.is_set()
    if all(checks.values()):
        return PlainTextResponse(told(checks) if "verbose" in call.query else "ok")
    return PlainTextResponse(told(checks), 503, {"Retry-After": "1"})


async def _knows(call: Call) -> bool:
    try:
        await call.state.directory.ready()
    except Unavailable:
        return False
    return True


async def version(call: Call) -> Response:
    """GET /version."""
    known = call.state.discovery.version()
    gateway = call.state.context.terms.gateway_url
    return answer({**known, "gateway": gateway} if gateway else known)


async def core_versions(call: Call) -> Response:
    """GET /api."""
    known = call.state.discovery
    return serve(call.request, {JSON: known.core_versions, AGGREGATED: partial(known.aggregated, core=True)})


async def groups(call: Call) -> Response:
    """GET /apis."""
    known = call.state.discovery
    return serve(call.request, {JSON: known.groups, AGGREGATED: partial(known.aggregated, core=False)})


async def group(call: Call) -> Response:
    """GET /apis/GROUP."""
    return serve(call.request, {JSON: partial(call.state.discovery.group, call.parameter("group"))})


async def resources(call: Call) -> Response:
    """GET /apis/GROUP/VERSION, /api/VERSION."""
    known = call.state.discovery
    return serve(call.request, {JSON: partial(known.resources, call.parameter("group"), call.parameter("version"))})


async def openapi_index(call: Call) -> Response:
    """GET /openapi/v3."""
    made = await asyncio.to_thread(call.state.discovery.openapi_index)
    return serve(call.request, {JSON: lambda: made})


async def openapi(call: Call) -> Response:
    """GET /openapi/v3/…: a version's document, kept by clients for ever under its hash. Who knows it by another hash
    is sent to the right one, for now: there may be a replica of another release."""
    group, version, known = call.parameter("group"), call.parameter("version"), call.query.get("hash", "")
    made = await asyncio.to_thread(call.state.discovery.openapi, group, version)
    if known not in ("", made.digest):
        return RedirectResponse(f"/openapi/v3/{openapi_place(group, version)}?hash={made.digest}", 307)
    return serve(call.request, {JSON: lambda: made}, headers=_UNDER_ITS_HASH if known else None)


async def openapi_v2(call: Call) -> Response:
    """GET /openapi/v2: one document of all groups, in JSON or in the protobuf of Go's clients."""
    known = call.state.discovery
    made, protobuf = await asyncio.to_thread(known.openapi_v2), known.openapi_v2_protobuf
    return serve(call.request, {JSON: lambda: made, OPENAPI_V2_ASKED: protobuf, OPENAPI_V2: protobuf})


async def metrics(call: Call) -> Response:
    """GET /metrics, in Prometheus' text format."""
    await fleetfigures.scraped(call.state)
    others = b"".join(generate_latest(registry) for registry in call.state.context.registries)
    return Response(call.state.metrics.text() + others, media_type=CONTENT_TYPE_LATEST)

"""The public routes: health, version, discovery, OpenAPI; and this process's figures for the administrator."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import PlainTextResponse, Response

from bessemer.api.discovery import AGGREGATED, wants_aggregated
from bessemer.api.state import Call, answer


async def healthy(call: Call) -> Response:
    """GET /healthz, /livez: the process answers."""
    return PlainTextResponse("ok")


async def ready(call: Call) -> Response:
    """GET /readyz: it knows its tenants, and is not stopping. Raises Unavailable."""
    await call.state.directory.ready()
    return PlainTextResponse("stopping", 503) if call.state.closing.is_set() else PlainTextResponse("ok")


async def version(call: Call) -> Response:
    """GET /version."""
    known = call.state.discovery.version()
    gateway = call.state.context.terms.gateway_url
    return answer({**known, "gateway": gateway} if gateway else known)


async def core_versions(call: Call) -> Response:
    """GET /api."""
    if wants_aggregated(call.request.headers.get("accept", "")):
        return _aggregated(call, core=True)
    return answer({"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"], "serverAddressByClientCIDRs": []})


async def groups(call: Call) -> Response:
    """GET /apis."""
    if wants_aggregated(call.request.headers.get("accept", "")):
        return _aggregated(call, core=False)
    return answer(call.state.discovery.groups())


async def group(call: Call) -> Response:
    """GET /apis/GROUP."""
    return answer(call.state.discovery.group(call.parameter("group")))


async def resources(call: Call) -> Response:
    """GET /apis/GROUP/VERSION."""
    return answer(call.state.discovery.resources(call.parameter("group"), call.parameter("version")))


async def core_resources(call: Call) -> Response:
    """GET /api/v1."""
    return answer(call.state.discovery.resources("", call.parameter("version")))


async def openapi_index(call: Call) -> Response:
    """GET /openapi/v3."""
    return answer(call.state.discovery.openapi_index())


async def openapi(call: Call) -> Response:
    """GET /openapi/v3/…: a version's document, kept by clients under its hash."""
    body, etag = call.state.discovery.openapi(call.parameter("group"), call.parameter("version"))
    return _cached(call, body, etag=etag, headers={"Content-Type": "application/json"})


async def metrics(call: Call) -> Response:
    """GET /metrics, in Prometheus' text format."""
    others = b"".join(generate_latest(registry) for registry in call.state.context.registries)
    return Response(call.state.metrics.text() + others, media_type=CONTENT_TYPE_LATEST)


def _aggregated(call: Call, *, core: bool) -> Response:
    body, etag = call.state.discovery.aggregated(core=core)
    return _cached(call, body, etag=etag, headers={"Content-Type": AGGREGATED, "Vary": "Accept"})


def _cached(call: Call, body: bytes, *, etag: str, headers: dict[str, str]) -> Response:
    headers = {**headers, "ETag": etag}
    if call.request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers)

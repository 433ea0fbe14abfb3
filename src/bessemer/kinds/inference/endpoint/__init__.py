"""Endpoint: a served model (see `spec`): `control` is its control side, `host` its replicas' host side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from bessemer.core.resource import ALL, READ, Column, Kind
from bessemer.kinds.context import Context
from bessemer.kinds.fields import at, ready
from bessemer.kinds.inference import models
from bessemer.kinds.inference.endpoint.control import DEADLINES, finalize, reconcile
from bessemer.kinds.inference.endpoint.host import EndpointHost
from bessemer.kinds.inference.endpoint.spec import Endpoint, EndpointIntent, EndpointSpec, EndpointStatus, validate
from bessemer.kinds.workload import wake_by_claim, wake_by_host, wake_by_move, wake_by_part

__all__ = ["KIND", "Endpoint", "EndpointHost", "EndpointIntent", "EndpointSpec", "EndpointStatus"]


def _model(body: Mapping[str, Any]) -> str:
    """What answers: a model, several endpoints by weight, or a service elsewhere."""
    spec = body.get("spec", {})
    if external := spec.get("external"):
        return f"{external['model']} at {urlsplit(external['url']).netloc}"
    backends = ", ".join(f"{one['endpoint']}={one.get('weight', 1)}" for one in spec.get("backends", ()))
    return backends or str(spec.get("model", ""))


def _answering(body: Mapping[str, Any]) -> str:
    spec = body.get("spec", {})
    if spec.get("backends") or spec.get("external"):
        return ""
    said = at("status", "wantedReplicas", default=0) if spec.get("scale") else at("spec", "replicas", default=1)
    return f"{at('status', 'readyReplicas', default=0)(body)}/{said(body)}"


KIND: Kind[Context, Endpoint] = Kind(
    resource=Endpoint,
    plural="endpoints",
    namespaced=True,
    short_names=("ept",),
    rights={"admin": ALL, "auditor": READ, "tenant-admin": ALL, "member": ALL, "reader": READ, "gateway": READ},
    below={
        "log": {"admin": ("get",), "tenant-admin": ("get",), "member": ("get",), "reader": ("get",)},
        "secret": {"gateway": ("get",), "admin": ("create",), "tenant-admin": ("create",), "member": ("create",)},
    },
    columns=(
        Column(name="Phase", value=at("status", "phase")),
        Column(name="Ready", value=ready),
        Column(name="Model", value=_model, description="The model, or who answers for it."),
        Column(name="Replicas", value=_answering, description="Replicas that answer, of those that are wanted."),
        Column(name="Flavor", value=at("spec", "flavor", default=""), wide=True),
        Column(name="Fake", value=at("status", "fake", default=False), type="boolean"),
        Column(name="Message", value=at("status", "message"), wide=True),
    ),
    validate=validate,
    reconcile=reconcile,
    finalize=finalize,
    wakes={
        "Claim": wake_by_claim("Endpoint"),
        "Host": wake_by_host("Endpoint"),
        "Flavor": wake_by_part("Endpoint"),
        "Model": wake_by_part("Endpoint"),
        "ProjectModel": models.wake_by_own("Endpoint"),
        "Endpoint": wake_by_part("Endpoint"),
        "Consolidation": wake_by_move("Endpoint"),
    },
    deadlines=DEADLINES,
)

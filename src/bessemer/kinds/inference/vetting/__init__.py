"""Vetting: a model that is measured where it really runs (see `spec`): `control` is its control side, `host` its host
side, `measuring` what it does there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bessemer.core.resource import ALL, READ, Column, Kind
from bessemer.kinds.context import Context
from bessemer.kinds.fields import at, ready
from bessemer.kinds.inference import models
from bessemer.kinds.inference.vetting.control import DEADLINES, finalize, reconcile
from bessemer.kinds.inference.vetting.host import VettingHost
from bessemer.kinds.inference.vetting.spec import Vetting, VettingIntent, VettingSpec, VettingStatus, validate
from bessemer.kinds.workload import wake_by_claim, wake_by_host, wake_by_part

__all__ = ["KIND", "Vetting", "VettingHost", "VettingIntent", "VettingSpec", "VettingStatus"]


def _failed(body: Mapping[str, Any]) -> str:
    checks = at("status", "checks", default=())(body)
    return ", ".join(one["name"] for one in checks if one["verdict"] == "Failed")


KIND: Kind[Context, Vetting] = Kind(
    resource=Vetting,
    plural="vettings",
    namespaced=True,
    short_names=("vet",),
    rights={"admin": ALL, "auditor": READ, "tenant-admin": ALL, "member": ALL, "reader": READ},
    below={"log": {"admin": ("get",), "tenant-admin": ("get",), "member": ("get",), "reader": ("get",)}},
    columns=(
        Column(name="Phase", value=at("status", "phase")),
        Column(name="Ready", value=ready),
        Column(name="Model", value=at("spec", "model")),
        Column(name="Flavor", value=at("spec", "flavor")),
        Column(name="Percent", value=at("status", "progressPercent", default=0), type="integer"),
        Column(name="Rate", value=at("status", "vetted", "rate"), description="Requests a second that it bears."),
        Column(name="Failed", value=_failed, description="Checks that failed."),
        Column(name="Fake", value=at("status", "fake", default=False), type="boolean"),
        Column(name="Message", value=at("status", "message"), wide=True),
    ),
    validate=validate,
    reconcile=reconcile,
    finalize=finalize,
    wakes={
        "Claim": wake_by_claim("Vetting"),
        "Host": wake_by_host("Vetting"),
        "Flavor": wake_by_part("Vetting"),
        "Model": wake_by_part("Vetting"),
        "ProjectModel": models.wake_by_own("Vetting"),
    },
    deadlines=DEADLINES,
)

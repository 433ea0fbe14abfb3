"""Instance: a virtual machine (see `spec`): `control` is its control side, `host` its host side."""

from __future__ import annotations

from bessemer.core.resource import ALL, READ, Column, Kind
from bessemer.kinds.compute.instance.control import DEADLINES, finalize, reconcile
from bessemer.kinds.compute.instance.host import InstanceHost
from bessemer.kinds.compute.instance.spec import Instance, InstanceIntent, InstanceSpec, InstanceStatus, validate
from bessemer.kinds.context import Context
from bessemer.kinds.fields import at, ready
from bessemer.kinds.workload import wake_by_claim, wake_by_host, wake_by_part

__all__ = ["KIND", "Instance", "InstanceHost", "InstanceIntent", "InstanceSpec", "InstanceStatus"]

KIND: Kind[Context, Instance] = Kind(
    resource=Instance,
    plural="instances",
    namespaced=True,
    short_names=("vm", "inst"),
    rights={"admin": ALL, "auditor": READ, "tenant-admin": ALL, "member": ALL, "reader": READ},
    below={
        "log": {"admin": ("get",), "tenant-admin": ("get",), "member": ("get",), "reader": ("get",)},
        "console": {"admin": ("create",), "tenant-admin": ("create",), "member": ("create",)},
    },
    columns=(
        Column(name="Phase", value=at("status", "phase")),
        Column(name="Ready", value=ready),
        Column(name="Flavor", value=at("spec", "flavor")),
        Column(name="Host", value=at("status", "host")),
        Column(name="Fake", value=at("status", "fake", default=False), type="boolean"),
        Column(name="Image", value=at("spec", "image"), wide=True),
        Column(name="CPUs", value=at("status", "guest", "cpus"), type="integer", wide=True),
        Column(name="Restarts", value=at("status", "restarts", default=0), type="integer", wide=True),
        Column(name="Message", value=at("status", "message"), wide=True),
    ),
    validate=validate,
    reconcile=reconcile,
    finalize=finalize,
    wakes={
        "Claim": wake_by_claim("Instance", taken=False),
        "Host": wake_by_host("Instance"),
        "Flavor": wake_by_part("Instance"),
        "Image": wake_by_part("Instance"),
    },
    deadlines=DEADLINES,
)

"""Flavor as bessemer.dev/v1alpha1 has it, which the first release stored: devices as four fields that hang together.

It cannot say ``offered``, which part of a device, what lies beside devices, of which sort cores and memory are, nor an
order of words that means nothing; ``gpuModel`` and its like mean nothing without ``gpus``. What a flavor is and does
stands in `flavor`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from types import MappingProxyType
from typing import Any

from pydantic import Field

from bessemer.core.asking import NumaPolicy
from bessemer.core.errors import Cause
from bessemer.core.resource import ApiModel, Column, Resource, Status
from bessemer.core.versions import Spec, Version
from bessemer.kinds.fields import Bytes, ShortText, at

_SAME = (("sameSwitch", "switch"), ("sameNvlink", "nvlink"))
_PART = ("share", "profile", "memory")
_SHARED = ("description", "memory", "disk", "numa")
_NEWER: Mapping[str, Any] = MappingProxyType(
    {"offered": True, "companions": [], "cpuPolicy": "shared", "hugepages": "0"}
)
"""What this version cannot say, and is kept beside it where it is not what it is by default."""


class FlavorSpec(ApiModel):
    description: ShortText = Field("", description="What it is good for.")
    cpus: int = Field(ge=1, le=4096, description="Hardware threads.")
    memory: Bytes = Field(description="Memory, as 512Mi or 1.5Gi.")
    disk: Bytes = Field("0", description="A disk of its own, as 10Gi; 0 is none.")
    gpus: int = Field(0, ge=0, le=64, description="Whole GPUs.")
    gpu_model: ShortText = Field("", description="As hosts report it; any model when empty.")
    numa: NumaPolicy = Field("preferred", description="Whether all must lie on one NUMA node.")
    same_switch: bool = Field(False, description="All devices below one PCIe switch.")
    same_nvlink: bool = Field(False, description="All devices in one NVLink domain.")


class Flavor(Resource[FlavorSpec, Status]):
    """A size that is offered: cores, memory, disk and devices of one replica, and how they must lie together."""

    KIND = "Flavor"

    status: Status = Field(default_factory=Status)


def validate(new: Flavor, old: Flavor | None) -> Sequence[Cause]:
    """No wish about devices where there are none."""
    if new.spec.gpus:
        return ()
    wishes = (
        ("gpuModel", new.spec.gpu_model),
        ("sameSwitch", new.spec.same_switch),
        ("sameNvlink", new.spec.same_nvlink),
    )
    return [Cause(f"spec.{field}", "means nothing without spec.gpus") for field, wish in wishes if wish]


def up(spec: Spec, kept: Spec) -> Spec:
    """See `Version.up`. What was kept holds whatever else was changed: it is about none of these fields."""
    newest: Spec = {name: spec[name] for name in _SHARED if name in spec}
    if "cpus" in spec:
        newest["cores"] = spec["cpus"]
    if spec.get("gpus"):
        together = [word for field, word in _SAME if spec.get(field)]
        part = kept.get("part", {}) if spec["gpus"] == 1 else {}
        newest["devices"] = {"count": spec["gpus"], "model": spec.get("gpuModel", ""), "together": together, **part}
    # The others are left out where they say nothing.
    return {**newest, "offered": True, **{name: copy(kept[name]) for name in _NEWER if name in kept}}


def down(spec: Spec) -> tuple[Spec, Spec]:
    """See `Version.down`."""
    said = spec.get("devices")
    devices: dict[str, Any] = said if isinstance(said, dict) else {}
    together = devices.get("together")
    older: Spec = {name: spec[name] for name in _SHARED if name in spec}
    if "cores" in spec:
        older["cpus"] = spec["cores"]
    older |= {"gpus": devices.get("count", 0), "gpuModel": devices.get("model", "")}
    older |= {field: isinstance(together, list) and word in together for field, word in _SAME}
    kept: Spec = {name: spec[name] for name, usual in _NEWER.items() if name in spec and spec[name] != usual}
    part = {name: devices[name] for name in _PART if devices.get(name)}
    return older, {**kept, "part": part} if part else kept


V1ALPHA1 = Version(
    name="v1alpha1",
    resource=Flavor,
    up=up,
    down=down,
    validate=validate,
    deprecated="bessemer.dev/v1alpha1 Flavor is deprecated; use bessemer.dev/v1beta1 Flavor",
    columns=(
        Column(name="CPUs", value=at("spec", "cpus"), type="integer"),
        Column(name="Memory", value=at("spec", "memory")),
        Column(name="Disk", value=at("spec", "disk", default="0")),
        Column(name="GPUs", value=at("spec", "gpus", default=0), type="integer"),
        Column(name="Model", value=at("spec", "gpuModel", default="")),
        Column(name="NUMA", value=at("spec", "numa", default="preferred"), wide=True),
        Column(name="Description", value=at("spec", "description", default=""), wide=True),
    ),
)

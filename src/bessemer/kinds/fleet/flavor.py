"""Flavor: a size that is offered: cores, memory, disk and devices of one replica, and how they must lie together."""

from __future__ import annotations

from pydantic import Field

from bessemer.core.resource import ApiModel, Resource, Status
from bessemer.core.values import NumaPolicy
from bessemer.kinds.fields import Bytes, ShortText


class FlavorSpec(ApiModel):
    description: ShortText = ""
    cpus: int = Field(ge=1, le=4096)
    memory: Bytes
    disk: Bytes = "0"
    gpus: int = Field(0, ge=0, le=64)
    gpu_model: ShortText = Field("", description="As hosts report it; any model when empty.")
    numa: NumaPolicy = "preferred"
    same_switch: bool = False
    same_nvlink: bool = False


class FlavorStatus(Status):
    pass


class Flavor(Resource[FlavorSpec, FlavorStatus]):
    KIND = "Flavor"

    status: FlavorStatus = Field(default_factory=FlavorStatus)

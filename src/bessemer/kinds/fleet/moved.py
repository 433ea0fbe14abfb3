"""What a Consolidation says of what it moves. Agents read it, too, which have no arrays (see `moving`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import orjson
from pydantic import Field

from bessemer.core.asking import Allocation, Decision, Request
from bessemer.core.beside import CompanionUse
from bessemer.core.resource import ApiModel, Key

KIND = "Consolidation"

ENDED = ("Succeeded", "Failed")


class KeptPlace(ApiModel):
    """What is kept of a host, as `Taken` says it: fields of equal names and meanings."""

    host: str = Field(description="The host.")
    devices: list[str] = Field(default_factory=list, description="Ids of its devices.")
    device_milli: int = Field(1000, description="Thousandths of each.")
    device_profile: str = Field("", description="The profile of an instance of one.")
    device_start: int = Field(0, description="The slice of memory with which that begins.")
    allocations: list[Allocation] = Field(default_factory=list, description="Cores and memory, by NUMA node.")
    companions: list[CompanionUse] = Field(default_factory=list, description="What lies beside the devices.")

    @classmethod
    def of(cls, decision: Decision) -> Self:
        return cls.model_validate(decision.taken())

    def decision(self, request: Request | None = None) -> Decision:
        """What is kept, for a request."""
        said: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        said |= {name: tuple(value) for name, value in said.items() if isinstance(value, list)}
        return Decision(**said, request=request)


def movers(body: bytes) -> Sequence[Key]:
    """The workloads whose claims a Consolidation moves, or moved."""
    steps = orjson.loads(body).get("status", {}).get("steps", ())
    return [workload_of(step) for step in steps if step.get("phase") != "Waiting"]


def workload_of(step: Mapping[str, Any]) -> Key:
    """Whose claim a step moves."""
    return Key(step["workloadKind"], step["project"], step["workload"])

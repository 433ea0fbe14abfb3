"""Consolidation: few claims are moved to other hosts, so that places of a size are open, or hosts are empty.

A plan is made and shown; nothing moves until somebody approves it. Then one claim after the other goes: what can be
there before the old one goes is replaced, what cannot is told, stopped, and started at the place that is kept for it.
Invariants: only what its owner lets be moved is moved; each step is tried anew before it begins, and is in the status
before anything is done; where one fails, no further one begins. It is carried out once; for the next, make another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from bessemer.core.asking import Toleration
from bessemer.core.errors import Cause
from bessemer.core.resource import ApiModel, Resource, Status, keyed_by, values_apart
from bessemer.core.values import Movable
from bessemer.kinds.fields import Name, Names, duplicates, label_problems, unchangeable
from bessemer.kinds.fleet.moved import KeptPlace

MOVES_MAX = 64
PLACES_MAX = 64


class Open(ApiModel):
    """Places that are to be free."""

    flavor: Annotated[Name, Names("Flavor")] = Field(description="Name of the Flavor that is to fit.")
    count: int = Field(1, ge=1, le=PLACES_MAX, description="How many of it are to fit at once.")
    tolerations: list[Toleration] = Field(
        default_factory=list,
        max_length=64,
        description="Taints of hosts that may be opened.",
        json_schema_extra=keyed_by("key"),
    )


class Empty(ApiModel):
    """Hosts that are to hold nothing: some by name, or as many as are said, those that are cheapest to empty."""

    hosts: list[Annotated[Name, Names("Host")]] = Field(
        default_factory=list,
        max_length=PLACES_MAX,
        description="Which hosts; or see count.",
        json_schema_extra=values_apart(),
    )
    count: int = Field(0, ge=0, le=PLACES_MAX, description="How many hosts, in place of names.")


class ConsolidationSpec(ApiModel):
    open: Open | None = Field(None, description="Have places of a flavor free; or see empty.")
    empty: Empty | None = Field(None, description="Have hosts that hold nothing. They are cordoned, and stay so.")
    max_moves: int = Field(8, ge=0, le=MOVES_MAX, description="Claims that may be moved at most.")
    approved: bool = Field(False, description="Whether it is carried out; until then it is planned only.")
    deadline_seconds: int = Field(
        3600,
        ge=60,
        le=1 << 20,
        description="No further claim is moved so long after it began; approved, it fails without a plan so long after "
        "it was made.",
    )


StepPhase = Literal["Waiting", "Moving", "Done", "Failed"]


class Step(ApiModel):
    """One claim that goes from a host to another."""

    project: str = Field(description="Whose it is.")
    workload_kind: str = Field(description="Kind of the workload that holds it.")
    workload: str = Field(description="Its name.")
    workload_uid: str = Field(description="Its uid.")
    claim: str = Field(description="Name of the Claim.")
    claim_uid: str = Field(description="Its uid.")
    source: str = Field(description="The host that it leaves.")
    target: str = Field(description="The host that it goes to.")
    place: KeptPlace = Field(description="What is kept for it there.")
    how: Movable = Field(description="Whether it is stopped and started anew, or replaced before it goes.")
    devices_milli: int = Field(0, description="Thousandths of devices that it has.")
    lost_device_seconds: int = Field(
        0, description="What is lost at most of work that was paid for: its devices times the time since it was taken."
    )
    phase: StepPhase = Field("Waiting", description="How far it is.")
    since: str | None = Field(None, description="When it began.")
    known: list[str] = Field(default_factory=list, description="Uids of the workload's Claims when it began.")
    message: str = Field("", description="What it waits for, or what came of it.")


class ConsolidationStatus(Status):
    phase: Literal["Pending", "Planned", "Moving", "Succeeded", "Failed", "Terminating"] = Field(
        "Pending", description="Where it is in its life, in one word."
    )
    planned_at: str | None = Field(None, description="When this plan was made.")
    began_at: str | None = Field(None, description="When the first claim was to go.")
    finished_at: str | None = Field(None, description="When it succeeded or failed.")
    hosts: list[str] = Field(default_factory=list, description="The hosts that are opened, or emptied.")
    places: int = Field(0, description="Places that are free at once after it.")
    there: int = Field(0, description="Of these, those that are free without any move.")
    devices_milli: int = Field(
        0, description="Thousandths of devices that come free together: of these places or hosts."
    )
    lost_device_seconds: int = Field(0, description="What is lost at most of work that was paid for, by all steps.")
    moves: int = Field(0, description="Claims that are moved.")
    moved: int = Field(0, description="Of these, those that have arrived.")
    steps: list[Step] = Field(
        default_factory=list,
        description="The plan, in the order in which it is carried out.",
        json_schema_extra=keyed_by("claimUid"),
    )
    cordoned: list[str] = Field(default_factory=list, description="Hosts that it cordoned.")
    message: str = Field("", description="What it waits for or what is wrong, in words; empty when all is well.")


class Consolidation(Resource[ConsolidationSpec, ConsolidationStatus]):
    KIND = "Consolidation"

    status: ConsolidationStatus = Field(default_factory=ConsolidationStatus)


_WHY = "the plan is made with it; make another consolidation"


def validate(new: Consolidation, old: Consolidation | None) -> Sequence[Cause]:
    """Either places or hosts; what was planned with does not change, and an approval is not taken back."""
    spec = new.spec
    if old is not None:
        causes = [
            cause
            for name in ("open", "empty", "max_moves")
            for cause in unchangeable(
                f"spec.{'maxMoves' if name == 'max_moves' else name}",
                new=getattr(spec, name),
                old=getattr(old.spec, name),
                why=_WHY,
            )
        ]
        if old.spec.approved and not spec.approved:
            causes.append(Cause("spec.approved", "is not taken back: delete it, and what is under way ends first"))
        return causes
    causes = [*label_problems(new.metadata.name)]
    if (spec.open is None) == (spec.empty is None):
        causes.append(Cause("spec.open", "either places to open or hosts to empty, and not both"))
    if spec.open is not None:
        causes += duplicates("spec.open.tolerations", [t.key for t in spec.open.tolerations], field="key")
    if spec.empty is not None:
        causes += duplicates("spec.empty.hosts", spec.empty.hosts)
        if bool(spec.empty.hosts) == bool(spec.empty.count):
            causes.append(Cause("spec.empty.hosts", "either the names of hosts or how many, and not both"))
    return causes

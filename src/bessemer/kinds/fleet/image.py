"""Image: what an Instance boots. It is content: a digest, imported by the control side and checked at each boot.

An Instance freezes the digest into its Claim, so an image may go while it is used, and what runs is not touched.
Invariant: a digest, once imported, is never replaced by another under the same name; a new source is a new image.
Content that the control side has lost is made again, and must come out the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.resource import ALL, READ, ApiModel, Column, Kind, Outcome, Resource
from bessemer.core.units import show_bytes
from bessemer.kinds.context import Context
from bessemer.kinds.fields import Bytes, ShortText, at, label_problems, ready, unchangeable
from bessemer.kinds.imports import DEADLINES, ContentStatus, Source, bring


class ImageSource(ApiModel):
    builtin: Literal["micro-guest"] = Field(
        "micro-guest", description="Built here from the distribution's kernel and busybox packages."
    )


class ImageSpec(ApiModel):
    description: ShortText = Field("", description="What is in it.")
    source: ImageSource = Field(default_factory=ImageSource, description="Where it comes from; kept for good.")
    min_memory: Bytes = Field("128Mi", description="Memory below which it does not boot.")


class ImageStatus(ContentStatus):
    kernel: str = Field("", description="The kernel inside.")


class Image(Resource[ImageSpec, ImageStatus]):
    KIND = "Image"

    status: ImageStatus = Field(default_factory=ImageStatus)


def validate(new: Image, old: Image | None) -> Sequence[Cause]:
    """The source keeps its first value."""
    if old is None:
        return [*label_problems(new.metadata.name)]
    why = "its content is known by its digest; create another image"
    return [*unchangeable("spec.source", new=new.spec.source.dump(), old=old.spec.source.dump(), why=why)]


async def reconcile(ctx: Context, image: Image) -> Outcome:
    """Import it, look how far that is, and see now and then that what was imported is still there."""
    builtin = image.spec.source.builtin
    source = Source(
        expected=image.status.digest,
        begin=lambda: ctx.importer.image(builtin),
        name=f"image/{builtin}",
        label="kernel",
        at_first=f"builds {builtin}",
        remedy="See whether the control plane's disk has space and reaches the distribution's packages.",
        if_other="Create another image; what runs from this one has what it needs.",
    )
    return await bring(ctx, image.status, source=source)


KIND: Kind[Context, Image] = Kind(
    resource=Image,
    plural="images",
    namespaced=False,
    short_names=("img",),
    rights={"admin": ALL, "operator": ALL, "anyone": READ, "tenant-admin": READ, "member": READ, "reader": READ},
    validate=validate,
    reconcile=reconcile,
    deadlines=DEADLINES,
    columns=(
        Column(name="Phase", value=at("status", "phase", default="Pending")),
        Column(name="Ready", value=ready),
        Column(name="Size", value=lambda body: show_bytes(at("status", "sizeBytes", default=0)(body))),
        Column(name="Kernel", value=at("status", "kernel")),
        Column(name="Progress", value=at("status", "progressPercent", default=0), type="integer", wide=True),
        Column(name="Digest", value=at("status", "digest"), wide=True),
    ),
)

"""Image: what an Instance boots. It is content: a digest, imported by the control side and checked at each boot.

An Instance freezes the digest into its Claim, so an image may go while it is used, and what runs is not touched.
Invariant: a digest, once imported, is never replaced by another under the same name; a new source is a new image.
Content that the control side has lost is made again, and must come out the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from bessemer.core.errors import Cause, DriverError
from bessemer.core.resource import ALL, READ, ApiModel, Column, Done, Fail, Kind, Outcome, Resource, Status, Wait
from bessemer.core.units import show_bytes
from bessemer.kinds.context import Context
from bessemer.kinds.fields import Bytes, ShortText, at, label_problems, ready, unchangeable

DEADLINES: Mapping[str, float] = {"Pending": 120.0, "Importing": 900.0}
RETRY_SECONDS, LOOK_SECONDS = 15.0, 0.5

_REMEDY = "See whether the control plane's disk has space and reaches the distribution's packages."


class ImageSource(ApiModel):
    builtin: Literal["micro-guest"] = Field(
        "micro-guest", description="Built here from the distribution's kernel and busybox packages."
    )


class ImageSpec(ApiModel):
    description: ShortText = Field("", description="What is in it.")
    source: ImageSource = Field(default_factory=ImageSource, description="Where it comes from; kept for good.")
    min_memory: Bytes = Field("128Mi", description="Memory below which it does not boot.")


class ImageStatus(Status):
    phase: Literal["Pending", "Importing", "Ready", "Failed"] = Field(
        "Pending", description="Where it is in its life, in one word."
    )
    digest: str = Field("", description="sha256:… of the content.")
    size_bytes: int = Field(0, description="Size of the content.")
    kernel: str = Field("", description="The kernel inside.")
    progress_percent: int = Field(0, description="How far the import is.")
    message: str = Field("", description="What it waits for or what is wrong, in words; empty when all is well.")


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
    had = image.status.digest
    if had and await ctx.importer.holds(had):
        return _imported(image.status)
    try:
        content = await ctx.importer.image(image.spec.source.builtin)
    except DriverError as error:
        return _importing(ctx, image, reason=error.reason, message=error.message, again=RETRY_SECONDS)
    if content is None:
        progress = ctx.importer.progress(f"image/{image.spec.source.builtin}")
        message = str(progress) or f"builds {image.spec.source.builtin}"
        return _importing(ctx, image, reason="Importing", message=message, again=LOOK_SECONDS)
    if had not in ("", content.digest):
        return _changed(image, content.digest)
    found = {
        "digest": content.digest,
        "size_bytes": content.size_bytes,
        "kernel": content.labels.get("kernel", ""),
    }
    return _imported(image.status.model_copy(update=found))


def _imported(status: ImageStatus) -> Outcome:
    status = status.model_copy(update={"phase": "Ready", "progress_percent": 100, "message": ""})
    return Done(status=status, message=f"{show_bytes(status.size_bytes)}, kernel {status.kernel or 'unknown'}")


def _importing(ctx: Context, image: Image, *, reason: str, message: str, again: float) -> Outcome:
    percent = ctx.importer.progress(f"image/{image.spec.source.builtin}").percent or 0
    status = image.status.model_copy(update={"phase": "Importing", "progress_percent": percent, "message": message})
    return Wait(reason=reason, message=message, status=status, again=again, remedy=_REMEDY)


def _changed(image: Image, digest: str) -> Outcome:
    """What was lost cannot be had again: the distribution has newer packages now."""
    message = f"its content was lost, and is {digest} when built anew, not {image.status.digest}"
    status = image.status.model_copy(update={"phase": "Failed", "message": message})
    remedy = "Create another image; what runs from this one has what it needs."
    return Fail(reason="DigestMismatch", message=message, status=status, again=3600.0, remedy=remedy)


KIND: Kind[Context, Image] = Kind(
    resource=Image,
    plural="images",
    namespaced=False,
    short_names=("img",),
    rights={"admin": ALL, "anyone": READ, "tenant-admin": READ, "member": READ, "reader": READ},
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

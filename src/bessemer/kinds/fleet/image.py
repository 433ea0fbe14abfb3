"""Image: what an Instance boots. It is content: a digest, imported by the control side and checked at each boot."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bessemer.core.resource import ApiModel, Resource, Status
from bessemer.kinds.fields import Bytes, ShortText


class ImageSource(ApiModel):
    builtin: Literal["micro-guest"] = Field(
        "micro-guest",
        description="Built here from the distribution's kernel and busybox packages.",
    )


class ImageSpec(ApiModel):
    description: ShortText = ""
    source: ImageSource = Field(default_factory=ImageSource)
    min_memory: Bytes = "128Mi"


class ImageStatus(Status):
    digest: str = Field("", description="sha256:… of the content.")
    size_bytes: int = 0
    kernel: str = ""
    progress_percent: int = 0
    message: str = ""


class Image(Resource[ImageSpec, ImageStatus]):
    KIND = "Image"

    status: ImageStatus = Field(default_factory=ImageStatus)

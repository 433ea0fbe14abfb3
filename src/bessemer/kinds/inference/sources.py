"""Where a model comes from, as its spec says it: exactly one of a wheel, a hub, a bucket, a URL and a folder. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, StringConstraints

from bessemer.core.errors import Cause
from bessemer.core.resource import ApiModel
from bessemer.core.values import nothing
from bessemer.drivers.fetch.protocol import HttpPlace, HubPlace, PathPlace, Place, S3Place

FILES_MAX = 64

_SECRET_NAME = re.compile(
    r"(?i)token|secret|passw|signature|^sig$|credential|api-?_?key|access-?_?key|^auth$|authorization|^x-amz-|^x-goog-"
)
_SECRET_VALUE = re.compile(r"[A-Za-z0-9_.~+/=-]{32,}")
_SEAL = "leave it out, and have it sealed: bessemer model token NAME"

Glob = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+=*?/-]{1,300}$")]
Files = Annotated[
    list[Glob], Field(max_length=FILES_MAX, description="Which files, as globs; what a model needs where not given.")
]


class WheelSource(ApiModel):
    """A file inside a Python package, taken out of the wheel without importing it."""

    package: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$", description="Name of the package.")
    version: str = Field(pattern=r"^[0-9][0-9A-Za-z.+!]{0,50}$", description="Its exact version.")
    member: str = Field(max_length=300, description="Path of the file inside the wheel.")


class HubSource(ApiModel):
    """A repository of the hub that the installation is set to, which speaks Hugging Face's protocol."""

    repository: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$", description="ORGANISATION/NAME."
    )
    revision: str = Field(
        "main", pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$", description="A branch, a tag or a commit."
    )
    files: Files = Field(default_factory=list)


class S3Source(ApiModel):
    """Objects of a bucket; asked for with the keys that were sealed with the model, else as anybody."""

    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="The bucket's name.")
    prefix: str = Field("", max_length=1024, description="The object's key, or what the keys of its files begin with.")
    region: str = Field("us-east-1", pattern=r"^[a-z0-9-]{1,40}$", description="Region that requests are signed for.")
    endpoint: str = Field("", max_length=300, description="https://HOST of the server; Amazon's where not given.")
    files: Files = Field(default_factory=list)


class HttpSource(ApiModel):
    url: str = Field(max_length=2048, description="Where one file is, by https.")


class PathSource(ApiModel):
    path: str = Field(
        pattern=r"^/[^\x00-\x1f]{1,1000}$",
        description="A file or a folder of the control plane's machine, below one that the operator allows.",
    )
    files: Files = Field(default_factory=list)


class ModelSource(ApiModel):
    wheel: WheelSource | None = Field(
        None,
        exclude_if=nothing,
        description="A file inside a Python package, taken out of the wheel without importing it.",
    )
    hub: HubSource | None = Field(None, exclude_if=nothing, description="A repository of the hub.")
    s3: S3Source | None = Field(None, exclude_if=nothing, description="Objects of a bucket.")
    http: HttpSource | None = Field(None, exclude_if=nothing, description="A file at a URL.")
    path: PathSource | None = Field(None, exclude_if=nothing, description="A file or folder that the operator allows.")

    def __str__(self) -> str:
        """As the command line has it: ``hub:ORG/NAME@REVISION``. Files that are picked stand behind it."""
        match next(self.said(), None):
            case WheelSource() as wheel:
                return f"wheel:{wheel.package}=={wheel.version}/{wheel.member}"
            case HubSource() as hub:
                return f"hub:{hub.repository}@{hub.revision}{_picked(hub.files)}"
            case S3Source() as s3:
                at = f" at {s3.endpoint}" if s3.endpoint else ""
                return f"s3://{s3.bucket}/{s3.prefix}{_picked(s3.files)}{at}"
            case HttpSource() as http:
                return http.url
            case PathSource() as path:
                return f"{path.path}{_picked(path.files)}"
        return ""

    def said(self) -> Iterator[ApiModel]:
        """Those that are given."""
        yield from (one for one in (self.wheel, self.hub, self.s3, self.http, self.path) if one is not None)


def _picked(files: list[str]) -> str:
    return f" [{', '.join(files)}]" if files else ""


def place_of(source: ModelSource) -> Place:
    """Where that is, for all but a wheel."""
    match next(source.said(), None):
        case HubSource() as hub:
            return HubPlace(repository=hub.repository, revision=hub.revision, files=tuple(hub.files))
        case S3Source() as s3:
            place = {"bucket": s3.bucket, "prefix": s3.prefix, "region": s3.region, "endpoint": s3.endpoint}
            return S3Place(**place, files=tuple(s3.files))
        case HttpSource() as http:
            return HttpPlace(url=http.url)
        case PathSource() as path:
            return PathPlace(path=path.path, files=tuple(path.files))
    raise ValueError("a wheel is no place")


def problems(source: ModelSource, *, sha256: str) -> Iterator[Cause]:
    """What the schema cannot say of a source."""
    given = len(list(source.said()))
    if given != 1:
        words = "is missing: one of wheel, hub, s3, http, path" if not given else "has several; a model has one"
        yield Cause("spec.source", words)
    if source.wheel is not None:
        member = source.wheel.member
        if not member or member.startswith("/") or ".." in member.split("/") or not member.isprintable():
            yield Cause("spec.source.wheel.member", "must be the path of one file inside the wheel")
        if not sha256:
            yield Cause("spec.sha256", "is missing: a package says nothing of the files in it")
    if source.hub is not None and ".." in source.hub.revision:
        yield Cause("spec.source.hub.revision", "is none that git has")
    if source.path is not None and ".." in source.path.path.split("/"):
        yield Cause("spec.source.path.path", "must not lead back up")
    for field, url in (
        ("http.url", source.http and source.http.url),
        ("s3.endpoint", source.s3 and source.s3.endpoint),
    ):
        if url and not url.startswith(("https://", "http://")):
            yield Cause(f"spec.source.{field}", "must begin with https://")
    if source.http is not None and source.http.url.startswith("http://") and not sha256:
        yield Cause("spec.sha256", "is missing: without TLS nothing else says whose file came")


def telling(source: ModelSource) -> Iterator[Cause]:
    """What looks like a secret in an address, which everybody reads who may read the object."""
    url = source.http.url if source.http is not None else ""
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        yield Cause("spec.source.http.url", "is no URL")
        return
    found = next((name for name, value in pairs if _SECRET_NAME.search(name) or _SECRET_VALUE.fullmatch(value)), "")
    if "@" in parts.netloc:
        yield Cause("spec.source.http.url", f"must not name who asks; {_SEAL}")
    elif found:
        yield Cause("spec.source.http.url", f"has what looks like a secret, {found[:40]!r}; {_SEAL}")

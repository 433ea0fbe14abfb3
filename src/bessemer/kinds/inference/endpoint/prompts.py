"""What an Endpoint is asked and answers, logged at a place of its tenant's: what is said of that. Pure.

The gateways write it; what they say of how that goes is in `logs`, and told by `logged`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.resource import ApiModel
from bessemer.drivers.fetch.protocol import S3Place

KEYS_MARK = "bessemer.dev/logging-keys"
"""The annotation of an Endpoint that says that keys were set for its place, and another one when they change."""
CONDITION = "Logging"
DAYS, DAYS_MAX = 30, 3650

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")


class LogBucket(ApiModel):
    """A bucket of the tenant's, by S3. Its keys are sealed, and not in the spec."""

    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="The bucket's name.")
    prefix: str = Field(
        "",
        max_length=300,
        pattern=r"^[A-Za-z0-9_.=/-]*$",
        description="What the names of all objects begin with; project and endpoint follow.",
    )
    region: str = Field("us-east-1", pattern=r"^[a-z0-9-]{1,40}$", description="Region that requests are signed for.")
    endpoint: str = Field("", max_length=300, description="https://HOST of the server; Amazon's where not given.")


class PromptLog(ApiModel):
    """Prompts and answers, kept at a place of the tenant's."""

    s3: LogBucket = Field(description="The bucket that they are put into.")
    retention_days: int = Field(
        DAYS, ge=1, le=DAYS_MAX, description="For so many days they are kept; then the gateways remove them."
    )
    sample: float = Field(1.0, gt=0, le=1, description="Which part of the requests is logged: 0.1 is every tenth.")
    include: Literal["both", "prompts", "answers"] = Field(
        "both", description="What is logged of each beside whose it was, when, and what it came to."
    )

    def __str__(self) -> str:
        """Where, as people write it."""
        s3 = self.s3
        return f"s3://{s3.bucket}/{s3.prefix.strip('/')}{f' at {s3.endpoint}' if s3.endpoint else ''}"

    @property
    def audience(self) -> str:
        """Whom the keys are for."""
        return S3Place(bucket=self.s3.bucket, region=self.s3.region, endpoint=self.s3.endpoint).audience


def logged_to(said: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    """``s3://BUCKET/PREFIX at URL, kept for 30 days``, and what is wrong with that: of a stored Endpoint's
    ``spec.logging`` and status."""
    log = PromptLog.model_validate(said)
    found = [one for one in status.get("conditions") or () if one.get("type") == CONDITION]
    trouble = "".join(f"; {one.get('reason', '')}" for one in found if one.get("status") == "False")
    return f"{log}, kept for {log.retention_days} days{trouble}"


def log_problems(log: PromptLog | None) -> Iterator[Cause]:
    """What the schema cannot say of it."""
    if log is None:
        return
    if ".." in log.s3.prefix.split("/") or "//" in log.s3.prefix:
        yield Cause("spec.logging.s3.prefix", "must be words with single slashes between")
    if not log.s3.endpoint:
        return
    try:
        url = urlsplit(log.s3.endpoint)
        host, port, netloc = url.hostname or "", url.port, url.netloc
    except ValueError:
        yield Cause("spec.logging.s3.endpoint", "is no URL")
        return
    plain = not url.path.strip("/") and not url.query and not url.fragment and "@" not in netloc
    bare = netloc.rpartition(":")[0] if port is not None else netloc
    if url.scheme not in ("https", "http") or not host or not _HOST.fullmatch(bare) or not plain or port == 0:
        yield Cause("spec.logging.s3.endpoint", "must be https://HOST[:PORT], of the server alone")

"""Session: somebody signed in, or may once. Made by the api alone; the secret is shown once and kept as a hash.

The bearer is ``bss_NAME.SECRET`` with 256 random bits of secret, of which the object holds the SHA-256. ``link`` is
good for one exchange into a ``portal`` session. It is not an ApiKey: sessions are people, keys are for models.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bessemer.core.resource import ApiModel, Resource, Status
from bessemer.kinds.fields import Name


class SessionSpec(ApiModel):
    user: Name
    purpose: Literal["portal", "cli", "link"]
    digest: str = Field(
        description="SHA-256 of the secret, hexadecimal.", pattern="^[0-9a-f]{64}$"
    )
    expires_at: str


class SessionStatus(Status):
    last_used: str | None = None


class Session(Resource[SessionSpec, SessionStatus]):
    KIND = "Session"

    status: SessionStatus = Field(default_factory=SessionStatus)

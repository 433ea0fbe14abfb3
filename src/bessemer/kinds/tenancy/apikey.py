"""ApiKey: lets an application speak to a project's endpoints. ``POST …/apikeys/NAME/token`` makes its secret.

The token is ``bsk_`` and 256 random bits; ``status.digest`` is its SHA-256, harmless to read; the gateway holds all of
them in memory. A new token replaces the old one. Deleting or disabling the key revokes it.
"""

from __future__ import annotations

from pydantic import Field

from bessemer.core.resource import ApiModel, Resource, Status
from bessemer.kinds.fields import Name, ShortText


class ApiKeySpec(ApiModel):
    description: ShortText = ""
    endpoints: list[Name] = Field(
        default_factory=list,
        description="Endpoints it may use; all of the project when empty.",
        max_length=1000,
    )
    disabled: bool = False
    expires_at: str | None = None


class ApiKeyStatus(Status):
    digest: str = ""
    hint: str = Field(
        "", description="The first characters of the token, to tell keys apart."
    )
    token_created: str | None = None


class ApiKey(Resource[ApiKeySpec, ApiKeyStatus]):
    KIND = "ApiKey"

    status: ApiKeyStatus = Field(default_factory=ApiKeyStatus)

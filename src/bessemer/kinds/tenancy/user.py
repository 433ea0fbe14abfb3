"""User: a person who signs in. The password's argon2id hash is sealed, never part of the object.

Invariant: a disabled user's sessions, links and keys are worth nothing from that moment.
"""

from __future__ import annotations

from pydantic import Field

from bessemer.core.resource import ApiModel, Resource, Status
from bessemer.kinds.fields import ShortText


class UserSpec(ApiModel):
    display_name: ShortText = ""
    email: ShortText = ""
    admin: bool = Field(False, description="Administrator of the whole platform.")
    disabled: bool = False


class UserStatus(Status):
    last_sign_in: str | None = None


class User(Resource[UserSpec, UserStatus]):
    KIND = "User"

    status: UserStatus = Field(default_factory=UserStatus)

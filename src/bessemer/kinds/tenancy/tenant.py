"""Tenant: one customer of the factory, a virtual data centre. Its name is the first half of each project's name.

Invariants: a name never contains ``--``; the colour is given once and kept; a quota below present use stops new
claims and touches nothing that runs. It is not a login: people are Users, joined here as members.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bessemer.core.resource import ApiModel, Resource, Status
from bessemer.core.values import Quota
from bessemer.kinds.fields import Name, ShortText

MemberRole = Literal["tenant-admin", "member", "reader"]


class Member(ApiModel):
    """A user's part in a tenant."""

    user: Name
    role: MemberRole = "member"


class TenantSpec(ApiModel):
    display_name: ShortText = ""
    quota: Quota = Field(
        default_factory=Quota,
        description="Upper bounds over all projects of the tenant.",
    )
    members: list[Member] = Field(default_factory=list, max_length=10_000)
    price_plan: Name = "standard"


class TenantStatus(Status):
    colour: int = Field(0, description="1 to 10: the colour on maps, given once.")
    message: str = ""


class Tenant(Resource[TenantSpec, TenantStatus]):
    KIND = "Tenant"

    status: TenantStatus = Field(default_factory=TenantStatus)

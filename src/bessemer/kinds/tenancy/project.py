"""Project: where a tenant's things live; it is the namespace of the API and is named ``TENANT--PROJECT``.

Invariants: the name says the tenant, and together they have at most 63 characters, so names of two tenants cannot
collide; a project goes only when nothing is left in it.
"""

from __future__ import annotations

from pydantic import Field

from bessemer.core.resource import ApiModel, Resource, Status
from bessemer.core.values import Quota
from bessemer.kinds.fields import ShortText

SEPARATOR = "--"


class ProjectSpec(ApiModel):
    display_name: ShortText = ""
    quota: Quota = Field(
        default_factory=Quota, description="Upper bounds within the tenant's own."
    )


class ProjectStatus(Status):
    message: str = ""


class Project(Resource[ProjectSpec, ProjectStatus]):
    KIND = "Project"

    status: ProjectStatus = Field(default_factory=ProjectStatus)

    @property
    def tenant(self) -> str:
        return tenant_of(self.metadata.name)


def tenant_of(project: str) -> str:
    """``acme--research`` → ``acme``; "" where the name is no project's."""
    tenant, separator, rest = project.partition(SEPARATOR)
    return tenant if separator and rest else ""

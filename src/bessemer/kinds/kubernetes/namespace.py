"""Namespace: a Project, as core/v1 has it. What is written is its metadata; all else is the Project's own.

It is made under a project's name, ``TENANT--PROJECT``, with no quota of its own; deleting it deletes the Project, which
goes once nothing is left in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field

from bessemer.core.errors import Cause
from bessemer.core.resource import API_VERSION, ApiModel, Column, Kind, Resource
from bessemer.kinds.context import Context
from bessemer.kinds.fields import at
from bessemer.kinds.kubernetes.view import Body, View, all_entries, own_entries
from bessemer.kinds.tenancy import project

_VERSION = "v1"
_HELD_MAX = 10


class NamespaceSpec(ApiModel):
    finalizers: list[str] = Field(default_factory=list, description="Always kubernetes.", max_length=_HELD_MAX)


class NamespaceStatus(ApiModel):
    model_config = ConfigDict(extra="ignore")

    phase: Literal["Active", "Terminating"] = Field(
        "Active", description="Active, or Terminating while its project goes."
    )


class Namespace(Resource[NamespaceSpec, Any]):
    KIND = "Namespace"

    api_version: str = _VERSION
    spec: NamespaceSpec = Field(default_factory=NamespaceSpec, description="What a namespace has here.")
    status: NamespaceStatus = Field(default_factory=NamespaceStatus)


def validate(new: Namespace, old: Namespace | None) -> Sequence[Cause]:
    """What a project's name must be."""
    if old is not None:
        return ()
    return project.validate(project.Project(metadata=new.metadata, spec=project.ProjectSpec()), None)


def outward(body: Body) -> Body:
    """A Project's body as a Namespace's."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "generation"}
    return {
        "apiVersion": _VERSION,
        "kind": "Namespace",
        "metadata": own_entries(metadata, _VERSION),
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Terminating" if "deletionTimestamp" in metadata else "Active"},
    }


def inward(body: Body, old: Body | None) -> Body:
    """A Namespace's body as the Project's that it becomes."""
    spec = old["spec"] if old is not None else project.ProjectSpec().dump()
    metadata = all_entries(body["metadata"], old, version=_VERSION)
    return {"apiVersion": API_VERSION, "kind": project.Project.KIND, "metadata": metadata, "spec": spec}


KIND: Kind[Context, Namespace] = Kind(
    resource=Namespace,
    plural="namespaces",
    namespaced=False,
    short_names=("ns",),
    categories=(),
    group="",
    version=_VERSION,
    rights=project.KIND.rights,
    columns=(Column(name="Status", value=at("status", "phase")),),
    validate=validate,
)
VIEW = View(kind=KIND, of=project.Project.KIND, outward=outward, inward=inward, collected=False)

"""CustomResourceDefinition: that a kind of ours is there, as apiextensions.k8s.io/v1 says it. Nobody writes one.

kopf, client-go and GitOps tools look here for what they may watch, and for its schema. Kinds are added by a release,
not by writing one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from bessemer.core.resource import READ, ApiModel, Column, Condition, Kind, Resource
from bessemer.kinds.context import Context
from bessemer.kinds.fields import at

NAME = "CustomResourceDefinition"


class Names(ApiModel):
    """What the kind is called."""

    plural: str = Field(description="As in the path.")
    singular: str = Field("", description="For one.")
    kind: str = Field(description="As in a body.")
    list_kind: str = Field("", description="As in a list's body.")
    short_names: list[str] = Field(default_factory=list, description="For the terminal.")
    categories: list[str] = Field(default_factory=list, description="Groups of kinds that are listed together.")


class Version(ApiModel):
    """A version of the schema."""

    name: str = Field(description="As in the path.")
    served: bool = Field(True, description="Whether it may be asked for.")
    storage: bool = Field(True, description="Whether objects are kept in it.")
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema", description="The schema, in openAPIV3Schema.")
    subresources: dict[str, Any] = Field(default_factory=dict, description="Which parts have a path of their own.")
    deprecated: bool = Field(False, description="Whether a newer one should be asked for.")
    deprecation_warning: str = Field("", description="What its clients are told then.")


class DefinitionSpec(ApiModel):
    group: str = Field(description="The group of the kind.")
    names: Names = Field(description="What the kind is called.")
    scope: str = Field(description="Namespaced, or Cluster for what belongs to no project.")
    versions: list[Version] = Field(description="The versions of its schema.")


class DefinitionStatus(ApiModel):
    accepted_names: dict[str, Any] = Field(default_factory=dict, description="What the kind is called, as it holds.")
    stored_versions: list[str] = Field(default_factory=list, description="The versions in which objects are kept.")
    conditions: list[Condition] = Field(default_factory=list, description="Established and NamesAccepted, always.")


class Definition(Resource[DefinitionSpec, Any]):
    KIND = NAME

    api_version: str = "apiextensions.k8s.io/v1"
    status: DefinitionStatus = Field(default_factory=DefinitionStatus)


def _scope(body: Mapping[str, Any]) -> str:
    return str(at("spec", "scope", default="")(body))


KIND: Kind[Context, Definition] = Kind(
    resource=Definition,
    plural="customresourcedefinitions",
    namespaced=False,
    short_names=("crd", "crds"),
    categories=(),
    group="apiextensions.k8s.io",
    version="v1",
    readonly=True,
    rights={"admin": READ, "anyone": READ, "tenant-admin": READ, "member": READ, "reader": READ},
    columns=(Column(name="Scope", value=_scope, wide=True),),
)

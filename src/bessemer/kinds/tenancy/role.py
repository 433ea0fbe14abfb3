"""Role: a set of rights with a name, beside the built-in ones. Bound to people by a RoleBinding, it gives them these.

Invariants: a tenant's own is named ``TENANT--NAME`` and goes with its tenant, the platform's has no ``--``; no Role has
the name of a built-in one; nobody writes one that gives more than they hold (the api sees to it). It has no control
side. It says nothing of where it holds: that is the binding's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.resource import ALL, READ, SEPARATOR, ApiModel, Column, Kind, Resource, Status, Verb, values_apart
from bessemer.kinds.context import Context
from bessemer.kinds.fields import Name, ShortText, at, label_problems
from bessemer.kinds.tenancy.rights import BUILT_IN, SYSTEM

BuiltIn = Literal["admin", "operator", "auditor", "tenant-admin", "member", "reader", "billing-reader"]
_FEW = 64


class Rule(ApiModel):
    """Verbs upon kinds: upon all of each, or upon what has one of the names."""

    kinds: list[ShortText] = Field(min_length=1, max_length=_FEW, description='Kinds, as Instance; "*" is each.')
    verbs: list[Verb | Literal["*"]] = Field(
        min_length=1,
        max_length=_FEW,
        description='get, list, watch, create, update, patch, delete, deletecollection; "*" is each.',
    )
    names: list[Name] = Field(
        default_factory=list,
        max_length=_FEW,
        description="Only objects of these names, and nothing new; all when empty.",
    )
    subresources: list[ShortText] = Field(
        default_factory=list,
        max_length=_FEW,
        description='Only these parts of the objects, as log or console, and not the objects; "*" is each part.',
    )


class RoleSpec(ApiModel):
    description: ShortText = Field("", description="What it is for.")
    includes: list[BuiltIn] = Field(
        default_factory=list,
        max_length=_FEW,
        description="Built-in roles of which it gives all.",
        json_schema_extra=values_apart(),
    )
    rules: list[Rule] = Field(default_factory=list, max_length=_FEW, description="What it gives besides.")


class RoleStatus(Status):
    pass


class CustomRole(Resource[RoleSpec, RoleStatus]):
    KIND = "Role"

    status: RoleStatus = Field(default_factory=RoleStatus)


def validate(new: CustomRole, old: CustomRole | None) -> Sequence[Cause]:
    """A name that is free, and rules of what there is."""
    causes = [*name_problems(new.metadata.name)] if old is None else []
    if new.metadata.name in {*BUILT_IN, *SYSTEM}:
        causes.append(Cause("metadata.name", "is the name of a built-in role"))
    for index, rule in enumerate(new.spec.rules):
        causes += _rule_problems(f"spec.rules[{index}]", rule)
    return causes


def name_problems(name: str) -> Iterator[Cause]:
    """``NAME``, or ``TENANT--NAME``."""
    yield from label_problems(name)
    parts = name.split(SEPARATOR)
    if len(parts) > 2 or not all(part and part.strip("-") == part for part in parts):
        yield Cause("metadata.name", f"must read NAME or TENANT--NAME, with {SEPARATOR} in no other place")


def _rule_problems(path: str, rule: Rule) -> Iterator[Cause]:
    from bessemer.kinds import KINDS  # the table of contents holds this very kind

    below = {kind.name: {*kind.below} for kind in KINDS}
    for index, name in enumerate(rule.kinds):
        if name != "*" and name not in below:
            yield Cause(f"{path}.kinds[{index}]", f"there is no kind {name}", "FieldValueNotSupported")
    known = set().union(
        *(below.get(name, set()) if name != "*" else set().union(*below.values()) for name in rule.kinds)
    )
    for index, part in enumerate(rule.subresources):
        if part not in {*known, "*"}:
            may = ", ".join(sorted(known)) or "none"
            yield Cause(
                f"{path}.subresources[{index}]",
                f"those kinds have no rights to {part}, but to: {may}",
                "FieldValueNotSupported",
            )
    if rule.names and not rule.subresources and "create" in rule.verbs:
        yield Cause(
            f"{path}.verbs", "create goes by no names, since what is not there has none: give it a rule of its own"
        )


def _gives(body: Mapping[str, Any]) -> str:
    """``reader, get Instance/log``."""
    includes = at("spec", "includes", default=())(body)
    return ", ".join([*includes, *(_words(rule) for rule in at("spec", "rules", default=())(body))])


def _words(rule: Mapping[str, Any]) -> str:
    kinds, below = "|".join(rule.get("kinds", ())), "|".join(rule.get("subresources", ()))
    names = " ".join(rule.get("names", ()))
    part = f"/{below}" if below else ""
    return f"{'|'.join(rule.get('verbs', ()))} {kinds}{part}{f' ({names})' if names else ''}"


KIND: Kind[Context, CustomRole] = Kind(
    resource=CustomRole,
    plural="roles",
    namespaced=False,
    rights={"admin": ALL, "auditor": READ, "tenant-admin": ALL, "member": READ, "reader": READ},
    columns=(
        Column(name="Gives", value=_gives),
        Column(name="Description", value=at("spec", "description"), wide=True),
    ),
    validate=validate,
)

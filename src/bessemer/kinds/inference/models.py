"""Which model a name means in a project: the project's own, then one that its tenant shares, then the platform's.

Of those that several projects share under one name the first project's is meant, by name. Nobody learns here of what
another tenant has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from typing import Any, Protocol

from bessemer.core.errors import NotFound
from bessemer.core.ports import Page, Scope, Stored
from bessemer.core.resource import Change, Key, Resource, tenant_of
from bessemer.kinds import workload
from bessemer.kinds.context import Context
from bessemer.kinds.inference.model import Model, Weights
from bessemer.kinds.inference.projectmodel import ProjectModel

_KEPT = 256


class Finds(Protocol):
    """What is needed of ``ports.Objects``."""

    async def get(self, key: Key) -> Stored: ...

    async def list(self, scope: Scope) -> Page: ...


@lru_cache(_KEPT)
def _own(body: bytes) -> ProjectModel:
    """What a body says, whose reader changes nothing of it: many workloads are made of few."""
    return ProjectModel.load(body)


@lru_cache(_KEPT)
def _platforms(body: bytes) -> Model:
    return Model.load(body)


async def find(objects: Finds, project: str, *, name: str) -> Weights | None:
    """None where there is none."""
    own = await find_own(objects, project, name=name)
    if own is not None:
        return own
    try:
        return _platforms((await objects.get(Key(Model.KIND, "", name))).body)
    except NotFound:
        return None


async def find_own(objects: Finds, project: str, *, name: str) -> ProjectModel | None:
    """The project's, or its tenant's; not the platform's."""
    # One question for both: of one name there are few, and mostly none.
    page = await objects.list(Scope(kind=ProjectModel.KIND, name=name))
    tenants = [stored for stored in page.items if tenant_of(stored.key.namespace) == tenant_of(project)]
    for stored in sorted(tenants, key=lambda stored: (stored.key.namespace != project, stored.key.namespace)):
        found = _own(stored.body)
        if stored.key.namespace == project or found.spec.shared:
            return found
    return None


def keys_of(name: str) -> tuple[Key, Key]:
    """As what a workload that names a model notes it among its parts; the second stands for whosesoever it is."""
    return Key(Model.KIND, "", name), Key(ProjectModel.KIND, "", name)


def wake_by_own(kind: str) -> Callable[[Context, Change], AsyncIterator[Key]]:
    """A project's model that comes, goes or changes concerns those of its tenant that name one of its name."""

    async def wake(ctx: Context, change: Change) -> AsyncIterator[Key]:
        part = Key(ProjectModel.KIND, "", change.key.name)
        for key in ctx.parts.concerned(part, waiting=change.type == "MODIFIED"):
            if key.kind == kind and tenant_of(key.namespace) == tenant_of(change.key.namespace):
                yield key

    return wake


async def parted(ctx: Context, made: Resource[Any, Any], *parts: Key) -> str:
    """As `workload.parted`: a model is not gone while its name means one."""
    project = made.metadata.namespace or ""
    of_models = {part.name for part in parts if part.kind == Model.KIND}
    there = {name for name in sorted(of_models) if await find(ctx.objects, project, name=name) is not None}
    asked = [
        part
        for part in parts
        if not (part.kind == ProjectModel.KIND or (part.kind == Model.KIND and part.name in there))
    ]
    return await workload.parted(ctx, *asked)

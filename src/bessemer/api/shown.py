"""Resources as the api serves them: the kinds of the product, the views of them that Kubernetes' clients know, and what
says of kinds that they are there.

A `Shown` says where a resource lies in the URL and which stored kind stands behind it. One that is ``plain`` is served
as the bytes that are stored; what is none goes through `keeping`. A kind of several versions has one for each: see
`versions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from bessemer.api.errors import Subject
from bessemer.api.forms import ONE, Forms, forms_of
from bessemer.api.names import plain
from bessemer.api.schema import of_resource
from bessemer.api.shape import Shape, shape_of
from bessemer.core.errors import Cause
from bessemer.core.resource import READ, Column, Kind, Resource, Verb
from bessemer.core.versions import Version, lowered, raised, rank
from bessemer.kinds import VIEWS
from bessemer.kinds.fields import References, references
from bessemer.kinds.kubernetes import configmap, definition, secret
from bessemer.kinds.kubernetes.view import View

FILES_AT_ONCE = 16
"""A MiB each, and what it takes to write them."""

_EVENT_FIELDS = ("name", "namespace", "kind", "uid", "apiVersion", "resourceVersion", "fieldPath")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One resource. ``stored`` is the kind in the store; ``source`` is its own kind, a view's where it is one;
    ``older`` is its version where that is not the newest, which is ``newest`` then."""

    source: Kind[Any, Any]
    kind: str
    plural: str
    group: str
    version: str
    namespaced: bool
    stored: str
    verbs: Sequence[Verb]
    columns: Sequence[Column]
    short_names: Sequence[str] = ()
    categories: Sequence[str] = ()
    fields: Sequence[str] = ("metadata.name", "metadata.namespace")
    has_status: bool = True
    view: View | None = None
    older: Version | None = None

    @property
    def model(self) -> type[Resource[Any, Any]]:
        """Its schema."""
        return self.older.resource if self.older else self.source.resource

    @property
    def validate(self) -> Callable[[Any, Any], Sequence[Cause]]:
        """What is wrong beyond the schema."""
        return self.older.validate if self.older else self.source.validate

    @cached_property
    def newest(self) -> Shown:
        """The same in the version that is stored."""
        return _of_kind(self.source) if self.older else self

    def seen(self, body: dict[str, Any]) -> dict[str, Any]:
        """A body of the newest version as this one has it."""
        return lowered(self.source, self.older, body=body) if self.older else body

    def stored_form(self, body: dict[str, Any]) -> dict[str, Any]:
        """The inverse. Raises Invalid."""
        return raised(self.source, self.older, body=body) if self.older else body

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def sealed(self) -> bool:
        """Whether its data stands beside its body."""
        return self.stored == secret.NAME

    @property
    def plain(self) -> bool:
        """Whether the stored bytes are what is served."""
        return self.view is None and not self.sealed and self.older is None

    @property
    def files(self) -> bool:
        """Whether it holds what is as large as a file: then few are held at once."""
        return self.stored in (configmap.ConfigMap.KIND, secret.NAME)

    @property
    def native(self) -> bool:
        """Whether it is Kubernetes' own: then strategic merge patches are taken, as there."""
        return _native(self.group)

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def base(self) -> str:
        """The path of its group and version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @cached_property
    def references(self) -> References:
        """The fields that name other objects."""
        return references(self.source.resource)

    @cached_property
    def shape(self) -> Shape:
        """How its values are owned and merged: read once from its schema."""
        return shape_of(of_resource(self.model, self.group, version=self.version, kind=self.kind))

    def subject(self, name: str = "") -> Subject:
        """What an error about it names."""
        return Subject(self.group, self.plural, self.kind, plain(name))


def page_of(resource: Shown, objects: int) -> int:
    """How many bodies are read at once, where ``objects`` would be of others; 0 is all."""
    large = resource.files and not resource.sealed  # what is sealed is in no body
    return FILES_AT_ONCE if large and not 0 < objects <= FILES_AT_ONCE else objects


def part_of(resource: Shown, objects: int) -> int:
    """How many are written at once, where ``objects`` would be of others."""
    return min(objects, FILES_AT_ONCE) if resource.files else objects


class Resources:
    """Every resource, found by group, version and plural."""

    def __init__(self, kinds: Iterable[Kind[Any, Any]]) -> None:
        kinds = tuple(kinds)
        own = [_of_kind(kind) for kind in kinds]
        stored = {shown.stored for shown in own}
        views = [_of_kind(view.kind, view) for view in VIEWS if view.of in stored]
        self._by_kind = {s.kind: s for s in (*views, *own)}
        older = [_of_version(one, version) for one in own for version in one.source.older]
        self.all: Sequence[Shown] = (*own, *views, _of_kind(definition.KIND), *older)
        self._by_place = {(s.group, s.version, s.plural): s for s in self.all}
        several = (s for s in self.all if s.source.older)
        self._forms = {s.api_version + s.kind: forms_of(s, self.versions(s)) for s in several}

    @property
    def kinds(self) -> Sequence[Kind[Any, Any]]:
        """Those with rights of their own: what is stored, and the definitions. A view goes by what it is a view of."""
        return [shown.source for shown in self.all if shown.view is None]

    def find(self, group: str, version: str, *, plural: str) -> Shown | None:
        """The resource at a place in the URL, or None."""
        return self._by_place.get((group, version, plural))

    def of_kind(self, kind: str) -> Shown | None:
        """The resource of a Kind in its newest version, or None."""
        return self._by_kind.get(kind)

    def versions(self, shown: Shown) -> Sequence[Shown]:
        """A resource in each version that is served."""
        if not shown.source.older:
            return [shown]
        names = (shown.source.version, *(version.name for version in shown.source.older))
        found = (self.find(shown.group, name, plural=shown.plural) for name in names)
        return [one for one in found if one is not None]

    def forms(self, shown: Shown) -> Forms:
        """How an object of a resource looks in its other versions."""
        return self._forms.get(shown.api_version + shown.kind, ONE)

    def groups(self) -> Mapping[tuple[str, str], Sequence[Shown]]:
        """Resources by group and version, groups in order, each with the version first that is preferred."""
        found: dict[tuple[str, str], list[Shown]] = {}
        order = list(dict.fromkeys(shown.group for shown in self.all))
        for shown in sorted(self.all, key=lambda one: (-order.index(one.group), rank(one.version)), reverse=True):
            found.setdefault((shown.group, shown.version), []).append(shown)
        return found


def _of_kind(kind: Kind[Any, Any], view: View | None = None) -> Shown:
    given = {verb for verbs in kind.rights.values() for verb in verbs} if not kind.readonly else set(READ)
    order: tuple[Verb, ...] = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
    if view is not None and not view.collected:
        given -= {"deletecollection"}
    fields = ["metadata.name", "metadata.namespace"]
    if kind.name == "Claim":
        fields.append("spec.host")
    if kind.name == "Event":
        about = "regarding" if view else "involvedObject"
        fields += [*(f"{about}.{f}" for f in _EVENT_FIELDS), "reason", "type"]
    if kind.name == secret.NAME:
        fields.append("type")
    return Shown(
        source=kind,
        kind=kind.name,
        plural=kind.plural,
        group=kind.group,
        version=kind.version,
        namespaced=kind.namespaced,
        stored=view.of if view else kind.name,
        verbs=tuple(v for v in order if v in given or v in READ),
        columns=kind.columns,
        short_names=kind.short_names,
        categories=kind.categories,
        fields=tuple(fields),
        has_status=not _native(kind.group),
        view=view,
    )


def _of_version(newest: Shown, version: Version) -> Shown:
    return replace(newest, version=version.name, columns=version.columns, older=version)


def _native(group: str) -> bool:
    return not group or group.endswith(".k8s.io")

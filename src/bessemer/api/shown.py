"""Resources as the api serves them: the kinds of the product, the views of them that Kubernetes' clients know, and what
says of kinds that they are there.

A `Shown` says where a resource lies in the URL and which stored kind stands behind it. One that is ``plain`` is served
as the bytes that are stored; what is none goes through `keeping`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bessemer.api.errors import Subject
from bessemer.api.names import plain
from bessemer.api.schema import of_resource
from bessemer.api.shape import Shape, shape_of
from bessemer.core.resource import READ, Column, Kind, Verb
from bessemer.kinds import VIEWS
from bessemer.kinds.fields import References, references
from bessemer.kinds.kubernetes import configmap, definition, lease, secret
from bessemer.kinds.kubernetes.view import View

FILES_AT_ONCE = 16
"""A MiB each, and what it takes to write them."""

_EVENT_FIELDS = ("name", "namespace", "kind", "uid", "apiVersion", "resourceVersion", "fieldPath")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One resource. ``stored`` is the kind in the store; ``source`` is its own kind, a view's where it is one."""

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
        return self.view is None and not self.sealed

    @property
    def files(self) -> bool:
        """Whether it holds what is as large as a file: then few are held at once."""
        return self.stored in (configmap.ConfigMap.KIND, secret.NAME)

    def page(self, objects: int) -> int:
        """How many bodies are read at once, where ``objects`` would be of others; 0 is all."""
        large = self.files and not self.sealed  # what is sealed is in no body
        return FILES_AT_ONCE if large and not 0 < objects <= FILES_AT_ONCE else objects

    def part(self, objects: int) -> int:
        """How many are written at once, where ``objects`` would be of others."""
        return min(objects, FILES_AT_ONCE) if self.files else objects

    @property
    def unconditional(self) -> bool:
        """Whether it may be replaced without saying which revision: as in Kubernetes, whose Leases may not."""
        return self.native and self.kind != lease.Lease.KIND

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
        return shape_of(of_resource(self.source.resource, self.group, version=self.version, kind=self.kind))

    def subject(self, name: str = "") -> Subject:
        """What an error about it names."""
        return Subject(self.group, self.plural, self.kind, plain(name))


class Resources:
    """Every resource, found by group, version and plural."""

    def __init__(self, kinds: Iterable[Kind[Any, Any]]) -> None:
        own = [_of_kind(kind) for kind in kinds]
        stored = {shown.stored for shown in own}
        views = [_of_kind(view.kind, view) for view in VIEWS if view.of in stored]
        self.all: Sequence[Shown] = (*own, *views, _of_kind(definition.KIND))
        self._by_place = {(s.group, s.version, s.plural): s for s in self.all}
        self._by_kind = {s.kind: s for s in (*views, *own)}

    @property
    def kinds(self) -> Sequence[Kind[Any, Any]]:
        """Those with rights of their own: what is stored, and the definitions. A view goes by what it is a view of."""
        return [shown.source for shown in self.all if shown.view is None]

    def find(self, group: str, version: str, *, plural: str) -> Shown | None:
        """The resource at a place in the URL, or None."""
        return self._by_place.get((group, version, plural))

    def of_kind(self, kind: str) -> Shown | None:
        """The resource of a Kind, or None."""
        return self._by_kind.get(kind)

    def groups(self) -> Mapping[tuple[str, str], Sequence[Shown]]:
        """Resources by group and version, in order."""
        found: dict[tuple[str, str], list[Shown]] = {}
        for shown in self.all:
            found.setdefault((shown.group, shown.version), []).append(shown)
        return found


def _of_kind(kind: Kind[Any, Any], view: View | None = None) -> Shown:
    given = {verb for verbs in kind.rights.values() for verb in verbs} if not kind.readonly else set(READ)
    order: tuple[Verb, ...] = ("delete", "get", "list", "patch", "create", "update", "watch")
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


def _native(group: str) -> bool:
    return not group or group.endswith(".k8s.io")

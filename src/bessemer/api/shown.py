"""Resources as the api serves them: the kinds of the product, and core/v1 namespaces, which are Projects to kubectl.

A `Shown` says where a resource lies in the URL and which stored kind stands behind it. ``translate`` is None where the
stored bytes are served as they are. A kind of several versions has one for each: see `versions`.
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

Translate = Callable[[dict[str, Any]], dict[str, Any]]
_EVENT_FIELDS = ("name", "namespace", "kind", "uid", "apiVersion", "resourceVersion", "fieldPath")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One resource. ``stored`` is the kind in the store; ``source`` the product's kind behind it; ``older`` is its
    version where that is not the newest, which is ``newest`` then."""

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
    translate: Translate | None = None
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
        """A stored body as this version has it."""
        return self.translate(body) if self.translate else body

    def stored_form(self, body: dict[str, Any]) -> dict[str, Any]:
        """The inverse, for kinds of the product. Raises Invalid."""
        return raised(self.source, self.older, body=body) if self.older else body

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def base(self) -> str:
        """The path of its group and version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @cached_property
    def shape(self) -> Shape:
        """How its values are owned and merged: read once from its schema."""
        return shape_of(of_resource(self.model, self.group, version=self.version, kind=self.kind))

    def subject(self, name: str = "") -> Subject:
        """What an error about it names."""
        return Subject(self.group, self.plural, self.kind, plain(name))


class Resources:
    """Every resource, found by group, version and plural."""

    def __init__(self, kinds: Iterable[Kind[Any, Any]]) -> None:
        kinds = tuple(kinds)
        shown = [_of_kind(kind) for kind in kinds]
        shown.extend(_namespaces(kind) for kind in kinds if kind.name == "Project")
        self._by_kind = {s.kind: s for s in shown}
        shown.extend(_of_version(self._by_kind[kind.name], version) for kind in kinds for version in kind.older)
        self.all: Sequence[Shown] = tuple(shown)
        self._by_place = {(s.group, s.version, s.plural): s for s in shown}
        several = (s for s in shown if s.source.older and s.group == s.source.group)
        self._forms = {s.api_version + s.kind: forms_of(s, self.versions(s)) for s in several}

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


def _of_kind(kind: Kind[Any, Any]) -> Shown:
    given = {verb for verbs in kind.rights.values() for verb in verbs} if not kind.readonly else set(READ)
    order: tuple[Verb, ...] = ("delete", "get", "list", "patch", "create", "update", "watch")
    fields = ["metadata.name", "metadata.namespace"]
    if kind.name == "Claim":
        fields.append("spec.host")
    if kind.name == "Event":
        fields += [*(f"involvedObject.{f}" for f in _EVENT_FIELDS), "reason", "type"]
    return Shown(
        source=kind,
        kind=kind.name,
        plural=kind.plural,
        group=kind.group,
        version=kind.version,
        namespaced=kind.namespaced,
        stored=kind.name,
        verbs=tuple(v for v in order if v in given or v in READ),
        columns=kind.columns,
        short_names=kind.short_names,
        categories=kind.categories,
        fields=tuple(fields),
        has_status=bool(kind.group),
    )


def _of_version(newest: Shown, version: Version) -> Shown:
    kind = newest.source
    return replace(
        newest,
        version=version.name,
        columns=version.columns,
        translate=lambda body: lowered(kind, version, body=body),
        older=version,
    )


def _namespaces(project: Kind[Any, Any]) -> Shown:
    return Shown(
        source=project,
        kind="Namespace",
        plural="namespaces",
        group="",
        version="v1",
        namespaced=False,
        stored=project.name,
        verbs=("get", "list", "watch"),
        columns=(Column(name="Status", value=lambda body: body["status"]["phase"]),),
        short_names=("ns",),
        has_status=False,
        translate=_namespace,
    )


def _namespace(project: dict[str, Any]) -> dict[str, Any]:
    meta = project["metadata"]
    kept = ("name", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "labels", "annotations")
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {field: meta[field] for field in kept if field in meta},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Terminating" if "deletionTimestamp" in meta else "Active"},
    }

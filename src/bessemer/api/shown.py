"""Resources as the api serves them: the kinds of the product, and core/v1 namespaces, which are Projects to kubectl.

A `Shown` says where a resource lies in the URL and which stored kind stands behind it. ``translate`` is None where the
stored bytes are served as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bessemer.api.errors import Subject
from bessemer.api.names import plain
from bessemer.api.schema import of_resource
from bessemer.api.shape import Shape, shape_of
from bessemer.core.resource import READ, Column, Kind, Verb
from bessemer.kinds.fields import References, references

Translate = Callable[[dict[str, Any]], dict[str, Any]]
_EVENT_FIELDS = ("name", "namespace", "kind", "uid", "apiVersion", "resourceVersion", "fieldPath")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One resource. ``stored`` is the kind in the store; ``source`` the product's kind behind it."""

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
        shown = [_of_kind(kind) for kind in kinds]
        shown.extend(_namespaces(kind) for kind in list(kinds) if kind.name == "Project")
        self.all: Sequence[Shown] = tuple(shown)
        self._by_place = {(s.group, s.version, s.plural): s for s in shown}
        self._by_kind = {s.kind: s for s in shown}

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

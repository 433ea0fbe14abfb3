"""Versions of a kind's schema: the newest is what the product knows and stores; older ones are served as well.

A `Version` converts specs, as JSON, to and from the newest one. What it cannot say is kept in an annotation of what it
serves (`annotation`), and goes back from there, so that a client of either version reads and writes what it knows and
loses nothing of the rest. Invariants: from the newest to an older one and back, and from an older one to the newest and
back, is the same object; the annotation never stands in the newest version; a status is the same in all.

It knows neither HTTP nor SQL, and no kind: `Kind.older` lists a kind's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from bessemer.core.errors import Cause, Invalid
from bessemer.core.resource import Column, Kind, Resource, no_problems

Document = dict[str, Any]
Spec = dict[str, Any]
_STAGES = {"": 2, "beta": 1, "alpha": 0}
_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a kind that is older than its newest, and is still served.

    ``up(spec, kept)`` is the newest spec of an older one and of what that could not say; ``down(spec)`` is the inverse.
    Both take what a schema may refuse (a patch is computed before it is judged) and change nothing in place.
    ``validate`` says in this version's words what would be lost on the way up; all else is the newest version's to say.
    ``deprecated`` is told to each client that uses it; "" tells nothing.
    """

    name: str
    resource: type[Resource[Any, Any]]
    up: Callable[[Spec, Spec], Spec]
    down: Callable[[Spec], tuple[Spec, Spec]]
    columns: Sequence[Column]
    validate: Callable[[Any, Any], Sequence[Cause]] = no_problems
    deprecated: str = ""


def rank(version: str) -> tuple[int, int, int]:
    """By which versions are preferred, as Kubernetes does: v2, v1, v1beta2, v1beta1, v1alpha1."""
    found = _VERSION.fullmatch(version)
    if found is None:
        return (-1, 0, 0)
    major, stage, minor = found.groups()
    return (_STAGES[stage or ""], int(major), int(minor or 0))


def annotation(kind: Kind[Any, Any]) -> str:
    """Under which an older version keeps what only the newest can say."""
    return f"conversion.{kind.group}/{kind.version}"


def lowered(kind: Kind[Any, Any], version: Version, *, body: Mapping[str, Any]) -> Document:
    """A body of the newest version as the older one has it."""
    spec, kept = version.down(_spec(body))
    parts = {"spec": spec} if "spec" in body else {}
    metadata = dict(body["metadata"])
    if kept:
        said, annotations = orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode(), metadata.get("annotations")
        metadata["annotations"] = {**(annotations if isinstance(annotations, Mapping) else {}), annotation(kind): said}
    return {**body, "apiVersion": f"{kind.group}/{version.name}", "metadata": metadata, **parts}


def raised(kind: Kind[Any, Any], version: Version, *, body: Mapping[str, Any]) -> Document:
    """The inverse. Raises Invalid where what was kept cannot be read."""
    metadata = dict(body["metadata"])
    kept: Spec = {}
    annotations = metadata.get("annotations")
    if isinstance(annotations, Mapping) and annotation(kind) in annotations:
        rest = dict(annotations)
        kept = _read(rest.pop(annotation(kind)), kind)
        metadata["annotations"] = rest
        if not rest:
            del metadata["annotations"]
    parts = {"spec": version.up(_spec(body), kept)} if "spec" in body else {}
    return {**body, "apiVersion": kind.api_version, "metadata": metadata, **parts}


def _spec(body: Mapping[str, Any]) -> Spec:
    """What is no object is refused where it is judged, and until then is an empty one."""
    spec = body.get("spec")
    return spec if isinstance(spec, dict) else {}


def _read(said: Any, kind: Kind[Any, Any]) -> Spec:
    try:
        kept = orjson.loads(said)
    except (orjson.JSONDecodeError, TypeError) as error:
        raise _unread(kind) from error
    if not isinstance(kept, dict):
        raise _unread(kind)
    return kept


def _unread(kind: Kind[Any, Any]) -> Invalid:
    words = "Invalid value: must be what the server wrote there, or be left out"
    return Invalid(
        f"what only {kind.api_version} can say cannot be read",
        [Cause(f"metadata.annotations[{annotation(kind)}]", words)],
    )


@dataclass(frozen=True)
class Forward:
    """Brings bodies of a kind to its newest version, whichever they were stored in."""

    kind: Kind[Any, Any]

    @cached_property
    def head(self) -> bytes:
        """What each stored body of the newest version begins with."""
        return b'{"apiVersion":"' + self.kind.api_version.encode() + b'",'

    def body(self, body: bytes) -> bytes:
        """A stored body; one of the newest version is not even read."""
        return body if body.startswith(self.head) else orjson.dumps(self.document(orjson.loads(body)))

    def document(self, document: Document) -> Document:
        """The same of what has been read. An unknown version is left as it is: who reads it says what is wrong.

        The release that stored it had one version alone, and kept nothing: an annotation of that name is somebody's
        who must not spoil what others read."""
        said = document.get("apiVersion")
        for version in self.kind.older:
            if said == f"{self.kind.group}/{version.name}":
                return raised(self.kind, version, body=_without(document, annotation(self.kind)))
        return document


def _without(document: Document, name: str) -> Document:
    annotations = document["metadata"].get("annotations") or {}
    if name not in annotations:
        return document
    rest = {key: value for key, value in annotations.items() if key != name}
    return {**document, "metadata": {**document["metadata"], "annotations": rest}}


def forward(kind: Kind[Any, Any]) -> Forward | None:
    """None for a kind of one version."""
    return Forward(kind) if kind.older else None

"""What a write changed, as the trail keeps it: a JSON merge patch and its reverse, of spec and of what people write in
metadata. Pure.

Invariants: each of the two is cut at `BYTES_MAX` to the names of the fields that changed, with the size and the digest
of the whole; what a kind calls secret, and kubectl's copy of the whole object in an annotation, is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

from bessemer.store.documents import Document

BYTES_MAX = 4096
FIELDS_MAX = 32
FIELD_CHARACTERS_MAX = 100
SECRET: Mapping[str, tuple[str, ...]] = MappingProxyType({"Secret": ("data", "stringData")})
"""Fields by kind whose values are secret. Those of our own kinds hold none: see `sealed`."""

NOTHING = "{}"
_PEOPLES = ("labels", "annotations", "ownerReferences", "finalizers")
_STORES = frozenset(["apiVersion", "kind", "metadata", "status"])
_COPY = "kubectl.kubernetes.io/last-applied-configuration"
_LEFT_OUT = "(left out)"


def made(document: Document) -> str:
    """Of an object that is new."""
    said = _said(document)
    whole = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    # As `_json` would write it, which is most of what is asked of this.
    return f'{{"after":{whole.decode()}}}' if len(whole) <= BYTES_MAX else _json(_cut(said), None)


def gone(document: Document) -> str:
    """Of an object that goes."""
    return _json(None, _cut(_said(document)))


def between(old: Document, new: Document) -> str:
    """Of an object that is written anew."""
    return of_fields(_said(old), _said(new))


def of_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Of plain values."""
    return _json(_cut(_patch(old, new)), _cut(_patch(new, old)))


def _json(after: Any, before: Any) -> str:
    said = {name: value for name, value in (("after", after), ("before", before)) if value is not None}
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode()


def _said(document: Document) -> Document:
    """What people say in a body, without what is secret."""
    metadata = document["metadata"]
    said = {name: metadata[name] for name in _PEOPLES if metadata.get(name)}
    if _COPY in said.get("annotations", ()):
        said["annotations"] = {**said["annotations"], _COPY: _LEFT_OUT}
    found = {name: value for name, value in document.items() if name not in _STORES}
    for name in SECRET.get(document["kind"], ()):
        if name in found:
            found[name] = _LEFT_OUT
    if said:
        found["metadata"] = said
    return found


def _patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7396: what makes ``new`` of ``old``."""
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        was = old.get(name)
        if isinstance(value, dict) and isinstance(was, dict):
            if inner := _patch(was, value):
                patch[name] = inner
        elif name not in old or was != value:
            patch[name] = value
    return patch


def _cut(patch: dict[str, Any]) -> dict[str, Any]:
    whole = orjson.dumps(patch, option=orjson.OPT_SORT_KEYS)
    if len(whole) <= BYTES_MAX:
        return patch
    names = [f"{top}.{name}" for top, inner in patch.items() for name in (inner if isinstance(inner, dict) else ("",))]
    fields = [name.rstrip(".")[:FIELD_CHARACTERS_MAX] for name in names[:FIELDS_MAX]]
    return {"cut": {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest(), "fields": fields}}

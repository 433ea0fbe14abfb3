"""How the values of a kind are owned and merged: field by field, item by item, or whole. Pure.

A `Shape` is made once of a kind's structural schema: objects are owned by field unless ``x-kubernetes-map-type`` says
atomic; lists are owned whole unless ``x-kubernetes-list-type`` says ``set`` (by value) or ``map`` (by the fields that
``x-kubernetes-list-map-keys`` names); what has no schema is owned by field, its lists whole. Every walk here is linear
to the values. After structured-merge-diff's ``typed``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from bessemer.api.fields import SELF, Fields, key_step, value_step
from bessemer.core.errors import Malformed

Body = dict[str, Any]
_NESTED = (dict, list)
_TRACKED = ("annotations", "finalizers", "generateName", "labels", "ownerReferences")
"""Of the metadata, what writers say; the rest is the server's."""

_HEAD = ("apiVersion", "kind", "metadata")
_ABSENT = object()
"""What is not there, which null is not: where free fields hold one, it is there."""


@dataclass(frozen=True, slots=True)
class Shape:
    """``object`` and ``free`` are owned by field, ``set`` and ``map`` by item, ``whole`` is a scalar or atomic.
    ``below`` are the fields that are declared, ``rest`` is all others' shape, or the items'; ``keys`` a map's."""

    kind: Literal["object", "free", "set", "map", "whole"]
    below: Mapping[str, Shape] = field(default_factory=lambda: MappingProxyType({}))
    rest: Shape | None = None
    keys: tuple[str, ...] = ()

    def of(self, name: str) -> Shape:
        """The shape of a field."""
        return self.below.get(name) or self.rest or FREE

    @property
    def items(self) -> Shape:
        """The shape of an item."""
        return self.rest or FREE

    def by_field(self, value: Any) -> bool:
        """Whether it is an object that is owned field by field."""
        return isinstance(value, dict) and self.kind in ("object", "free")

    def by_item(self, value: Any) -> bool:
        """Whether it is a list that is owned item by item."""
        return isinstance(value, list) and self.kind in ("set", "map")

    def step(self, item: Any) -> str:
        """The step to an item of a list. Raises Malformed where it lacks its keys."""
        if self.kind == "set":
            return value_step(item)
        if not isinstance(item, dict):
            raise Malformed("associative list with keys has an element that is no object")
        for name in self.keys:
            if item.get(name) is None:
                raise Malformed(f'associative list with keys has an element that omits key field "{name}"')
        return key_step({name: item[name] for name in self.keys})

    def index(self, items: Iterable[Any]) -> dict[str, Any]:
        """Items by their steps, in order. Raises Malformed where one stands there twice, or has no key."""
        found: dict[str, Any] = {}
        for item in items:
            step = self.step(item)
            if step in found:
                raise Malformed(f"duplicate entries for key {step[2:][:80]}")
            found[step] = item
        return found

    def whole(self, value: Any) -> Fields:
        """The value and everything below it."""
        if isinstance(value, dict):
            if not value or not self.by_field(value):
                return {}
            found: Fields = {SELF: {}}
            for name, inner in value.items():
                found["f:" + name] = self.of(name).whole(inner) if isinstance(inner, _NESTED) else {}
            return found
        if not value or not self.by_item(value):
            return {}
        found = {SELF: {}}
        for item in value:
            found[self.step(item)] = self.items.whole(item)
        return found

    def stated(self, value: Any) -> Fields | None:
        """What somebody owns who applies the value: its leaves, and the items and names that only they brought about;
        None where that is nothing. Raises Malformed for lists that cannot be merged."""
        found: Fields = {}
        if self.by_field(value):
            for name, inner in value.items():
                empty = isinstance(inner, dict) and not inner
                below = {} if empty else self.of(name).stated(inner)
                if below is not None:
                    found[f"f:{name}"] = {SELF: {}, **below} if below and name not in self.below else below
            return found or None
        if self.by_item(value):
            for step, item in self.index(value).items():
                below = self.items.stated(item)
                found[step] = {SELF: {}, **below} if below else {}
            return found or None
        return {}

    def compared(self, old: Any, new: Any) -> tuple[Fields | None, Fields | None]:
        """What is new or has another value, and what is gone; None is nothing."""
        if self.by_field(old) and self.by_field(new):
            pairs = ((f"f:{name}", self.of(name), old.get(name, _ABSENT), inner) for name, inner in new.items())
            lost = ((f"f:{name}", self.of(name), old[name]) for name in old.keys() - new.keys())
            return _compared(pairs, lost)
        if self.by_item(old) and self.by_item(new):
            before, after = ({self.step(item): item for item in items} for items in (old, new))
            pairs = ((step, self.items, before.get(step, _ABSENT), item) for step, item in after.items())
            lost = ((step, self.items, before[step]) for step in before.keys() - after.keys())
            return _compared(pairs, lost)
        if old == new:
            return None, None
        if isinstance(old, _NESTED) and type(old) is not type(new):
            return self.whole(new), self.whole(old)
        return self.whole(new), None

    def changes(self, old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> tuple[Fields, Fields]:
        """What a write of an object brings about and what it takes away, in the parts that are in ``new``; ``old`` None
        is a create."""
        after = tracked(new)
        if old is None:
            made = {"f:" + part: self.of(part).whole(value) for part, value in after.items() if part != "metadata"}
            above = self.of("metadata")
            said = {"f:" + name: above.of(name).whole(value) for name, value in after["metadata"].items()}
            return ({"f:metadata": said, **made} if said else made), {}
        before = {part: value for part, value in tracked(old).items() if part in after}
        changed, gone = self.compared(before, after)
        return changed or {}, gone or {}


FREE = Shape("free")
WHOLE = Shape("whole")


def shape_of(schema: Mapping[str, Any]) -> Shape:
    """The shape that a structural schema describes."""
    kind = schema.get("type")
    if kind == "object":
        if schema.get("x-kubernetes-map-type") == "atomic":
            return WHOLE
        properties, values = schema.get("properties"), schema.get("additionalProperties")
        if not properties and not values:
            return FREE
        below = {name: shape_of(inner) for name, inner in (properties or {}).items()}
        return Shape("object", MappingProxyType(below), shape_of(values) if isinstance(values, Mapping) else None)
    if kind == "array" and schema.get("x-kubernetes-list-type") == "set":
        return Shape("set", rest=WHOLE)
    if kind == "array" and schema.get("x-kubernetes-list-type") == "map":
        keys = tuple(sorted(schema["x-kubernetes-list-map-keys"]))
        return Shape("map", rest=shape_of(schema["items"]), keys=keys)
    return WHOLE


def tracked(body: Mapping[str, Any]) -> Body:
    """What of an object has owners. Its metadata is always there, so that nobody owns it as such."""
    metadata = body.get("metadata") or {}
    found: Body = {"metadata": {name: metadata[name] for name in _TRACKED if metadata.get(name)}}
    return found | {part: value for part, value in body.items() if part not in _HEAD}


def _compared(
    pairs: Iterable[tuple[str, Shape, Any, Any]], lost: Iterable[tuple[str, Shape, Any]]
) -> tuple[Fields | None, Fields | None]:
    changed: Fields = {}
    gone: Fields = {step: shape.whole(value) for step, shape, value in lost}
    for step, shape, before, after in pairs:
        if before is _ABSENT:
            changed[step] = shape.whole(after)
            continue
        new, old = shape.compared(before, after)
        if new is not None:
            changed[step] = new
        if old is not None:
            gone[step] = old
    return changed or None, gone or None

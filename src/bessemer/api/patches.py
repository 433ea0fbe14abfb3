"""Patches of an object, in the three forms that are computed at once: JSON patch, merge patch, strategic merge patch.

The last is Kubernetes' own, and taken for its own kinds alone: objects are merged, and lists as their schema says, by
keys, by value, or whole; directives say what goes. Pure, and linear to what is patched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from bessemer.api import body as bodies
from bessemer.api import jsonpatch
from bessemer.api.shape import Shape
from bessemer.core.errors import Malformed

STRATEGIC = "application/strategic-merge-patch+json"
_ORDER, _FROM_LIST, _RETAIN, _PATCH = "$setElementOrder/", "$deleteFromPrimitiveList/", "$retainKeys", "$patch"
_GONE = object()


class Strategic(dict[str, Any]):
    """A strategic merge patch."""


def patched(shape: Shape, old: dict[str, Any], *, change: Any) -> Any:
    """What becomes of ``old``: a list is a JSON patch. Raises Malformed, Invalid."""
    if isinstance(change, list):
        return jsonpatch.apply(old, change)
    if isinstance(change, Strategic):
        merged = merge(shape, old, patch=change)
        return {} if merged is _GONE else merged
    return bodies.merge(old, change)


def merge(shape: Shape, live: Any, *, patch: Any) -> Any:
    """A strategic merge. Raises Malformed for directives that nobody knows, and lists that cannot be merged."""
    if isinstance(patch, Mapping):
        return _merged_object(shape, live if isinstance(live, Mapping) else {}, patch=patch)
    if isinstance(patch, list) and shape.kind in ("set", "map"):
        return _merged_list(shape, live if isinstance(live, list) else [], patch=patch)
    return patch


def _merged_object(shape: Shape, live: Mapping[str, Any], *, patch: Mapping[str, Any]) -> Any:
    directive = patch.get(_PATCH)
    if directive == "delete":
        return _GONE
    if directive not in (None, "replace", "merge"):
        raise Malformed(f"unknown patch type found: {str(directive)[:80]}")
    merged = {} if directive == "replace" else dict(live)
    if isinstance(patch.get(_RETAIN), list):
        retained = {name for name in patch[_RETAIN] if isinstance(name, str)}
        merged = {name: value for name, value in merged.items() if name in retained}
    for name, said in patch.items():
        if name in (_PATCH, _RETAIN) or name.startswith(_ORDER):
            continue
        if name.startswith(_FROM_LIST):
            field = name.removeprefix(_FROM_LIST)
            if isinstance(merged.get(field), list):
                gone = {orjson.dumps(item) for item in (said if isinstance(said, list) else ())}
                merged[field] = [item for item in merged[field] if orjson.dumps(item) not in gone]
            continue
        value = _GONE if said is None else merge(shape.of(name), merged.get(name), patch=said)
        if value is _GONE:
            merged.pop(name, None)
        else:
            merged[name] = value
    return merged


def _merged_list(shape: Shape, live: list[Any], *, patch: list[Any]) -> list[Any]:
    if any(isinstance(item, Mapping) and item.get(_PATCH) == "replace" for item in patch):
        return [item for item in patch if not (isinstance(item, Mapping) and _PATCH in item)]
    found = {shape.step(item): item for item in live}
    for item in patch:
        step = shape.step(item)
        value = merge(shape.items, found.get(step), patch=item) if shape.kind == "map" else item
        if value is _GONE:
            found.pop(step, None)
        else:
            found[step] = value
    return list(found.values())

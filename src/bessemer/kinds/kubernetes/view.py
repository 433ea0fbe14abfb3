"""A view: a kind whose objects are another kind's, said in other words.

Invariants: both functions are pure; what one view's writers note in ``managedFields`` stays beside what the stored
kind's own writers noted, told apart by the version; rights are the stored kind's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bessemer.core.resource import Kind

Body = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class View:
    """``kind`` is what is served, ``of`` the kind that is stored. ``inward(body, old)`` is the stored body of a served
    one; ``old`` is what is stored now, or None; ``collected``: whether many are deleted by one request."""

    kind: Kind[Any, Any]
    of: str
    outward: Callable[[Body], Body]
    inward: Callable[[Body, Body | None], Body]
    collected: bool = True


def own_entries(metadata: Mapping[str, Any], version: str) -> Body:
    """The metadata with those entries of ``managedFields`` alone that are of a version."""
    found = {name: value for name, value in metadata.items() if name != "managedFields"}
    entries = [entry for entry in metadata.get("managedFields", ()) if entry.get("apiVersion") == version]
    return {**found, "managedFields": entries} if entries else found


def all_entries(metadata: Mapping[str, Any], old: Body | None, *, version: str) -> Body:
    """The metadata with the entries of other versions, as they stand in what is stored. Where it says nothing of
    entries, nothing is said."""
    if "managedFields" not in metadata:
        return dict(metadata)
    others = [e for e in (old or {}).get("metadata", {}).get("managedFields", ()) if e.get("apiVersion") != version]
    return {**metadata, "managedFields": [*others, *(metadata["managedFields"] or ())]}

"""Tables and partial objects: the same rows for kubectl, the CLI and the portal, from a kind's columns and its age."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from bessemer.api.shown import Shown
from bessemer.core.clock import epoch

_META = {"apiVersion": "meta.k8s.io/v1"}
_NAME_WORDS = "Name must be unique within a namespace."
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86_400, 365 * 86_400


def age(seconds: float) -> str:
    """A duration as kubectl writes ages: ``95s``, ``5m30s``, ``3h``, ``2d``."""
    s = int(seconds)
    if s < 0:
        return "0s" if s > -2 else "<invalid>"
    if s < 2 * _MINUTE:
        return f"{s}s"
    for below, large, small, names in (
        (10 * _MINUTE, _MINUTE, 1, "ms"),
        (3 * _HOUR, _MINUTE, 0, "m"),
        (8 * _HOUR, _HOUR, _MINUTE, "hm"),
        (2 * _DAY, _HOUR, 0, "h"),
        (8 * _DAY, _DAY, _HOUR, "dh"),
        (2 * _YEAR, _DAY, 0, "d"),
        (8 * _YEAR, _YEAR, _DAY, "yd"),
    ):
        if s < below:
            rest = s % large // small if small else 0
            return f"{s // large}{names[0]}" + (f"{rest}{names[1]}" if rest else "")
    return f"{s // _YEAR}y"


def since(text: Any, now: float) -> str:
    """A time in the body as an age."""
    try:
        return age(now - epoch(str(text)))
    except ValueError:
        return "<unknown>"


def definitions(resource: Shown) -> list[dict[str, Any]]:
    """``columnDefinitions``: name, the kind's own, age."""
    columns = [_column("Name", "string", words=_NAME_WORDS, form="name")]
    for column in resource.columns:
        columns.append(_column(column.name, column.type, words=column.description or column.name, wide=column.wide))
    columns.append(_column("Age", "date", words="How long it has been there."))
    return columns


def _column(name: str, kind: str, *, words: str, form: str = "", wide: bool = False) -> dict[str, Any]:
    return {"name": name, "type": kind, "format": form, "description": words, "priority": int(wide)}


def row(resource: Shown, body: Mapping[str, Any], *, include: str, now: float) -> bytes:
    """One row. ``include`` is None, Metadata or Object."""
    meta = body["metadata"]
    cells: list[Any] = [meta["name"]]
    for column in resource.columns:
        value = column.value(body)
        cells.append(since(value, now) if column.type == "date" and value else value)
    cells.append(since(meta.get("creationTimestamp"), now))
    shown: Any = None
    if include == "Object":
        shown = body
    elif include != "None":
        shown = partial(body)
    return orjson.dumps({"cells": cells, "object": shown})


def table(resource: Shown, rows: list[bytes], *, metadata: Mapping[str, Any], head: bool = True) -> bytes:
    """A whole Table; ``head`` False leaves out the columns, as in a watch after its first event."""
    return table_start(resource, metadata, head=head) + b",".join(rows) + b"]}"


def table_start(resource: Shown, metadata: Mapping[str, Any], *, head: bool = True) -> bytes:
    """A Table up to its first row; ``]}`` ends it."""
    columns = definitions(resource) if head else None
    start = {"kind": "Table", **_META, "metadata": metadata, "columnDefinitions": columns}
    return orjson.dumps(start)[:-1] + b',"rows":['


def partial(body: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata alone."""
    return {"kind": "PartialObjectMetadata", **_META, "metadata": body["metadata"]}


def bookmark(resource: Shown, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A bookmark in a watch of tables: a row that says nothing but how far the watch is."""
    cells = ["", *(None for _ in resource.columns), None]
    rows = [{"cells": cells, "object": partial({"metadata": metadata})}]
    revision = {"resourceVersion": metadata["resourceVersion"]}
    return {"kind": "Table", **_META, "metadata": revision, "columnDefinitions": definitions(resource), "rows": rows}

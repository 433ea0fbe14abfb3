"""Every field that is served says what it is: nothing is shown as ``<no description>`` by ``kubectl explain``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from bessemer.api.openapi import document, schema_name
from bessemer.api.shown import Resources, Shown
from bessemer.kinds import KINDS

SERVED = Resources(KINDS).all


def silent(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """The fields at and below ``path`` without a description."""
    for name, inner in schema.get("properties", {}).items():
        if not inner.get("description", "").strip():
            yield f"{path}.{name}"
        yield from silent(inner, f"{path}.{name}")
    for part, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(part), Mapping):
            yield from silent(schema[part], path + mark)


@pytest.mark.parametrize("shown", SERVED, ids=lambda shown: shown.kind)
def test_each_field_is_described(shown: Shown) -> None:
    schema = document([shown], "test")["components"]["schemas"][schema_name(shown)]
    assert schema["description"], "the module's docstring says what the kind is"
    assert list(silent(schema, shown.kind)) == []


def test_what_says_nothing_is_found() -> None:
    said = {"type": "string", "description": "It is so."}
    row = {"type": "object", "description": "A row.", "properties": {"cell": {"type": "string"}}}
    schema = {"properties": {"a": said, "b": {**said, "type": "array", "items": row}, "c": {"description": " "}}}
    assert list(silent(schema, "It")) == ["It.b[].cell", "It.c"]

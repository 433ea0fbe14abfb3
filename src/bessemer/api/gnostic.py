"""An OpenAPI v2 document in the protobuf form that Go's Kubernetes clients read: gnostic's ``openapi.v2.Document``.

The numbers are those of ``openapiv2/OpenAPIv2.proto`` in github.com/google/gnostic (Apache-2.0). `FIELDS` has the
messages and fields that our documents use; what stands in a document and not there is a ValueError, so that nothing
is left out unsaid. As proto3 has it, what is zero, false or empty is not written. It decodes nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import orjson

Fields = Mapping[str, tuple[int, str]]
_VALUE: Fields = {
    "default": (5, "Any"),
    "multipleOf": (6, "double"),
    "maximum": (7, "double"),
    "exclusiveMaximum": (8, "bool"),
    "minimum": (9, "double"),
    "exclusiveMinimum": (10, "bool"),
    "maxLength": (11, "int64"),
    "minLength": (12, "int64"),
    "pattern": (13, "string"),
    "maxItems": (14, "int64"),
    "minItems": (15, "int64"),
    "uniqueItems": (16, "bool"),
}
_PARAMETER: Fields = {"required": (1, "bool"), "in": (2, "string"), "description": (3, "string"), "name": (4, "string")}

FIELDS: Mapping[str, Fields] = MappingProxyType(
    {
        "Document": {
            "swagger": (1, "string"),
            "info": (2, "Info"),
            "paths": (8, "Paths"),
            "definitions": (9, "Schemas"),
        },
        "Info": {"title": (1, "string"), "version": (2, "string"), "description": (3, "string")},
        "PathItem": {
            "get": (2, "Operation"),
            "put": (3, "Operation"),
            "post": (4, "Operation"),
            "delete": (5, "Operation"),
            "patch": (8, "Operation"),
            "parameters": (9, "*Parameter"),
        },
        "Operation": {
            "tags": (1, "*string"),
            "summary": (2, "string"),
            "description": (3, "string"),
            "operationId": (5, "string"),
            "produces": (6, "*string"),
            "consumes": (7, "*string"),
            "parameters": (8, "*Parameter"),
            "responses": (9, "Responses"),
        },
        "BodyParameter": {
            "description": (1, "string"),
            "name": (2, "string"),
            "in": (3, "string"),
            "required": (4, "bool"),
            "schema": (5, "Schema"),
        },
        "QueryParameter": {**_PARAMETER, "type": (6, "string"), "format": (7, "string"), "enum": (21, "*Any")},
        "PathParameter": {**_PARAMETER, "type": (5, "string"), "format": (6, "string"), "enum": (20, "*Any")},
        "Response": {"description": (1, "string"), "schema": (2, "SchemaItem")},
        "Schema": {
            "$ref": (1, "string"),
            "format": (2, "string"),
            "title": (3, "string"),
            "description": (4, "string"),
            **_VALUE,
            "required": (19, "*string"),
            "enum": (20, "*Any"),
            "additionalProperties": (21, "AdditionalProperties"),
            "type": (22, "TypeItem"),
            "items": (23, "SchemaItem"),
            "properties": (25, "Schemas"),
        },
    }
)
"""By message, from the name in JSON: the field's number and the type of its value, with a star where it is repeated."""

EXTENSIONS: Mapping[str, int] = MappingProxyType(
    {
        "Document": 16,
        "Info": 7,
        "PathItem": 10,
        "Operation": 13,
        "BodyParameter": 6,
        "QueryParameter": 23,
        "PathParameter": 22,
        "Response": 5,
        "Schema": 31,
    }
)
"""``vendor_extension``: what begins with ``x-``, each value as a text of JSON, which is YAML to gnostic."""


def encode(document: Mapping[str, Any]) -> bytes:
    """The document in protobuf. Raises ValueError for what `FIELDS` does not have."""
    return _message("Document", document)


def _message(name: str, value: Mapping[str, Any]) -> bytes:
    fields = FIELDS[name]
    parts: list[bytes] = []
    for key, inner in value.items():
        if key.startswith("x-"):
            parts.append(_block(EXTENSIONS[name], _named(key, _any(inner))))
        elif key not in fields:
            raise ValueError(f"gnostic's {name} has no field for {key!r} here")
        else:
            number, kind = fields[key]
            each = inner if kind.startswith("*") else (inner,)
            parts.extend(_field(number, one, kind=kind.lstrip("*")) for one in each)
    return b"".join(parts)


def _field(number: int, value: Any, *, kind: str) -> bytes:
    if kind == "string":
        return _text(number, value)
    if kind in ("bool", "int64"):
        return _varint(number << 3) + _varint(int(value)) if value else b""
    if kind == "double":
        return _varint(number << 3 | 1) + struct.pack("<d", value) if value else b""
    inner = _WRAPPED[kind](value) if kind in _WRAPPED else _message(kind, value)
    return _block(number, inner)


def _text(number: int, value: str) -> bytes:
    return _block(number, value.encode()) if value else b""


def _block(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _named(name: str, value: bytes) -> bytes:
    """An entry of a map, which gnostic keeps as a list of pairs."""
    return _text(1, name) + _block(2, value)


def _any(value: Any) -> bytes:
    return _block(2, orjson.dumps(value))


# --- messages whose JSON has another shape ---------------------------------------------------------------------------


def _paths(value: Mapping[str, Any]) -> bytes:
    return b"".join(_block(2, _named(path, _message("PathItem", item))) for path, item in value.items())


def _schemas(value: Mapping[str, Any]) -> bytes:
    return b"".join(_block(1, _named(name, _message("Schema", schema))) for name, schema in value.items())


def _responses(value: Mapping[str, Any]) -> bytes:
    return b"".join(_block(1, _named(code, _block(1, _message("Response", said)))) for code, said in value.items())


def _parameter(value: Mapping[str, Any]) -> bytes:
    """ParametersItem: a parameter of the body, or one of those beside it by their place."""
    if value["in"] == "body":
        return _block(1, _block(1, _message("BodyParameter", value)))
    number, name = {"query": (3, "QueryParameter"), "path": (4, "PathParameter")}[value["in"]]
    return _block(1, _block(2, _block(number, _message(name, value))))


def _additional(value: Any) -> bytes:
    return _block(1, _message("Schema", value)) if isinstance(value, Mapping) else _varint(2 << 3) + _varint(int(value))


_WRAPPED: Mapping[str, Callable[[Any], bytes]] = MappingProxyType(
    {
        "Any": _any,
        "Paths": _paths,
        "Schemas": _schemas,
        "Responses": _responses,
        "Parameter": _parameter,
        "AdditionalProperties": _additional,
        "TypeItem": lambda value: _text(1, value),
        "SchemaItem": lambda value: _block(1, _message("Schema", value)),
    }
)

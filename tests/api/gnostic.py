"""Reads gnostic's ``openapi.v2.Document`` back into JSON: written from the .proto by itself, and knows nothing of the
encoder. What is on the wire and not in the tables is an error."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import orjson

_COMMON = {1: ("required", "bool"), 2: ("in", "string"), 3: ("description", "string"), 4: ("name", "string")}
MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "Document": {
        1: ("swagger", "string"),
        2: ("info", "Info"),
        8: ("paths", "Paths"),
        9: ("definitions", "Definitions"),
    },
    "Info": {1: ("title", "string"), 2: ("version", "string"), 3: ("description", "string")},
    "PathItem": {
        2: ("get", "Operation"),
        3: ("put", "Operation"),
        4: ("post", "Operation"),
        5: ("delete", "Operation"),
        8: ("patch", "Operation"),
        9: ("parameters", "repeated ParametersItem"),
    },
    "Operation": {
        1: ("tags", "repeated string"),
        2: ("summary", "string"),
        3: ("description", "string"),
        5: ("operationId", "string"),
        6: ("produces", "repeated string"),
        7: ("consumes", "repeated string"),
        8: ("parameters", "repeated ParametersItem"),
        9: ("responses", "Responses"),
        13: ("", "extension"),
    },
    "BodyParameter": {
        1: ("description", "string"),
        2: ("name", "string"),
        3: ("in", "string"),
        4: ("required", "bool"),
        5: ("schema", "Schema"),
    },
    "QueryParameterSubSchema": {
        **_COMMON,
        6: ("type", "string"),
        7: ("format", "string"),
        21: ("enum", "repeated Any"),
    },
    "PathParameterSubSchema": {**_COMMON, 5: ("type", "string"), 6: ("format", "string"), 20: ("enum", "repeated Any")},
    "Response": {1: ("description", "string"), 2: ("schema", "SchemaItem")},
    "Schema": {
        1: ("$ref", "string"),
        2: ("format", "string"),
        3: ("title", "string"),
        4: ("description", "string"),
        5: ("default", "Any"),
        6: ("multipleOf", "double"),
        7: ("maximum", "double"),
        8: ("exclusiveMaximum", "bool"),
        9: ("minimum", "double"),
        10: ("exclusiveMinimum", "bool"),
        11: ("maxLength", "int64"),
        12: ("minLength", "int64"),
        13: ("pattern", "string"),
        14: ("maxItems", "int64"),
        15: ("minItems", "int64"),
        16: ("uniqueItems", "bool"),
        19: ("required", "repeated string"),
        20: ("enum", "repeated Any"),
        21: ("additionalProperties", "AdditionalPropertiesItem"),
        22: ("type", "TypeItem"),
        23: ("items", "ItemsItem"),
        25: ("properties", "Properties"),
        31: ("", "extension"),
    },
}
ONE_OF = {
    "ParametersItem": {1: "Parameter"},
    "Parameter": {1: "BodyParameter", 2: "NonBodyParameter"},
    "NonBodyParameter": {3: "QueryParameterSubSchema", 4: "PathParameterSubSchema"},
    "ResponseValue": {1: "Response"},
    "SchemaItem": {1: "Schema"},
    "ItemsItem": {1: "Schema"},
    "AdditionalPropertiesItem": {1: "Schema", 2: "bool"},
    "TypeItem": {1: "string"},
}
MAPS = {
    "Paths": (2, "PathItem"),
    "Responses": (1, "ResponseValue"),
    "Definitions": (1, "Schema"),
    "Properties": (1, "Schema"),
}


def decode(raw: bytes, message: str = "Document") -> dict[str, Any]:
    """A message as JSON."""
    found: dict[str, Any] = {}
    for number, value in wire(raw):
        name, kind = MESSAGES[message][number]
        if kind == "extension":
            entry = dict(wire(value))
            found[entry[1].decode()] = scalar("Any", entry[2])
        elif kind.startswith("repeated "):
            found.setdefault(name, []).append(scalar(kind.removeprefix("repeated "), value))
        else:
            assert name not in found, (message, name)
            found[name] = scalar(kind, value)
    return found


def scalar(kind: str, value: Any) -> Any:
    """A value of the type of a field."""
    if kind == "string":
        return value.decode()
    if kind == "bool":
        return bool(value)
    if kind == "int64":
        return value
    if kind == "double":
        return struct.unpack("<d", value)[0]
    if kind == "Any":
        ((number, text),) = wire(value)
        assert number == 2
        return orjson.loads(text)
    if kind in ONE_OF:
        ((number, inner),) = wire(value)
        return scalar(ONE_OF[kind][number], inner)
    if kind in MAPS:
        return entries(value, *MAPS[kind])
    return decode(value, kind)


def entries(raw: bytes, field: int, kind: str) -> dict[str, Any]:
    """A list of pairs as a map."""
    found: dict[str, Any] = {}
    for number, value in wire(raw):
        assert number == field
        entry = dict(wire(value))
        found[entry[1].decode()] = scalar(kind, entry[2])
    return found


def wire(raw: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field: numbers as they are, everything else as bytes."""
    at = 0
    while at < len(raw):
        tag, at = varint(raw, at)
        number, form = tag >> 3, tag & 7
        if form == 0:
            value, at = varint(raw, at)
            yield number, value
        else:
            size, at = (8, at) if form == 1 else varint(raw, at)
            assert form in (1, 2), form
            assert at + size <= len(raw)
            yield number, raw[at : at + size]
            at += size


def varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while raw[at] & 0x80:
        value |= (raw[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | raw[at] << shift, at + 1

"""OpenAPI v2: the same as v3 in other words, and the same in JSON as in gnostic's protobuf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pytest

from bessemer.api import gnostic, openapi2
from bessemer.api.discovery import Discovery
from bessemer.api.shown import Resources
from bessemer.kinds import KINDS
from tests.api.gnostic import decode
from tests.api.world import World

ASKED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
ANSWERED = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
GVK = "x-kubernetes-group-version-kind"


@pytest.fixture(scope="module")
def document() -> Mapping[str, Any]:
    found: Mapping[str, Any] = orjson.loads(Discovery(Resources(KINDS), "test").openapi_v2().body)
    return found


def inside(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every object in a document, at any depth."""
    if isinstance(value, Mapping):
        yield value
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from inside(inner)


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, said in document["paths"].items():
        for method, operation in said.items():
            if method != "parameters":
                yield path, method, operation


def plain(value: Any) -> Any:
    """Without what proto3 does not write: what is false, zero or empty."""
    if isinstance(value, Mapping):
        kept = {key: inner if raw(key) else plain(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if raw(key) or inner not in (False, 0, "", [])}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def raw(key: str) -> bool:
    """Whether a value is kept as a text of JSON."""
    return key.startswith("x-") or key in ("default", "enum")


# --- the document -----------------------------------------------------------------------------------------------------


def test_every_reference_resolves(document: Mapping[str, Any]) -> None:
    references = {found["$ref"] for found in inside(document) if "$ref" in found}
    assert len(references) > len(KINDS)
    assert {reference.removeprefix("#/definitions/") for reference in references} <= document["definitions"].keys()


def test_each_kind_stands_once(document: Mapping[str, Any]) -> None:
    """Clients refuse a document in which two definitions are of one kind."""
    kinds = [tuple(gvk.values()) for definition in document["definitions"].values() for gvk in definition.get(GVK, ())]
    assert len(kinds) == len(set(kinds))
    assert {(kind.group, kind.version, kind.name) for kind in KINDS} <= set(kinds)
    assert {(kind.group, kind.version, f"{kind.name}List") for kind in KINDS} <= set(kinds)


def test_it_says_what_v3_says() -> None:
    known = Discovery(Resources(KINDS), "test")
    places = [orjson.loads(known.openapi(*place).body) for place in Resources(KINDS).groups()]
    document = orjson.loads(known.openapi_v2().body)
    said = {(path, method) for place in places for path, methods in place["paths"].items() for method in methods}
    assert {(path, method) for path, methods in document["paths"].items() for method in methods} == said
    schemas = {name for place in places for name in place["components"]["schemas"]}
    assert document["definitions"].keys() == {*schemas, openapi2.OBJECT_META}


def test_operations_say_what_they_do_and_to_what(document: Mapping[str, Any]) -> None:
    for path, method, operation in operations(document):
        many = not path.endswith(("/{name}", "/{name}/status"))
        action = {"get": "list", "delete": "deletecollection"}.get(method, method) if many else method
        assert operation["x-kubernetes-action"] == action
        assert operation[GVK].keys() == {"group", "version", "kind"}
        assert operation["produces"]
        assert ("consumes" in operation) == (method in ("post", "put", "patch"))
        if method == "patch":
            assert "application/merge-patch+json" in operation["consumes"]
            assert "fieldValidation" in [parameter["name"] for parameter in operation["parameters"]]


def test_no_word_of_v3_is_left(document: Mapping[str, Any]) -> None:
    words = {"nullable", "anyOf", "oneOf", "allOf", "components", "requestBody", "content"}
    fields = {name for found in inside(document) for name in found.get("properties", {})}
    assert not {word for found in inside(document) for word in found} & (words - fields)
    for found in inside(document["definitions"]):
        if found.get("type") == "array":
            assert found["items"]


def schema(properties: Mapping[str, Any], **more: Any) -> Mapping[str, Any]:
    """The v2 form of a v3 schema with these properties."""
    v3 = {"type": "object", "properties": properties, **more}
    made = openapi2.document([{"components": {"schemas": {"x": v3}}, "paths": {}}], "1")["definitions"]["x"]
    return {key: value for key, value in made.items() if key != "type"}


def test_words_that_v2_does_not_have() -> None:
    text = {"type": "string"}
    said = schema({"a": {**text, "nullable": True}, "b": text}, required=["a", "b"])
    assert said == {"properties": {"a": text, "b": text}, "required": ["b"]}
    assert schema({"a": {**text, "nullable": True}}, required=["a"]) == {"properties": {"a": text}}
    free = {"type": "object", "description": "d", "x-kubernetes-preserve-unknown-fields": True}
    assert schema({"a": free}) == {"properties": {"a": {k: v for k, v in free.items() if k != "type"}}}
    either = {"type": "string", "x-kubernetes-int-or-string": True}
    assert schema({"a": either}) == {"properties": {"a": {**either, "format": "int-or-string"}}}
    merged = {"type": "array", "items": text, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    assert schema({"a": merged}) == {"properties": {"a": merged}}
    reference = {"$ref": "#/components/schemas/y"}
    assert schema({"a": {"type": "object", "additionalProperties": reference}})["properties"]["a"] == {
        "type": "object",
        "additionalProperties": {"$ref": "#/definitions/y"},
    }


def test_metadata_stands_once(document: Mapping[str, Any]) -> None:
    reference = f"#/definitions/{openapi2.OBJECT_META}"
    by_kind = {gvk["kind"]: found for found in document["definitions"].values() for gvk in found.get(GVK, ())}
    for kind in KINDS:
        assert by_kind[kind.name]["properties"]["metadata"]["$ref"] == reference
    assert "uid" in document["definitions"][openapi2.OBJECT_META]["properties"]


# --- protobuf ---------------------------------------------------------------------------------------------------------


def test_protobuf_says_what_json_says(document: Mapping[str, Any]) -> None:
    assert decode(gnostic.encode(document)) == plain(document)


def test_every_field_that_there_is_a_number_for() -> None:
    whole = {
        "type": "string",
        "format": "f",
        "title": "t",
        "description": "d é",
        "default": {"a": [1, None]},
        "multipleOf": 0.5,
        "maximum": 1e300,
        "exclusiveMaximum": True,
        "minimum": -3,
        "exclusiveMinimum": True,
        "maxLength": 1 << 40,
        "minLength": 1,
        "pattern": "p",
        "maxItems": 300,
        "minItems": 127,
        "uniqueItems": True,
        "required": ["a", "b"],
        "enum": ["a", 1, None],
        "additionalProperties": True,
        "items": {"$ref": "#/definitions/x"},
        "properties": {"a": {"type": "integer"}, "b": {"additionalProperties": {"type": "boolean"}}},
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    }
    query = {"name": "q", "in": "query", "description": "d", "type": "string", "format": "f", "enum": ["a"]}
    operation = {
        "tags": ["t"],
        "summary": "s",
        "description": "d",
        "operationId": "o",
        "produces": ["p"],
        "consumes": ["c"],
        "parameters": [query, {"name": "body", "in": "body", "required": True, "schema": whole}],
        "responses": {"200": {"description": "OK", "schema": whole}},
    }
    path = {"name": "n", "in": "path", "required": True, "type": "string"}
    methods = ("get", "put", "post", "delete", "patch")
    document = {
        "swagger": "2.0",
        "info": {"title": "t", "version": "v", "description": "d"},
        "paths": {"/a": {**dict.fromkeys(methods, operation), "parameters": [path]}},
        "definitions": {"x": whole},
    }
    assert decode(gnostic.encode(document)) == document


@pytest.mark.parametrize(
    "document", [{"host": "h"}, {"definitions": {"x": {"nullable": True}}}, {"definitions": {"x": {"oneOf": []}}}]
)
def test_what_has_no_number_is_refused(document: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match="has no field"):
        gnostic.encode(document)


# --- as it is served --------------------------------------------------------------------------------------------------


async def test_its_form_is_negotiated(w: World) -> None:
    for accept, media in (
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json, */*", "application/json"),
        ("text/html, application/*;q=0.5", "application/json"),
        (ASKED, ANSWERED),
        (ANSWERED, ANSWERED),
        (f"application/json;q=0.5, {ASKED}", ANSWERED),
        (f"{ASKED};q=0.2, application/json;q=0.8", "application/json"),
    ):
        reply = await w.call("GET", "/openapi/v2?timeout=32s", headers={"accept": accept}, peer=None)
        assert (reply.code, reply.headers["content-type"]) == (200, media), accept
        assert "Accept" in reply.headers["vary"].split(", ")
        said = decode(reply.body) if media == ANSWERED else reply.json
        assert said["swagger"] == "2.0"
        again = await w.call("GET", "/openapi/v2", headers={"accept": accept, "if-none-match": reply.headers["etag"]})
        assert (again.code, again.body, again.headers["etag"]) == (304, b"", reply.headers["etag"]), accept


async def test_the_forms_have_tags_of_their_own(w: World) -> None:
    tags = {
        (await w.call("GET", "/openapi/v2", headers={"accept": accept})).headers["etag"] for accept in (ASKED, "*/*")
    }
    assert len(tags) == 2


async def test_another_form_is_refused(w: World) -> None:
    for accept in ("application/vnd.kubernetes.protobuf", "application/yaml", "application/json;q=0", f"{ASKED};q=0"):
        reply = await w.call("GET", "/openapi/v2", headers={"accept": accept})
        assert (reply.code, reply.json["reason"]) == (406, "NotAcceptable"), accept


async def test_it_is_made_once(w: World) -> None:
    known = w.api.state.discovery
    await w.call("GET", "/openapi/v2", headers={"accept": ASKED})
    assert known.openapi_v2_protobuf() is known.openapi_v2_protobuf()
    assert known.openapi_v2() is known.openapi_v2()

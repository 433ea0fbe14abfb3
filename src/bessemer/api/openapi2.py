"""OpenAPI v2, one document for all groups: what Argo CD, older kubectl and aggregators ask for.

It is OpenAPI v3 (`api.openapi`) in other words, so that the two never say different things. What v2 has no word for is
said as a Kubernetes server says it of custom kinds, because kubectl reads it so: what may hold unknown fields has no
type, what may be null is not required, and an integer or a string has the format ``int-or-string``. Metadata stands
once, under the name by which Go's clients know it. `api.gnostic` writes the same document as protobuf.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Json = dict[str, Any]
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_V3, _V2 = "#/components/schemas/", "#/definitions/"
_UNTYPED = ("type", "items", "properties", "required")


def document(documents: Iterable[Mapping[str, Any]], version: str) -> Json:
    """One document of the v3 documents of all groups and versions."""
    definitions: Json = {}
    paths: Json = {}
    for one in documents:
        definitions |= {name: _schema(schema) for name, schema in one["components"]["schemas"].items()}
        paths |= {path: _path(said) for path, said in one["paths"].items()}
    for definition in list(definitions.values()):
        _share_metadata(definition, definitions)
    return {
        "swagger": "2.0",
        "info": {"title": "Bessemer", "version": version},
        "paths": paths,
        "definitions": definitions,
    }


def _share_metadata(definition: Json, definitions: Json) -> None:
    """A kind's metadata by reference; what differs, as that of lists and namespaces may, stays where it is."""
    properties = definition.get("properties", {})
    meta = properties.get("metadata", {})
    if "uid" in meta.get("properties", {}) and definitions.setdefault(OBJECT_META, meta) == meta:
        properties["metadata"] = {"$ref": _V2 + OBJECT_META, "description": meta.get("description", "")}


def _schema(schema: Mapping[str, Any]) -> Json:
    if "$ref" in schema:
        found = {"$ref": schema["$ref"].replace(_V3, _V2)}
        return {**found, "description": schema["description"]} if "description" in schema else found
    found = {key: value for key, value in schema.items() if key != "nullable"}
    if found.get("x-kubernetes-preserve-unknown-fields"):
        return {key: value for key, value in found.items() if key not in _UNTYPED}
    if found.get("x-kubernetes-int-or-string"):
        found["format"] = "int-or-string"
    if "properties" in found:
        found["properties"] = {name: _schema(inner) for name, inner in schema["properties"].items()}
        found["required"] = [name for name in schema.get("required", ()) if not _nullable(schema, name)]
    if not found.get("required", True):
        del found["required"]
    for inner in ("items", "additionalProperties"):
        if isinstance(found.get(inner), Mapping):
            found[inner] = _schema(found[inner])
    return found


def _nullable(schema: Mapping[str, Any], name: str) -> bool:
    return bool(schema["properties"].get(name, {}).get("nullable"))


def _path(said: Mapping[str, Any]) -> Json:
    return {
        word: [_parameter(one) for one in value] if word == "parameters" else _operation(value)
        for word, value in said.items()
    }


def _parameter(said: Mapping[str, Any]) -> Json:
    return {**{key: value for key, value in said.items() if key != "schema"}, **_schema(said["schema"])}


def _operation(said: Mapping[str, Any]) -> Json:
    made = {key: value for key, value in said.items() if key not in ("parameters", "requestBody", "responses")}
    parameters = [_parameter(one) for one in said.get("parameters", ())]
    body: Mapping[str, Any] = said.get("requestBody", {}).get("content", {})
    if body:
        schema = _schema(next(iter(body.values()))["schema"])
        parameters.insert(0, {"name": "body", "in": "body", "required": True, "schema": schema})
        made["consumes"] = list(body)
    answers: Sequence[Mapping[str, Any]] = list(said["responses"].values())
    made["produces"] = list(dict.fromkeys(media for answer in answers for media in answer.get("content", {})))
    made["parameters"] = parameters
    made["responses"] = {code: _response(answer) for code, answer in said["responses"].items()}
    return made


def _response(said: Mapping[str, Any]) -> Json:
    content: Mapping[str, Any] = next(iter(said.get("content", {}).values()), {})
    schema = {"schema": _schema(content["schema"])} if "schema" in content else {}
    return {"description": said["description"], **schema}

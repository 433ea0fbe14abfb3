"""pydantic's JSON schema, translated to the structural schema that kubectl and GitOps tools read.

What differs: ``anyOf`` with null becomes the other branch, marked nullable; references are inlined; a union of several
shapes becomes one whose fields are those of all; a map says what its values are; descriptions come from docstrings and
fields. What can be nested in itself ends as a free-form object.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from bessemer.core.resource import Metadata

Schema = dict[str, Any]
_KEPT = (
    "type",
    "format",
    "enum",
    "default",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "pattern",
    "description",
    "multipleOf",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
)
_FREE: Mapping[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_PART_WORDS = {"spec": "What is wanted.", "status": "What is observed; the system writes it."}
_LINE_BREAK = re.compile(r"(?<=\S)\n(?=[^\s*-])")
API_VERSION_WORDS = "Which version of the schema this object is written in."
KIND_WORDS = "Which kind of object this is."


def of_resource(model: type[BaseModel], group: str, *, version: str, kind: str) -> Schema:
    """The schema of a kind."""
    whole = structural(model)
    properties = whole.get("properties", {})
    properties["apiVersion"] = {"type": "string", "description": API_VERSION_WORDS}
    properties["kind"] = {"type": "string", "description": KIND_WORDS}
    properties["metadata"] = metadata()
    for part, words in _PART_WORDS.items():
        if part in properties:
            properties[part].setdefault("description", words)
    return {
        "type": "object",
        "description": module_words(model) or kind,
        "properties": dict(sorted(properties.items())),
        "x-kubernetes-group-version-kind": [{"group": group, "version": version, "kind": kind}],
        **({"required": ["spec"]} if "spec" in whole.get("required", ()) else {}),
    }


def metadata() -> Schema:
    """ObjectMeta, as far as it is kept."""
    schema = structural(Metadata)
    schema["description"] = "Who the object is: name, labels, owners."
    for name in ("creationTimestamp", "deletionTimestamp"):
        schema["properties"][name]["format"] = "date-time"
    return schema


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of a model."""
    raw = _raw(model)
    return _translate(raw, raw.get("$defs", {}), inside=())


@functools.cache
def _raw(model: type[BaseModel]) -> Mapping[str, Any]:
    """What pydantic says, asked once: a model is code, and every kind has the same metadata."""
    return model.model_json_schema(by_alias=True, mode="validation")


def module_words(model: type[BaseModel]) -> str:
    """A kind's words: the docstring of its module, since there it is said once what it is."""
    own = inspect.cleandoc(model.__dict__.get("__doc__") or "")
    text = own or inspect.cleandoc(inspect.getmodule(model).__doc__ or "")
    return _LINE_BREAK.sub(" ", text)


def _translate(schema: Mapping[str, Any], definitions: Mapping[str, Schema], *, inside: tuple[str, ...]) -> Schema:
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        if name in inside:
            return {**_FREE, "description": f"A {name} in itself."}
        inner = _translate(definitions[name], definitions, inside=(*inside, name))
        return {**inner, **_kept(schema)}
    branches = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if branches:
        return _branches(schema, [_translate(b, definitions, inside=inside) for b in branches if b != {"type": "null"}])
    found = _kept(schema)
    if "const" in schema:
        found |= {"type": found.get("type", "string"), "enum": [schema["const"]]}
    if "properties" in schema:
        found["type"] = "object"
        found["properties"] = {
            name: _translate(inner, definitions, inside=inside) for name, inner in schema["properties"].items()
        }
        if schema.get("required"):
            found["required"] = list(schema["required"])
    elif found.get("type") == "object":
        found |= _map(schema.get("additionalProperties"), definitions, inside=inside)
    if found.get("type") == "array":
        found["items"] = _translate(schema.get("items") or _FREE, definitions, inside=inside)
    return found if "type" in found else {**found, **_FREE}


def _kept(schema: Mapping[str, Any]) -> Schema:
    found = {key: schema[key] for key in _KEPT if schema.get(key) is not None}
    for bound, name in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in found:  # OpenAPI 3.0 has these as flags beside the bound
            found[name] = found[bound]
            found[bound] = True
    if schema.get("$ref") and "description" not in schema:
        found.pop("description", None)
    return found


def _map(values: Any, definitions: Mapping[str, Schema], *, inside: tuple[str, ...]) -> Schema:
    if isinstance(values, Mapping) and values:
        return {"additionalProperties": _translate(values, definitions, inside=inside)}
    return {"x-kubernetes-preserve-unknown-fields": True}


def _branches(schema: Mapping[str, Any], branches: list[Schema]) -> Schema:
    """One schema for several: the one that is left without null, or the fields of all."""
    nullable = any(b == {"type": "null"} for b in schema.get("anyOf", ()))
    if len(branches) == 1:
        found = {**branches[0], **_kept(schema)}
    elif {b.get("type") for b in branches} == {"object"}:
        found = {"type": "object", "properties": _joined(branches), **_kept(schema)}
    elif {b.get("type") for b in branches} == {"string", "integer"}:
        found = {"x-kubernetes-int-or-string": True, "type": "string", **_kept(schema)}
    else:
        found = {**branches[0], **_kept(schema)}
    return {**found, "nullable": True} if nullable else found


def _joined(branches: Iterable[Schema]) -> Schema:
    joined: Schema = {}
    for branch in branches:
        for name, inner in branch.get("properties", {}).items():
            known = joined.setdefault(name, dict(inner))
            if "enum" in known and "enum" in inner:
                known["enum"] = list(dict.fromkeys([*known["enum"], *inner["enum"]]))
    return joined

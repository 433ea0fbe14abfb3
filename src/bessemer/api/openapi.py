"""OpenAPI v3, one document per group and version: what ``kubectl explain`` shows and what clients validate against.

Each kind's PATCH names ``fieldValidation``, by which kubectl knows that the server finds unknown fields itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bessemer.api import reviewed, schema
from bessemer.api.patches import STRATEGIC
from bessemer.api.shown import Shown

_TEXT = {"type": "string"}
_PATCHES = ("application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json")
_WRITE_QUERY = ("dryRun", "fieldManager", "fieldValidation")
_PATCH_QUERY = (*_WRITE_QUERY, "force")
_SELECTED_QUERY = ("continue", "fieldSelector", "labelSelector", "limit", "resourceVersion")
_LIST_QUERY = (*_SELECTED_QUERY, "timeoutSeconds", "watch")
_DELETE_QUERY = ("dryRun", "propagationPolicy")


def document(resources: Sequence[Shown], version: str) -> dict[str, Any]:
    """The document of one group and version."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for shown in resources:
        name = schema_name(shown)
        schemas[name] = _schema(shown)
        schemas[f"{name}List"] = _list_schema(shown, name)
        paths |= _paths(shown, name)
    for place in {(shown.group, shown.version) for shown in resources}:
        asked, there = reviewed.described(*place)
        schemas, paths = {**schemas, **asked}, {**paths, **there}
    return {
        "openapi": "3.0.0",
        "info": {"title": "Bessemer", "version": version},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def schema_name(shown: Shown) -> str:
    """``dev.bessemer.v1alpha1.Instance``."""
    group = ".".join(reversed((shown.group or "core.api.k8s.io").split(".")))
    return f"{group}.{shown.version}.{shown.kind}"


def _schema(shown: Shown) -> dict[str, Any]:
    return schema.of_resource(shown.model, shown.group, version=shown.version, kind=shown.kind)


def _list_schema(shown: Shown, name: str) -> dict[str, Any]:
    gvk = {"group": shown.group, "version": shown.version, "kind": f"{shown.kind}List"}
    meta = {"type": "object", "properties": {"resourceVersion": _TEXT, "continue": _TEXT}}
    items = {"type": "array", "items": _reference(name)}
    return {
        "type": "object",
        "description": f"A list of {shown.plural}.",
        "required": ["items"],
        "properties": {"apiVersion": _TEXT, "kind": _TEXT, "metadata": meta, "items": items},
        "x-kubernetes-group-version-kind": [gvk],
    }


def _paths(shown: Shown, name: str) -> dict[str, Any]:
    namespace = "/namespaces/{namespace}" if shown.namespaced else ""
    collection = f"{shown.base}{namespace}/{shown.plural}"
    above = [_parameter("namespace", "path")] if shown.namespaced else []
    of_name = [*above, _parameter("name", "path")]
    many: dict[str, Any] = {"parameters": above} if above else {}
    many["get"] = _operation(shown, "list", answers=f"{name}List", query=_LIST_QUERY)
    one: dict[str, Any] = {"parameters": of_name, "get": _operation(shown, "get", answers=name, query=())}
    for verb, place, method in (("create", many, "post"), ("update", one, "put"), ("patch", one, "patch")):
        if verb in shown.verbs:
            action = {"create": "post", "update": "put", "patch": "patch"}[verb]
            query = _PATCH_QUERY if verb == "patch" else _WRITE_QUERY
            place[method] = _operation(shown, action, answers=name, query=query, body=verb)
    if "delete" in shown.verbs:
        one["delete"] = _operation(shown, "delete", answers=name, query=_DELETE_QUERY)
    if "deletecollection" in shown.verbs:
        many["delete"] = _operation(
            shown, "deletecollection", answers=f"{name}List", query=(*_SELECTED_QUERY, *_DELETE_QUERY)
        )
    status = {f"{collection}/{{name}}/status": {"parameters": of_name, **_of_status(shown, name)}}
    return {collection: many, f"{collection}/{{name}}": one, **(status if shown.has_status else {})}


def _of_status(shown: Shown, name: str) -> dict[str, Any]:
    """What is asked of the status alone: whoever may read the object reads it, its controller or agent writes it."""
    said = {
        "get": _operation(shown, "get", answers=name, query=()),
        "put": _operation(shown, "put", answers=name, query=_WRITE_QUERY, body="update"),
        "patch": _operation(shown, "patch", answers=name, query=_PATCH_QUERY, body="patch"),
    }
    return {method: {**one, "operationId": f"{one['operationId']}Status"} for method, one in said.items()}


def _operation(shown: Shown, action: str, *, answers: str, query: Sequence[str], body: str = "") -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{action}{shown.group.partition('.')[0].title()}{shown.version.title()}{shown.kind}",
        "tags": [shown.group or "core"],
        "parameters": [_parameter(name, "query") for name in query],
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": _reference(answers)}}},
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(shown)[0],
    }
    if body == "patch":
        medias = (*_PATCHES, STRATEGIC) if shown.native else _PATCHES
        operation["requestBody"] = {"content": {media: {"schema": {"type": "object"}} for media in medias}}
    elif body:
        operation["requestBody"] = {"content": {"application/json": {"schema": _reference(schema_name(shown))}}}
    return operation


def _gvk(shown: Shown) -> list[dict[str, str]]:
    return [{"group": shown.group, "version": shown.version, "kind": shown.kind}]


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _parameter(name: str, where: str) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": _TEXT}

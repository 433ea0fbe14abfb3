"""Objects as people keep them: YAML files, folders of them, standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bessemer.core.errors import Invalid


def read_manifests(path: Path) -> list[dict[str, Any]]:
    """Every object of a file (``-`` is standard input) or of a folder's ``*.yaml``, in order. Raises Invalid."""
    if str(path) == "-":
        return _parse(sys.stdin.read(), "standard input")
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml", ".json"))
        return [body for file in files for body in read_manifests(file)]
    try:
        return _parse(path.read_text(), str(path))
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is no text") from error


def _parse(text: str, origin: str) -> list[dict[str, Any]]:
    import yaml

    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.MarkedYAMLError as error:
        line = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise Invalid(f"{origin} is no YAML{line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date or a number and is none
        raise Invalid(f"{origin} is no YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise Invalid(f"{origin} is nested too deeply") from error
    bodies = [
        body
        for number, document in enumerate(documents, 1)
        if document is not None
        for body in _objects(document, f"{origin}, document {number}" if len(documents) > 1 else origin)
    ]
    if not bodies:
        raise Invalid(f"{origin} holds no object")
    return bodies


def _objects(document: Any, origin: str) -> list[dict[str, Any]]:
    """The object that a document is, or those of the list that it is."""
    if not isinstance(document, dict) or "items" not in document:
        return [_checked(document, origin)]
    items = document["items"] if document["items"] is not None else []
    if not isinstance(items, list):
        raise Invalid(f"{origin}: items must be a list")
    return [_checked(item, f"{origin}, item {number}") for number, item in enumerate(items, 1)]


def _checked(body: Any, origin: str) -> dict[str, Any]:
    """An object that says which one it is, in words; the rest is for the server to judge."""
    import orjson

    metadata = body.get("metadata") if isinstance(body, dict) else None
    if not isinstance(metadata, dict) or "kind" not in body or "name" not in metadata:
        raise Invalid(f"{origin}: each object needs kind and metadata.name")
    words = {"kind": body["kind"], "metadata.name": metadata["name"], "metadata.namespace": metadata.get("namespace")}
    for field, value in words.items():
        if not isinstance(value, str) and not (field == "metadata.namespace" and value is None):
            raise Invalid(f"{origin}: {field} must be text, and is {value!r}")
    for field in ("labels", "annotations"):
        if not isinstance(metadata.get(field) or {}, dict):
            raise Invalid(f"{origin}: metadata.{field} must be a mapping")
    try:
        orjson.dumps(body)
    except TypeError as error:
        raise Invalid(f"{origin} holds what JSON has no word for: {error}") from error
    return dict(body)

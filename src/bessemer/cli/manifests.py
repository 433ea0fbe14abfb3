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
        documents = [d for d in yaml.safe_load_all(text) if d is not None]
    except yaml.MarkedYAMLError as error:
        line = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise Invalid(f"{origin} is no YAML{line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise Invalid(f"{origin} is no YAML: {' '.join(str(error).split())}") from error
    bodies: list[dict[str, Any]] = []
    for document in documents:
        items = document.get("items", [document]) if isinstance(document, dict) else [document]
        for body in items:
            if not isinstance(body, dict) or "kind" not in body or "name" not in body.get("metadata", {}):
                raise Invalid(f"{origin}: each object needs kind and metadata.name")
            bodies.append(body)
    if not bodies:
        raise Invalid(f"{origin} holds no object")
    return bodies

"""Objects as people keep them: YAML and JSON files, folders of them, standard input; each knows where it stands."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bessemer.core.errors import Invalid

if TYPE_CHECKING:
    from yaml import Node

SUFFIXES = (".yaml", ".yml", ".json")
_STEP = re.compile(r"[^.\[\]]+|\[\d+\]")


@dataclass(frozen=True, slots=True)
class Manifest:
    """An object of a file. ``line`` counts from 1."""

    body: dict[str, Any]
    file: str
    line: int
    _node: Any = field(default=None, repr=False, compare=False)

    @property
    def place(self) -> str:
        """``vm.yaml:12``."""
        return f"{self.file}:{self.line}"

    def at(self, path: str) -> str:
        """Where a field stands, as an error names it (``spec.devices.count``), or the nearest that holds it."""
        node, line = self._node, self.line
        for step in _STEP.findall(path):
            found = _below(node, step)
            if found is None:
                break
            line, node = found
        return f"{self.file}:{line}"


def read_all(paths: Sequence[Path]) -> list[Manifest]:
    """Every object of all of them, each once. Raises Invalid for one that stands there twice."""
    found = [manifest for path in paths for manifest in manifests(path)]
    seen: dict[tuple[Any, ...], Manifest] = {}
    for one in found:
        metadata = one.body["metadata"]
        other = seen.setdefault((one.body["kind"], metadata.get("namespace") or "", metadata["name"]), one)
        if other is not one:
            name = f"{one.body['kind']} {metadata['name']}"
            raise Invalid(f"{one.place}: {name} stands at {other.place} already")
    return found


def manifests(path: Path) -> list[Manifest]:
    """Every object of a file (``-`` is standard input) or of a folder and all below it, in order. Raises Invalid."""
    if str(path) == "-":
        return _parse(sys.stdin.read(), "standard input")
    if path.is_dir():
        # What begins with a dot is somebody's tool's, as for every shell.
        files = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and not _hidden(p.relative_to(path)))
        found = [manifest for file in files for manifest in manifests(file)]
        if not found:
            raise Invalid(f"{path} holds no object: no file below it ends with {', '.join(SUFFIXES)}")
        return found
    try:
        return _parse(path.read_text(), str(path))
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is no text") from error


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _parse(text: str, file: str) -> list[Manifest]:
    import yaml

    found: list[Manifest] = []
    try:
        loader = yaml.SafeLoader(text)
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                found += _objects(loader.construct_document(node), node, file=file)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise Invalid(f"{file}{line}: this is no YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date or a number and is none
        raise Invalid(f"{file}: this is no YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise Invalid(f"{file} is nested too deeply") from error
    if not found:
        raise Invalid(f"{file} holds no object")
    return found


def _objects(document: Any, node: Node, *, file: str) -> Iterator[Manifest]:
    """The object that a document is, or those of the list that it is."""
    if document is None:
        return
    if not isinstance(document, dict) or "items" not in document:
        yield _checked(document, node, file=file)
        return
    items = document["items"] if document["items"] is not None else []
    if not isinstance(items, list):
        raise Invalid(f"{file}:{_line(node)}: items must be a list")
    nodes = (_below(node, "items") or (0, None))[1]
    for item, inner in zip(items, nodes.value if items and nodes is not None else (), strict=True):
        yield _checked(item, inner, file=file)


def _checked(body: Any, node: Node, *, file: str) -> Manifest:
    """An object that says which one it is, in words; the rest is for the server to judge."""
    import orjson

    place = f"{file}:{_line(node)}"
    metadata = body.get("metadata") if isinstance(body, dict) else None
    if not isinstance(metadata, dict) or "kind" not in body or "name" not in metadata:
        raise Invalid(f"{place}: each object needs kind and metadata.name")
    words = {"kind": body["kind"], "metadata.name": metadata["name"], "metadata.namespace": metadata.get("namespace")}
    for name, value in words.items():
        if not isinstance(value, str) and not (name == "metadata.namespace" and value is None):
            raise Invalid(f"{place}: {name} must be text, and is {value!r}")
    for name in ("labels", "annotations"):
        if not isinstance(metadata.get(name) or {}, dict):
            raise Invalid(f"{place}: metadata.{name} must be a mapping")
    try:
        orjson.dumps(body)
    except TypeError as error:
        raise Invalid(f"{place}: it holds what JSON has no word for: {error}") from error
    return Manifest(dict(body), file, _line(node), node)


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _below(node: Any, step: str) -> tuple[int, Node] | None:
    """The line and the node of a field or an item, or None."""
    import yaml

    if isinstance(node, yaml.SequenceNode) and step.startswith("["):
        index = int(step[1:-1])
        return (_line(node.value[index]), node.value[index]) if index < len(node.value) else None
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if getattr(key, "value", None) == step:
                return _line(key), value
    return None

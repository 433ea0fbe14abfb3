"""The manifest of a model of several files, and which paths its files may have. Pure.

It is canonical JSON, so that equal files have one manifest with one digest: objects with sorted keys and no spaces,
files by path. Paths become files on hosts, so they are judged where they come in and once more where they are laid out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import orjson

from bessemer.core.errors import DriverError
from bessemer.drivers.fetch.protocol import ModelPart

FILES_MAX = 1000
PATH_LENGTH_MAX, NAME_LENGTH_MAX, DEPTH_MAX = 512, 200, 8

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=-]*")


def check_paths(paths: Sequence[str]) -> None:
    """Raise DriverError ``ImportFailed`` for paths that are not of plain names one below the other, and for two that a
    disk may take for one."""
    if len(paths) > FILES_MAX:
        raise DriverError("ImportFailed", f"a model has at most {FILES_MAX} files, and this one {len(paths)}")
    for path in paths:
        names = path.split("/")
        plain = all(_NAME.fullmatch(name) and len(name) <= NAME_LENGTH_MAX for name in names)
        if not plain or len(names) > DEPTH_MAX or len(path) > PATH_LENGTH_MAX:
            raise DriverError("ImportFailed", f"{path[:80]!r} is no path that a model's file may have")
    folded = [path.lower() for path in paths]
    folders = {"/".join(path.split("/")[:end]) for path in folded for end in range(1, path.count("/") + 1)}
    if len(set(folded)) != len(folded) or not folders.isdisjoint(folded):
        raise DriverError("ImportFailed", "two of its files have one path, or differ in nothing but capitals")


def manifest_of(parts: Iterable[ModelPart]) -> bytes:
    """The manifest itself."""
    files = [{"path": part.path, "digest": part.digest, "sizeBytes": part.size_bytes} for part in parts]
    said = {"version": 1, "files": sorted(files, key=lambda file: str(file["path"]))}
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)

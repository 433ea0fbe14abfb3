"""Which files of a source a model needs: its weights in one format, and the texts that engines read beside them. Pure.

Pickles are never taken, nor code, whatever is asked for; where a repository has the same weights as safetensors and as
pickles, as most do, the former are.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from bessemer.core.errors import DriverError
from bessemer.drivers.fetch.manifest import check_paths
from bessemer.drivers.fetch.protocol import Listed, Listing
from bessemer.drivers.weights.pickles import check_name, is_pickle_by_name

SHOWN_MAX = 6
_WEIGHTS = (".safetensors", ".gguf")
_TEXTS = (".json", ".jinja", ".txt", ".model", ".tiktoken")
_ELSEWHERE = ("onnx", "openvino", "original", "tf", "flax", "coreml", ".git", ".cache")
"""Folders of the same weights for others' engines."""


def chosen(listing: Listing, patterns: Sequence[str]) -> tuple[Listed, ...]:
    """The model's files, by path. Raises DriverError ``FilesUnclear``, ``PickleRefused``, ``ImportFailed``."""
    files = _asked(listing, patterns) if patterns else _needed(listing)
    check_paths([file.path for file in files])
    return tuple(sorted(files, key=lambda file: file.path))


def _asked(listing: Listing, patterns: Sequence[str]) -> list[Listed]:
    for pattern in patterns:
        if not any(fnmatchcase(file.path, pattern) for file in listing.files):
            raise DriverError("FilesUnclear", f"no file there is called {pattern[:80]!r}; there are {_shown(listing)}")
    files = [file for file in listing.files if any(fnmatchcase(file.path, pattern) for pattern in patterns)]
    for file in files:
        check_name(file.path)
        if not file.path.lower().endswith((*_WEIGHTS, *_TEXTS)):
            what = "weights and the texts beside them are taken, nothing else"
            raise DriverError("FilesUnclear", f"{file.path[:80]!r} is neither: {what}")
    return files


def _needed(listing: Listing) -> list[Listed]:
    files = [file for file in listing.files if file.path.split("/")[0].lower() not in _ELSEWHERE]
    if len(files) == 1:
        check_name(files[0].path)
        return files
    safe = [file for file in files if file.path.endswith(".safetensors")]
    safe = [file for file in safe if not _named(file, "consolidated")] or safe  # the same once more, for one engine
    if safe:
        folders = {PurePosixPath(file.path).parent for file in safe}
        texts = [f for f in files if f.path.endswith(_TEXTS) and PurePosixPath(f.path).parent in folders]
        return [*safe, *texts]
    packed = [file for file in files if file.path.endswith(".gguf") and not _named(file, "mmproj")]
    stems = {file.path.rpartition("-of-")[0][:-6] or file.path for file in packed}
    if len(stems) == 1:
        return packed
    if packed:
        raise DriverError("FilesUnclear", f"it has several GGUF models: name one in files, of {_shown(listing)}")
    for file in files:
        if is_pickle_by_name(file.path):
            check_name(file.path)
    raise DriverError("FilesUnclear", "it has no weights in GGUF or safetensors")


def _named(file: Listed, begin: str) -> bool:
    return PurePosixPath(file.path).name.startswith(begin)


def _shown(listing: Listing) -> str:
    # What is no letter is escaped: a terminal would obey it, and a status cannot hold half a character.
    names = sorted(repr(file.path[:80])[1:-1] for file in listing.files if file.path.endswith(_WEIGHTS))
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(names[:SHOWN_MAX]) + more or "no weights"

"""Weights in files of this machine: each is opened once, without following a link, and read in a thread."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from bessemer.core.errors import DriverError
from bessemer.core.inference import ModelFacts
from bessemer.drivers.weights import configs, gguf, pickles, safetensors, texts
from bessemer.drivers.weights.protocol import Part, refused, shown
from bessemer.drivers.weights.tensors import Tensors

PARTS_MAX = 1000
TEXT_BYTES_MAX = 8 << 20
"""Of a text that is read. ``tokenizer.json`` is larger, and is not."""

_CONFIG, _ADAPTER, _TOKENIZER = "config.json", "adapter_config.json", "tokenizer_config.json"
_TEMPLATES = frozenset(("chat_template.jinja", "chat_template.json"))
_INDEX = ".safetensors.index.json"
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf")


class FileWeights:
    """Implements `protocol.Weights`."""

    async def facts(self, parts: Sequence[Part]) -> ModelFacts:
        return await asyncio.to_thread(_facts, parts)


def _facts(parts: Sequence[Part]) -> ModelFacts:
    if len(parts) > PARTS_MAX:
        raise refused(f"it has more than {PARTS_MAX} files")
    for part in parts:
        pickles.check_name(part.path)
    ordered = sorted(parts, key=lambda part: part.path)
    for part in ordered:
        with _opened(part) as (stream, _):
            pickles.check_bytes(part.path, stream.read(pickles.FIRST_BYTES))
    kinds = {kind for kind in (_kind(part, alone=len(parts) == 1) for part in ordered) if kind}
    if len(kinds) != 1:
        raise refused("it has weights of two formats" if kinds else "it has no weights: no GGUF or safetensors file")
    return _gguf(ordered) if kinds == {"gguf"} else _safetensors(ordered)


def _kind(part: Part, *, alone: bool) -> str:
    """gguf or safetensors, "" for a file beside them. One that is alone is told by its bytes."""
    suffix = PurePosixPath(part.path).suffix.lower()
    if suffix in (".gguf", ".safetensors"):
        return suffix[1:]
    if not alone:
        return ""
    with _opened(part) as (stream, size):
        first = stream.read(9)
        if first.startswith(gguf.MAGIC):
            return "gguf"
        return "safetensors" if safetensors.begins(first, size) else ""


def _gguf(parts: Sequence[Part]) -> ModelFacts:
    """One file, or one that was split into several, of which the first says what all are."""
    files = parts if len(parts) == 1 else [part for part in parts if part.path.lower().endswith(".gguf")]
    if len(files) > 1:
        found = [_SPLIT.search(part.path) for part in files]
        numbers = [(int(at[1]), int(at[2])) if at else (0, 0) for at in found]
        if numbers != [(n + 1, len(files)) for n in range(len(files))]:
            raise refused("it has several GGUF files that are not the parts of one: name the one that is meant")
    tensors, first = Tensors(), gguf.Header()
    for n, part in enumerate(files):
        with _opened(part) as (stream, size), _of(part):
            header = gguf.read(stream, size, tensors=tensors)
        first = header if n == 0 else first
    split = first.values.get("split.count", 0)
    if split not in (0, len(files)):
        raise refused(f"it is one of {split} parts of a model, and {len(files)} are here")
    return _whole(configs.of_gguf(first, tensors))


def _safetensors(parts: Sequence[Part]) -> ModelFacts:
    tensors, said = Tensors(), {part.path: part for part in parts}
    where: dict[str, str] = {}
    for part in parts:
        if len(parts) == 1 or part.path.lower().endswith(".safetensors"):
            with _opened(part) as (stream, size), _of(part):
                before = set(tensors.names)
                safetensors.read(stream, size, tensors=tensors)
                where.update(dict.fromkeys(tensors.names - before, part.path))
    for path, part in said.items():
        if path.endswith(_INDEX):
            _check_index(_text(part), where, what=path)
    template = not _TEMPLATES.isdisjoint(said)
    if not template and _TOKENIZER in said:
        template = bool(_text(said[_TOKENIZER]).get("chat_template"))
    adapter = _text(said[_ADAPTER]) if _ADAPTER in said else None
    config = _text(said[_CONFIG]) if _CONFIG in said else {}
    return _whole(configs.of_texts(tensors, config=config, adapter=adapter, chat_template=template))


def _check_index(index: dict[str, Any], where: dict[str, str], *, what: str) -> None:
    """Every tensor that the index names is in the file that it says; else an engine would fail, or read another."""
    named = index.get("weight_map")
    if not isinstance(named, dict):
        raise refused(f"{shown(what)} has no weight_map")
    folder = what.rpartition("/")[0]
    for name, file in named.items():
        path = f"{folder}/{file}" if folder else file
        if where.get(name) != path:
            raise refused(f"{shown(what)} says that {shown(name)} is in {shown(str(file))}, and it is not there")


def _whole(facts: ModelFacts) -> ModelFacts:
    if not facts.parameters:
        raise refused("it has no tensors")
    return facts


def _text(part: Part) -> dict[str, Any]:
    with _opened(part) as (stream, size):
        if size > TEXT_BYTES_MAX:
            raise refused(f"{shown(part.path)} is larger than {TEXT_BYTES_MAX} bytes")
        return texts.parse(stream.read(TEXT_BYTES_MAX), what=shown(part.path))


@contextmanager
def _of(part: Part) -> Iterator[None]:
    """Name the file in what is raised within."""
    try:
        yield
    except DriverError as error:
        raise DriverError(error.reason, f"{shown(part.path)}: {error.message}", internal=error.internal) from error


@contextmanager
def _opened(part: Part) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file and its size. Raises DriverError ``WeightsRefused``."""
    try:
        stream = _open(part.file)
    except OSError as error:
        raise DriverError("WeightsRefused", f"{shown(part.path)} cannot be read", internal=str(error)) from error
    with stream:
        try:
            yield stream, os.fstat(stream.fileno()).st_size
        except OSError as error:
            raise DriverError("WeightsRefused", f"{shown(part.path)} cannot be read", internal=str(error)) from error


def _open(path: Path) -> BinaryIO:
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError("no regular file")
    return os.fdopen(number, "rb")

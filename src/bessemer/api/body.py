"""Bodies from outside: read within a bound of bytes and time, and parsed within a bound of depth.

JSON is the default, also where no type is said; YAML without aliases and tags, in which timestamps, infinities and
numbers in base 60 are text; protobuf of the kinds that `protobuf` lists. What comes out is plain JSON values. Nothing
recursive runs over a body before its depth is known, and nothing takes more than time linear to it.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Hashable, Mapping
from itertools import accumulate
from typing import Any, ClassVar

import orjson
import yaml
from starlette.requests import ClientDisconnect, Request

from bessemer.api import protobuf
from bessemer.api.context import Limits
from bessemer.api.errors import UnknownFormat
from bessemer.api.names import CAUSES_MAX
from bessemer.api.twice import STRING, Twice, in_yaml, told
from bessemer.core.errors import Malformed, TooLarge

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})
_STEP = bytes.maketrans(b"[{]}", b"\x02\x02\x00\x00")
_NOT_BRACKETS = bytes(c for c in range(256) if c not in b"[]{}")
_ACCEPTED = "application/json, application/yaml"
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_NUMBERS = {
    _INT: re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)\Z"),
    _FLOAT: re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?\Z"),
}
"""Numbers as YAML 1.1 writes them, but for base 60 (hours:minutes:seconds): that costs time quadratic to its length."""


def media_type(header: str) -> str:
    """``application/json; charset=utf-8`` → ``application/json``."""
    return header.partition(";")[0].strip().lower()


async def read(request: Request, limits: Limits) -> bytes:
    """The whole body. Raises TooLarge, or Malformed where it does not come within the time."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limits.body_bytes:
        raise TooLarge(f"a request body has at most {limits.body_bytes} bytes")
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await _collect(request, limits.body_bytes)
    except TimeoutError as error:
        raise Malformed("the request body did not come in time") from error


async def _collect(request: Request, most: int) -> bytes:
    parts = bytearray()
    try:
        async for part in request.stream():
            parts += part
            if len(parts) > most:
                raise TooLarge(f"a request body has at most {most} bytes")
    except ClientDisconnect as error:
        raise Malformed("the request ended before its body did") from error
    return bytes(parts)


async def read_object(request: Request, limits: Limits, *, twice: Twice | None = None) -> dict[str, Any]:
    """The body as an object, in the format of its content type. Raises Malformed, TooLarge, UnknownFormat."""
    raw = await read(request, limits)
    return await parse_object(raw, limits, content_type=request.headers.get("content-type", ""), twice=twice)


async def parse_object(raw: bytes, limits: Limits, *, content_type: str, twice: Twice | None = None) -> dict[str, Any]:
    """An object in JSON, YAML or protobuf; ``twice`` is told of fields that stand there again. Raises Malformed,
    TooLarge, UnknownFormat."""
    media = media_type(content_type)
    if media == protobuf.MEDIA:
        return protobuf.parse(raw)
    if media in _YAML:
        if len(raw) > limits.yaml_bytes:
            raise TooLarge(f"a YAML body has at most {limits.yaml_bytes} bytes")
        return as_object(await asyncio.to_thread(parse_yaml, raw, limits.depth, twice=twice))
    if media not in ("", "application/json"):
        raise UnknownFormat(
            f"the body of the request was in an unknown format - accepted media types include: {_ACCEPTED}"
        )
    return as_object(await parse_checked(raw, limits.depth, twice=twice))


def as_object(value: Any) -> dict[str, Any]:
    """``value`` if it is an object. Raises Malformed."""
    if not isinstance(value, dict):
        raise Malformed("the body must be an object")
    return value


async def parse_checked(raw: bytes, depth: int, *, twice: Twice | None) -> Any:
    """As `parse_json`; ``twice`` is told of fields that stand there again."""
    value = parse_json(raw, depth)
    if twice is not None:
        await told(raw, value, twice=twice)
    return value


def parse_json(raw: bytes, depth: int) -> Any:
    """Plain values. Raises Malformed for what is no JSON, and for nesting past ``depth``."""
    check_depth(raw, depth)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is no JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error


def check_depth(raw: bytes, depth: int) -> None:
    """Raise Malformed where brackets outside strings nest deeper than ``depth``; no recursion, no copy of values."""
    if raw.count(b"{") + raw.count(b"[") <= depth:
        return
    brackets = STRING.sub(b"", raw).translate(_STEP, _NOT_BRACKETS)
    if max(accumulate(step - 1 for step in brackets), default=0) > depth:
        raise Malformed(f"the body is nested deeper than {depth} levels")


def parse_yaml(raw: bytes, depth: int, *, twice: Twice | None = None) -> Any:
    """Plain JSON values of one YAML document. Raises Malformed for aliases, tags, more documents, or too deep."""
    try:
        _check_yaml(raw, depth)
        value, found = _load_yaml(raw)
        if twice is not None and found:
            twice(found)
        return orjson.loads(orjson.dumps(value))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise Malformed(f"the body is no YAML that can be read{where}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed("the YAML body holds what JSON cannot say") from error


def _load_yaml(raw: bytes) -> tuple[Any, list[str]]:
    loader = _JsonLoader(raw)
    try:
        return loader.get_single_data(), loader.twice
    finally:
        loader.dispose()


def _check_yaml(raw: bytes, depth: int) -> None:
    level = documents = 0
    for event in yaml.parse(raw, Loader=_JsonLoader):
        if isinstance(event, yaml.AliasEvent):
            raise Malformed("aliases are not accepted in a YAML body")
        if getattr(event, "tag", None) is not None:
            raise Malformed("tags are not accepted in a YAML body")
        if isinstance(event, yaml.CollectionStartEvent):
            level += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            level -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if level > depth:
            raise Malformed(f"the body is nested deeper than {depth} levels")
        if documents > 1:
            raise Malformed("one object at a time: the YAML body has more than one document")


def _finite(loader: yaml.CSafeLoader, node: yaml.ScalarNode) -> float:
    """Raises ValueError where JSON would say null."""
    value = float(loader.construct_yaml_float(node))
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


class _JsonLoader(yaml.CSafeLoader):
    """YAML as JSON has it: no timestamps (they stay text), no merge keys. What a plain word may be is null, a boolean
    or a number; no tag says otherwise, so no constructor meets a word that its pattern does not hold."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        first: [
            (tag, _NUMBERS.get(tag, pattern))
            for tag, pattern in rules
            if not tag.endswith((":timestamp", ":merge", ":value"))
        ]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors: ClassVar[dict[str | None, Any]] = {**yaml.SafeLoader.yaml_constructors, _FLOAT: _finite}

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.twice: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value) and len(self.twice) < CAUSES_MAX:
            self.twice += in_yaml(node)
        return mapping


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386. Depth is that of the deeper one, which both bodies' check bounds."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged

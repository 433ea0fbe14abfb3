"""Field types and small readers that several kinds share: names, quantities, references by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import AfterValidator, BaseModel, StringConstraints

from bessemer.core.clock import epoch
from bessemer.core.errors import Cause
from bessemer.core.quota import Quota
from bessemer.core.units import parse_bytes

Name = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$", max_length=253),
]
"""A reference to an object by its name (RFC 1123 subdomain)."""


@dataclass(frozen=True, slots=True)
class Names:
    """On the type of a field: what it says is the name of a ``kind``, in the same project where that lives in one."""

    kind: str


Label = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", max_length=63),
]
"""A name of at most 63 characters (RFC 1123 label)."""


_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def _labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise ValueError(f"{key[:63]!r}: {value[:63]!r} is no label")
    return labels


MatchLabels = Annotated[dict[str, str], AfterValidator(_labels)]
"""Labels that an object must bear, all of them."""


def _bytes(text: str) -> str:
    parse_bytes(text)
    return text


Bytes = Annotated[str, AfterValidator(_bytes), StringConstraints(max_length=32)]
"""A quantity of bytes as people write it: ``512Mi``, ``1.5Gi``."""

ShortText = Annotated[str, StringConstraints(max_length=256)]

QUOTA_MAX = 1 << 62


def at(*path: str, default: Any = None) -> Callable[[Mapping[str, Any]], Any]:
    """A column that reads one field of the body: ``at("status", "phase")``."""

    def read(body: Mapping[str, Any]) -> Any:
        value: Any = body
        for part in path:
            if not isinstance(value, Mapping) or part not in value:
                return default
            value = value[part]
        return value

    return read


def ready(body: Mapping[str, Any]) -> str:
    """A column: the Ready condition's status, or the reason where it is not True."""
    for condition in at("status", "conditions", default=())(body):
        if condition.get("type") == "Ready":
            return "True" if condition.get("status") == "True" else str(condition.get("reason", ""))
    return ""


# --- what several kinds find wrong ------------------------------------------------------------------------------

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def label_problems(name: str, *, longest: int = 63) -> Iterator[Cause]:
    """A name that must be an RFC 1123 label: it becomes a host name, a part of other names, a label's value."""
    if len(name) > longest or not _LABEL.fullmatch(name):
        yield Cause("metadata.name", f"must be 1 to {longest} of a-z, 0-9 and -, with a letter or digit at both ends")


def taint_problems(path: str, keys: Sequence[str]) -> Iterator[Cause]:
    """Keys of taints in a list of objects: each is one word, and names one taint."""
    for index, key in enumerate(keys):
        if not 0 < len(key) <= 253 or key == "*" or not key.isascii() or not key.isprintable() or " " in key:
            yield Cause(f"{path}[{index}].key", "must be a word of 1 to 253 characters, and not *")


def duplicates(path: str, values: Sequence[str], *, field: str = "") -> Iterator[Cause]:
    """Every entry of a list that stands there a second time, by its path."""
    for index, value in enumerate(values):
        if value in values[:index]:
            yield Cause(f"{path}[{index}]" + (f".{field}" if field else ""), f"{value} stands here twice")


def time_problems(path: str, text: str | None) -> Iterator[Cause]:
    """A time that nobody can read. None is none."""
    try:
        if text is not None:
            epoch(text)
    except (ValueError, OverflowError):
        yield Cause(path, "must be a time as 2025-06-15T15:06:40Z")


def quota_problems(path: str, quota: Quota) -> Iterator[Cause]:
    """A bound below nothing, or past what can be counted."""
    bounds = {name: value for name, value in quota.dump().items() if isinstance(value, int)}
    bounds |= {f"devices[{model[:63]}]": count for model, count in quota.devices.items()}
    for name, value in bounds.items():
        if not 0 <= value <= QUOTA_MAX:
            yield Cause(f"{path}.{name}", f"must be between 0 and {QUOTA_MAX}")


def unchangeable(path: str, *, new: Any, old: Any, why: str) -> Iterator[Cause]:
    """A field that keeps its first value."""
    if new != old:
        yield Cause(path, f"cannot change from {str(old)[:63]!r}: {why}")


# --- references -------------------------------------------------------------------------------------------------


References = Mapping[tuple[str, ...], str]


def references(resource: type[BaseModel]) -> References:
    """The fields of a kind's spec that name other objects: path as JSON has it → kind. Lists are ``*`` on the path."""
    spec = resource.model_fields.get("spec")
    return dict(_references(spec.annotation, ("spec",))) if spec is not None else {}


def _references(annotation: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    for part in get_args(annotation):
        if isinstance(part, Names):
            yield path, part.kind
        elif part is not type(None):
            yield from _references(part, (*path, "*") if get_origin(annotation) is list else path)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for field in annotation.model_fields.values():
            below = (*path, field.alias or "")
            yield from ((below, one.kind) for one in field.metadata if isinstance(one, Names))
            yield from _references(field.annotation, below)


def named(fields: References, body: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The objects that a body names: (path as ``spec.endpoints[0]``, kind, name)."""
    for path, kind in fields.items():
        for place, name in _values(body, path, place=""):
            yield place, kind, name


def _values(value: Any, path: tuple[str, ...], *, place: str) -> Iterator[tuple[str, str]]:
    if not path:
        if isinstance(value, str):
            yield place, value
    elif path[0] == "*" and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _values(item, path[1:], place=f"{place}[{index}]")
    elif isinstance(value, Mapping) and path[0] in value:
        yield from _values(value[path[0]], path[1:], place=f"{place}.{path[0]}" if place else path[0])

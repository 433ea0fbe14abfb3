"""Field types and small readers that several kinds share: names, quantities, references by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, StringConstraints

from bessemer.core.units import parse_bytes

Name = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$", max_length=253
    ),
]
"""A reference to an object by its name (RFC 1123 subdomain)."""

Label = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", max_length=63),
]
"""A name of at most 63 characters (RFC 1123 label)."""


def _bytes(text: str) -> str:
    parse_bytes(text)
    return text


Bytes = Annotated[str, AfterValidator(_bytes), StringConstraints(max_length=32)]
"""A quantity of bytes as people write it: ``512Mi``, ``1.5Gi``."""

ShortText = Annotated[str, StringConstraints(max_length=256)]


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
            return (
                "True"
                if condition.get("status") == "True"
                else str(condition.get("reason", ""))
            )
    return ""

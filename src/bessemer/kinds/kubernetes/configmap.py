"""ConfigMap: text and bytes by name, kept for whoever reads them. Nothing here follows from what it says.

Invariants: at most 1 MiB in all; a name is in ``data`` or in ``binaryData``; what is immutable never changes. It is no
place for secrets: its body is stored as it is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.resource import ALL, READ, Column, Kind, Resource
from bessemer.kinds.context import Context
from bessemer.kinds.kubernetes.files import MOST, change_problems, decoded, key_problems, size_problems


class ConfigMap(Resource[Any, Any]):
    KIND = "ConfigMap"
    spec: ClassVar[None] = None  # type: ignore[misc]
    status: ClassVar[None] = None  # type: ignore[misc]

    api_version: str = "v1"
    data: dict[str, str] | None = Field(None, description="Text by name.")
    binary_data: dict[str, str] | None = Field(None, description="Bytes by name, in base64.")
    immutable: bool | None = Field(None, description="True: the data never changes again.")


def validate(new: ConfigMap, old: ConfigMap | None) -> Sequence[Cause]:
    """Names, base64, size, and what may not change."""
    causes = [*key_problems("data", new.data), *key_problems("binaryData", new.binary_data)]
    causes += [
        Cause(f"binaryData[{key[:80]}]", f'Invalid value: "{key[:80]}": duplicate of key present in data')
        for key in (new.data or {}).keys() & (new.binary_data or {}).keys()
    ]
    binary = {key: decoded(text) for key, text in (new.binary_data or {}).items()}
    causes += [
        Cause(f"binaryData[{key[:80]}]", "Invalid value: illegal base64 data")
        for key, value in binary.items()
        if value is None
    ]
    size = sum(len(text.encode()) for text in (new.data or {}).values()) + sum(len(v or b"") for v in binary.values())
    causes += size_problems("", size)
    return [*causes, *change_problems(new, old, fields=("data", "binary_data"))]


def count(body: Mapping[str, Any]) -> int:
    """How many entries it has."""
    return len(body.get("data") or ()) + len(body.get("binaryData") or ())


KIND: Kind[Context, ConfigMap] = Kind(
    resource=ConfigMap,
    plural="configmaps",
    namespaced=True,
    short_names=("cm",),
    categories=(),
    group="",
    version="v1",
    parts=("data", "binaryData", "immutable"),
    most=MOST,
    rights={"admin": ALL, "tenant-admin": ALL, "member": ALL, "reader": READ},
    columns=(Column(name="Data", value=count, type="integer"),),
    validate=validate,
)

"""Secret: a few values that members of its project may read, and nobody else; readers may not.

Invariants: its data is in no stored body and no change: it stands sealed beside the object, in one version, and goes
with it; at most 1 MiB in all; the type never changes, and what is immutable neither. The body says which version is its
own and how many entries that has (``sealed``), so that lists are shown without opening anything.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import orjson
from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.resource import ALL, Column, Kind, Resource
from bessemer.kinds.context import Context
from bessemer.kinds.fields import at
from bessemer.kinds.kubernetes.files import MOST, change_problems, decoded, key_problems, size_problems

NAME = "Secret"
SEALED = "sealed"
"""The part of a stored body that stands for the data. It is never served."""

_NEEDS: Mapping[str, tuple[tuple[str, ...], bool]] = MappingProxyType(
    {
        "kubernetes.io/tls": (("tls.crt", "tls.key"), True),
        "kubernetes.io/ssh-auth": (("ssh-privatekey",), True),
        "kubernetes.io/basic-auth": (("username", "password"), False),
        "kubernetes.io/dockerconfigjson": ((".dockerconfigjson",), True),
        "kubernetes.io/dockercfg": ((".dockercfg",), True),
    }
)
"""What a type's data must have: all of these, or one of them."""


class Secret(Resource[Any, Any]):
    KIND = NAME
    spec: ClassVar[None] = None  # type: ignore[misc]
    status: ClassVar[None] = None  # type: ignore[misc]

    api_version: str = "v1"
    type: str = Field("Opaque", description="What the data is for: it says which names must be there.", max_length=253)
    data: dict[str, str] | None = Field(None, description="Values by name, in base64.")
    string_data: dict[str, str] | None = Field(
        None, description="Values by name as text: taken up into data, never shown."
    )
    immutable: bool | None = Field(None, description="True: the data never changes again.")


def fold(body: dict[str, Any]) -> None:
    """Take ``stringData`` up into ``data``, as every write does before anything else. What has not the right shape is
    left for the schema to refuse."""
    text, data = body.get("stringData"), body.get("data")
    if not isinstance(text, dict) or not isinstance(data, dict | None):
        return
    if all(isinstance(value, str) for value in text.values()):
        del body["stringData"]
        folded = {key: base64.b64encode(value.encode(errors="replace")).decode() for key, value in text.items()}
        body["data"] = {**(data or {}), **folded}


def validate(new: Secret, old: Secret | None) -> Sequence[Cause]:
    """Names, base64, size, what the type asks for, and what may not change."""
    values = {key: decoded(text) for key, text in (new.data or {}).items()}
    causes = [*key_problems("data", new.data)]
    causes += [
        Cause(f"data[{key[:80]}]", "Invalid value: illegal base64 data")
        for key, value in values.items()
        if value is None
    ]
    causes += size_problems("data", sum(len(value or b"") for value in values.values()))
    causes += _type_problems(new.type, values)
    if old is not None and new.type != old.type:
        causes.append(Cause("type", f'Invalid value: "{new.type}": field is immutable'))
    return [*causes, *change_problems(new, old, fields=("data",))]


def _type_problems(kind: str, values: Mapping[str, bytes | None]) -> Iterator[Cause]:
    names, every = _NEEDS.get(kind, ((), True))
    missing = [name for name in names if name not in values]
    if missing and (every or len(missing) == len(names)):
        yield from (Cause(f"data[{name}]", "Required value", "FieldValueRequired") for name in missing)
    elif names and names[0].startswith(".docker"):
        try:
            orjson.loads(values[names[0]] or b"")
        except orjson.JSONDecodeError:
            yield Cause(f"data[{names[0]}]", 'Invalid value: "<secret contents redacted>": it is no JSON')


def count(body: Mapping[str, Any]) -> int:
    """How many entries it has: of a body as it is served, or as it is stored."""
    kept: int = at(SEALED, "keys", default=0)(body)
    return kept or len(body.get("data") or ())


KIND: Kind[Context, Secret] = Kind(
    resource=Secret,
    plural="secrets",
    namespaced=True,
    categories=(),
    group="",
    version="v1",
    parts=("type", "immutable", SEALED),
    most=MOST,
    rights={"admin": ALL, "tenant-admin": ALL, "member": ALL},
    columns=(Column(name="Type", value=at("type")), Column(name="Data", value=count, type="integer")),
    validate=validate,
)

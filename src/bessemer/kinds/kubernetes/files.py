"""What ConfigMap and Secret have in common: entries by file name, a bound on their bytes, and ``immutable``."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

from bessemer.core.errors import Cause

BYTES_MAX = 1 << 20
"""Of all entries of one object together."""

MOST = 1_000
"""Objects of a kind in one project."""

_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_KEY_WORDS = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    "or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)


def key_problems(path: str, entries: Mapping[str, Any] | None) -> Iterator[Cause]:
    """Entries that could be no file's name."""
    for key in entries or ():
        if not _KEY.fullmatch(key) or key in (".", "..") or key.startswith(".."):
            yield Cause(f"{path}[{key[:80]}]", f'Invalid value: "{key[:80]}": {_KEY_WORDS}')


def decoded(text: str) -> bytes | None:
    """Base64 as Go reads it, in which line breaks count for nothing; None where it is none."""
    try:
        return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return None


def size_problems(path: str, size: int) -> Iterator[Cause]:
    """More than is kept."""
    if size > BYTES_MAX:
        yield Cause(path, f"Too long: may not be more than {BYTES_MAX} bytes", "FieldValueTooLong")


def change_problems(new: Any, old: Any, *, fields: tuple[str, ...]) -> Iterator[Cause]:
    """What was said to be immutable stays so, and as it is. ``fields`` are of the models."""
    if old is None or not old.immutable:
        return
    words = "Forbidden: field is immutable when `immutable` is set"
    if not new.immutable:
        yield Cause("immutable", words, "FieldValueForbidden")
    for field in fields:
        if (getattr(new, field) or {}) != (getattr(old, field) or {}):
            name = type(new).model_fields[field].alias or field
            yield Cause(name, words, "FieldValueForbidden")

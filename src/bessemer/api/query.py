"""Query parameters, read as Go reads them; unknown ones are ignored, as every client sends some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from bessemer.api.errors import WrongOption
from bessemer.api.managed import MANAGER_MAX
from bessemer.api.names import plain
from bessemer.core.errors import Cause, Invalid, Malformed

_TRUE = frozenset({"1", "t", "T", "true", "True", "TRUE"})
_FALSE = frozenset({"0", "f", "F", "false", "False", "FALSE", ""})
_REVISION_MAX = 1 << 63
LIMIT_MAX = 1 << 31
FieldValidation = Literal["Strict", "Warn", "Ignore"]
_VALIDATIONS: Mapping[str, FieldValidation] = MappingProxyType({"Strict": "Strict", "Warn": "Warn", "Ignore": "Ignore"})


def flag(query: Mapping[str, str], name: str) -> bool:
    """Go's ParseBool; absent is false. Raises Malformed."""
    text = query.get(name, "")
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise Malformed(f'strconv.ParseBool: parsing "{text[:40]}": invalid syntax')


def number(query: Mapping[str, str], name: str) -> int:
    """A whole number; absent is 0. Raises Malformed."""
    text = query.get(name, "")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Malformed(f'strconv.ParseInt: parsing "{text[:40]}": invalid syntax')
    return int(text)


def revision(text: str) -> int:
    """A resourceVersion; "" is 0. Raises Malformed."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) >= _REVISION_MAX:
        raise Malformed(f'resourceVersion: Invalid value: "{text[:40]}": must be a revision that this server gave')
    return int(text)


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Of create, update and patch. Unknown fields are refused unless the client says else."""

    dry_run: bool = False
    validation: FieldValidation = "Strict"
    manager: str = ""


def write_options(query: Mapping[str, str], kind: str) -> WriteOptions:
    """``kind`` is CreateOptions, UpdateOptions or PatchOptions, for the message. Raises Invalid."""
    dry = query.get("dryRun", "")
    if dry not in ("", "All"):
        raise _unsupported(kind, "dryRun", value=f'[]string{{"{dry[:40]}"}}', supported='"All"')
    said = query.get("fieldValidation", "") or "Strict"
    validation = _VALIDATIONS.get(said)
    if validation is None:
        raise _unsupported(kind, "fieldValidation", value=f'"{said[:40]}"', supported='"", "Ignore", "Strict", "Warn"')
    return WriteOptions(dry == "All", validation, _manager(query, kind))


def _manager(query: Mapping[str, str], kind: str) -> str:
    said = query.get("fieldManager", "")
    if len(said.encode(errors="replace")) > MANAGER_MAX:
        words, reason = f"Too long: may not be more than {MANAGER_MAX} bytes", "FieldValueTooLong"
        raise WrongOption(kind, Cause("fieldManager", words, reason))
    if not said.isprintable():
        words = f'Invalid value: "{plain(said)}": should only contain printable characters'
        raise WrongOption(kind, Cause("fieldManager", words))
    return said


@dataclass(frozen=True, slots=True)
class ListOptions:
    """Of list and watch. ``revision`` None is unset; ``seconds`` 0 is for ever."""

    labels: str = ""
    fields: str = ""
    limit: int = 0
    after: str = ""
    revision: int | None = None
    watch: bool = False
    bookmarks: bool = False
    seconds: int = 0
    include: str = "Metadata"


def list_options(query: Mapping[str, str]) -> ListOptions:
    """Raises Malformed, and Invalid for what is forbidden together."""
    text = query.get("resourceVersion", "")
    match = query.get("resourceVersionMatch", "")
    watch = flag(query, "watch")
    if "sendInitialEvents" in query:
        words = "Forbidden: sendInitialEvents is not offered: list, then watch from the revision of the list"
        raise _options("sendInitialEvents", words, reason="FieldValueForbidden")
    if match and not text:
        words = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        raise _options("resourceVersionMatch", words, reason="FieldValueForbidden")
    if match not in ("", "Exact", "NotOlderThan"):
        raise _unsupported(
            "ListOptions", "resourceVersionMatch", value=f'"{match[:40]}"', supported='"Exact", "NotOlderThan"'
        )
    limit = number(query, "limit")
    return ListOptions(
        labels=query.get("labelSelector", ""),
        fields=query.get("fieldSelector", ""),
        limit=min(limit, LIMIT_MAX),
        after=query.get("continue", ""),
        revision=revision(text) if text else None,
        watch=watch,
        bookmarks=flag(query, "allowWatchBookmarks"),
        seconds=number(query, "timeoutSeconds"),
        include=query.get("includeObject", "") or "Metadata",
    )


def _options(field: str, words: str, *, reason: str) -> Invalid:
    return WrongOption("ListOptions", Cause(field, words, reason))


def _unsupported(kind: str, field: str, *, value: str, supported: str) -> Invalid:
    words = f"Unsupported value: {value}: supported values: {supported}"
    return WrongOption(kind, Cause(field, words, "FieldValueNotSupported"))

"""Query parameters, read as Go reads them; unknown ones are ignored, as every client sends some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from starlette.datastructures import QueryParams

from bessemer.api.errors import Subject, Unfit
from bessemer.api.managed import MANAGER_MAX
from bessemer.api.names import plain
from bessemer.api.twice import Twice
from bessemer.core.errors import Cause, Malformed

_TRUE = frozenset({"1", "t", "T", "true", "True", "TRUE"})
_FALSE = frozenset({"0", "f", "F", "false", "False", "FALSE"})
_REVISION_MAX = 1 << 63
LIMIT_MAX = 1 << 31
_META, _MATCH = "meta.k8s.io", "resourceVersionMatch"
_INCLUDED = ("None", "Metadata", "Object")
FieldValidation = Literal["Strict", "Warn", "Ignore"]
_VALIDATIONS: Mapping[str, FieldValidation] = MappingProxyType({"Strict": "Strict", "Warn": "Warn", "Ignore": "Ignore"})


def flag(query: Mapping[str, str], name: str) -> bool:
    """Go's ParseBool; absent is false, and a name without a value true. Raises Malformed."""
    text = query.get(name)
    if text is None or text in _FALSE:
        return False
    if not text or text in _TRUE:
        return True
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
        words = f'strconv.ParseUint: parsing "{text[:40]}": invalid syntax'
        raise Malformed(f'resourceVersion: Invalid value: "{text[:40]}": {words}')
    return int(text)


UNKNOWN_MAX = 8
"""Fields that are named as unknown."""


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Of create, update and patch. Unknown fields are refused unless the client says else."""

    dry_run: bool = False
    validation: FieldValidation = "Strict"
    manager: str = ""
    warnings: list[str] = field(default_factory=list)
    """What the answer says beside, once the body is read."""

    @property
    def twice(self) -> Twice | None:
        """What is done about fields that stand twice in the body; None where nothing is."""
        return None if self.validation == "Ignore" else self._doubt

    def unknown(self, paths: Sequence[str]) -> None:
        """These fields of the body mean nothing. Raises Malformed where that is strict."""
        if paths and self.validation != "Ignore":
            self._doubt([f'unknown field "{plain(path)}"' for path in paths[:UNKNOWN_MAX]])

    def _doubt(self, words: Sequence[str]) -> None:
        if self.validation == "Strict":
            raise Malformed("strict decoding error: " + ", ".join(words))
        self.warnings.extend(words)


def write_options(query: Mapping[str, str], kind: str) -> WriteOptions:
    """``kind`` is CreateOptions, UpdateOptions or PatchOptions, for the message. Raises Invalid."""
    said = query.get("fieldValidation", "") or "Strict"
    validation = _VALIDATIONS.get(said)
    if validation is None:
        supported = '"", "Ignore", "Strict", "Warn"'
        raise Unfit(Subject(_META, kind=kind), [_unsupported("fieldValidation", f'"{said[:40]}"', supported=supported)])
    return WriteOptions(dry_run(_all(query, "dryRun"), kind), validation, _manager(query, kind))


def dry_run(said: Any, kind: str) -> bool:
    """``dryRun`` as options have it: a list of nothing but All, or nothing. Raises Invalid: a dry run that is not
    understood is no write."""
    if not said:
        return False
    if isinstance(said, list) and all(one == "All" for one in said):
        return True
    listed = ", ".join(f'"{str(one)[:40]}"' for one in (said if isinstance(said, list) else [said]))
    raise Unfit(Subject(_META, kind=kind), [_unsupported("dryRun", f"[]string{{{listed}}}", supported='"All"')])


def refuse_dry_run(query: Mapping[str, str]) -> None:
    """Of a route that cannot say what it would do. Raises Malformed where that is asked, Invalid as `dry_run` does."""
    if dry_run(_all(query, "dryRun"), "CreateOptions"):
        raise Malformed("dryRun is not supported here: this route would do what it does, and has done nothing")


def _all(query: Mapping[str, str], name: str) -> list[str]:
    """Each value of a parameter that may be given more than once."""
    if name not in query:
        return []
    return query.getlist(name) if isinstance(query, QueryParams) else [query[name]]


def _manager(query: Mapping[str, str], kind: str) -> str:
    said = query.get("fieldManager", "")
    if len(said.encode(errors="replace")) > MANAGER_MAX:
        words, reason = f"Too long: may not be more than {MANAGER_MAX} bytes", "FieldValueTooLong"
        raise Unfit(Subject(_META, kind=kind), [Cause("fieldManager", words, reason)])
    if not said.isprintable():
        words = f'Invalid value: "{plain(said)}": should only contain printable characters'
        raise Unfit(Subject(_META, kind=kind), [Cause("fieldManager", words)])
    return said


@dataclass(frozen=True, slots=True)
class ListOptions:
    """Of list and watch. ``revision`` None is unset; ``exact`` asks for that one and no later. ``initial``: whether a
    watch begins with what there is and says where that ends; None where the client says nothing of it. ``seconds`` 0 is
    for ever."""

    labels: str = ""
    fields: str = ""
    limit: int = 0
    after: str = ""
    revision: int | None = None
    exact: bool = False
    watch: bool = False
    initial: bool | None = None
    bookmarks: bool = False
    seconds: int = 0
    include: str = "Metadata"


def list_options(query: Mapping[str, str]) -> ListOptions:
    """Raises Malformed, and Invalid for what is forbidden together."""
    text, match, after = (query.get(name, "") for name in ("resourceVersion", "resourceVersionMatch", "continue"))
    watch = flag(query, "watch")
    initial = flag(query, "sendInitialEvents") if "sendInitialEvents" in query else None
    causes = _watch_causes(match, after, initial=initial) if watch else _list_causes(match, after, query=query)
    if causes:
        raise Unfit(Subject(_META, kind="ListOptions"), causes)
    if after and text not in ("", "0") and not watch:
        raise Malformed("specifying resource version is not allowed when using continue")
    include = query.get("includeObject", "") or "Metadata"
    if include not in _INCLUDED:
        raise Malformed(f'Invalid value: "{include[:40]}": must be None, Metadata or Object')
    limit = number(query, "limit")
    return ListOptions(
        labels=query.get("labelSelector", ""),
        fields=query.get("fieldSelector", ""),
        limit=min(limit, LIMIT_MAX),
        after=after,
        revision=revision(text) if text else None,
        exact=match == "Exact",
        watch=watch,
        initial=initial,
        bookmarks=flag(query, "allowWatchBookmarks"),
        seconds=number(query, "timeoutSeconds"),
        include=include,
    )


def _list_causes(match: str, after: str, *, query: Mapping[str, str]) -> list[Cause]:
    """What may not be said together of a list."""
    text = query.get("resourceVersion", "")
    causes = []
    if match and not text:
        causes.append(_forbidden(_MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
    if match and after:
        causes.append(_forbidden(_MATCH, "resourceVersionMatch is forbidden when continue is provided"))
    if match not in ("", "Exact", "NotOlderThan"):
        causes.append(_unsupported(_MATCH, f'"{match[:40]}"', supported='"Exact", "NotOlderThan", ""'))
    if match == "Exact" and text == "0":
        causes.append(_forbidden(_MATCH, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    if "sendInitialEvents" in query:
        causes.append(_forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return causes


def _watch_causes(match: str, after: str, *, initial: bool | None) -> list[Cause]:
    """What may not be said together of a watch."""
    causes = []
    if initial is not None and match != "NotOlderThan":
        causes.append(_forbidden(_MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
    if match and initial is None:
        words = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        causes.append(_forbidden(_MATCH, words))
    if match not in ("", "NotOlderThan"):
        causes.append(_unsupported(_MATCH, f'"{match[:40]}"', supported='"NotOlderThan"'))
    if match and after:
        causes.append(_forbidden(_MATCH, "resourceVersionMatch is forbidden when continue is provided"))
    return causes


def _forbidden(field: str, words: str) -> Cause:
    return Cause(field, f"Forbidden: {words}", "FieldValueForbidden")


def _unsupported(field: str, value: str, *, supported: str) -> Cause:
    words = f"Unsupported value: {value}: supported values: {supported}"
    return Cause(field, words, "FieldValueNotSupported")

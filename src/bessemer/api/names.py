"""Metadata from outside: names, labels, annotations, finalizers, and text that does not show what it is.

All checks are on ASCII classes with whole matches, in time and memory linear to the input: the place of what is wrong
is put into words once something is wrong there. Bounds are Kubernetes'.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from bessemer.core.errors import Cause

NAME_MAX = 253
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
LABELS_MAX = 128
ANNOTATIONS_BYTES_MAX = 256 << 10
LISTED_MAX = 128
CAUSES_MAX = 50
KEY_MAX = NAME_MAX + 1 + 63
"""Of a field's name: the longest is ``prefix/name``. Whoever names fields in errors may do so for each of a list."""
PATH_MAX = 1024

_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_OPAQUE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")

SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


def is_subdomain(name: str) -> bool:
    """Whether it may name an object."""
    return 0 < len(name) <= NAME_MAX and _SUBDOMAIN.fullmatch(name) is not None


def generate(prefix: str) -> str:
    """A name that begins with the prefix, as Kubernetes makes them: at most 63 characters, the last five random."""
    return prefix[:58] + "".join(secrets.choice(_SUFFIX) for _ in range(5))


def is_label_key(key: str) -> bool:
    """Whether it may stand left in a label: ``name`` or ``prefix/name``."""
    prefix, slash, name = key.rpartition("/")
    return (not slash or is_subdomain(prefix)) and len(name) <= 63 and _QUALIFIED.fullmatch(name) is not None


def is_label_value(value: str) -> bool:
    """Whether it may stand right in a label."""
    return value == "" or (len(value) <= 63 and _QUALIFIED.fullmatch(value) is not None)


def show(value: Any) -> str:
    """A value as it is quoted back: short, and in ASCII."""
    text = plain(value if isinstance(value, str) else repr(value), 80)
    return '"' + text.replace('"', '\\"') + '"'


def plain(text: str, longest: int = NAME_MAX) -> str:
    """Text as it may be shown to whoever sent it, or read its log: printable ASCII, and not more than ``longest``."""
    short = text if len(text) <= longest else text[: longest - 3] + "..."
    return short if short.isascii() and short.isprintable() else short.encode("unicode_escape").decode()


def field_path(parts: Iterable[str | int]) -> str:
    """``("spec", "ports", 0, "name")`` → ``spec.ports[0].name``; in ASCII, and not longer than ``PATH_MAX``."""
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{plain(part)}" if path else plain(part)
        if len(path) > PATH_MAX:
            break
    return plain(path, PATH_MAX)


def metadata_causes(metadata: Any, *, namespaced: bool) -> list[Cause]:
    """What is wrong with an object's metadata as a client wrote it; ``CAUSES_MAX`` of each field."""
    if not isinstance(metadata, Mapping):
        return [Cause("metadata", f"Invalid value: {show(metadata)}: must be an object")]
    found = [*_name_causes(metadata)]
    for field, check in (("labels", _labels), ("annotations", _annotations)):
        value = metadata.get(field)
        if value is not None and not isinstance(value, Mapping):
            found.append(Cause(f"metadata.{field}", "Invalid value: must be an object of strings"))
        elif value:
            found.extend(islice(check(value), CAUSES_MAX))
    found.extend(islice(_listed(metadata), CAUSES_MAX))
    return found


def opaque_text(value: Any, path: str) -> Iterator[Cause]:
    """Every string in ``value`` that holds control characters, or characters that reorder what a reader sees; and
    every field whose name does, or is longer than ``KEY_MAX``."""
    if _is_plain(value):
        return
    for at, item in places(value, path):
        name = at[-1]
        if isinstance(name, str) and (len(name) > KEY_MAX or _opaque(name)):
            words = "holds what is not text" if len(name) <= KEY_MAX else f"has more than {KEY_MAX} characters"
            yield Cause(field_path(at[:-1]), f"Invalid value: {show(name)}: a field's name {words}")
        if isinstance(item, str) and (bad := _opaque(item)):
            yield Cause(field_path(at), f"Invalid value: U+{ord(bad[0]):04X} is not allowed in text")


def _is_plain(value: Any) -> bool:
    """Whether there is nothing to tell, which is so nearly always, and seen sooner without the places."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            if not (item.isascii() and item.isprintable()):
                return False
        elif isinstance(item, dict):
            if max(map(len, item), default=0) > KEY_MAX:
                return False
            left += item
            left += item.values()
        elif isinstance(item, list):
            left += item
    return True


def _opaque(text: str) -> re.Match[str] | None:
    return None if text.isascii() and text.isprintable() else _OPAQUE.search(text)


def places(value: Any, path: str) -> Iterator[tuple[list[str | int], Any]]:
    """All that is in ``value``, each with where it is, for `field_path`. That is one list, which changes with the next
    step: to keep a place for each of a million items would cost a million times the longest name above them."""
    levels: list[Iterator[tuple[str | int, Any]]] = [iter([(path, value)])]
    at: list[str | int] = [path]
    while levels:
        for at[-1], item in levels[-1]:
            yield at, item
            if isinstance(item, dict | list):
                levels.append(iter(item.items()) if isinstance(item, dict) else enumerate(item))
                at.append("")
                break
        else:
            levels.pop()
            at.pop()


def _name_causes(metadata: Mapping[str, Any]) -> Iterator[Cause]:
    name, generate = metadata.get("name"), metadata.get("generateName")
    if not name and not generate:
        yield Cause("metadata.name", "Required value: name or generateName is required", "FieldValueRequired")
    if name and not (isinstance(name, str) and is_subdomain(name)):
        yield Cause("metadata.name", f"Invalid value: {show(name)}: {SUBDOMAIN_WORDS}")
    if generate and not (isinstance(generate, str) and is_subdomain(generate.rstrip("-") or "-")):
        yield Cause("metadata.generateName", f"Invalid value: {show(generate)}: {SUBDOMAIN_WORDS}")


def _labels(labels: Mapping[str, Any]) -> Iterator[Cause]:
    if len(labels) > LABELS_MAX:
        words = f"Too many: {len(labels)}: must have at most {LABELS_MAX} items"
        yield Cause("metadata.labels", words, "FieldValueTooMany")
        return
    for key, value in labels.items():
        if not is_label_key(key):
            yield Cause("metadata.labels", f"Invalid value: {show(key)}: not a label's name")
        if not isinstance(value, str) or not is_label_value(value):
            yield Cause("metadata.labels", f"Invalid value: {show(value)}: not a label's value")


def _annotations(annotations: Mapping[str, Any]) -> Iterator[Cause]:
    size = 0
    for key, value in annotations.items():
        if not is_label_key(key.lower()):
            yield Cause("metadata.annotations", f"Invalid value: {show(key)}: not an annotation's name")
        if not isinstance(value, str):
            yield Cause("metadata.annotations", f"Invalid value: {show(value)}: must be a string")
            continue
        size += len(key) + len(value)
    if size > ANNOTATIONS_BYTES_MAX:
        words = f"Too long: must have at most {ANNOTATIONS_BYTES_MAX} bytes"
        yield Cause("metadata.annotations", words, "FieldValueTooLong")


def _listed(metadata: Mapping[str, Any]) -> Iterator[Cause]:
    for field in ("finalizers", "ownerReferences"):
        value = metadata.get(field)
        if value is None:
            continue
        if not isinstance(value, list) or len(value) > LISTED_MAX:
            yield Cause(f"metadata.{field}", f"Invalid value: must be a list of at most {LISTED_MAX}")
        elif field == "finalizers":
            bad = [item for item in value if not isinstance(item, str) or not is_label_key(item)]
            yield from (Cause("metadata.finalizers", f"Invalid value: {show(b)}: not a finalizer's name") for b in bad)

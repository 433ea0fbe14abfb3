"""Where things are on the server: the paths of kinds and of the routes beside them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import quote

from bessemer.core.errors import Malformed
from bessemer.core.resource import GROUP, VERSION, Key

BASE = f"/apis/{GROUP}/{VERSION}"
CORE = "/api/v1"
_CORE_PLURALS = {"Event": "events", "Namespace": "namespaces", "ConfigMap": "configmaps", "Secret": "secrets"}
_OTHERS = {"Lease": "/apis/coordination.k8s.io/v1"}
"""Of groups that are neither ours nor core's."""
NEWEST: Mapping[str, str] = MappingProxyType({"Flavor": "v1beta1"})
"""Kinds with a newer version than `VERSION`, which is spoken of them. Our own parts are spared the table of kinds; a
test compares the two."""


def api_version(kind: str) -> str:
    """In which one a kind of ours is spoken of."""
    return f"{GROUP}/{NEWEST.get(kind, VERSION)}"


def regular_plural(kind: str) -> str:
    """The plural that every kind of ours has: its name in lower case, with the s of English."""
    word = kind.lower()
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "ch", "sh")) else f"{word}s"


def segment(word: str) -> str:
    """A word as one segment of a path. Raises Malformed for what would be none, or another path: a URL with ``.`` as
    its last segment is that of the collection."""
    if word in ("", ".", "..") or "/" in word:
        raise Malformed(f"{word!r} is no name" if word else "a name is needed")
    return quote(word, safe="")


class Paths:
    """Paths by kind; ``plurals`` maps ``Instance`` to ``instances``, for those kinds alone. Without it a kind is taken
    to be one, and the server says whether it is."""

    def __init__(self, plurals: Mapping[str, str] | None) -> None:
        self._plurals = None if plurals is None else dict(plurals)

    def collection(self, kind: str, namespace: str | None, *, version: str = "") -> str:
        """Of all projects where ``namespace`` is None or ""; ``version`` is the apiVersion of a body that has one.
        Raises Malformed for a kind that the product has not, and for what is no name."""
        place = f"/namespaces/{segment(namespace)}" if namespace else ""
        if kind in _CORE_PLURALS:
            return f"{CORE}{place}/{_CORE_PLURALS[kind]}"
        plural = regular_plural(kind) if self._plurals is None else self._plurals.get(kind)
        if plural is None:
            raise Malformed(f"there is no kind {kind!r}")
        if kind in _OTHERS:
            return f"{_OTHERS[kind]}{place}/{plural}"
        spoken = version if version.startswith(f"{GROUP}/") else api_version(kind)
        return f"/apis/{quote(spoken)}{place}/{plural}"

    def of(self, key: Key, sub: str = "", *, version: str = "") -> str:
        """One object, or its subresource; never a collection. Raises Malformed."""
        path = f"{self.collection(key.kind, key.namespace, version=version)}/{segment(key.name)}"
        return f"{path}/{sub}" if sub else path

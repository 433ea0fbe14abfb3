"""Where things are on the server: the paths of kinds and of the routes beside them."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from bessemer.core.errors import Malformed
from bessemer.core.resource import GROUP, VERSION, Key

BASE = f"/apis/{GROUP}/{VERSION}"
CORE = "/api/v1"
_CORE_PLURALS = {"Event": "events", "Namespace": "namespaces"}


class Paths:
    """Paths by kind; ``plurals`` maps ``Instance`` to ``instances``."""

    def __init__(self, plurals: Mapping[str, str]) -> None:
        self._plurals = dict(plurals)

    def collection(self, kind: str, namespace: str | None) -> str:
        """Of all projects where ``namespace`` is None or "". Raises Malformed for a kind that the product has not."""
        place = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
        if kind in _CORE_PLURALS:
            return f"{CORE}{place}/{_CORE_PLURALS[kind]}"
        if kind in self._plurals:
            return f"{BASE}{place}/{self._plurals[kind]}"
        raise Malformed(f"there is no kind {kind!r}")

    def of(self, key: Key, sub: str = "") -> str:
        """One object, or its subresource."""
        if not key.name:
            raise Malformed("a name is needed")
        path = f"{self.collection(key.kind, key.namespace)}/{quote(key.name, safe='')}"
        return f"{path}/{sub}" if sub else path

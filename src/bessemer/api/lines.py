"""How the events of a watch are written: one JSON object per line, in the shape that was asked for.

What a line says hangs on the event, the resource, the selection and the shape alone, but for a Table's: the first names
the columns, and ages are of the moment. It decides nothing about who may read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from bessemer.api import table
from bessemer.api.errors import status_of
from bessemer.api.media import Shape
from bessemer.api.shown import Shown
from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError
from bessemer.core.resource import Change
from bessemer.kinds.kubernetes.secret import SEALED

if TYPE_CHECKING:
    from bessemer.api.lists import Selection

INITIAL_EVENTS_END = {"k8s.io/initial-events-end": "true"}


class Lines:
    """Of one watch, or of all that show the same. ``include`` is what a Table's rows hold beside their cells."""

    def __init__(self, resource: Shown, selection: Selection, *, shape: Shape, include: str, clock: Clock) -> None:
        self._resource = resource
        self._selection = selection
        self.shape = shape
        self._include = include
        self._clock = clock
        self._head = True
        self.whole = shape == "object" or include == "Object"
        """Whether more is shown of an object than columns and metadata."""
        self._stored = selection.plain and not resource.sealed and shape == "object"

    def of(self, event: Change) -> bytes:
        """The line of a change as it is served; empty where it shows nothing."""
        if self._stored:
            return b'{"type":"' + event.type.encode() + b'","object":' + event.body + b"}\n"
        body = orjson.loads(event.body)
        kind = event.type if self._selection.plain else self._seen(event, body)
        if kind is None:
            return b""
        if self.whole and self._resource.sealed and body.pop(SEALED, None) and kind != "DELETED":
            return b""  # its data is gone: what is there now comes with a later change
        return b'{"type":"' + kind.encode() + b'","object":' + self._shaped(body, event.revision) + b"}\n"

    def bookmark(self, revision: int, *, ends: bool = False) -> bytes:
        """``ends``: what there is was told with this, and changes follow."""
        kind, version = self._resource.kind, self._resource.api_version
        metadata: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if ends:
            metadata["annotations"] = INITIAL_EVENTS_END
        value: dict[str, Any] = {"kind": kind, "apiVersion": version, "metadata": metadata}
        if self.shape == "table":
            value = table.bookmark(self._resource, metadata)
        elif self.shape == "partial":
            value = table.partial(value)
        return orjson.dumps({"type": "BOOKMARK", "object": value}) + b"\n"

    def _seen(self, event: Change, body: dict[str, Any]) -> str | None:
        """The type of a change as a selector sees it: what leaves it is DELETED, what enters it ADDED."""
        now = self._selection.shows(body)
        before = now
        if event.type == "MODIFIED" and event.labels_before is not None:
            was = {**body, "metadata": {**body["metadata"], "labels": event.labels_before}}
            before = self._selection.shows(was)
        if event.type != "MODIFIED" or now == before:
            return event.type if now else None
        return "ADDED" if now else "DELETED"

    def _shaped(self, body: dict[str, Any], revision: int) -> bytes:
        if self.shape == "table":
            line = table.row(self._resource, body, include=self._include, now=self._clock.now())
            head, self._head = self._head, False
            return table.table(self._resource, [line], metadata={"resourceVersion": str(revision)}, head=head)
        return orjson.dumps(table.partial(body) if self.shape == "partial" else body)


def ending(why: BessemerError) -> bytes:
    """The line that says why a stream ends."""
    return orjson.dumps({"type": "ERROR", "object": status_of(why)}) + b"\n"

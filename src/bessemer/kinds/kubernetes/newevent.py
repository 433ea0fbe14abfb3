"""Event of events.k8s.io/v1: a core/v1 Event in newer words. Both are one object; each client reads its own.

Newer clients give ``eventTime`` and a series where older ones count; what one says is kept, and the other reads it
under its own names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.resource import Kind, Resource
from bessemer.kinds import event
from bessemer.kinds.context import Context
from bessemer.kinds.kubernetes.view import Body, View, all_entries, own_entries

_VERSION = "events.k8s.io/v1"
_NOTE_BYTES_MAX = 1024
_OLDER: Mapping[str, str] = MappingProxyType(
    {
        "regarding": "involvedObject",
        "note": "message",
        "reportingController": "reportingComponent",
        "deprecatedSource": "source",
        "deprecatedFirstTimestamp": "firstTimestamp",
        "deprecatedLastTimestamp": "lastTimestamp",
        "deprecatedCount": "count",
    }
)
"""What has another name in core/v1."""

_NEWER: Mapping[str, str] = MappingProxyType({old: new for new, old in _OLDER.items()})


class Event(Resource[Any, Any]):
    KIND = "Event"
    spec: ClassVar[None] = None  # type: ignore[misc]
    status: ClassVar[None] = None  # type: ignore[misc]

    api_version: str = _VERSION
    regarding: event.ObjectReference = Field(
        default_factory=event.ObjectReference, description="The object that it happened to."
    )
    related: event.ObjectReference | None = Field(None, description="A second object that it is about.")
    type: str = Field("Normal", description="Normal or Warning.")
    reason: str = Field("", description="Why, in one CamelCase word.")
    action: str = Field("", description="What was done about it.")
    note: str = Field("", description="What happened, in a sentence.")
    event_time: str | None = Field(None, description="When it happened, with microseconds.")
    series: event.EventSeries | None = Field(None, description="How often it was seen, where one stands for many.")
    reporting_controller: str = Field("", description="The part that tells it.")
    reporting_instance: str = Field("", description="The process that tells it.")
    deprecated_source: event.EventSource = Field(
        default_factory=event.EventSource, description="Which part saw it, as older clients say it."
    )
    deprecated_first_timestamp: str | None = Field(None, description="When it first happened, for older clients.")
    deprecated_last_timestamp: str | None = Field(None, description="When it last happened, for older clients.")
    deprecated_count: int | None = Field(None, description="How often it happened, for older clients.")


def validate(new: Event, old: Event | None) -> Sequence[Cause]:
    """As for core/v1, in this version's words, and what this version asks for besides."""
    causes = event.told_problems(
        new.metadata.namespace or "",
        about=("regarding", new.regarding),
        teller=("reportingController", new.reporting_controller),
    )
    if old is None:
        needed: tuple[tuple[str, str | None], ...] = (
            ("eventTime", new.event_time),
            ("reportingController", new.reporting_controller),
            ("action", new.action),
        )
        needed = (*needed, ("reportingInstance", new.reporting_instance), ("reason", new.reason))
        causes += [Cause(name, "Required value", "FieldValueRequired") for name, said in needed if not said]
    if new.type not in ("Normal", "Warning"):
        causes.append(Cause("type", f'Invalid value: "{new.type[:80]}": has invalid value'))
    if len(new.note.encode()) > _NOTE_BYTES_MAX:
        causes.append(Cause("note", f"Too long: may not be more than {_NOTE_BYTES_MAX} bytes", "FieldValueTooLong"))
    return causes


def outward(body: Body) -> Body:
    """A core/v1 Event's body in newer words."""
    said = {_NEWER.get(name, name): value for name, value in body.items()}
    return {**said, "apiVersion": _VERSION, "metadata": own_entries(body["metadata"], _VERSION)}


def inward(body: Body, old: Body | None) -> Body:
    """The inverse. Older clients read when it happened from their own fields."""
    said = {_OLDER.get(name, name): value for name, value in body.items()}
    when = said.get("eventTime")
    said.setdefault("firstTimestamp", when)
    said.setdefault("lastTimestamp", (said.get("series") or {}).get("lastObservedTime") or when)
    kept = {name: value for name, value in said.items() if value is not None}
    return {**kept, "apiVersion": "v1", "metadata": all_entries(body["metadata"], old, version=_VERSION)}


KIND: Kind[Context, Event] = Kind(
    resource=Event,
    plural="events",
    namespaced=True,
    short_names=("ev",),
    categories=(),
    group="events.k8s.io",
    version="v1",
    parts=event.parts_of(Event),
    rights=event.KIND.rights,
    columns=event.KIND.columns,
    validate=validate,
)
VIEW = View(kind=KIND, of=event.Event.KIND, outward=outward, inward=inward)

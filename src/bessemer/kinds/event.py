"""Event: what happened to an object, in words, as core/v1 has it, so that every Kubernetes client shows it.

Read-only: the store's ``Events`` port writes the body, counts repetitions and lets old ones go. An event is told, never
acted upon: no reconcile reads one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from bessemer.core.resource import READ, ApiModel, Column, Kind, Resource
from bessemer.kinds.context import Context
from bessemer.kinds.fields import at


class ObjectReference(ApiModel):
    """Which object an event is about."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


class EventSource(ApiModel):
    """Which part saw it, and on which host."""

    component: str = ""
    host: str = ""


class EventSeries(ApiModel):
    """How often it was seen, where one event stands for many."""

    count: int = 0
    last_observed_time: str | None = None


class Event(Resource[Any, Any]):
    """It has neither spec nor status: core/v1 says it all at the top."""

    KIND = "Event"
    spec: ClassVar[None] = None  # type: ignore[misc]
    status: ClassVar[None] = None  # type: ignore[misc]

    api_version: str = "v1"
    involved_object: ObjectReference = Field(default_factory=ObjectReference)
    type: str = Field("Normal", description="Normal or Warning.")
    reason: str = Field("", description="Why, in one CamelCase word.")
    message: str = ""
    count: int = 1
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    source: EventSource = Field(default_factory=EventSource)
    series: EventSeries | None = None
    action: str = ""
    related: ObjectReference | None = None
    reporting_component: str = ""
    reporting_instance: str = ""


def _object(body: Mapping[str, Any]) -> str:
    about = at("involvedObject", default={})(body)
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


KIND: Kind[Context, Event] = Kind(
    resource=Event,
    plural="events",
    namespaced=True,
    short_names=("ev",),
    categories=(),
    group="",
    version="v1",
    readonly=True,
    rights={"admin": READ, "tenant-admin": READ, "member": READ, "reader": READ},
    columns=(
        Column(name="Last seen", value=at("lastTimestamp"), type="date"),
        Column(name="Type", value=at("type")),
        Column(name="Reason", value=at("reason")),
        Column(name="Object", value=_object),
        Column(name="Message", value=at("message")),
        Column(name="Count", value=at("count", default=1), type="integer", wide=True),
    ),
)

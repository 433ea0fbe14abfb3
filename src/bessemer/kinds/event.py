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

    api_version: str = Field("", description="Its group and version.")
    kind: str = Field("", description="Its kind.")
    namespace: str = Field("", description="Its project.")
    name: str = Field("", description="Its name.")
    uid: str = Field("", description="Its uid.")
    resource_version: str = Field("", description="Its revision at that time.")
    field_path: str = Field("", description="The part of it that is meant.")


class EventSource(ApiModel):
    """Which part saw it, and on which host."""

    component: str = Field("", description="The part that saw it.")
    host: str = Field("", description="The host on which it was seen.")


class EventSeries(ApiModel):
    """How often it was seen, where one event stands for many."""

    count: int = Field(0, description="How often it was seen.")
    last_observed_time: str | None = Field(None, description="When it was last seen.")


class Event(Resource[Any, Any]):
    """It has neither spec nor status: core/v1 says it all at the top."""

    KIND = "Event"
    spec: ClassVar[None] = None  # type: ignore[misc]
    status: ClassVar[None] = None  # type: ignore[misc]

    api_version: str = "v1"
    involved_object: ObjectReference = Field(
        default_factory=ObjectReference, description="The object that it happened to."
    )
    type: str = Field("Normal", description="Normal or Warning.")
    reason: str = Field("", description="Why, in one CamelCase word.")
    message: str = Field("", description="What happened, in a sentence.")
    count: int = Field(1, description="How often it happened.")
    first_timestamp: str | None = Field(None, description="When it first happened.")
    last_timestamp: str | None = Field(None, description="When it last happened.")
    event_time: str | None = Field(None, description="Kept for clients; firstTimestamp and lastTimestamp say it.")
    source: EventSource = Field(default_factory=EventSource, description="Which part saw it, and where.")
    series: EventSeries | None = Field(None, description="How often it was seen, where one event stands for many.")
    action: str = Field("", description="What was done about it.")
    related: ObjectReference | None = Field(None, description="A second object that it is about.")
    reporting_component: str = Field("", description="The part that tells it.")
    reporting_instance: str = Field("", description="The process that tells it.")


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
    rights={"admin": READ, "auditor": READ, "tenant-admin": READ, "member": READ, "reader": READ},
    columns=(
        Column(name="Last seen", value=at("lastTimestamp"), type="date"),
        Column(name="Type", value=at("type")),
        Column(name="Reason", value=at("reason")),
        Column(name="Object", value=_object),
        Column(name="Message", value=at("message")),
        Column(name="Count", value=at("count", default=1), type="integer", wide=True),
    ),
)

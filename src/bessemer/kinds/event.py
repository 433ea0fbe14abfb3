"""Event: what happened to an object, in words, as core/v1 has it, so that every Kubernetes client shows it.

The store's ``Events`` port tells what the platform does, counts repetitions and lets old ones go; members' programs
tell of theirs beside it, and never in the platform's name. An event is told, never acted upon: no reconcile reads one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.resource import ALL, READ, ApiModel, Column, Kind, Resource
from bessemer.kinds.context import Context
from bessemer.kinds.fields import at

PLATFORM = "bessemer"
"""Who tells what the platform does. Nobody else is called so."""

_MOST = 2_000
_MESSAGE_BYTES_MAX = 8_192


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


def _seen(body: Mapping[str, Any]) -> Any:
    """When it last happened, wherever its teller says so."""
    times = (at("series", "lastObservedTime")(body), body.get("lastTimestamp"), body.get("deprecatedLastTimestamp"))
    return next(filter(None, (*times, body.get("eventTime"))), None)


def told_problems(namespace: str, *, about: tuple[str, ObjectReference], teller: tuple[str, str]) -> list[Cause]:
    """What nobody may tell: of another project, or in the platform's name. Each is a field and what it says."""
    field, reference = about
    causes = []
    if (reference.namespace or namespace) != namespace:
        words = f'Invalid value: "{reference.namespace[:80]}": does not match event.namespace'
        causes.append(Cause(f"{field}.namespace", words))
    if teller[1] == PLATFORM:
        words = f"Forbidden: what {PLATFORM} tells, it tells itself"
        causes.append(Cause(teller[0], words, "FieldValueForbidden"))
    return causes


def validate(new: Event, old: Event | None) -> Sequence[Cause]:
    """Whose it is, who tells it, and that it can be read."""
    namespace, about = new.metadata.namespace or "", ("involvedObject", new.involved_object)
    causes = told_problems(namespace, about=about, teller=("reportingComponent", new.reporting_component))
    causes += told_problems(namespace, about=("", ObjectReference()), teller=("source.component", new.source.component))
    if len(new.message.encode()) > _MESSAGE_BYTES_MAX:
        words = f"Too long: may not be more than {_MESSAGE_BYTES_MAX} bytes"
        causes.append(Cause("message", words, "FieldValueTooLong"))
    return causes


def parts_of(told: type[ApiModel]) -> tuple[str, ...]:
    """What stands in an Event's body beside metadata, in whichever words it is told."""
    fields = told.model_fields.items()
    return tuple(field.alias or name for name, field in fields if name not in ("api_version", "kind", "metadata"))


KIND: Kind[Context, Event] = Kind(
    resource=Event,
    plural="events",
    namespaced=True,
    short_names=("ev",),
    categories=(),
    group="",
    version="v1",
    parts=parts_of(Event),
    most=_MOST,
    rights={"admin": ALL, "auditor": READ, "tenant-admin": ALL, "member": ALL, "reader": READ},
    validate=validate,
    columns=(
        Column(name="Last seen", value=_seen, type="date"),
        Column(name="Type", value=at("type")),
        Column(name="Reason", value=at("reason")),
        Column(name="Object", value=_object),
        Column(name="Message", value=at("message")),
        Column(name="Count", value=at("count", default=1), type="integer", wide=True),
    ),
)

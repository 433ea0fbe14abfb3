"""The shape of every object and of everything that runs one.

An object is ``metadata`` (who it is), ``spec`` (intent) and ``status`` (observation, rebuildable). A `Kind` says all
that the product knows of one type of object; it is a value, gathered in ``kinds.KINDS`` and nowhere registered.
A kind's ``reconcile`` gets the object and returns an `Outcome` with the new status; the loop writes it, once.

This is not a home for any one kind's words.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from bessemer.core.errors import Cause
from bessemer.core.notices import Happening

if TYPE_CHECKING:
    from bessemer.core.taking import Within
    from bessemer.core.versions import Version

GROUP = "bessemer.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


class ApiModel(BaseModel):
    """snake_case in Python, camelCase in JSON; frozen; unknown fields are refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    def dump(self) -> dict[str, Any]:
        """JSON-able camelCase, without what is None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def keyed_by(*fields: str) -> dict[str, Any]:
    """``json_schema_extra`` of a list of objects that those fields tell apart: who applies it owns their own items."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(fields)}


def values_apart() -> dict[str, Any]:
    """``json_schema_extra`` of a list of values in which none stands twice: who applies it owns their own."""
    return {"x-kubernetes-list-type": "set"}


class Key(NamedTuple):
    """The name that a reconcile gets. ``namespace`` is "" for what belongs to no project."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        place = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {place}{self.name}"


SEPARATOR = "--"
"""Between tenant and project in a project's name; neither has it in its own."""


def tenant_of(project: str) -> str:
    """``acme--research`` → ``acme``; "" where the name is no project's."""
    tenant, separator, rest = project.partition(SEPARATOR)
    return tenant if separator and rest else ""


class OwnerReference(ApiModel):
    """Who this object goes with. An owner is in the same project, or belongs to no project."""

    api_version: str = Field(API_VERSION, description="Group and version of the owner.")
    kind: str = Field(description="The owner's kind.")
    name: str = Field(description="The owner's name.")
    uid: str = Field(description="The owner's uid: another object of its name is another owner.")
    controller: bool | None = Field(None, description="True for the one owner that made it.")
    block_owner_deletion: bool | None = Field(
        None, description="Whether an owner that is deleted in the foreground waits until this object is gone."
    )


class Metadata(ApiModel):
    """Kubernetes' ObjectMeta, as far as we keep it."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field("", description="Its name, unique in its project (or among its kind).")
    generate_name: str | None = Field(
        None, description="A prefix from which the server makes a name where none is given."
    )
    namespace: str | None = Field(None, description="The project that it belongs to, as TENANT--PROJECT.")
    uid: str = Field("", description="Unique in time and space; given by the server.")
    resource_version: str = Field(
        "", description="The revision of its last change; a write that names another is refused."
    )
    generation: int = Field(0, description="Counts changes of intent.")
    creation_timestamp: str | None = Field(None, description="When it was made (RFC 3339).")
    deletion_timestamp: str | None = Field(None, description="When its deletion was asked for.")
    deletion_grace_period_seconds: int | None = Field(None, description="Always 0.")
    labels: dict[str, str] = Field(default_factory=dict, description="Words to select objects by.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Words that tools keep with an object.")
    owner_references: list[OwnerReference] = Field(
        default_factory=list, description="The objects that it goes with.", json_schema_extra=keyed_by("uid")
    )
    finalizers: list[str] = Field(
        default_factory=list, description="Who must let go before it is gone.", json_schema_extra=values_apart()
    )
    managed_fields: list[dict[str, Any]] | None = Field(None, description="Who set which field.")


class Condition(ApiModel):
    """One observed truth, as ``metav1.Condition``."""

    type: str = Field(description="What the truth is about: Ready, Stuck, Reachable.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: str = Field(description="Why, in one CamelCase word.")
    message: str = Field("", description="Why, in a sentence.")
    last_transition_time: str = Field(description="When the status last became another.")
    observed_generation: int | None = Field(None, description="The generation of the intent that it is about.")


class PhaseMark(ApiModel):
    """When a phase began: RFC 3339 with milliseconds."""

    phase: str = Field(description="The phase that began.")
    at: str = Field(description="When it began (RFC 3339 with milliseconds).")


class Status(ApiModel):
    """What every kind observes. ``phase`` is one word; ``phase_since`` is when it began (RFC 3339)."""

    model_config = ConfigDict(extra="ignore")

    phase: str = Field("Pending", description="Where it is in its life, in one word.")
    phase_since: str | None = Field(None, description="When the phase began.")
    history: list[PhaseMark] = Field(default_factory=list, description="The last phases, oldest first.")
    observed_generation: int = Field(0, description="The newest generation of the intent that was looked at.")
    conditions: list[Condition] = Field(
        default_factory=list,
        description="What holds: Ready for every kind, Stuck once a deadline passed.",
        json_schema_extra=keyed_by("type"),
    )

    def condition(self, name: str) -> Condition | None:
        """The condition of that type, or None."""
        return next((c for c in self.conditions if c.type == name), None)


Spec_co = TypeVar("Spec_co", bound=ApiModel, covariant=True)
Status_co = TypeVar("Status_co", bound=Status, covariant=True)


class Resource(ApiModel, Generic[Spec_co, Status_co]):
    """An object. A subclass names its kind in ``KIND`` and gives ``status`` a default."""

    KIND: ClassVar[str]

    api_version: str = API_VERSION
    kind: str = ""
    metadata: Metadata = Field(default_factory=Metadata)
    spec: Spec_co
    status: Status_co

    @classmethod
    def load(cls, body: bytes | str) -> Self:
        """Read a stored body."""
        return cls.model_validate_json(body)

    @property
    def key(self) -> Key:
        return Key(self.KIND, self.metadata.namespace or "", self.metadata.name)

    @property
    def uid(self) -> str:
        return self.metadata.uid

    @property
    def deleting(self) -> bool:
        return self.metadata.deletion_timestamp is not None

    @property
    def changed(self) -> bool:
        """Whether its intent is newer than what its status is about."""
        return self.status.observed_generation < self.metadata.generation

    def owner_reference(self) -> OwnerReference:
        """How another object names this one as its controller."""
        return OwnerReference(
            api_version=self.api_version,
            kind=self.KIND,
            name=self.metadata.name,
            uid=self.uid,
            controller=True,
            block_owner_deletion=True,
        )


R = TypeVar("R", bound=Resource[Any, Any])
C = TypeVar("C")


# --- outcomes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Nothing left to do for this generation. ``ready`` is the Ready condition; ``again`` seconds until the next
    look. ``happened`` is told as events, with a status that is another than before; of each outcome."""

    status: ApiModel | None = None
    ready: bool = True
    reason: str = "Ready"
    message: str = ""
    again: float | None = None
    happened: Sequence[Happening] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Something else must happen first. ``reason`` is CamelCase, ``message`` says what for and what would help.

    ``again`` is the longest time until the next look; a signal shortens it. ``remedy`` is shown when the phase's
    deadline passes: what a person can do. ``done`` counts what is done so far, in any unit: a deadline is measured from
    when there was last more of it than ever in the phase. ``within``: the status is written with something else.
    """

    reason: str
    message: str
    status: ApiModel | None = None
    again: float = 10.0
    remedy: str = ""
    done: int = 0
    within: Within | None = None
    happened: Sequence[Happening] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """This generation cannot succeed; only a change of intent or of the world's health would help."""

    reason: str
    message: str
    status: ApiModel | None = None
    again: float = 300.0
    remedy: str = ""
    happened: Sequence[Happening] = ()


Outcome = Done | Wait | Fail


# --- kinds ------------------------------------------------------------------------------------------------------

Verb = Literal["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
READ: tuple[Verb, ...] = ("get", "list", "watch")
WRITE: tuple[Verb, ...] = ("create", "update", "patch", "delete", "deletecollection")
ALL: tuple[Verb, ...] = READ + WRITE

Role = Literal[
    "admin",
    "operator",
    "auditor",
    "tenant-admin",
    "member",
    "reader",
    "billing-reader",
    "anyone",
    "agent",
    "gateway",
    "portal",
]
"""``admin``: the platform's administrator. ``operator``: of hosts and what they offer. ``auditor``: reads what there
is, bytes of workloads apart. ``tenant-admin``, ``member``, ``reader``: in the tenant that owns the object; each may
what the next may. ``billing-reader``: what it costs. ``anyone``: each signed-in user. ``agent``: a host's agent, for
what is on that host. ``gateway``, ``portal``: our processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of ``kubectl get``, the CLI and the portal. ``value`` reads the JSON body; ``wide`` hides it by
    default."""

    name: str
    value: Callable[[Mapping[str, Any]], str | int | float | bool | None]
    type: Literal["string", "integer", "number", "boolean", "date"] = "string"
    wide: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One committed write. ``labels_before`` lets a selector see an object leave it."""

    revision: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    key: Key
    uid: str
    host: str
    body: bytes
    labels_before: Mapping[str, str] | None = None


Wake = Callable[[Any, Change], AsyncIterator[Key]]
"""``async def wake(ctx, change)``: yields the keys of the kind that another kind's change concerns."""


def no_problems(new: Any, old: Any) -> Sequence[Cause]:
    """A kind whose schema says all."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[C, R]):
    """Everything that the product knows of one kind. The schema is ``resource`` itself.

    ``validate(new, old)`` gives what is wrong beyond the schema (``old`` is None at creation). ``reconcile`` and
    ``finalize`` are the control side; ``finalize`` runs while the object is being deleted and its `Done` lets it go
    (a kind that has one gets its finalizer at creation). ``deadlines`` maps a phase to the seconds after which an
    object that still waits in it is Stuck. ``rights`` maps a role to verbs; a role not named may do nothing. ``below``
    maps a subresource to such a row of its own; one without goes by the verb of its route upon the object. ``parts``
    are what stands in a stored body beside metadata and status; ``most`` is how many a project may hold (0: any).
    ``preview`` is the status that a dry run of a create shows, where it says what would come of it.
    ``version`` is the newest, which is stored; ``older`` are those that are served beside it.
    """

    resource: type[R]
    plural: str
    namespaced: bool
    rights: Mapping[Role, Sequence[Verb]]
    below: Mapping[str, Mapping[Role, Sequence[Verb]]] = field(default_factory=lambda: MappingProxyType({}))
    columns: Sequence[Column] = ()
    short_names: Sequence[str] = ()
    categories: Sequence[str] = ("bessemer",)
    group: str = GROUP
    version: str = VERSION
    older: Sequence[Version] = ()
    validate: Callable[[R, R | None], Sequence[Cause]] = no_problems
    reconcile: Callable[[C, R], Awaitable[Outcome]] | None = None
    finalize: Callable[[C, R], Awaitable[Outcome]] | None = None
    preview: Callable[[Any, R], Awaitable[Status]] | None = None
    wakes: Mapping[str, Wake] = field(default_factory=lambda: MappingProxyType({}))
    deadlines: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    resync_seconds: float = 300.0
    readonly: bool = False
    parts: Sequence[str] = ("spec",)
    most: int = 0

    @property
    def name(self) -> str:
        return self.resource.KIND

    @property
    def singular(self) -> str:
        return self.name.lower()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def finalizer(self) -> str:
        """The finalizer of this kind's own control side."""
        return f"{GROUP}/{self.singular}"


def set_condition(
    conditions: Sequence[Condition], name: str, value: bool | None, *, reason: str, message: str = "", now: str
) -> list[Condition]:
    """``conditions`` with ``name`` set; the transition time moves only when the status does. None means Unknown."""
    status: Literal["True", "False", "Unknown"] = "Unknown" if value is None else "True" if value else "False"
    old = next((c for c in conditions if c.type == name), None)
    since = old.last_transition_time if old is not None and old.status == status else now
    new = Condition(type=name, status=status, reason=reason, message=message, last_transition_time=since)
    if old is None:
        return [*conditions, new]
    return [new if c.type == name else c for c in conditions]

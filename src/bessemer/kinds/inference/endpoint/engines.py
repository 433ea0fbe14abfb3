"""Which engine a replica gets, and with which adapters: what its intent says of both, and what keeps it from them.

The engine is chosen by the format of the model as it is when a replica is taken, and named in its intent. Adapters are
all that may change of an intent, where the engine takes them while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from bessemer.drivers.llamacpp.protocol import LLAMACPP
from bessemer.kinds import workload
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.fleet.outline import Hindrance
from bessemer.kinds.inference import footprint, models
from bessemer.kinds.inference.endpoint.spec import (
    SORTS,
    AdapterIntent,
    Endpoint,
    EndpointIntent,
    FileIntent,
    sort_of,
    takes_adapters,
)
from bessemer.kinds.inference.model import Weights
from bessemer.kinds.inference.projectmodel import ProjectModel
from bessemer.kinds.wants import TOO_SMALL, Want

_LOADS = {sort.name: sort.loads for sort in SORTS}


@dataclass(frozen=True, slots=True)
class Engine:
    """``name`` is "" while it is not known; ``hindrances`` come in the order in which they count."""

    name: str
    adapters: Sequence[AdapterIntent]
    hindrances: Sequence[Hindrance]


def adapter_keys(endpoint: Endpoint) -> tuple[Key, ...]:
    """The models that are its adapters."""
    return tuple(key for name in endpoint.spec.adapters for key in models.keys_of(name))


async def engine_of(ctx: workload.Reads, endpoint: Endpoint, *, model: Weights | None) -> Engine:
    """What a replica that is taken now would get. A model that is not there, or not ready, is no word of ours."""
    ready = model is not None and model.status.phase == "Ready"
    adapters, hindrances = await _adapters_of(ctx, endpoint)
    if not ready or model is None:
        return Engine("", adapters, hindrances)
    sort = sort_of(endpoint.spec.engine, format=model.status.format)
    if sort is None:
        return Engine("", adapters, [_unfit(endpoint, model), *hindrances])
    if model.status.files and sort.name == LLAMACPP.name:
        return Engine("", adapters, [_split(model), *hindrances])
    return Engine(sort.name, adapters, hindrances)


async def keep_adapters(ctx: Context, endpoint: Endpoint, *, claims: Sequence[Claim]) -> None:
    """Tell the claims whose engines take adapters while they run which ones there are now; all at once, or none yet."""
    if not takes_adapters(endpoint.spec):
        return
    intents = [(claim, EndpointIntent.model_validate(claim.spec.intent)) for claim in claims if not claim.deleting]
    loading = [(claim, intent) for claim, intent in intents if _LOADS.get(intent.engine)]
    if all([one.name for one in intent.adapters] == endpoint.spec.adapters for _, intent in loading):
        return
    adapters, hindrances = await _adapters_of(ctx, endpoint)
    if not hindrances:
        for claim, intent in loading:
            wanted = intent.model_copy(update={"adapters": adapters})
            await ctx.capacity.amend(claim.key, wanted.dump(), CONTROLLER, uid=claim.uid)


async def _adapters_of(ctx: workload.Reads, endpoint: Endpoint) -> tuple[list[AdapterIntent], list[Hindrance]]:
    """Those that are there, and what keeps the others."""
    project = endpoint.metadata.namespace or ""
    found = [(name, await models.find(ctx.objects, project, name=name)) for name in endpoint.spec.adapters]
    base = await models.find(ctx.objects, project, name=endpoint.spec.model) if found else None
    hindrances = [one for name, adapter in found for one in _of_adapter(name, adapter, base=endpoint.spec.model)]
    if isinstance(base, ProjectModel):  # it only has the name of what the platform's were made for
        hindrances += [_other(one, base) for _, one in found if one is not None and not isinstance(one, ProjectModel)]
    adapters = [
        AdapterIntent(name=name, digest=one.status.digest, files=files_of(one))
        for name, one in found
        if one is not None
    ]
    return adapters, hindrances


def beyond(endpoint: Endpoint, found: Want[Weights], *, engine: Engine) -> Iterator[Hindrance]:
    """What keeps it besides: its engine, and a flavor that can surely not hold it."""
    yield from engine.hindrances
    told = any(one.reason == TOO_SMALL for one in found.hindrances)
    if found.flavor is None or found.part is None or not engine.name or told:
        return
    slots, context = endpoint.spec.slots, endpoint.spec.context_tokens
    arguments, facts = endpoint.spec.engine.arguments, found.part.status.facts
    yield from footprint.too_small(
        facts, found.flavor.spec, engine=engine.name, arguments=arguments, slots=slots, context=context
    )


def files_of(model: Weights) -> list[FileIntent]:
    """Those of a model of several."""
    return [FileIntent(path=file.path, digest=file.digest) for file in model.status.files]


def _of_adapter(name: str, adapter: Weights | None, *, base: str) -> Iterator[Hindrance]:
    if adapter is None:
        remedy = "Create it: `bessemer get models` lists them."
        yield Hindrance(reason="ModelNotFound", message=f"there is no Model {name}, an adapter", remedy=remedy)
    elif adapter.status.phase != "Ready":
        remedy = "See the Model: it says how far it is, and what keeps it."
        message = f"Model {name}, an adapter, is not imported yet"
        yield Hindrance(reason="ModelNotReady", message=message, remedy=remedy, passing=True)
    elif adapter.spec.adapter_of != base:
        remedy = "Name adapters of the model that the endpoint serves: their spec.adapterOf says of which they are."
        yield Hindrance(reason="AdapterUnfit", message=f"Model {name} is no adapter of Model {base}", remedy=remedy)


def _other(adapter: Weights, base: ProjectModel) -> Hindrance:
    name = base.metadata.name
    message = f"Model {adapter.metadata.name} is an adapter of the platform's Model {name}, and {name} is the project's"
    return Hindrance(reason="AdapterUnfit", message=message, remedy="Bring the adapter as the project's, too.")


def _split(model: Weights) -> Hindrance:
    message = f"engine {LLAMACPP.name} takes one file, and Model {model.metadata.name} has {len(model.status.files)}"
    return Hindrance(reason="EngineUnfit", message=message, remedy="Take a model of one GGUF file, or of safetensors.")


def _unfit(endpoint: Endpoint, model: Weights) -> Hindrance:
    choice = endpoint.spec.engine.name
    who = "no engine serves" if choice == "auto" else f"engine {choice} does not serve"
    message = f"{who} Model {model.metadata.name}, whose format is {model.status.format}"
    return Hindrance(reason="EngineUnfit", message=message, remedy="Make another endpoint, with an engine that does.")

"""Which engine a replica gets, and with which adapters: what its intent says of both, and what keeps it from them.

The engine is chosen by the format of the model as it is when a replica is taken, and named in its intent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bessemer.core.resource import Key
from bessemer.kinds import workload
from bessemer.kinds.fleet.outline import Hindrance
from bessemer.kinds.inference.endpoint.spec import AdapterIntent, Endpoint, sort_of
from bessemer.kinds.inference.model import Model


@dataclass(frozen=True, slots=True)
class Engine:
    """``name`` is "" while it is not known; ``hindrances`` come in the order in which they count."""

    name: str
    adapters: Sequence[AdapterIntent]
    hindrances: Sequence[Hindrance]


def adapter_keys(endpoint: Endpoint) -> tuple[Key, ...]:
    """The Models that are its adapters."""
    return tuple(Key("Model", "", name) for name in endpoint.spec.adapters)


async def engine_of(ctx: workload.Reads, endpoint: Endpoint, *, model: Model | None) -> Engine:
    """What a replica that is taken now would get. A model that is not there, or not ready, is no word of ours."""
    ready = model is not None and model.status.phase == "Ready"
    found = [(name, await workload.read_part(ctx, Model, name=name)) for name in endpoint.spec.adapters]
    hindrances = [one for name, adapter in found for one in _of_adapter(name, adapter)]
    adapters = [AdapterIntent(name=name, digest=one.status.digest) for name, one in found if one is not None]
    if not ready or model is None:
        return Engine("", adapters, hindrances)
    sort = sort_of(endpoint.spec.engine, format=model.status.format)
    if sort is None:
        return Engine("", adapters, [_unfit(endpoint, model), *hindrances])
    return Engine(sort.name, adapters, hindrances)


def _of_adapter(name: str, adapter: Model | None) -> Iterator[Hindrance]:
    if adapter is None:
        remedy = "Create it: `bessemer get models` lists them."
        yield Hindrance(reason="ModelNotFound", message=f"there is no Model {name}, an adapter", remedy=remedy)
    elif adapter.status.phase != "Ready":
        remedy = "See the Model: it says how far it is, and what keeps it."
        message = f"Model {name}, an adapter, is not imported yet"
        yield Hindrance(reason="ModelNotReady", message=message, remedy=remedy, passing=True)


def _unfit(endpoint: Endpoint, model: Model) -> Hindrance:
    choice = endpoint.spec.engine.name
    who = "no engine serves" if choice == "auto" else f"engine {choice} does not serve"
    message = f"{who} Model {model.metadata.name}, whose format is {model.status.format}"
    return Hindrance(reason="EngineUnfit", message=message, remedy="Make another endpoint, with an engine that does.")

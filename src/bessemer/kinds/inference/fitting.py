"""On which flavors a model fits, at which contexts and for how many requests at the same time: a table out of what its
files say (`footprint`), for whoever shows it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bessemer.core.errors import Invalid
from bessemer.core.inference import ModelFacts
from bessemer.drivers.engine.protocol import Task
from bessemer.kinds.fleet.flavor import FlavorSpec
from bessemer.kinds.inference.endpoint.spec import EngineChoice, sort_of
from bessemer.kinds.inference.footprint import Fit, contexts_of, fits, footprint, told

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FlavorFit:
    """What a flavor holds: for each context how many slots."""

    name: str
    memory: str
    devices: str
    fits: Sequence[Fit]

    @property
    def why(self) -> str:
        """Why it holds not even the least context; "" where it does."""
        return "" if self.fits[0].slots else self.fits[0].why


@dataclass(frozen=True, slots=True)
class FitTable:
    """Bytes of ``weights``, of a token in the cache of a slot, and of the engine by itself; a row for each flavor."""

    engine: str
    weights: int
    token_bytes: int
    engine_bytes: int
    contexts: Sequence[int]
    flavors: Sequence[FlavorFit]


def fit_table(
    model: Body, flavors: Iterable[Body], *, devices: Mapping[str, int], choice: EngineChoice, task: Task = "generate"
) -> FitTable:
    """Of the bodies of a Model, or a project's, and of flavors; ``devices`` are bytes of a device by its model. Raises
    Invalid where no engine serves it, or its files do not say enough."""
    status, name = model.get("status", {}), model["metadata"]["name"]
    sort = sort_of(choice, format=status.get("format", ""))
    if sort is None:
        raise Invalid(f"engine {choice.name} does not serve Model {name}, whose format is {status.get('format')}")
    facts, arguments = ModelFacts.model_validate(status.get("facts") or {}), choice.arguments
    made = footprint(facts, engine=sort.name, arguments=arguments, task=task)
    if made is None:
        raise Invalid(f"Model {name} does not say enough of itself; is it here? `bessemer model show {name}`")
    contexts = contexts_of(facts)
    rows = []
    for flavor in flavors:
        spec = _with_memory(FlavorSpec.model_validate(flavor["spec"]), devices)
        each = [_fit(facts, spec, engine=sort.name, choice=choice, task=task, context=size) for size in contexts]
        of = f"{spec.devices.count} {spec.devices.model}".strip() if spec.devices else ""
        rows.append(FlavorFit(flavor["metadata"]["name"], spec.memory, of, each))
    return FitTable(sort.name, made.weights, made.cache(1), made.fixed, contexts, rows)


def _fit(facts: ModelFacts, flavor: FlavorSpec, *, engine: str, choice: EngineChoice, task: Task, context: int) -> Fit:
    arguments = told(choice.arguments, flavor, engine=engine, task=task, context=context)
    made = footprint(facts, engine=engine, arguments=arguments, task=task)
    assert made is not None
    return fits(made, flavor, engine=engine, arguments=arguments, context=context)


def device_bytes(hosts: Iterable[Body]) -> Mapping[str, int]:
    """Memory of a device by model, the least of those that these hosts report."""
    found: dict[str, int] = {}
    for device in (one for host in hosts for one in (host.get("status", {}).get("report") or {}).get("devices", ())):
        size, model = device.get("memoryBytes", 0), device.get("model", "")
        if size:
            found[model] = min(size, found.get(model, size))
    return found


def _with_memory(spec: FlavorSpec, devices: Mapping[str, int]) -> FlavorSpec:
    of = spec.devices
    if of is None or of.memory_bytes or of.profile or of.model not in devices:
        return spec
    size = devices[of.model] * of.milli // 1000
    return spec.model_copy(update={"devices": of.model_copy(update={"memory": str(size)})})

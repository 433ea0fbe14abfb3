"""What a workload would ask of the fleet, without being there: for who plans. By kind, in `ASKS`.

It is the request that the kind's control side makes, from the same flavor by the same `request_of`; and what would be
in the way besides room. Nothing is taken, and nothing of the object is kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bessemer.core.asking import Request
from bessemer.core.resource import Resource
from bessemer.core.units import parse_bytes
from bessemer.kinds import workload
from bessemer.kinds.compute.instance.spec import Instance
from bessemer.kinds.fleet.flavor import Flavor
from bessemer.kinds.fleet.image import Image
from bessemer.kinds.fleet.outline import Hindrance
from bessemer.kinds.inference.endpoint.spec import Endpoint
from bessemer.kinds.inference.model import Model
from bessemer.kinds.workload import Reads

_WALLED = "Ask an administrator of the platform, or take another one."


@dataclass(frozen=True, slots=True)
class Ask:
    """``replicas`` times ``request``, by a flavor; ``request`` None where it is not known what would be asked for."""

    request: Request | None
    replicas: int = 1
    flavor: str = ""
    hindrances: Sequence[Hindrance] = ()


Asks = Callable[[Reads, Any], Awaitable[Ask]]


async def _instance(ctx: Reads, instance: Instance) -> Ask:
    image = await workload.read(ctx, Image, name=instance.spec.image)
    part = _part(image, "Image", name=instance.spec.image)
    wishes = {"tolerations": instance.spec.tolerations, "virtualization": True}
    return await _asked(ctx, instance, part=part, needs=image.spec.min_memory if image else "0", wishes=wishes)


async def _endpoint(ctx: Reads, endpoint: Endpoint) -> Ask:
    model = await workload.read(ctx, Model, name=endpoint.spec.model)
    part = _part(model, "Model", name=endpoint.spec.model)
    wishes = {"tolerations": endpoint.spec.tolerations, "isolation": True}
    return await _asked(ctx, endpoint, part=part, needs=model.spec.memory if model else "0", wishes=wishes)


ASKS: Mapping[str, Asks] = MappingProxyType({"Instance": _instance, "Endpoint": _endpoint})
"""The kinds that hold Claims of their own."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What a workload is made of besides its flavor."""

    found: Resource[Any, Any] | None
    hindrances: Sequence[Hindrance]


def _part(found: Image | Model | None, kind: str, *, name: str) -> _Part:
    if found is None:
        return _Part(None, [Hindrance(reason=f"{kind}NotFound", message=f"there is no {kind} {name}")])
    if found.status.phase == "Ready":
        return _Part(found, [])
    remedy = f"See the {kind}: it says how far it is, and what keeps it."
    message = f"{kind} {name} is not imported yet"
    return _Part(found, [Hindrance(reason=f"{kind}NotReady", message=message, remedy=remedy, passing=True)])


async def _asked(ctx: Reads, made: Instance | Endpoint, *, part: _Part, needs: str, wishes: Mapping[str, Any]) -> Ask:
    name, hindrances = made.spec.flavor, [*part.hindrances]
    flavor = await workload.read(ctx, Flavor, name=name)
    if flavor is None:
        return Ask(
            None, hindrances=[Hindrance(reason="FlavorNotFound", message=f"there is no Flavor {name}"), *hindrances]
        )
    if not flavor.spec.offered:
        words = f"Flavor {name} is not offered any more"
        hindrances.append(Hindrance(reason="FlavorWithdrawn", message=words, remedy="Take another flavor."))
    if parse_bytes(flavor.spec.memory) < parse_bytes(needs):
        words = f"it needs {needs} of memory, and Flavor {name} gives {flavor.spec.memory}"
        hindrances.append(Hindrance(reason="FlavorTooSmall", message=words, remedy="Take a larger flavor."))
    terms = await workload.terms_of(ctx, made.metadata.namespace or "")
    if words := terms.refuses(*filter(None, (flavor, part.found))):
        hindrances.append(Hindrance(reason="TenantWalled", message=words, remedy=_WALLED))
    replicas = made.spec.replicas if isinstance(made, Endpoint) else 1
    return Ask(workload.request_of(terms, flavor.spec, **wishes), replicas, name, hindrances)

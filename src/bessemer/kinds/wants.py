"""`Want`: what a workload asks of the fleet, and what keeps it from asking.

One piece for its control side, which takes a place by it, and for who plans (`asks`): so neither can say what the other
does not. Nothing is taken, and nothing of the object is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from bessemer.core.asking import Request
from bessemer.core.resource import Resource
from bessemer.core.units import parse_bytes
from bessemer.kinds import workload
from bessemer.kinds.fleet.flavor import Flavor
from bessemer.kinds.fleet.image import Image
from bessemer.kinds.fleet.outline import Hindrance
from bessemer.kinds.inference import models
from bessemer.kinds.inference.model import Weights
from bessemer.kinds.workload import Reads, Terms

P = TypeVar("P", bound=Image | Weights)

_Of = tuple[Terms, Flavor | None, Image | Weights | None]
_WANTS_KEPT = 256

TOO_SMALL = "FlavorTooSmall"
_MISSING: Mapping[str, str] = MappingProxyType({"Image": "ImageNotFound", "Model": "ModelNotFound"})
_COMING: Mapping[str, str] = MappingProxyType({"Image": "ImageNotReady", "Model": "ModelNotReady"})


@dataclass(frozen=True, slots=True)
class Want(Generic[P]):
    """What one replica, or one member, asks for: ``request``, None where that is not known. ``hindrances`` come in the
    order in which they count; what has some asks for no place."""

    terms: Terms
    flavor: Flavor | None
    part: P | None
    request: Request | None
    hindrances: Sequence[Hindrance]


def again(hindrance: Hindrance) -> float:
    """When to look again, in seconds."""
    return 5.0 if hindrance.passing else 30.0


async def want(
    ctx: Reads, made: Resource[Any, Any], *, part: type[P] | None = None, name: str = "", **wishes: Any
) -> Want[P]:
    """Of an Instance, an Endpoint or a Job; ``part`` is of which kind the thing is that it is made of besides its
    flavor, and ``wishes`` are fields of the request that its kind adds."""
    flavor = await workload.read_part(ctx, Flavor, name=made.spec.flavor)
    found = await _part(ctx, made, part=part, name=name) if part is not None else None
    terms = await workload.terms_of(ctx, made.metadata.namespace or "")
    return _KEPT.of(_Made(made, part.KIND if part is not None else "", name), (terms, flavor, found), wishes=wishes)


@dataclass(frozen=True, slots=True)
class _Made:
    """What is made, and of which thing besides its flavor."""

    of: Resource[Any, Any]
    part: str
    name: str


def _want(made: _Made, of: _Of, *, wishes: Mapping[str, Any]) -> Want[Any]:
    terms, flavor, found = of
    spec, kind = made.of.spec, made.of.KIND.lower()
    hindrances = [*_of_flavor(flavor, spec.flavor, kind=kind)]
    if made.part:
        hindrances += _of_part(found, made.part, name=made.name)
    if flavor is not None and found is not None:
        hindrances += _of_size(flavor, found)
    parts: list[Resource[Any, Any]] = [one for one in (flavor, found) if one is not None]
    if words := terms.refuses(*parts):
        remedy = f"Ask an administrator of the platform, or make another {kind}."
        hindrances.append(Hindrance(reason="TenantWalled", message=words, remedy=remedy))
    request = None
    if flavor is not None:
        request = workload.request_of(terms, flavor.spec, tolerations=spec.tolerations, **wishes)
    return Want(terms, flavor, found, request, hindrances)


async def _part(ctx: Reads, made: Resource[Any, Any], *, part: type[P], name: str) -> P | None:
    """A model may be the project's own."""
    if part is not Weights:
        return await workload.read_part(ctx, part, name=name)
    found = await models.find(ctx.objects, made.metadata.namespace or "", name=name)
    assert found is None or isinstance(found, part)
    return found


class _Kept:
    """What was wanted of the very same things: many workloads are made of few, and all of them are frozen. Each is kept
    with what it was made of, so that no other can have the place of that."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Hashable, ...], Want[Any]] = OrderedDict()

    def of(self, made: _Made, of: _Of, *, wishes: Mapping[str, Any]) -> Want[Any]:
        """As `_want`."""
        spec = made.of.spec
        named = (made.of.KIND, spec.flavor, made.part, made.name, *[one.key for one in spec.tolerations])
        name = (*map(id, of), named, *sorted(wishes.items()))
        found = self._kept.get(name)
        if found is None:
            found = self._kept[name] = _want(made, of, wishes=wishes)
            if len(self._kept) > _WANTS_KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(name)
        return found


_KEPT = _Kept()


def _of_flavor(flavor: Flavor | None, name: str, *, kind: str) -> Iterator[Hindrance]:
    if flavor is None:
        remedy = "Create it, or name another: `bessemer get flavors` lists them."
        yield Hindrance(reason="FlavorNotFound", message=f"there is no Flavor {name}", remedy=remedy)
    elif not flavor.spec.offered:
        words = f"Flavor {name} is not offered any more"
        remedy = f"Make another {kind} with another flavor."
        yield Hindrance(reason="FlavorWithdrawn", message=words, remedy=remedy)


def _of_part(found: Image | Weights | None, kind: str, *, name: str) -> Iterator[Hindrance]:
    if found is None:
        remedy = f"Create it, or name another: `bessemer get {kind.lower()}s` lists them."
        yield Hindrance(reason=_MISSING[kind], message=f"there is no {kind} {name}", remedy=remedy)
    elif found.status.phase != "Ready":
        remedy = f"See the {kind}: it says how far it is, and what keeps it."
        message = f"{kind} {name} is not imported yet"
        yield Hindrance(reason=_COMING[kind], message=message, remedy=remedy, passing=True)


def _of_size(flavor: Flavor, part: Image | Weights) -> Iterator[Hindrance]:
    needs = part.spec.min_memory if isinstance(part, Image) else part.spec.memory
    if parse_bytes(flavor.spec.memory) < parse_bytes(needs):
        name = flavor.metadata.name
        words = f"{part.KIND} {part.metadata.name} needs {needs} of memory, Flavor {name} gives {flavor.spec.memory}"
        yield Hindrance(reason=TOO_SMALL, message=words, remedy="Take a larger flavor.")

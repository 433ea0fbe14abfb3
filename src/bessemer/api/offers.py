"""What the routes offer, as authorization speaks of it: verbs upon resources, and methods upon other paths.

Made of the table of routes itself, and decided by what decides its requests (`Access` and the routes' permissions): who
is told yes here is let in there. Without a name, an act is allowed if it is so upon every name in its place; to create,
if it is so under some name. What asks for no right, but for a proof in the body (a host's join), is not told of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from bessemer.api.access import Target
from bessemer.api.context import Identity
from bessemer.api.credentials import require
from bessemer.api.deleting import offered
from bessemer.api.errors import WrongMethod
from bessemer.api.names import plain
from bessemer.api.planners import require_planner
from bessemer.api.questions import Act, Visit
from bessemer.api.shown import Resources, Shown
from bessemer.api.state import Call
from bessemer.core.errors import Forbidden, NotFound
from bessemer.core.resource import SEPARATOR, Verb
from bessemer.kinds.tenancy.rights import OF_TENANT

if TYPE_CHECKING:
    from bessemer.api.routes import Rule

Authorise = Callable[[Call, "Rule"], Awaitable[None]]
ALL = "*"
NAMES_MAX = 100
"""Of one kind in the rules of somebody who may do something upon these names alone; the rest is said to be missing."""

_REASON_MAX = 500
_NOTHING = "the server has no such resource, or does nothing of the kind with it"
_SELDOM = "what is allowed upon single claims alone is left out"
_MANY = f"of each kind the first {NAMES_MAX} names alone are told"
_VERBS: Mapping[str, tuple[Verb, ...]] = MappingProxyType(
    {
        "GET": ("get",),
        "WS": ("get",),
        "POST": ("create",),
        "PUT": ("update",),
        "PATCH": ("patch",),
        "DELETE": ("delete",),
    }
)
_COLLECTED: Mapping[str, tuple[Verb, ...]] = MappingProxyType(
    {"GET": ("list", "watch"), "DELETE": ("deletecollection",)}
)
"""Upon what of a collection is there."""

_MANY_AT_ONCE = frozenset(verb for verbs in _COLLECTED.values() for verb in verbs)


class _Place(NamedTuple):
    """Where in the tree of resources a path is; ``named`` is below an object's name."""

    group: str
    version: str
    plural: str
    subresource: str
    named: bool
    namespaced: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """One verb upon one resource. ``shown`` is None where no kind stands behind it."""

    rule: Rule
    verb: Verb
    group: str
    version: str
    plural: str
    subresource: str
    namespaced: bool
    shown: Shown | None

    @property
    def resource(self) -> str:
        """``instances/log``."""
        return f"{self.plural}/{self.subresource}" if self.subresource else self.plural

    def meets(self, act: Act) -> bool:
        """Whether it is (among) what a question is about."""
        pairs = (
            (act.verb, self.verb),
            (act.group, self.group),
            (act.version or ALL, self.version),
            (act.resource, self.plural),
            (act.subresource, self.subresource),
        )
        return all(asked in (ALL, offered) for asked, offered in pairs)


class Offers:
    """Of one table, to be asked within one call; ``authorise`` is what decides the table's requests."""

    def __init__(self, call: Call, rules: Sequence[Rule], *, authorise: Authorise) -> None:
        told = [rule for rule in rules if rule.permission != "vouched"]
        self._call = call
        self._authorise = authorise
        self._acts = [offer for rule in told for offer in _offers(rule, call.state.resources)]
        self._visits = [rule for rule in told if rule.method != "WS" and _place(rule.path) is None]

    async def refusal(self, who: Identity, asked: Act | Visit) -> str:
        """Why somebody may not, or "" where they may; of what the server does not have, nobody may anything."""
        if isinstance(asked, Visit):
            rules = [r for r in self._visits if _fits(r.path, asked.path) and asked.verb in (ALL, r.method.lower())]
            reasons = [await self._refused(who, rule) for rule in rules]
        else:
            offers = [offer for offer in self._acts if offer.meets(asked)]
            reasons = [await self._act(who, offer, namespace=asked.namespace, name=asked.name) for offer in offers]
        return plain(next(filter(None, reasons), "") if reasons else _NOTHING, _REASON_MAX)

    async def rules(self, who: Identity, namespace: str) -> dict[str, Any]:
        """All that somebody may do, in a project and upon what is in none, as SubjectRulesReviewStatus."""
        verbs: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
        missing: dict[str, None] = {} if who.kind == "user" else {_SELDOM: None}
        for offer in self._acts:
            upon = await self._upon(who, offer, namespace=namespace, missing=missing)
            if upon is not None:
                verbs.setdefault((offer.group, offer.resource, upon), []).append(offer.verb)
        alike: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
        for (group, resource, upon), may in verbs.items():
            alike.setdefault((group, upon, tuple(may)), []).append(resource)
        told = [
            {"verbs": may, "apiGroups": [group], "resources": plurals, **({"resourceNames": upon} if upon else {})}
            for (group, upon, may), plurals in alike.items()
        ]
        status = {"resourceRules": told, "nonResourceRules": await self._paths(who), "incomplete": bool(missing)}
        return {**status, "evaluationError": "; ".join(missing)} if missing else status

    async def _paths(self, who: Identity) -> list[dict[str, Any]]:
        methods: dict[str, dict[str, None]] = {}
        for rule in self._visits:
            if not await self._refused(who, rule):
                methods.setdefault(_pattern(rule.path), {})[rule.method.lower()] = None
        alike: dict[tuple[str, ...], list[str]] = {}
        for path, may in methods.items():
            alike.setdefault(tuple(may), []).append(path)
        return [{"verbs": may, "nonResourceURLs": paths} for may, paths in alike.items()]

    async def _upon(
        self, who: Identity, offer: Offer, *, namespace: str, missing: dict[str, None]
    ) -> tuple[str, ...] | None:
        """Upon which names somebody may: () is all of them, None is none. Adds to what is ``missing``."""
        if not await self._act(who, offer, namespace=namespace, name=""):
            return ()
        names = list(islice(self._names(who, offer, namespace=namespace), NAMES_MAX + 1))
        if len(names) > NAMES_MAX:
            missing[_MANY] = None
        found = [name for name in names[:NAMES_MAX] if not await self._act(who, offer, namespace=namespace, name=name)]
        return tuple(found) or None

    def _names(self, who: Identity, offer: Offer, *, namespace: str) -> Iterator[str]:
        """That which somebody may have a right to by its name."""
        if offer.shown is None or offer.verb in _MANY_AT_ONCE or (offer.verb == "create" and not offer.subresource):
            return
        if (who.kind, offer.shown.stored) in (("agent", "Host"), ("user", "User")):
            yield who.name
        target = _target(offer, offer.shown, namespace=namespace)
        seen = self._call.state.access.seen(who, offer.rule.verb, on=target).get(target.namespace)
        yield from sorted(seen or ())

    async def _act(self, who: Identity, offer: Offer, *, namespace: str, name: str) -> str:
        if offer.rule.permission == "planner":
            return await self._plans(who, namespace)
        if offer.shown is None:
            return await self._refused(who, offer.rule)
        target = replace(_target(offer, offer.shown, namespace=namespace), name=name)
        if offer.rule.permission != "kind":
            return await self._refused(who, offer.rule, target=target)
        access = self._call.state.access
        try:
            if name or offer.verb in _MANY_AT_ONCE or target.namespace:
                require(who, offer.verb, on=target, subresource=offer.subresource)
            if offer.verb in _COLLECTED["GET"] or (offer.verb in _MANY_AT_ONCE and offered(target)):
                access.scope(who, offer.verb, on=replace(target, name=""))
            elif offer.verb == "create" and not offer.subresource:
                await self._create(who, target)
            else:
                await access.require(who, offer.rule.verb, on=target)
        except (Forbidden, NotFound) as error:
            return error.message
        return ""

    async def _plans(self, who: Identity, namespace: str) -> str:
        try:
            await require_planner(self._call, who, namespace=namespace)
        except (Forbidden, NotFound) as error:
            return error.message
        return ""

    async def _create(self, who: Identity, target: Target) -> None:
        """As a request to create is decided: whose a new Project is stands in its name."""
        access = self._call.state.access
        if not target.name and target.resource.stored in OF_TENANT:
            tried = (replace(target, name=f"{tenant}{SEPARATOR}x") for tenant in sorted(access.tenants(who)))
            target = next((one for one in tried if access.may(who, "create", on=one)), target)
        await access.require(who, "create", on=target)

    async def _refused(self, who: Identity, rule: Rule, *, target: Target | None = None) -> str:
        try:
            await self._authorise(replace(self._call, identity=who, target=target), rule)
        except (Forbidden, NotFound, WrongMethod) as error:
            return error.message
        return ""


def _target(offer: Offer, shown: Shown, *, namespace: str) -> Target:
    part = offer.subresource if offer.subresource in shown.source.below else ""
    return Target(shown, namespace if shown.namespaced else "", subresource=part)


def _offers(rule: Rule, resources: Resources) -> Iterator[Offer]:
    place = _place(rule.path)
    if place is None:
        return
    verbs = _VERBS[rule.method] if place.named else _COLLECTED.get(rule.method, _VERBS[rule.method])
    if place.plural != "{plural}":
        shown = resources.find(place.group, place.version, plural=place.plural)
        for verb in verbs:
            yield Offer(
                rule, verb, place.group, place.version, place.plural, place.subresource, place.namespaced, shown
            )
        return
    for shown in resources.all:
        if (shown.group == "") != (place.group == "") or shown.namespaced != place.namespaced:
            continue
        for verb in verbs:
            if shown.has_status if place.subresource else verb in shown.verbs:
                yield Offer(
                    rule, verb, shown.group, shown.version, shown.plural, place.subresource, shown.namespaced, shown
                )


def _place(path: str) -> _Place | None:
    """``/apis/G/V/namespaces/{namespace}/claims/{name}/secrets``; None where a path is about no resource."""
    head, *rest = path.strip("/").split("/")
    group = rest.pop(0) if head == "apis" and rest else ""
    if head not in ("api", "apis") or len(rest) < 2:
        return None
    version, *rest = rest
    namespaced = rest[:2] == ["namespaces", "{namespace}"]
    plural, *below = rest[2:] if namespaced else rest
    return _Place(group, version, plural, below[1] if len(below) > 1 else "", bool(below), namespaced)


def _fits(route: str, path: str) -> bool:
    """Whether a path is the route's, or is its `_pattern`."""
    parts, said = route.split("/"), path.split("/")
    fits = len(parts) == len(said) and all(
        p == s or (p.startswith("{") and s) for p, s in zip(parts, said, strict=True)
    )
    return fits or path == _pattern(route)


def _pattern(route: str) -> str:
    """As rules name paths: ``/apis/{group}/{version}`` → ``/apis/*``."""
    before, brace, _ = route.partition("{")
    return f"{before}{ALL}" if brace else route

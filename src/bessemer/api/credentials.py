"""What an ApplicationCredential is worth, where it reaches, and who may write one.

The bearer is ``bsc_PROJECT/NAME.SECRET``. It counts while the credential stands, is enabled and not expired, the secret
is one of its two, the request comes from one of its networks, and the very User who made it may sign in. Then it is
that user, within `Restricted`. To who holds the secret a refusal says why; to everybody else one answer is all there
is. It holds no right of its own: what the owner loses, it has lost.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from bessemer.api import signin
from bessemer.api.bounds import Bounds
from bessemer.api.context import Identity
from bessemer.api.errors import invalid
from bessemer.api.names import is_subdomain, show
from bessemer.api.query import flag
from bessemer.core.clock import Clock, epoch, rfc3339
from bessemer.core.errors import BessemerError, Cause, Forbidden, NotFound, Unauthenticated
from bessemer.core.ports import CONTROLLER, Objects, Scope, Stored
from bessemer.core.resource import READ, SEPARATOR, Key, OwnerReference, tenant_of
from bessemer.core.tokens import token_digest
from bessemer.kinds.kubernetes import definition
from bessemer.kinds.tenancy.credential import CredentialSpec
from bessemer.kinds.tenancy.rights import Place, place_of_project
from bessemer.kinds.tenancy.session import session_labels

if TYPE_CHECKING:
    from bessemer.api.access import Target
    from bessemer.api.routes import Rule
    from bessemer.api.state import Call

KIND = "ApplicationCredential"
PREFIX = "bsc_"
USE_SECONDS = 60
"""What the time of the last use is rounded to, and so how often it is written at most."""

GRANTING = frozenset(
    [KIND, "ApiKey", "IdentityProvider", "Role", "RoleBinding", "Session", "SignInPolicy", "Tenant", "User"]
)
"""Kinds of which one that is written lets somebody in, or gives somebody rights (a Tenant by its members)."""

CATALOGUE = frozenset(
    ["Flavor", "Image", "Model", "PricePlan", "Project", "Role", "RoleBinding", "Tenant", definition.NAME]
)
"""Of what is in no project, all that a credential sees which stays in one, or in a tenant."""

_NAMED = ("Project", "Tenant", "Role", "RoleBinding")
"""Kinds in no project whose names say whose they are."""

_TENANTS_OWN = ("PricePlan", "Role", "RoleBinding")
"""Kinds in no project of which each tenant has some."""

SECRETS = frozenset(["clientsecret", "password", "secret", "signinlink", "token"])
"""Subresources that make a secret, or keep one."""

_STRANGE = "the token is not one of ours"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Owner = Callable[[str], Awaitable[dict[str, Any]]]
"""The User (as JSON) who may sign in, by name. Raises Unauthenticated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restricted(Bounds):
    """`Bounds` of a credential. Unless ``whole`` it writes nothing that lets people in. ``places`` are a tenant
    (``acme``) or a project (``acme--lab``): of what is in no project it writes those very places alone."""

    whole: bool = False
    places: frozenset[str] | None = None

    def covers(self, verb: str, kind: str) -> bool:
        """Also its own project: every client looks whether there is one before it acts in it."""
        return Bounds.covers(self, verb, kind) or (verb == "get" and kind == "Project" and self.places is not None)

    def knows(self, tenant: str) -> bool:
        """Of the tenants that it reaches into."""
        return self.places is None or tenant in _tenants(self.places)

    def allows(self, verb: str, kind: str, *, namespace: str = "", name: str = "", subresource: str = "") -> bool:
        reads = verb in READ
        if not self.whole and (subresource in SECRETS or (kind in GRANTING and not reads)):
            return False
        if self.places is not None:
            about = namespace or (name if kind in _NAMED else "")
            if about and self.places.isdisjoint((about, tenant_of(about))):
                return False
            if not about and not reads:
                return False
        return Bounds.allows(self, verb, kind, namespace=namespace, name=name, subresource=subresource)


@dataclass(frozen=True, slots=True)
class _Read:
    """A credential as it is judged. ``secrets`` are (digest, until)."""

    revision: int
    user: str
    user_uid: str
    barred: str
    expires: float
    secrets: tuple[tuple[str, float], ...]
    networks: tuple[Network, ...]
    bounds: Restricted
    admin: bool
    last_used: float


class ApplicationCredentials:
    """Judges bearers; notes when a credential was last used."""

    def __init__(self, objects: Objects, clock: Clock, *, owner: Owner) -> None:
        self._objects = objects
        self._clock = clock
        self._owner = owner
        self._read: dict[Key, _Read] = {}
        self._noting: set[Key] = set()

    async def identity(self, token: str, source: str) -> Identity:
        """Whose request it is, and within which bounds. Raises Unauthenticated."""
        place, _, secret = token.removeprefix(PREFIX).rpartition(".")
        project, _, name = place.partition("/")
        if not (secret and is_subdomain(project) and SEPARATOR in project and is_subdomain(name)):
            raise Unauthenticated(_STRANGE)
        key = Key(KIND, project, name)
        stored = await self._stored(key)
        read = self._parsed(stored) if stored is not None else _NOBODY
        now, digest = self._clock.now(), token_digest(secret)
        # Every secret is compared, so that time does not say which it was.
        good = [hmac.compare_digest(digest, kept) and now < until for kept, until in read.secrets]
        if stored is None or not any(good):
            raise Unauthenticated(_STRANGE)
        user = await self._judged(read, source=source, now=now)
        await self._used(stored, read, source=source)
        return _identity(key, read, user=user)

    async def named(self, credential: str, user: str) -> Identity:
        """Who would ask by that credential (``PROJECT/NAME``) of that user, from one of its networks. Raises
        Unauthenticated."""
        project, _, name = credential.partition("/")
        key = Key(KIND, project, name)
        named = is_subdomain(project) and is_subdomain(name)
        stored = await self._stored(key) if named else None
        read = self._parsed(stored) if stored is not None else _NOBODY
        if stored is None or read.user != user:
            raise Unauthenticated("the user has no such credential")
        read = replace(read, networks=())
        return _identity(key, read, user=await self._judged(read, source="", now=self._clock.now()))

    async def _judged(self, read: _Read, *, source: str, now: float) -> dict[str, Any]:
        """The owner. Raises Unauthenticated, with the reason, which is the holder's to know."""
        if read.barred:
            raise Unauthenticated(f"the credential is {read.barred}")
        if read.expires <= now:
            raise Unauthenticated("the credential has expired")
        if read.networks and not _within(source, read.networks):
            raise Unauthenticated("the credential is not good from this address")
        try:
            user = await self._owner(read.user)
        except Unauthenticated as error:
            raise Unauthenticated("the credential's owner may not sign in") from error
        if user["metadata"]["uid"] != read.user_uid:
            raise Unauthenticated("the credential's owner is gone")
        return user

    async def _stored(self, key: Key) -> Stored | None:
        try:
            return await self._objects.get(key)
        except NotFound:
            self._read.pop(key, None)
            return None

    def _parsed(self, stored: Stored) -> _Read:
        known = self._read.get(stored.key)
        if known is None or known.revision != stored.revision:
            known = self._read[stored.key] = _parse(stored)
        return known

    async def _used(self, stored: Stored, read: _Read, *, source: str) -> None:
        """Write that it was used, where the last time that is known is a minute ago: whichever replica sees that first.
        A use that cannot be written is not worth a refusal."""
        minute = self._clock.now() // USE_SECONDS
        if minute <= read.last_used // USE_SECONDS or stored.key in self._noting:
            return
        self._noting.add(stored.key)
        body = orjson.loads(stored.body)
        used = {"lastUsed": rfc3339(minute * USE_SECONDS), "lastSource": source[:64]}
        try:
            await self._objects.replace(
                {**body, "status": {**body.get("status", {}), **used}}, CONTROLLER, part="status"
            )
        except BessemerError:
            return
        finally:
            self._noting.discard(stored.key)


def _identity(key: Key, read: _Read, *, user: Mapping[str, Any]) -> Identity:
    """In no group: whoever is told of one (a TokenReview tells) would take it for its owner whole."""
    admin = read.admin and bool(user["spec"].get("admin"))
    return Identity("user", read.user, admin, bounds=read.bounds, credential=f"{key.namespace}/{key.name}")


_NOBODY = _Read(0, "", "", "", 0.0, (("", 0.0),), (), Restricted(), False, 0.0)


def _parse(stored: Stored) -> _Read:
    body = orjson.loads(stored.body)
    spec, status = body["spec"], body.get("status", {})
    used = status.get("lastUsed")
    secrets = status.get("secrets", ())
    barred = "being deleted" if "deletionTimestamp" in body["metadata"] else "disabled" if spec.get("disabled") else ""
    reach = spec.get("reach", "project")
    roles = spec.get("roles", ())
    return _Read(
        revision=stored.revision,
        user=spec.get("user", ""),
        user_uid=spec.get("userUid", ""),
        barred=barred,
        expires=epoch(spec["expiresAt"]),
        secrets=tuple((s["digest"], epoch(s["until"]) if s.get("until") else float("inf")) for s in secrets),
        networks=tuple(ipaddress.ip_network(network) for network in spec.get("networks", ())),
        bounds=_bounds(spec, stored.key.namespace, reach=reach),
        # An administrator's rights are of the platform: a credential that stays in a tenant has none of them there.
        admin=reach == "owner" and (not roles or "admin" in roles),
        last_used=epoch(used) if used else 0.0,
    )


def _bounds(spec: Mapping[str, Any], project: str, *, reach: str) -> Restricted:
    def some(field: str) -> frozenset[str] | None:
        return frozenset(spec[field]) if spec.get(field) else None

    places = {"project": frozenset([project]), "tenant": frozenset([tenant_of(project)])}.get(reach)
    whole = bool(spec.get("unrestricted"))
    return Restricted(
        roles=some("roles"), verbs=some("verbs"), kinds=some("kinds"), names=some("names"), places=places, whole=whole
    )


def _within(source: str, networks: tuple[Network, ...]) -> bool:
    """An IPv4 address that came over an IPv6 socket is itself."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return False
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address.version == network.version and address in network for network in networks)


# --- what a route asks ------------------------------------------------------------------------------------------------

_METHODS = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "POST": "update", "WS": "get"}


def require_within(call: Call, rule: Rule) -> None:
    """Whether the route is within the bounds of who asks; what they may beyond that is another question. Raises
    Forbidden: it says nothing of what is there."""
    who, target = call.identity, call.target
    if who is None or who.bounds is None or target is None:
        return
    verb: str = rule.verb if rule.permission == "kind" else _METHODS[rule.method]
    if verb == "list" and flag(call.query, "watch"):
        verb = "watch"
    subresource = rule.path.partition("{name}/")[2]
    kind = target.resource.stored
    if verb == "create" and not target.namespace and (target.resource.namespaced or kind == "Project"):
        return  # whose it will be stands in the body: the handler asks
    require(who, verb, on=target, subresource=subresource)


def require(who: Identity, verb: str, *, on: Target, subresource: str = "") -> None:
    """Whether an act is within the bounds of who asks. Raises Forbidden."""
    kind, bounds = on.resource.stored, who.bounds
    stays = isinstance(bounds, Restricted) and bounds.places is not None
    outside = stays and not on.resource.namespaced and kind not in CATALOGUE
    if bounds is None or (
        not outside and bounds.allows(verb, kind, namespace=on.namespace, name=on.name, subresource=subresource)
    ):
        return
    about = f"{on.resource.plural}{f'/{subresource}' if subresource else ''}"
    raise Forbidden(f'{about} is forbidden: credential "{who.credential}" does not reach so far: {verb}')


def narrowed(call: Call, who: Identity, *, scope: Scope) -> Scope:
    """What a list or a watch may show of what its asker may see."""
    bounds = who.bounds
    if bounds is not None and bounds.names is not None:
        scope = replace(scope, names=_both(scope.names, bounds.names))
    if not isinstance(bounds, Restricted) or bounds.places is None:
        return scope
    places = bounds.places
    projects, directory = _projects(call, places), call.state.directory
    if scope.kind == "Tenant":
        return replace(scope, names=_both(scope.names, _tenants(places)))
    if scope.kind in _TENANTS_OWN:
        there = frozenset[str]().union(*(directory.there(scope.kind, _place(place)) for place in places))
        return replace(scope, names=_both(scope.names, there))
    if scope.kind == "Project":
        return replace(scope, names=_both(scope.names, projects))
    if not call.about.resource.namespaced or scope.namespace:
        return scope
    if scope.places is not None:
        return replace(scope, places={place: scope.places[place] for place in scope.places.keys() & projects})
    return replace(scope, namespaces=_both(scope.namespaces, projects))


def within_reach(call: Call, who: Identity) -> tuple[Mapping[str, str], Sequence[str]]:
    """What a person, or their program, is told of where they are: roles by tenant, and projects."""
    tenants, projects = call.state.directory.tenants(who.name), call.state.access.projects(who)
    bounds = who.bounds
    if isinstance(bounds, Restricted) and bounds.places is not None:
        near = _tenants(bounds.places)
        tenants = {tenant: role for tenant, role in tenants.items() if tenant in near}
        projects &= _projects(call, bounds.places)
    return dict(sorted(tenants.items())), sorted(projects)


def _tenants(places: frozenset[str]) -> frozenset[str]:
    return frozenset(tenant_of(place) or place for place in places)


def _projects(call: Call, places: frozenset[str]) -> frozenset[str]:
    return places.union(*(call.state.directory.projects(_place(place)) for place in places))


def _place(name: str) -> Place:
    """Of a tenant or a project."""
    return place_of_project(name) if tenant_of(name) else Place(name)


def _both(these: frozenset[str] | None, those: frozenset[str]) -> frozenset[str]:
    return those if these is None else these & those


# --- who writes one ---------------------------------------------------------------------------------------------------


async def judge(call: Call, target: Target, *, body: dict[str, Any], old: dict[str, Any] | None) -> None:
    """Hold what a body says within the bounds of who sends it. Make a credential its maker's, and let nobody else
    change what it may: they may disable it. Raises Forbidden, Invalid."""
    if old is None:
        require(call.who, "create", on=target)
    signin.judge(call, target, body=body, old=old)
    if target.resource.stored != KIND:
        return
    who, spec = call.who, body["spec"]
    if old is None:
        said = spec.get("user") or who.name
        if said != who.name:
            words = f"Invalid value: {show(said)}: must be {who.name}, who makes it"
            raise invalid(target.subject, [Cause("spec.user", words)])
        spec["user"], spec["userUid"] = who.name, await _uid(call)
    else:
        before = CredentialSpec.model_validate(old["spec"]).dump()
        spec["user"], spec["userUid"] = before.get("user", ""), before.get("userUid", "")
        changed = {field for field in {*spec, *before} if spec.get(field) != before.get(field)}
        shuts = changed == {"disabled"} and spec.get("disabled")
        if changed and who.name != spec["user"] and not shuts:
            raise Forbidden(f"only {spec['user']}, whose credential it is, may change it; you may disable or delete it")
    metadata = body["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), **session_labels(spec["user"])}
    if not spec["userUid"]:
        return  # nobody's, as nothing that came over the api is: worth nothing
    owner = OwnerReference(kind="User", name=spec["user"], uid=spec["userUid"]).dump()
    others = [one for one in metadata.get("ownerReferences", ()) if one.get("uid") != spec["userUid"]]
    metadata["ownerReferences"] = [*others, owner]


async def _uid(call: Call) -> str:
    try:
        user = await call.state.local.user(call.who.name)
    except Unauthenticated as error:
        words = f"a credential acts for a User, and {call.who.name} is none: sign in as one"
        raise Forbidden(words) from error
    return str(user["metadata"]["uid"])

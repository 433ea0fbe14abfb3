"""The table of contents of the api: each route with its method and who may use it.

A permission is decided before the handler runs. ``kind`` is the kind's own row of rights for the verb of the route;
everything else is a rule of `PERMISSIONS` below. What is in no row of `ROUTES` does not exist.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from starlette.responses import Response

from bessemer.api import (
    account,
    accounting,
    applying,
    audit,
    bearers,
    deleting,
    endpointsecrets,
    fleetfigures,
    hosts,
    lending,
    lists,
    loads,
    modeltokens,
    oidcdoor,
    planning,
    relayed,
    resources,
    sealed,
    system,
    usage,
    workloads,
)
from bessemer.api.access import TENANTS_OWN, Target, forbidden
from bessemer.api.credentials import require_within
from bessemer.api.errors import WrongMethod, not_found
from bessemer.api.others import PATH
from bessemer.api.planners import require_planner
from bessemer.api.questions import ACCESS, LOCAL_ACCESS, PLACEMENT, SELF, SELF_ACCESS, SELF_RULES, TOKEN
from bessemer.api.reviews import Reviews
from bessemer.api.state import Call
from bessemer.core.errors import Forbidden, NotFound
from bessemer.core.resource import GROUP, VERSION, Verb

Permission = Literal[
    "public",
    "vouched",
    "signed-in",
    "kind",
    "status",
    "admin",
    "auditor",
    "own-host",
    "own-claim",
    "gateway",
    "oneself",
    "content",
    "fleet",
    "planner",
]
Handler = Callable[[Call], Awaitable[Response | None]]
OURS = f"/apis/{GROUP}/{VERSION}"
IN_PROJECT = f"{OURS}/namespaces/{{namespace}}"
READS = frozenset({"GET", "WS"})
"""Of these nothing is a write."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row. ``method`` WS is a WebSocket; ``plural`` "" is taken from the path; ``verb`` is for ``kind``. Who asks
    for a dry run reaches no handler that writes and knows none."""

    method: str
    path: str
    permission: Permission
    handler: Handler
    plural: str = ""
    verb: Verb = "get"
    dry_run: bool = False


def _collection(path: str) -> list[Rule]:
    return [
        Rule("GET", path, "kind", lists.list_or_watch, verb="list"),
        Rule("POST", path, "kind", resources.create, verb="create", dry_run=True),
        Rule("DELETE", path, "kind", deleting.delete_collection, verb="deletecollection", dry_run=True),
    ]


def _object(path: str) -> list[Rule]:
    return [
        Rule("GET", path, "kind", resources.get),
        Rule("PUT", path, "kind", resources.replace, verb="update", dry_run=True),
        Rule("PATCH", path, "kind", applying.patch, verb="patch", dry_run=True),
        Rule("DELETE", path, "kind", resources.delete, verb="delete", dry_run=True),
        Rule("GET", f"{path}/status", "kind", resources.get),
        Rule("PUT", f"{path}/status", "status", resources.replace_status, verb="update", dry_run=True),
        Rule("PATCH", f"{path}/status", "status", applying.patch_status, verb="patch", dry_run=True),
    ]


_REVIEWS = Reviews(lambda: (ROUTES, authorise))

ROUTES: tuple[Rule, ...] = (
    # First what is asked most: a path is looked for in this order, and these would be objects by theirs.
    Rule("POST", LOCAL_ACCESS.path, "admin", _REVIEWS.local_access, dry_run=True),
    Rule("POST", PLACEMENT.path, "planner", planning.placement, dry_run=True),
    *_collection("/apis/{group}/{version}/namespaces/{namespace}/{plural}"),
    *_object("/apis/{group}/{version}/namespaces/{namespace}/{plural}/{name}"),
    Rule("POST", f"{OURS}/usage", "gateway", accounting.usage),
    Rule("GET", f"{OURS}/usage", "gateway", accounting.held),
    Rule("POST", f"{OURS}/bearers", "gateway", bearers.judge),
    Rule("POST", f"{OURS}/loads", "gateway", loads.report),
    Rule("POST", SELF_ACCESS.path, "signed-in", _REVIEWS.own_access, dry_run=True),
    Rule("POST", SELF_RULES.path, "signed-in", _REVIEWS.own_rules, dry_run=True),
    Rule("POST", SELF.path, "signed-in", _REVIEWS.oneself, dry_run=True),
    Rule("POST", TOKEN.path, "signed-in", _REVIEWS.token, dry_run=True),
    Rule("POST", ACCESS.path, "admin", _REVIEWS.access, dry_run=True),
    *_collection("/apis/{group}/{version}/{plural}"),
    *_object("/apis/{group}/{version}/{plural}/{name}"),
    Rule("GET", "/healthz", "public", system.healthy),
    Rule("GET", "/livez", "public", system.healthy),
    Rule("GET", "/readyz", "public", system.ready),
    Rule("GET", "/version", "public", system.version),
    Rule("GET", "/api", "public", system.core_versions),
    Rule("GET", "/apis", "public", system.groups),
    Rule("GET", "/api/{version}", "public", system.resources),
    Rule("GET", "/apis/{group}", "public", system.group),
    Rule("GET", "/apis/{group}/{version}", "public", system.resources),
    Rule("GET", "/openapi/v2", "public", system.openapi_v2),
    Rule("GET", "/openapi/v3", "public", system.openapi_index),
    Rule("GET", "/openapi/v3/api/{version}", "public", system.openapi),
    Rule("GET", "/openapi/v3/apis/{group}/{version}", "public", system.openapi),
    Rule("POST", "/login", "public", account.login),
    Rule("DELETE", "/login", "signed-in", oidcdoor.leave),
    Rule("GET", "/login/providers", "public", oidcdoor.providers),
    Rule("POST", "/login/providers/{provider}", "public", oidcdoor.enter),
    Rule("POST", "/login/providers/{provider}/attempt", "public", oidcdoor.begin),
    Rule("POST", "/login/providers/{provider}/logout", "public", oidcdoor.logged_out),
    Rule("GET", "/whoami", "signed-in", account.whoami),
    Rule("GET", "/metrics", "admin", system.metrics),
    Rule("GET", "/audit", "signed-in", audit.find),
    Rule("GET", "/audit/export", "auditor", audit.export),
    Rule("POST", "/audit/trim", "admin", audit.trim),
    Rule("GET", "/fleet", "fleet", fleetfigures.figures),
    Rule("GET", "/sealed", "admin", sealed.state),
    Rule("POST", "/sealed/rotate", "admin", sealed.rotate),
    Rule("WS", PATH, "admin", relayed.serve),
    Rule("GET", "/content/{digest}", "content", workloads.content),
    Rule("GET", "/content/{digest}/size", "content", workloads.content_size),
    Rule("POST", f"{OURS}/hosts/{{name}}/token", "kind", hosts.token, plural="hosts", verb="create"),
    Rule("POST", f"{OURS}/hosts/{{name}}/join", "vouched", hosts.join, plural="hosts"),
    Rule("POST", f"{OURS}/hosts/{{name}}/heartbeat", "own-host", hosts.heartbeat, plural="hosts"),
    Rule("WS", f"{OURS}/hosts/{{name}}/stream", "own-host", hosts.stream, plural="hosts"),
    Rule("POST", f"{OURS}/users/{{name}}/password", "oneself", account.set_password, plural="users"),
    Rule(
        "POST",
        f"{OURS}/identityproviders/{{name}}/clientsecret",
        "admin",
        oidcdoor.client_secret,
        plural="identityproviders",
    ),
    Rule("POST", f"{OURS}/models/{{name}}/token", "admin", modeltokens.keep, plural="models"),
    Rule("POST", f"{OURS}/users/{{name}}/signinlink", "admin", account.sign_in_link, plural="users"),
    Rule("GET", f"{OURS}/projects/{{name}}/invoice", "kind", accounting.invoice, plural="projects"),
    Rule("GET", f"{OURS}/projects/{{name}}/ledger", "kind", accounting.ledger, plural="projects"),
    Rule("GET", f"{OURS}/projects/{{name}}/usage", "kind", usage.usage, plural="projects"),
    Rule("GET", f"{OURS}/projects/{{name}}/reconcile", "kind", usage.reconcile, plural="projects"),
    Rule("GET", f"{OURS}/projects/{{name}}/use", "kind", accounting.use, plural="projects"),
    Rule("POST", f"{OURS}/projects/{{name}}/shares", "gateway", accounting.share, plural="projects"),
    Rule("GET", f"{OURS}/tenants/{{name}}/use", "kind", accounting.use, plural="tenants"),
    Rule(
        "POST",
        f"{IN_PROJECT}/projectmodels/{{name}}/token",
        "kind",
        modeltokens.keep,
        plural="projectmodels",
        verb="create",
    ),
    Rule("GET", f"{IN_PROJECT}/claims/{{name}}/secrets", "own-claim", hosts.claim_secrets, plural="claims"),
    Rule("GET", f"{IN_PROJECT}/apikeys/{{name}}/use", "kind", lending.use, plural="apikeys"),
    Rule("POST", f"{IN_PROJECT}/apikeys/{{name}}/token", "kind", account.key_token, plural="apikeys", verb="create"),
    Rule(
        "POST",
        f"{IN_PROJECT}/applicationcredentials/{{name}}/token",
        "kind",
        account.credential_token,
        plural="applicationcredentials",
        verb="create",
    ),
    Rule("GET", f"{IN_PROJECT}/endpoints/{{name}}/secret", "kind", endpointsecrets.tell, plural="endpoints"),
    Rule(
        "POST",
        f"{IN_PROJECT}/endpoints/{{name}}/secret",
        "kind",
        endpointsecrets.keep,
        plural="endpoints",
        verb="create",
    ),
    Rule("GET", f"{IN_PROJECT}/instances/{{name}}/log", "kind", workloads.log, plural="instances"),
    Rule("GET", f"{IN_PROJECT}/endpoints/{{name}}/log", "kind", workloads.log, plural="endpoints"),
    Rule("GET", f"{IN_PROJECT}/vettings/{{name}}/log", "kind", workloads.log, plural="vettings"),
    Rule("GET", f"{IN_PROJECT}/jobs/{{name}}/log", "kind", workloads.log, plural="jobs"),
    Rule(
        "WS", f"{IN_PROJECT}/instances/{{name}}/console", "kind", workloads.console, plural="instances", verb="create"
    ),
    *_collection("/api/{version}/namespaces/{namespace}/{plural}"),
    *_object("/api/{version}/namespaces/{namespace}/{plural}/{name}"),
    *_collection("/api/{version}/{plural}"),
    *_object("/api/{version}/{plural}/{name}"),
)


def target_of(call: Call, rule: Rule) -> Target | None:
    """What the path names, or None for routes that name no resource. Raises NotFound for a place that is none."""
    parameters = call.connection.path_params
    plural = rule.plural or parameters.get("plural", "")
    if not plural:
        return None
    group = parameters.get("group", GROUP if rule.plural else "")
    version = parameters.get("version", VERSION)
    shown = call.state.resources.find(group, version, plural=plural)
    namespace, name = parameters.get("namespace", ""), parameters.get("name", "")
    # A namespaced object has its project in the path; a collection may do without, and then is of all projects.
    if shown is None or (namespace and not shown.namespaced) or (name and shown.namespaced and not namespace):
        raise NotFound("the server could not find the requested resource")
    part = rule.path.rpartition("/")[2] if name else ""
    return Target(shown, namespace, name, part if part in shown.source.below else "")


async def authorise(call: Call, rule: Rule) -> None:
    """Raises Unauthenticated, NotFound, Forbidden."""
    require_within(call, rule)
    check = PERMISSIONS[rule.permission]
    if check is not None:
        await check(call, rule)


async def _signed_in(call: Call, rule: Rule) -> None:
    del rule
    _ = call.who


async def _kind(call: Call, rule: Rule) -> None:
    who, target = call.who, call.about
    if target.name:
        offered = bool(target.subresource) or rule.verb in target.resource.verbs
        await call.state.access.require(who, rule.verb if offered else "get", on=target)
        if not offered:
            raise WrongMethod("the server does not allow this method on the requested resource")
    elif rule.verb == "create":
        await _create(call, target)
    elif rule.verb == "deletecollection" and not deleting.offered(target):
        if not call.state.access.administers(who):
            call.state.access.scope(who, rule.verb, on=target)
        raise WrongMethod("the server does not allow this method on the requested resource")
    # A list is bounded by what its asker may see, where it is made, and so is what of it is deleted: `lists.select`.


async def _create(call: Call, target: Target) -> None:
    """Whose a person's new Tenant, Project or Role is, and the project of an object sent without one, stands in the
    body: there the handler asks again."""
    in_body = not target.namespace and (target.resource.namespaced or target.resource.stored in TENANTS_OWN)
    if call.who.kind != "user" or not in_body:
        await call.state.access.require(call.who, "create", on=target)
    elif "create" not in target.resource.verbs:
        raise WrongMethod("the server does not allow this method on the requested resource")


async def _status(call: Call, rule: Rule) -> None:
    """The agent of the host; everybody else is refused as far as they may know the object."""
    who, target = call.who, call.about
    await call.state.access.require(who, "get", on=target)
    if who.kind != "agent":
        raise Forbidden(f"the status of a {target.resource.kind} is written by its controller, or its host's agent")


async def _admin(call: Call, rule: Rule) -> None:
    who = call.who
    if call.state.access.administers(who):
        return
    if call.target is not None and call.target.name:
        await call.state.access.require(who, "get", on=call.target)
        raise forbidden(who, "administer", on=call.target)
    raise Forbidden(f'User "{who.name}" is no administrator')


async def _auditor(call: Call, rule: Rule) -> None:
    if not audit.may_audit(call):
        raise Forbidden(f'User "{call.who.name}" is no auditor')


async def _own_host(call: Call, rule: Rule) -> None:
    who, target = call.who, call.about
    if who.kind != "agent" or who.name != target.name:
        await call.state.access.require(who, "get", on=target)
        raise Forbidden(f"only the agent of host {target.name} may do this")


async def _own_claim(call: Call, rule: Rule) -> None:
    await call.state.access.require(call.who, "get", on=call.about)
    if call.who.kind != "agent":
        raise Forbidden("only the agent of the claim's host may do this")


async def _gateway(call: Call, rule: Rule) -> None:
    if call.who.kind != "gateway":
        raise Forbidden("only a gateway may do this")


async def _oneself(call: Call, rule: Rule) -> None:
    who = call.who
    if call.state.access.administers(who) or (
        who.kind == "user" and who.bounds is None and who.name == call.about.name
    ):
        return
    raise not_found(call.about.subject)


async def _content(call: Call, rule: Rule) -> None:
    """Which content an agent may have is looked at where its claims are: `workloads.content`."""
    if call.who.kind != "agent" and not call.state.access.administers(call.who):
        raise NotFound("there is no such content")


async def _planner(call: Call, rule: Rule) -> None:
    await require_planner(call, call.who, namespace=call.parameter("namespace"))


async def _fleet(call: Call, rule: Rule) -> None:
    fleetfigures.require(call, call.who)


Check = Callable[[Call, Rule], Awaitable[Any]]
PERMISSIONS: Mapping[Permission, Check | None] = MappingProxyType(
    {
        "public": None,
        "vouched": None,
        "signed-in": _signed_in,
        "kind": _kind,
        "status": _status,
        "admin": _admin,
        "auditor": _auditor,
        "own-host": _own_host,
        "own-claim": _own_claim,
        "gateway": _gateway,
        "oneself": _oneself,
        "content": _content,
        "fleet": _fleet,
        "planner": _planner,
    }
)
"""``vouched``: the body itself carries what vouches for it (a join's token or signature)."""

"""``dryRun`` on every route that writes: it writes nothing, or is refused; which of the two, its row says."""

from __future__ import annotations

from typing import Any

from bessemer.api.questions import REVIEWS
from bessemer.api.routes import READS, ROUTES, Rule
from tests.api.world import ADMIN, BASE, GATEWAY, Reply, World, instance, named

MERGE = "application/merge-patch+json"
WRITES = [rule for rule in ROUTES if rule.method not in READS]
REVIEW: dict[str, Any] = {"resourceAttributes": {"verb": "get", "resource": "tenants"}, "namespace": "acme--lab"}
THINGS = {
    "/apis/{group}/{version}/namespaces/{namespace}/{plural}": ("instances", "vm"),
    "/apis/{group}/{version}/{plural}": ("tenants", "acme"),
    "/api/{version}/namespaces/{namespace}/{plural}": ("configmaps", "c"),
    "/api/{version}/{plural}": ("namespaces", "acme--lab"),
}
"""One of each sort of path."""

STATUS = {"instances": ("claims", "instance-vm-0"), "tenants": ("hosts", "h1")}
"""Of these somebody writes the status over the api: their agent."""


NOT_OFFERED = {("DELETE", "/api/{version}/{plural}"): 405}
"""Namespaces go one by one."""

NOT_A_PLACE = "/api/{version}/{plural}/{name}/status"
"""The only kind that it could name is namespaces, and there the path is another row's."""


def place(rule: Rule) -> str:
    """A path of the rule's, of what is there."""
    collection = rule.path.partition("/{name}")[0]
    plural, name = THINGS.get(collection, (rule.plural, {"projects": "acme--lab"}.get(rule.plural, "h1")))
    if rule.permission == "status":
        plural, name = STATUS.get(plural, (plural, name))
    told = {"group": "bessemer.dev", "version": "v1alpha1", "namespace": "acme--lab", "plural": plural, "name": name}
    if rule.path.startswith("/api/"):
        told["version"] = "v1"
    return rule.path.format(**told, provider="none", digest="none")


async def furnished(w: World) -> Any:
    """Something at each path; the agent of host h1."""
    agent = await w.host("h1")
    await w.create(f"{BASE}/namespaces/acme--lab/instances", instance("vm"))
    await w.create("/api/v1/namespaces/acme--lab/configmaps", {"metadata": {"name": "c"}, "data": {"a": "b"}})
    await w.claim("vm", "h1", "acme--lab")
    return agent


async def asked(w: World, rule: Rule, query: str, *, agent: Any, body: Any = None, headers: Any = None) -> Reply:
    """The request of a rule by whoever may, with a body that would do."""
    peer = {"gateway": GATEWAY, "own-host": agent, "status": agent, "own-claim": agent}.get(rule.permission, ADMIN)
    media = MERGE if rule.method == "PATCH" else "application/json"
    return await w.call(rule.method, place(rule) + query, body, peer=peer, media=media, headers=headers)


async def body_of(w: World, rule: Rule) -> Any:
    """What the rule's request would write."""
    path = place(rule)
    if rule.verb == "create" and "{plural}" in rule.path:
        name = "acme--new" if path.endswith("/namespaces") else "new"
        bare = {"metadata": {"name": name}}
        return instance(name) if path.endswith("instances") else named(name) if path.startswith("/apis") else bare
    if rule.method == "DELETE":
        return None
    if rule.permission == "status" and rule.method == "PATCH":
        return {"status": {"phase": "Stopped"} if "claims" in path else {"report": {"kernel": "another"}}}
    if rule.method == "PATCH":
        return {"metadata": {"labels": {"x": "y"}}}
    if rule.method == "PUT":
        there = (await w.call("GET", path.removesuffix("/status"))).json
        return {**there, "metadata": {**there["metadata"], "labels": {"x": "y"}}}
    said = {**REVIEW, "user": "mia", "token": "bss_x.y", "object": {"kind": "Instance", **instance("planned")}}
    review = next(review for review in REVIEWS if review.path == rule.path)
    return {"spec": {field: value for field, value in said.items() if field in review.spec}}


async def test_a_route_that_honours_it_writes_nothing(w: World) -> None:
    """Each of them would, but for that."""
    agent = await furnished(w)
    honour = [rule for rule in WRITES if rule.dry_run]
    assert len(honour) > 30
    for rule in honour:
        before = w.store.revision
        body = await body_of(w, rule)
        done = await asked(w, rule, "?dryRun=All", agent=agent, body=body)
        none = 404 if rule.permission == "status" and rule.path.startswith("/api/") else 0
        none = none or NOT_OFFERED.get((rule.method, rule.path), 0)
        assert done.code in ((none,) if none else (200, 201)), (rule.method, rule.path, done.body)
        wrong = await asked(w, rule, "?dryRun=Some", agent=agent, body=body)
        assert wrong.code == (none or 422), (rule.method, rule.path, wrong.body)
        assert w.store.revision == before, (rule.method, rule.path)


async def test_a_route_that_does_not_refuses_it(w: World) -> None:
    """Before it does anything: no live key is replaced, and the trail has no row that says so."""
    agent = await furnished(w)
    refuse = [rule for rule in WRITES if not rule.dry_run]
    assert {"token", "password", "signinlink", "clientsecret", "rotate", "trim", "login", "join", "usage"} <= {
        rule.path.rpartition("/")[2] for rule in refuse
    }
    before, rows = w.store.revision, len(await w.store.audit.rows())
    for rule in refuse:
        for query, code, reason in (
            ("?dryRun=All", 400, "BadRequest"),
            ("?dryRun=Some", 422, "Invalid"),
            ("?dryRun=", 422, "Invalid"),
            ("?dryRun=All&dryRun=", 422, "Invalid"),
        ):
            reply = await asked(w, rule, query, agent=agent, body={})
            told = reply.json.get("reason"), "dry" in reply.json.get("message", "")
            assert (reply.code, *told) == (code, reason, True), (rule.method, rule.path, reply.body)
    assert (w.store.revision, len(await w.store.audit.rows())) == (before, rows)
    assert (await w.call("POST", f"{BASE}/hosts/h1/token?dryRun=All", {}, peer=None)).code == 401


async def test_a_live_key_outlives_a_dry_run(w: World) -> None:
    keys = f"{BASE}/namespaces/acme--lab/apikeys"
    await w.create(keys, named("k"))
    await w.call("POST", f"{keys}/k/token", {})
    live = (await w.call("GET", f"{keys}/k")).json["status"]
    assert (await w.call("POST", f"{keys}/k/token?dryRun=All", {})).code == 400
    assert (await w.call("GET", f"{keys}/k")).json["status"] == live
    assert (await w.call("POST", f"{keys}/k/token", {})).code == 201
    assert (await w.call("GET", f"{keys}/k")).json["status"] != live


async def test_what_is_no_dry_run_is_no_write(w: World) -> None:
    """As in Kubernetes: a value that nobody knows, none at all, and one of two that is wrong."""
    path = f"{BASE}/namespaces/acme--lab/instances"
    for query in ("dryRun=", "dryRun=all", "dryRun=true", "dryRun=All&dryRun=None", "dryRun=None&dryRun=All"):
        reply = await w.call("POST", f"{path}?{query}", instance("vm"))
        assert (reply.code, reply.json["details"]["causes"][0]["field"]) == (422, "dryRun"), query
    for said in ([""], ["all"], "All", ["All", "None"]):
        assert (await w.call("DELETE", f"{path}/vm", {"dryRun": said})).code in (404, 422)
    assert (await w.call("POST", f"{path}?dryRun=All&dryRun=All", instance("vm"))).code == 201
    assert (await w.call("GET", path)).json["items"] == []

"""Deny by default: every route of the table, asked with host A's certificate, says nothing of others' things;
and what each person may do in a tenant, from the kinds' rows of rights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bessemer.api.ca import Peer
from bessemer.api.questions import SELF, SELF_ACCESS, SELF_RULES, TOKEN
from bessemer.api.routes import ROUTES, Rule
from bessemer.api.shown import Resources
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import GROUP, VERSION, Key
from bessemer.kinds import KINDS
from tests.api.world import ADMIN, BASE, GATEWAY, Reply, World, instance, named, tenant
from tests.kinds import pages

PUBLIC = {
    ("GET", "/healthz"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/version"),
    ("GET", "/api"),
    ("GET", "/apis"),
    ("GET", "/api/{version}"),
    ("GET", "/apis/{group}"),
    ("GET", "/apis/{group}/{version}"),
    ("GET", "/openapi/v2"),
    ("GET", "/openapi/v3"),
    ("GET", "/openapi/v3/api/{version}"),
    ("GET", "/openapi/v3/apis/{group}/{version}"),
    ("POST", "/login"),
    ("GET", "/login/providers"),
    ("POST", "/login/providers/{provider}"),
    ("POST", "/login/providers/{provider}/attempt"),
    ("POST", "/login/providers/{provider}/logout"),
}
"""The written list of what a stranger may ask. A route joins it here, in review, or not at all."""

FOR_ALL_SIGNED_IN = {
    ("GET", "/whoami"),
    ("DELETE", "/login"),
    *(("POST", review.path) for review in (SELF, SELF_ACCESS, SELF_RULES, TOKEN)),
}
"""What tells its asker of themselves alone."""

JOIN = f"{BASE}/hosts/{{name}}/join"


def test_public_routes_are_those_of_the_written_list() -> None:
    assert {(rule.method, rule.path) for rule in ROUTES if rule.permission == "public"} == PUBLIC
    assert {rule.path for rule in ROUTES if rule.permission == "vouched"} == {JOIN}


def test_no_route_is_written_twice() -> None:
    rows = [(rule.method, rule.path) for rule in ROUTES]
    assert len(rows) == len(set(rows))


NOBODYS = "n0where"
"""A name that nothing has."""

NOT_A_PLACE = "/api/v1/namespaces/other--lab/status"
"""Two rows fit, and the first is the collection called status of a project, which there is not."""


@dataclass(frozen=True, slots=True)
class Theirs:
    """An object of every kind that host A has nothing to do with, by its resource's plural, and a content."""

    a: Peer
    b: Peer
    names: Mapping[str, str]
    digest: str


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """A request. ``nowhere`` is the same of what is not there, "" where the path names nothing."""

    method: str
    path: str
    nowhere: str
    permission: str
    name: str


async def furnished(w: World, folder: Path) -> Theirs:
    """One object of each kind, of host B or of another tenant: what does not come with hosts, people and a running
    Instance is made as its kind's page shows it. A kind without one fails here."""
    a, b = await w.host("rack-a"), await w.host("rack-b")
    content = b"the bytes of an image of host B's guest"
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    w.content[digest] = folder / "content"
    w.content[digest].write_bytes(content)
    lab = "other--lab"
    made = await w.create(f"{BASE}/namespaces/{lab}/instances", instance("theirs"))
    await w.claim("theirs", "rack-b", lab, image={"digest": digest})
    await w.store.events.emit(Key("Instance", lab, "theirs"), made["metadata"]["uid"], "Booting", "the guest boots")
    await w.login("eve")
    specs, names = pages.contents(), dict[str, str]()
    for kind in KINDS:
        place = {"namespace": lab} if kind.namespaced else {}
        page = await w.store.objects.list(Scope(kind=kind.name, namespace=lab if kind.namespaced else None))
        found = [s.key.name for s in page.items if s.key.name != "rack-a" and not s.key.name.startswith("acme")]
        if not found:
            assert kind.name in specs, f"the page of {kind.name} shows none, and `furnished` makes none"
            body = {"apiVersion": kind.api_version, "kind": kind.name, **specs[kind.name]}
            await w.store.objects.create({**body, "metadata": {"name": "theirs", **place}}, CONTROLLER)
        names[kind.plural] = found[-1] if found else "theirs"
    views = {"namespaces": names["projects"], "customresourcedefinitions": f"instances.{GROUP}"}
    return Theirs(a, b, {**names, **views}, digest)


def cases(theirs: Theirs) -> list[Case]:
    """Every route that is not public, for every resource that its path can name, asked about what is there."""
    resources = Resources(KINDS).all
    found = set()
    for rule in ROUTES:
        if (rule.method, rule.path) in PUBLIC | FOR_ALL_SIGNED_IN:
            continue
        if "{plural}" not in rule.path:
            found.add(case_of(rule, theirs, plural=rule.plural, group=GROUP, version=VERSION))
            continue
        for shown in resources:
            core = rule.path.startswith("/api/")
            fits = shown.namespaced == ("{namespace}" in rule.path) or (shown.namespaced and "{name}" not in rule.path)
            if core == (shown.group == "") and fits:
                found.add(case_of(rule, theirs, plural=shown.plural, group=shown.group, version=shown.version))
    return sorted(found)


def case_of(rule: Rule, theirs: Theirs, *, plural: str, group: str, version: str) -> Case:
    name = theirs.names[plural] if "{name}" in rule.path else ""
    values = {"group": group, "version": version, "namespace": "other--lab", "plural": plural, "digest": theirs.digest}
    nowhere = {**values, "name": NOBODYS, "digest": f"sha256:{'0' * 64}"}
    there = rule.path.format(**{**values, "name": name})
    elsewhere = rule.path.format(**nowhere)
    return Case(rule.method, there, elsewhere if elsewhere != there else "", rule.permission, name)


async def ask(w: World, method: str, path: str, *, peer: Peer | None) -> Reply:
    """One request of a case, with a body where there must be one."""
    if method == "WS":
        return await w.dial(path, peer=peer)
    body, media = body_for(method, path)
    return await w.call(method, path, body, peer=peer, media=media)


async def two_hosts(w: World) -> tuple[Peer, Peer]:
    """Hosts a and b, with a Claim on b."""
    a, b = await w.host("a"), await w.host("b")
    await w.create(f"{BASE}/namespaces/other--lab/instances", instance("theirs"))
    await w.claim("theirs", "b", "other--lab")
    return a, b


def body_for(method: str, path: str) -> tuple[Any, str]:
    if method == "PATCH":
        return {"metadata": {"labels": {"x": "y"}}}, "application/merge-patch+json"
    if method in ("POST", "PUT"):
        return {"metadata": {"name": path.rpartition("/")[2], "resourceVersion": "1"}, "spec": {}}, "application/json"
    return None, ""


async def test_host_a_sees_nothing_of_host_b_nor_of_anybody(w: World, tmp_path: Path) -> None:
    theirs = await furnished(w, tmp_path)
    asked = cases(theirs)
    assert len(asked) > 150
    assert {case.method for case in asked} == {"GET", "POST", "PUT", "PATCH", "DELETE", "WS"}
    wrong = []
    for case in asked:
        reply = await ask(w, case.method, case.path, peer=theirs.a)
        refused = reply.code in (403, 404) or (case.permission == "vouched" and reply.code == 401)
        its_own_list = (
            case.method == "GET" and reply.code == 200 and case.path.rpartition("/")[2] in ("hosts", "claims")
        )
        if its_own_list:
            assert all(item["metadata"]["name"] == "rack-a" for item in reply.json["items"]), case.path
        elif not refused:
            wrong.append((case.method, case.path, reply.code, reply.body[:200]))
    assert wrong == []


async def test_what_is_there_is_refused_as_what_is_not(w: World, tmp_path: Path) -> None:
    """So that nobody learns by the answer which hosts, projects and workloads there are."""
    theirs = await furnished(w, tmp_path)
    for case in cases(theirs):
        if case.nowhere:
            there = await ask(w, case.method, case.path, peer=theirs.a)
            nowhere = await ask(w, case.method, case.nowhere, peer=theirs.a)
            said = there.body.replace(case.name.encode(), NOBODYS.encode()) if case.name else there.body
            assert (there.code, said) == (nowhere.code, nowhere.body), (case.method, case.path)


async def test_what_is_asked_for_is_there(w: World, tmp_path: Path) -> None:
    """Else a 404 would prove nothing: the administrator, or host B, is told something else."""
    theirs = await furnished(w, tmp_path)
    for case in cases(theirs):
        if case.method in ("GET", "WS") and case.path != NOT_A_PLACE:
            codes = {(await ask(w, case.method, case.path, peer=peer)).code for peer in (ADMIN, theirs.b)}
            assert codes != {404}, (case.method, case.path)
    assert (await w.call("GET", f"/content/{theirs.digest}", peer=theirs.b)).code == 200
    assert (await w.dial(f"{BASE}/hosts/rack-b/stream", peer=theirs.b)).code == 101


async def test_strangers_get_401_everywhere_but_on_the_public_list(w: World, tmp_path: Path) -> None:
    for case in cases(await furnished(w, tmp_path)):
        reply = await ask(w, case.method, case.path, peer=None)
        assert reply.code == 401, (case.method, case.path, reply.code)
        assert reply.headers["www-authenticate"] == 'Bearer realm="bessemer"'


async def test_an_agent_reads_its_host_and_its_claims(w: World) -> None:
    a, b = await two_hosts(w)
    claim = f"{BASE}/namespaces/other--lab/claims/instance-theirs-0"
    assert (await w.call("GET", f"{BASE}/hosts/b", peer=b)).code == 200
    assert (await w.call("GET", claim, peer=b)).code == 200
    assert (await w.call("GET", claim, peer=a)).code == 404
    for query in ("", "?fieldSelector=spec.host=b"):
        assert [c["metadata"]["name"] for c in (await w.call("GET", f"{BASE}/claims{query}", peer=b)).json["items"]]
    assert (await w.call("GET", f"{BASE}/claims?fieldSelector=spec.host=b", peer=a)).json["items"] == []
    assert (await w.call("GET", f"{claim}/secrets", peer=b)).json == {"secrets": {}}
    assert (await w.call("GET", f"{claim}/secrets", peer=a)).code == 404
    assert (await w.call("GET", f"{claim}/secrets", peer=ADMIN)).code == 403


async def test_the_claims_status_is_its_agents_alone(w: World) -> None:
    a, b = await two_hosts(w)
    path = f"{BASE}/namespaces/other--lab/claims/instance-theirs-0/status"
    body = {"metadata": {"name": "instance-theirs-0"}, "status": {"phase": "Running"}}
    assert (await w.call("PUT", path, body, peer=a)).code == 404
    assert (await w.call("PUT", path, body, peer=ADMIN)).code == 403
    reply = await w.call("PUT", path, body, peer=b)
    assert (reply.code, reply.json["status"]["phase"]) == (200, "Running")
    wrong = {"metadata": {}, "status": {"phase": "Nonsense"}}
    reply = await w.call("PUT", path, wrong, peer=b)
    assert (reply.code, reply.json["details"]["causes"][0]["field"]) == (422, "status.phase")


async def test_an_agent_reports_its_host_and_changes_nothing_else_of_it(w: World) -> None:
    a, b = await two_hosts(w)
    body = {"metadata": {"name": "a"}, "status": {"phase": "Fenced", "report": {"kernel": "6.1", "numa": []}}}
    reply = await w.call("PUT", f"{BASE}/hosts/a/status", body, peer=a)
    assert reply.code == 200
    assert reply.json["status"]["report"]["kernel"] == "6.1"
    assert reply.json["status"].get("phase") != "Fenced"
    assert (await w.call("PUT", f"{BASE}/hosts/a/status", body, peer=b)).code == 404


async def test_a_revoked_or_rejoined_hosts_certificate_is_worth_nothing(w: World) -> None:
    a, _ = await two_hosts(w)
    other_key = Peer(a.name, a.groups, "f" * 64)
    assert (await w.call("GET", f"{BASE}/hosts/a", peer=other_key)).code == 401
    media = "application/merge-patch+json"
    assert (await w.call("PATCH", f"{BASE}/hosts/a", {"spec": {"revoked": True}}, media=media)).code == 200
    assert (await w.call("GET", f"{BASE}/hosts/a", peer=a)).code == 401
    assert (await w.call("GET", f"{BASE}/hosts/a", peer=Peer("system:agent:none", (), ""))).code == 401


@pytest.mark.parametrize(("user", "create", "get", "others"), [("ann", 201, 200, 404), ("mia", 201, 200, 404)])
async def test_members_work_in_their_tenant(w: World, user: str, create: int, get: int, others: int) -> None:
    token = await w.login(user)
    lab, theirs = f"{BASE}/namespaces/acme--lab/instances", f"{BASE}/namespaces/other--lab/instances"
    assert (await w.call("POST", lab, instance("vm"), token=token)).code == create
    assert (await w.call("GET", f"{lab}/vm", token=token)).code == get
    assert (await w.call("GET", f"{theirs}/vm", token=token)).code == others
    assert (await w.call("GET", theirs, token=token)).code == others
    assert (await w.call("POST", theirs, instance("vm"), token=token)).code == others


async def test_readers_read(w: World) -> None:
    token = await w.login("rob")
    lab = f"{BASE}/namespaces/acme--lab/instances"
    await w.create(lab, instance("vm"))
    assert (await w.call("GET", f"{lab}/vm", token=token)).code == 200
    reply = await w.call("DELETE", f"{lab}/vm", token=token)
    assert (reply.code, reply.json["reason"]) == (403, "Forbidden")
    assert 'User "rob" cannot delete resource "instances"' in reply.json["message"]
    assert (await w.call("POST", lab, instance("vm2"), token=token)).code == 403


async def test_lists_over_all_projects_show_ones_own(w: World) -> None:
    for project in ("acme--lab", "other--lab"):
        await w.create(f"{BASE}/namespaces/{project}/instances", instance("vm"))
    mia, new = await w.login("mia"), await w.login("new")

    async def names(path: str, token: str) -> list[str]:
        reply = await w.call("GET", path, token=token)
        assert reply.code == 200, reply.body
        return [i["metadata"].get("namespace") or i["metadata"]["name"] for i in reply.json["items"]]

    assert await names(f"{BASE}/instances", mia) == ["acme--lab"]
    assert await names(f"{BASE}/tenants", mia) == ["acme"]
    assert await names(f"{BASE}/projects", mia) == ["acme--lab"]
    assert await names("/api/v1/namespaces", mia) == ["acme--lab"]
    assert await names(f"{BASE}/instances", new) == []
    assert await names(f"{BASE}/tenants", new) == []
    assert (await w.call("GET", f"{BASE}/users", token=mia)).code == 403
    assert (await w.call("GET", f"{BASE}/sessions", token=mia)).code == 403
    assert (await w.call("GET", "/metrics", token=mia)).code == 403


async def test_a_tenant_admin_makes_projects_in_her_tenant_alone(w: World) -> None:
    ann = await w.login("ann")
    assert (await w.call("POST", f"{BASE}/projects", named("acme--new"), token=ann)).code == 201
    assert (await w.call("POST", f"{BASE}/namespaces/acme--new/instances", instance("vm"), token=ann)).code == 201
    assert (await w.call("POST", f"{BASE}/projects", named("other--new"), token=ann)).code == 403
    assert (await w.call("POST", f"{BASE}/tenants", tenant("mine"), token=ann)).code == 403


async def test_a_member_who_is_put_out_sees_nothing_from_then_on(w: World) -> None:
    mia = await w.login("mia")
    path = f"{BASE}/namespaces/acme--lab/instances"
    assert (await w.call("GET", path, token=mia)).code == 200
    media = "application/merge-patch+json"
    reply = await w.call("PATCH", f"{BASE}/tenants/acme", {"spec": {"members": []}}, media=media)
    assert reply.code == 200
    assert (await w.call("GET", path, token=mia)).code == 404


async def test_the_gateway_reads_keys_and_endpoints_and_nothing_else(w: World) -> None:
    for plural, code in (("apikeys", 200), ("endpoints", 200), ("claims", 200), ("instances", 403), ("users", 403)):
        assert (await w.call("GET", f"{BASE}/{plural}", peer=GATEWAY)).code == code, plural
    assert (await w.call("POST", f"{BASE}/namespaces/acme--lab/apikeys", named("k"), peer=GATEWAY)).code in (403, 404)


async def test_the_gateway_reads_the_claims_of_endpoints_alone(w: World) -> None:
    await w.host("h")
    lab = f"{BASE}/namespaces/acme--lab"
    await w.create(f"{lab}/instances", instance("vm"))
    await w.create(f"{lab}/endpoints", named("chat", model="m", flavor="f"))
    await w.claim("vm", "h", "acme--lab", nonce="not yours")
    async with w.watch(f"{BASE}/claims?watch=1", peer=GATEWAY) as events:
        await w.claim("chat", "h", "acme--lab", kind="Endpoint")
        assert await events.names(1) == [("ADDED", "endpoint-chat-0")]
        stored = await w.store.objects.get(Key("Claim", "acme--lab", "instance-vm-0"))
        await w.store.capacity.retire(stored.key, CONTROLLER)
        await w.store.capacity.retire(Key("Claim", "acme--lab", "endpoint-chat-0"), CONTROLLER)
        assert await events.names(1) == [("MODIFIED", "endpoint-chat-0")]
    asked = "labelSelector=bessemer.dev/workload-kind"
    for path in (f"{BASE}/claims", f"{lab}/claims", f"{lab}/claims?limit=5", f"{lab}/claims?{asked}=Endpoint"):
        reply = await w.call("GET", path, peer=GATEWAY)
        assert [i["metadata"]["name"] for i in reply.json["items"]] == ["endpoint-chat-0"], path
    for query in (f"{asked}=Instance", f"{asked}%20in%20(Instance)", f"{asked}!=Endpoint", "fieldSelector=spec.host=x"):
        assert (await w.call("GET", f"{BASE}/claims?{query}", peer=GATEWAY)).json["items"] == [], query
    for name, code in (("endpoint-chat-0", 200), ("instance-vm-0", 404), ("none", 404)):
        for part in ("", "/status"):
            assert (await w.call("GET", f"{lab}/claims/{name}{part}", peer=GATEWAY)).code == code, name


async def test_a_tenant_sees_the_price_plan_by_which_it_is_billed(w: World) -> None:
    plans, media = f"{BASE}/priceplans", "application/merge-patch+json"
    for name in ("standard", "research", "secret-discount"):
        await w.create(plans, named(name))
    await w.call("PATCH", f"{BASE}/tenants/other", {"spec": {"pricePlan": "research"}}, media=media)
    seen = {"rob": ["standard"], "ann": ["standard"], "eve": ["research"], "new": []}
    for user, names in seen.items():
        token = await w.login(user)
        for query in ("", "?limit=1", "?fieldSelector=metadata.name!=x"):
            listed = await w.call("GET", plans + query, token=token)
            assert (listed.code, [i["metadata"]["name"] for i in listed.json["items"]]) == (200, names), user
        for name in ("standard", "research", "secret-discount", "none"):
            code = 200 if name in names else 404
            assert (await w.call("GET", f"{plans}/{name}", token=token)).code == code, (user, name)
            for method in ("PATCH", "DELETE"):
                reply = await w.call(
                    method, f"{plans}/{name}", {} if method == "PATCH" else None, token=token, media=media
                )
                assert reply.code == (403 if name in names else 404), (user, name, method)
        for name in ("secret-discount", "another"):
            assert (await w.call("POST", plans, named(name), token=token)).code == 403
    assert len((await w.call("GET", plans)).json["items"]) == 3


async def test_a_watch_of_price_plans_ends_when_another_applies(w: World) -> None:
    plans = f"{BASE}/priceplans"
    await w.create(plans, named("standard"))
    eve = await w.login("eve")
    async with w.watch(f"{plans}?watch=1", token=eve) as events:
        assert await events.names(1) == [("ADDED", "standard")]
        change = {"spec": {"pricePlan": "research"}}
        await w.call("PATCH", f"{BASE}/tenants/other", change, media="application/merge-patch+json")
        await w.create(plans, named("research"))
        told = await events.next()
        while told["type"] == "BOOKMARK":
            told = await events.next()
        assert (told["type"], told["object"]["code"]) == ("ERROR", 410)


async def test_what_is_refused_is_audited(w: World) -> None:
    mia = await w.login("mia")
    await w.call("GET", f"{BASE}/namespaces/other--lab/instances/x", token=mia)
    rows = [row for row in await w.store.audit.rows() if not row.allowed]
    assert [(row.writer, row.verb, row.key) for row in rows] == [("user:mia", "get", "Instance other--lab/x")]
    assert rows[0].request_id
    assert rows[0].source == "192.0.2.1"


async def test_an_owner_of_another_tenant_is_not_found(w: World) -> None:
    theirs = await w.create(f"{BASE}/namespaces/other--lab/instances", instance("theirs"))
    mia = await w.login("mia")
    owner = {"apiVersion": theirs["apiVersion"], "kind": "Instance", "name": "theirs", "uid": theirs["metadata"]["uid"]}
    body = instance("mine")
    body["metadata"]["ownerReferences"] = [owner]
    reply = await w.call("POST", f"{BASE}/namespaces/acme--lab/instances", body, token=mia)
    assert reply.code == 422
    assert reply.json["details"]["causes"][0]["message"].endswith("Instance not found")

"""Roles and bindings over the api: they give what they say where they say it, nobody gives more than they hold, and
what is withdrawn is gone at once."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from bessemer.api import Limits, make_app
from bessemer.api.access import Target
from bessemer.api.bounds import Bounds
from bessemer.api.context import Credentials, Identity
from bessemer.core.clock import FakeClock
from bessemer.core.frames import Stream
from bessemer.core.resource import API_VERSION, Key
from tests.api.test_streams import VM, client, dialled, running
from tests.api.world import ADMIN, BASE, PATIENCE_SECONDS, Reply, Served, World, instance, named, served, world

ROLES, BINDINGS, USERS, TENANTS = (f"{BASE}/{plural}" for plural in ("roles", "rolebindings", "users", "tenants"))
LAB = f"{BASE}/namespaces/acme--lab/instances"
MERGE, JSON, APPLY = "application/merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml"


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Served]:
    """Nobody is looked at again by the clock: what ends amid a test ends for what was withdrawn."""
    async with world(limits=Limits(login_burst=50, recheck_seconds=600.0)) as w, served(w, tmp_path) as made:
        yield made


def role(name: str, *rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return named(name, rules=[{"kinds": ["Instance"], **rule} for rule in rules], **spec)


def binding(name: str, role: str, *users: str, **scope: Any) -> dict[str, Any]:
    return named(name, role=role, subjects=[{"kind": "User", "name": user} for user in users], scope=scope)


async def codes(w: World, token: str, *asked: tuple[str, str]) -> list[int]:
    return [(await w.call(method, path, None, token=token)).code for method, path in asked]


async def names(w: World, path: str, token: str) -> list[str]:
    reply = await w.call("GET", path, token=token)
    assert reply.code == 200, reply.body
    return [item["metadata"]["name"] for item in reply.json["items"]]


def refused(reply: Reply, *lacking: str) -> None:
    """403, and it says what is lacking."""
    assert (reply.code, reply.json["reason"]) == (403, "Forbidden"), reply.body
    assert all(word in reply.json["message"] for word in ("may not grant", *lacking)), reply.json["message"]


# --- what is given ----------------------------------------------------------------------------------------------------


async def test_a_binding_to_a_project_gives_that_project_alone(w: World) -> None:
    new = await w.login("new")
    await w.create(f"{BASE}/projects", named("acme--den"))
    for project in ("acme--lab", "acme--den", "other--lab"):
        await w.create(f"{BASE}/namespaces/{project}/instances", instance("vm"))
    assert (await w.call("GET", LAB, token=new)).code == 404
    ann = await w.login("ann")
    await w.create(BINDINGS, binding("acme--some", "member", "new", project="acme--lab"), token=ann)
    assert (await w.call("POST", LAB, instance("mine"), token=new)).code == 201
    assert await names(w, f"{BASE}/instances", new) == ["mine", "vm"]
    assert await names(w, f"{BASE}/projects", new) == await names(w, "/api/v1/namespaces", new) == ["acme--lab"]
    assert await names(w, TENANTS, new) == []
    den, theirs = (f"{BASE}/namespaces/{project}/instances" for project in ("acme--den", "other--lab"))
    assert await codes(w, new, ("GET", den), ("GET", f"{den}/vm"), ("GET", theirs), ("GET", ROLES)) == [
        404,
        404,
        404,
        200,
    ]
    assert (await w.call("GET", "/whoami", token=new)).json["projects"] == ["acme--lab"]


async def test_a_binding_to_one_object_shows_that_one(w: World) -> None:
    new = await w.login("new")
    for name in ("vm", "vn"):
        await w.create(LAB, instance(name))
    await w.create(BINDINGS, binding("acme--one", "member", "new", project="acme--lab", object=OBJECT))
    assert await names(w, LAB, new) == await names(w, f"{BASE}/instances", new) == ["vm"]
    assert await names(w, f"{LAB}?limit=1", new) == ["vm"]
    assert "continue" not in (await w.call("GET", f"{LAB}?limit=1", token=new)).json["metadata"]
    assert await names(w, f"{LAB}?fieldSelector=metadata.name=vn", new) == []
    asked = [("GET", f"{LAB}/vm"), ("GET", f"{LAB}/vn"), ("DELETE", f"{LAB}/vn"), ("GET", f"{BASE}/projects/acme--lab")]
    assert await codes(w, new, *asked) == [200, 404, 404, 404]
    assert (await w.call("POST", LAB, instance("more"), token=new)).code == 403
    for path in (LAB, f"{BASE}/instances"):
        async with w.watch(f"{path}?watch=1", token=new) as events:
            assert await events.names(1) == [("ADDED", "vm")]
            for name in ("vn", "vm"):
                label = {"metadata": {"labels": {"at": path.rpartition("/")[0][-3:]}}}
                await w.call("PATCH", f"{LAB}/{name}", label, media=MERGE)
            assert await events.names(1) == [("MODIFIED", "vm")]
    assert (await w.call("DELETE", f"{LAB}/vm", token=new)).code == 200


OBJECT = {"kind": "Instance", "name": "vm"}


async def test_what_is_seen_here_and_there_is_one_list(w: World) -> None:
    """A whole project and an object of another, in order and in pages."""
    new = await w.login("new")
    await w.create(f"{BASE}/projects", named("acme--den"))
    for project in ("acme--den", "acme--lab"):
        for number in range(3):
            await w.create(f"{BASE}/namespaces/{project}/instances", instance(f"v{number}"))
    await w.create(BINDINGS, binding("acme--all", "reader", "new", project="acme--lab"))
    one = {"kind": "Instance", "name": "v1"}
    await w.create(BINDINGS, binding("acme--one", "reader", "new", project="acme--den", object=one))
    path, seen = f"{BASE}/instances?limit=2", list[tuple[str, str]]()
    token, counts = "", []
    while True:
        page = (await w.call("GET", f"{path}&continue={token}" if token else path, token=new)).json
        seen += [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in page["items"]]
        counts.append(page["metadata"].get("remainingItemCount"))
        if not (token := page["metadata"].get("continue", "")):
            break
    assert seen == [("acme--den", "v1"), *(("acme--lab", f"v{number}") for number in range(3))]
    assert counts == [2, None], "what is left is counted of what is shown"


async def test_a_custom_role_gives_its_rules_and_what_it_includes(w: World) -> None:
    rob = await w.login("rob")
    await w.create(LAB, instance("web"))
    await w.create(LAB, instance("db"))
    await w.create(
        ROLES, role("acme--own", {"verbs": ["patch", "delete"], "names": ["web"]}, includes=["billing-reader"])
    )
    await w.create(BINDINGS, binding("acme--some", "acme--own", "rob"))
    label = {"metadata": {"labels": {"a": "b"}}}
    for name, code in (("web", 200), ("db", 403)):
        assert (await w.call("PATCH", f"{LAB}/{name}", label, token=rob, media=MERGE)).code == code
    assert (await w.call("PUT", f"{LAB}/web", instance("web"), token=rob)).code == 403


async def test_a_part_of_an_object_is_a_right_of_its_own(w: World) -> None:
    new = await w.login("new")
    await w.create(LAB, instance("vm"))
    await w.create(ROLES, role("acme--logs", {"verbs": ["get"], "subresources": ["log"]}))
    await w.create(BINDINGS, binding("acme--some", "acme--logs", "new"))
    assert await codes(w, new, ("GET", f"{LAB}/vm/log"), ("GET", f"{LAB}/vm"), ("GET", LAB)) == [503, 404, 403]
    assert (await w.dial(f"{LAB}/vm/console", peer=None, token=new)).code == 404


async def test_reviews_tell_of_bindings_and_of_groups(w: World) -> None:
    new = await w.login("new")
    await w.create(LAB, instance("vm"))
    await w.create(BINDINGS, binding("acme--one", "member", "new", project="acme--lab", object=OBJECT))
    group = {"role": "reader", "subjects": [{"kind": "Group", "name": "corp:nights"}]}
    await w.create(BINDINGS, named("acme--nights", **group))
    review = "/apis/authorization.k8s.io/v1"
    told = await w.call("POST", f"{review}/selfsubjectrulesreviews", {"spec": {"namespace": "acme--lab"}}, token=new)
    rules = {(verb, plural): rule.get("resourceNames") for rule in told.json["status"]["resourceRules"]
             for verb in rule["verbs"] for plural in rule["resources"]}  # fmt: skip
    assert rules["delete", "instances"] == rules["get", "instances/console"] == ["vm"]
    assert ("create", "instances") not in rules
    for who, verb, allowed in (
        ({"user": "new"}, "delete", True),
        ({"user": "rob", "groups": ["corp:nights"]}, "get", True),
        ({"user": "new", "groups": ["corp:days"]}, "create", False),
        ({"user": "new", "groups": ["corp:nights"]}, "create", False),
    ):
        act = {"verb": verb, "group": "bessemer.dev", "resource": "instances", "namespace": "acme--lab", "name": "vm"}
        spec = {"spec": {**who, "resourceAttributes": act}}
        for path in ("subjectaccessreviews", "namespaces/acme--lab/localsubjectaccessreviews"):
            assert (await w.call("POST", f"{review}/{path}", spec)).json["status"]["allowed"] is allowed, (who, verb)


async def test_an_administrator_by_a_binding_is_one(w: World) -> None:
    new = await w.login("new")
    await w.create(BINDINGS, binding("chiefs", "admin", "new"))
    assert await codes(w, new, ("GET", "/metrics"), ("GET", USERS), ("GET", LAB)) == [200, 200, 200]
    assert (await w.call("GET", "/whoami", token=new)).json["admin"]
    assert (await w.call("POST", f"{USERS}/rob/password", {"password": "a rather long one"}, token=new)).code == 200
    assert (await w.call("DELETE", f"{BINDINGS}/chiefs")).code == 200
    assert await codes(w, new, ("GET", "/metrics"), ("GET", LAB)) == [403, 404]


async def test_the_trail_is_read_by_auditors_where_they_are(w: World) -> None:
    """By what decides, which is asked about it."""
    await w.create(BINDINGS, binding("acme--audit", "auditor", "new"))
    await w.create(BINDINGS, binding("audit", "auditor", "eve"))
    audits = w.api.state.access.audits
    told = {name: [audits(Identity("user", name), tenant) for tenant in ("", "acme", "other")] for name in PEOPLE}
    assert told == {
        "ann": [False, True, False],
        "mia": [False, False, False],
        "new": [False, True, False],
        "eve": [True, True, True],
    }
    bounded = Identity("user", "eve", bounds=Bounds(roles=frozenset(["reader"])))
    assert not audits(bounded)
    assert audits(Identity("user", "root", True))


PEOPLE = ("ann", "mia", "new", "eve")


# --- nobody grants more than they hold --------------------------------------------------------------------------------


async def test_a_tenants_administrator_gives_what_is_theirs_in_their_tenant(w: World) -> None:
    ann = await w.login("ann")
    fine: Sequence[tuple[str, dict[str, Any]]] = [
        (ROLES, role("acme--own", {"verbs": ["*"]}, {"verbs": ["get"], "subresources": ["*"]})),
        (BINDINGS, binding("acme--1", "acme--own", "rob")),
        (BINDINGS, binding("acme--2", "tenant-admin", "mia")),
        (BINDINGS, binding("acme--3", "auditor", "new")),
    ]
    for path, body in fine:
        assert (await w.call("POST", path, body, token=ann)).code == 201
    over: Sequence[tuple[str, dict[str, Any], str]] = [
        (ROLES, role("acme--x", {"kinds": ["Tenant"], "verbs": ["get", "update"]}), "update Tenant"),
        (ROLES, role("acme--x", {"kinds": ["*"], "verbs": ["*"]}), "update Tenant"),
        (ROLES, role("acme--x", includes=["admin"]), "administer the platform"),
        (BINDINGS, binding("acme--x", "admin", "ann"), "administer the platform"),
        (BINDINGS, binding("acme--x", "admin", "ann", project="acme--lab"), "administer the platform"),
    ]
    for path, body, lacking in over:
        for query in ("", "?dryRun=All"):
            refused(await w.call("POST", f"{path}{query}", body, token=ann), lacking)
    await w.create(ROLES, role("other--x"))
    await w.create(BINDINGS, binding("other--x", "reader", "eve"))
    for path, build in ((ROLES, role), (BINDINGS, lambda name: binding(name, "reader", "ann"))):
        told = [await w.call("POST", path, build(name), token=ann) for name in ("x", "other--y", "other--x")]
        assert [reply.code for reply in told] == [403] * 3
        assert told[1].body.replace(b"other--y", b"other--x") == told[2].body, "nobody learns which names are taken"
        assert b"may not grant" not in told[0].body
    assert (await w.call("POST", BINDINGS, binding("acme--x", "reader", "ann", tenant="other"), token=ann)).code == 422


async def test_every_form_of_a_write_is_looked_at(w: World) -> None:
    ann = await w.login("ann")
    made = await w.create(ROLES, role("acme--own", {"verbs": ["get"]}), token=ann)
    bound = await w.create(BINDINGS, binding("acme--some", "acme--own", "rob"), token=ann)
    more = {"kinds": ["Tenant"], "verbs": ["update"]}
    manifest = {"apiVersion": API_VERSION, "kind": "Role", "metadata": {"name": "acme--own"}, "spec": {"rules": [more]}}
    fresh = {**manifest, "metadata": {"name": "acme--fresh"}}
    admin = {"apiVersion": API_VERSION, "kind": "RoleBinding", **binding("acme--some", "admin", "rob")}
    tries: Sequence[tuple[str, str, Any, str]] = [
        ("PUT", f"{ROLES}/acme--own", {**made, "spec": {"rules": [more]}}, "application/json"),
        ("PATCH", f"{ROLES}/acme--own", {"spec": {"rules": [more]}}, MERGE),
        ("PATCH", f"{ROLES}/acme--own", [{"op": "add", "path": "/spec/rules/-", "value": more}], JSON),
        ("PATCH", f"{ROLES}/acme--own?fieldManager=t&force=true", manifest, APPLY),
        ("PATCH", f"{ROLES}/acme--fresh?fieldManager=t", fresh, APPLY),
        ("PUT", f"{BINDINGS}/acme--some", {**bound, "spec": {**bound["spec"], "role": "admin"}}, "application/json"),
        ("PATCH", f"{BINDINGS}/acme--some", {"spec": {"role": "admin"}}, MERGE),
        ("PATCH", f"{BINDINGS}/acme--some", [{"op": "replace", "path": "/spec/role", "value": "admin"}], JSON),
        ("PATCH", f"{BINDINGS}/acme--some?fieldManager=t&force=true", admin, APPLY),
    ]
    for method, path, body, media in tries:
        refused(await w.call(method, path, body, token=ann, media=media), "Tenant")
        again = f"{path}{'&' if '?' in path else '?'}dryRun=All"
        refused(await w.call(method, again, body, token=ann, media=media), "Tenant")
    for method in ("PUT", "PATCH"):
        told = await w.call(method, f"{BINDINGS}/acme--some/status", {**bound, "status": {}}, token=ann)
        assert told.code in (403, 415), "the status is nobody's who grants"
    assert (await w.call("GET", f"{ROLES}/acme--own")).json["metadata"]["generation"] == 1


CLERK = {"kinds": ["Role", "RoleBinding"], "verbs": ["*"]}


async def clerk(w: World) -> str:
    """Rob, a reader who may write the tenant's roles and bindings."""
    await w.create(ROLES, role("acme--clerk", CLERK))
    await w.create(BINDINGS, binding("acme--clerks", "acme--clerk", "rob"))
    return await w.login("rob")


async def test_who_may_write_bindings_gives_only_what_they_hold(w: World) -> None:
    rob = await clerk(w)
    assert (await w.call("POST", BINDINGS, binding("acme--1", "reader", "new"), token=rob)).code == 201
    assert (await w.call("POST", BINDINGS, binding("acme--2", "acme--clerk", "new"), token=rob)).code == 201
    refused(await w.call("POST", BINDINGS, binding("acme--3", "member", "rob"), token=rob), " Instance")
    refused(await w.call("POST", ROLES, role("acme--more", {"verbs": ["delete"]}), token=rob), "delete Instance")
    one = {"project": "acme--lab", "object": OBJECT}
    await w.create(LAB, instance("vm"))
    refused(await w.call("POST", BINDINGS, binding("acme--3", "member", "rob", **one), token=rob), "update Instance")


async def test_what_was_granted_may_stay_and_be_taken_but_not_put_back(w: World) -> None:
    rob = await clerk(w)
    old = await w.create(BINDINGS, binding("acme--makers", "member", "new", "mia"))
    path = f"{BINDINGS}/acme--makers"
    label = {"metadata": {"labels": {"a": "b"}}}
    assert (await w.call("PATCH", path, label, token=rob, media=MERGE)).code == 200
    more = {"spec": {"subjects": [*old["spec"]["subjects"], {"kind": "User", "name": "rob"}]}}
    refused(await w.call("PATCH", path, more, token=rob, media=MERGE), " Instance")
    wider = {"spec": {"scope": {"project": "acme--lab"}}}
    refused(await w.call("PATCH", path, wider, token=rob, media=MERGE), " Instance")
    less = {"spec": {"subjects": old["spec"]["subjects"][:1]}}
    assert (await w.call("PATCH", path, less, token=rob, media=MERGE)).code == 200
    now = (await w.call("GET", path)).json["metadata"]["resourceVersion"]
    back = {**old, "metadata": {**old["metadata"], "resourceVersion": now}}
    refused(await w.call("PUT", path, back, token=rob), " Instance")
    assert (await w.call("DELETE", path, token=rob)).code == 200
    again = {"metadata": {"name": "acme--makers"}, "spec": old["spec"]}
    refused(await w.call("POST", BINDINGS, again, token=rob), " Instance")


async def test_a_write_that_lost_a_race_puts_nothing_back(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it names no revision: what stood when it was looked at was withdrawn before it was written."""
    rob = await clerk(w)
    await w.create(BINDINGS, binding("acme--makers", "member", "new", "mia"))
    key, path, get, read = Key("RoleBinding", "", "acme--makers"), f"{BINDINGS}/acme--makers", w.store.objects.get, []

    async def slow(asked: Key) -> Any:
        found = await get(asked)
        if asked == key and not read:
            read.append(asked)
            less = {"spec": {"subjects": [{"kind": "User", "name": "new"}]}}
            assert (await w.call("PATCH", path, less, media=MERGE)).code == 200
        return found

    monkeypatch.setattr(w.store.objects, "get", slow)
    change = {"metadata": {"labels": {"a": "b"}, "resourceVersion": None}}
    reply = await w.call("PATCH", path, change, token=rob, media=MERGE)
    assert (reply.code, len(read)) == (200, 1)
    assert reply.json["spec"]["subjects"] == [{"kind": "User", "name": "new"}]


async def test_members_of_a_tenant_are_grants(w: World) -> None:
    new = await w.login("new")
    await w.create(ROLES, role("desk", {"kinds": ["Tenant"], "verbs": ["*"]}))
    await w.create(BINDINGS, binding("desk", "desk", "new"))
    path = f"{TENANTS}/acme"
    was = (await w.call("GET", path)).json["spec"]["members"]
    assert (await w.call("PATCH", path, {"spec": {"displayName": "Acme"}}, token=new, media=MERGE)).code == 200
    for who, what in (("new", "tenant-admin"), ("new", "reader")):
        more = {"spec": {"members": [*was, {"user": who, "role": what}]}}
        refused(await w.call("PATCH", path, more, token=new, media=MERGE), " ApiKey")
    raised = {"spec": {"members": [{**one, "role": "tenant-admin"} for one in was]}}
    refused(await w.call("PATCH", path, raised, token=new, media=MERGE), " ApiKey")
    assert (await w.call("PATCH", path, {"spec": {"members": was[:1]}}, token=new, media=MERGE)).code == 200
    refused(await w.call("PATCH", path, {"spec": {"members": was}}, token=new, media=MERGE), " ApiKey")
    made = named("mine", members=[{"user": "new", "role": "tenant-admin"}])
    refused(await w.call("POST", TENANTS, made, token=new), " ApiKey")
    assert (await w.call("POST", TENANTS, named("mine"), token=new)).code == 201


async def test_an_administrator_is_made_by_administrators(w: World) -> None:
    new = await w.login("new")
    await w.create(
        ROLES, role("desk", {"kinds": ["*"], "verbs": ["*"]}, {"verbs": ["*"], "kinds": ["*"], "subresources": ["*"]})
    )
    await w.create(BINDINGS, binding("desk", "desk", "new"))
    assert (await w.call("POST", USERS, named("joe"), token=new)).code == 201
    refused(await w.call("POST", USERS, named("jim", admin=True), token=new), "administer the platform")
    refused(await w.call("PATCH", f"{USERS}/new", {"spec": {"admin": True}}, token=new, media=MERGE), "administer")
    refused(await w.call("POST", BINDINGS, binding("x", "admin", "new"), token=new), "administer")
    await w.create(USERS, named("old", admin=True, disabled=True))
    refused(await w.call("PATCH", f"{USERS}/old", {"spec": {"disabled": False}}, token=new, media=MERGE), "administer")
    for path in (f"{USERS}/old/password", f"{USERS}/ann/password", f"{USERS}/ann/signinlink"):
        assert (await w.call("POST", path, {"password": "a rather long one"}, token=new)).code in (403, 404), path
    assert (await w.call("POST", USERS, named("jim", admin=True))).code == 201


# --- what it hangs on -------------------------------------------------------------------------------------------------


async def test_it_goes_with_what_it_is_about(w: World) -> None:
    await w.create(f"{BASE}/tenants", named("short"))
    await w.create(f"{BASE}/projects", named("short--lab"))
    lab = f"{BASE}/namespaces/short--lab/instances"
    await w.create(lab, instance("vm"))
    await w.create(ROLES, role("short--own", {"verbs": ["get"]}))
    await w.create(BINDINGS, binding("short--tenant", "short--own", "new"))
    await w.create(BINDINGS, binding("short--project", "reader", "new", project="short--lab"))
    await w.create(BINDINGS, binding("far", "reader", "new", tenant="short"))
    await w.create(BINDINGS, binding("short--one", "reader", "new", project="short--lab", object=OBJECT))
    whole = ["far", "short--one", "short--project", "short--tenant"]
    for key, gone in (
        (Key("Instance", "short--lab", "vm"), "short--one"),
        (Key("Project", "", "short--lab"), "short--project"),
        (Key("Tenant", "", "short"), "short--tenant far"),
    ):
        assert await names(w, BINDINGS, await admin_token(w)) == whole
        await remove(w, key)
        whole = [name for name in whole if name not in gone.split()]
        assert await names(w, BINDINGS, await admin_token(w)) == whole
    assert await names(w, ROLES, await admin_token(w)) == []


async def admin_token(w: World) -> str:
    """Nobody's: the administrator asks by certificate."""
    del w
    return ""


async def remove(w: World, key: Key) -> None:
    """Delete it, and let go of it as its control side does."""
    from bessemer.core.ports import CONTROLLER

    left = await w.store.objects.delete(key, CONTROLLER)
    body = orjson.loads(left.body)
    if body["metadata"].get("finalizers"):
        del body["metadata"]["finalizers"]
        await w.store.objects.replace(body, CONTROLLER)


async def test_its_owner_is_said_by_the_server_alone(w: World) -> None:
    ann = await w.login("ann")
    vm = await w.create(LAB, instance("vm"))
    owner = {"apiVersion": API_VERSION, "kind": "Instance", "name": "vm", "uid": vm["metadata"]["uid"]}
    body = binding("acme--some", "reader", "new")
    body["metadata"]["ownerReferences"] = [owner]
    told = await w.call("POST", BINDINGS, body, token=ann)
    assert (told.code, told.json["details"]["causes"][0]["field"]) == (422, "metadata.ownerReferences")
    del body["metadata"]["ownerReferences"]
    made = await w.create(BINDINGS, body, token=ann)
    assert [o["kind"] for o in made["metadata"]["ownerReferences"]] == ["Tenant"]
    assert (await w.call("PUT", f"{BINDINGS}/acme--some", made, token=ann)).code == 200
    lost = {**made, "metadata": {**made["metadata"], "ownerReferences": [], "resourceVersion": None}}
    told = await w.call("PATCH", f"{BINDINGS}/acme--some", {"metadata": lost["metadata"]}, token=ann, media=MERGE)
    assert [o["kind"] for o in told.json["metadata"]["ownerReferences"]] == ["Tenant"]
    manifest = {"apiVersion": API_VERSION, "kind": "RoleBinding", **body}
    for code in (200, 200):
        path = f"{BINDINGS}/acme--some?fieldManager=git&force=true"
        assert (await w.call("PATCH", path, manifest, token=ann, media=APPLY)).code == code


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (binding("acme--x", "acme--nothing", "rob"), "spec.role"),
        (binding("acme--x", "reader", "rob", project="acme--nothing"), "spec.scope.project"),
        (binding("acme--x", "reader", "rob", project="acme--lab", object=OBJECT), "spec.scope.object"),
    ],
)
async def test_what_is_not_there_cannot_be_bound(w: World, spec: dict[str, Any], field: str) -> None:
    told = await w.call("POST", BINDINGS, spec, token=await w.login("ann"))
    assert (told.code, told.json["details"]["causes"][0]["field"]) == (422, field)


# --- what is withdrawn ------------------------------------------------------------------------------------------------


async def withdraw(w: World, how: str) -> None:
    """Take from new what `given` gave."""
    if how == "binding":
        reply = await w.call("DELETE", f"{BINDINGS}/acme--some")
    elif how == "held":
        # Its deletion is asked for, and somebody's finalizer keeps it.
        await w.call("PATCH", f"{BINDINGS}/acme--some", {"metadata": {"finalizers": ["a.b/c"]}}, media=MERGE)
        reply = await w.call("DELETE", f"{BINDINGS}/acme--some")
    elif how == "subject":
        reply = await w.call("PATCH", f"{BINDINGS}/acme--some", {"spec": {"subjects": []}}, media=MERGE)
    elif how == "rules":
        reply = await w.call("PATCH", f"{ROLES}/acme--own", {"spec": {"includes": []}}, media=MERGE)
    else:
        reply = await w.call("DELETE", f"{ROLES}/acme--own")
    assert reply.code == 200, reply.body


WAYS = ("binding", "held", "subject", "rules", "role")


async def given(w: World) -> str:
    await w.create(ROLES, role("acme--own", includes=["member"]))
    await w.create(BINDINGS, binding("acme--some", "acme--own", "new"))
    return await w.login("new")


@pytest.mark.parametrize("how", WAYS)
async def test_what_is_withdrawn_is_gone_at_once_and_open_watches_end(how: str) -> None:
    async with world(FakeClock()) as w:
        new = await given(w)
        await w.create(LAB, instance("vm"))
        async with (
            w.watch(f"{LAB}?watch=1", token=new) as events,
            w.watch(f"{BASE}/instances?watch=1", token=new) as all_,
        ):
            assert await events.names(1) == await all_.names(1) == [("ADDED", "vm")]
            await withdraw(w, how)
            assert (await w.call("GET", f"{LAB}/vm", token=new)).code == 404
            for watch in (events, all_):
                told = await watch.next()
                assert (told["type"], told["object"]["code"]) == ("ERROR", 410)
                assert await watch.next() is None


@pytest.mark.parametrize("how", ["binding", "rules"])
async def test_another_replica_hears_of_it(w: World, how: str) -> None:
    """By its own watch of the store, which also ends what is open there."""
    new = await given(w)
    await w.create(LAB, instance("vm"))
    async with make_app(w.api.state.context).running() as api:
        there = dataclasses.replace(w, api=api)
        assert (await there.call("GET", f"{LAB}/vm", token=new)).code == 200
        async with there.watch(f"{LAB}?watch=1", token=new) as events:
            assert await events.names(1) == [("ADDED", "vm")]
            await withdraw(w, how)
            assert (await events.next())["type"] == "ERROR"
        assert (await there.call("GET", f"{LAB}/vm", token=new)).code == 404


@pytest.mark.parametrize("how", ["binding", "rules"])
async def test_a_log_and_a_console_end_with_the_binding(s: Served, how: str) -> None:
    pair, token = await running(s), await given(s.world)

    async def accept(stream: Stream) -> None:
        await stream.write(b"booting\n")
        while await stream.read():
            pass

    async with (
        dialled(s, pair, "h1", accept),
        client(s, token=token) as reader,
        asyncio.timeout(PATIENCE_SECONDS),
        reader.workloads.log(VM, follow=True) as parts,
        reader.workloads.console(VM) as socket,
    ):
        assert await anext(parts) == b"booting\n"
        shown = aiter(socket)
        assert await anext(shown) == b"booting\n"
        await withdraw(s.world, how)
        assert [part async for part in parts] == []
        with pytest.raises(Exception, match="any more"):
            await anext(shown)


# --- credentials ------------------------------------------------------------------------------------------------------


class Known:
    """Takes everybody for one."""

    def __init__(self, who: Identity) -> None:
        self.who = who

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        return self.who if credentials.authorization else Identity("user", "admin", True, ("system:masters",))


@pytest.mark.parametrize(
    ("bounds", "allowed"),
    [
        (Bounds(), "get list create delete role"),
        (Bounds(roles=frozenset(["reader"])), "get list"),
        (Bounds(roles=frozenset(["acme--own"])), "create"),
        (Bounds(roles=frozenset(["acme--gone"])), ""),
        (Bounds(verbs=frozenset(["get", "list"])), "get list"),
        (Bounds(kinds=frozenset(["Endpoint"])), ""),
        (Bounds(names=frozenset(["vm"])), "get list delete"),
        (Bounds(names=frozenset(["vm"]), roles=frozenset(["reader"])), "get list"),
        (Bounds(names=frozenset(["vn"])), ""),
    ],
)
async def test_a_credential_gets_no_more_than_its_bounds(w: World, bounds: Bounds, allowed: str) -> None:
    """Of what its owner may, a tenant's administrator."""
    await w.create(ROLES, role("acme--own", {"verbs": ["create"]}))
    await w.create(LAB, instance("vm"))
    await w.create(LAB, instance("other"))
    w.api.state.authenticator = Known(Identity("user", "ann", bounds=bounds))
    listed = await w.call("GET", LAB, token="x")
    tried = {
        "get": (await w.call("GET", f"{LAB}/vm", token="x")).code,
        "list": 200 if listed.code == 200 and "vm" in listed.body.decode() else 403,
        "create": (await w.call("POST", f"{LAB}?dryRun=All", instance("new"), token="x")).code,
        "delete": (await w.call("DELETE", f"{LAB}/vm?dryRun=All", token="x")).code,
        "role": (await w.call("POST", f"{BINDINGS}?dryRun=All", binding("acme--x", "member", "rob"), token="x")).code,
    }
    assert [word for word, code in tried.items() if code in (200, 201)] == allowed.split()
    if bounds.names is not None:
        assert b'"other"' not in listed.body


async def test_an_administrators_credential_administers_nothing(w: World) -> None:
    for bounds in (Bounds(), Bounds(roles=frozenset(["reader"]))):
        w.api.state.authenticator = Known(Identity("user", "root", True, ("system:masters",), bounds=bounds))
        assert (await w.call("GET", "/metrics", token="x")).code == 403
        assert (await w.call("POST", f"{USERS}/ann/password", {"password": "a rather long one"}, token="x")).code == 404
        refused(
            await w.call("POST", USERS, named("jim", admin=True), token="x"), "administer"
        ) if bounds == Bounds() else None
    w.api.state.authenticator = Known(Identity("user", "rob", bounds=Bounds()))
    assert (await w.call("POST", f"{USERS}/rob/password", {"password": "a rather long one"}, token="x")).code == 404


async def test_groups_and_credentials_hold_what_they_are_bound_to(w: World) -> None:
    await w.create(LAB, instance("vm"))
    for number, (kind, name) in enumerate((("Group", "corp:ops"), ("ApplicationCredential", "ci"))):
        subjects = [{"kind": kind, "name": name}]
        await w.create(BINDINGS, named(f"acme--{number}", role="reader", subjects=subjects))
    for who, code in (
        (Identity("user", "x", groups=("corp:ops",)), 200),
        (Identity("user", "x", groups=("corp:others",)), 404),
        (Identity("user", "rob", credential="ci", bounds=Bounds()), 200),
        (Identity("user", "x", credential="ci", bounds=Bounds()), 404),  # whose owner holds nothing there
        (Identity("user", "x", credential="cd", bounds=Bounds()), 404),
        (Identity("user", "ci"), 404),
    ):
        w.api.state.authenticator = Known(who)
        assert (await w.call("GET", f"{LAB}/vm", token="x")).code == code, who
    assert ADMIN.groups == ("system:masters",)


async def test_a_credential_reads_no_trail_and_types_at_no_console_by_reading(w: World) -> None:
    """What its owner may: the trail of their tenant, and a console. What reading alone gives: neither."""
    ann = Identity("user", "ann")
    w.api.state.authenticator = Known(ann)
    assert (await w.call("GET", "/audit?tenant=acme", token="x")).code == 200
    program = Identity("user", "ann", credential="acme--lab/ci", bounds=Bounds())
    w.api.state.authenticator = Known(program)
    assert (await w.call("GET", "/audit?tenant=acme", token="x")).code == 403
    assert (await w.call("GET", "/audit/export", token="x")).code == 403
    shown = w.api.state.resources.of_kind("Instance")
    assert shown is not None
    console = Target(shown, "acme--lab", "vm", "console")
    reading = Identity("user", "ann", credential="acme--lab/ci", bounds=Bounds(verbs=frozenset({"get", "list"})))
    access = w.api.state.access
    assert access.may(ann, "create", on=console)
    assert not any(access.may(reading, verb, on=console) for verb in ("get", "create"))


async def test_of_a_tenant_that_is_not_known_yet_its_people_read(w: World) -> None:
    """While tenants are read anew nobody knows who is suspended: a binding gives what reading is, and no more."""
    await w.create(BINDINGS, named("acme--some", role="member", subjects=[{"kind": "User", "name": "new"}]))
    who, shown = Identity("user", "new"), w.api.state.resources.of_kind("Instance")
    assert shown is not None
    on, access = Target(shown, "acme--lab", "vm"), w.api.state.access
    assert access.may(who, "update", on=on)
    w.api.state.directory.forget("Tenant")
    assert access.may(who, "get", on=on)
    assert not access.may(who, "update", on=on)

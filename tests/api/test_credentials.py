"""Credentials of programs: their owner, less what they give up, and nothing once the owner is."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from bessemer.api.ca import Peer
from bessemer.api.routes import ROUTES
from bessemer.core.clock import FakeClock, rfc3339
from bessemer.core.ports import CONTROLLER, Writer
from bessemer.core.resource import Key
from tests.api.world import BASE, World, instance, named, tenant, world

LAB = f"{BASE}/namespaces/acme--lab"
OURS = f"{LAB}/applicationcredentials"
VMS = f"{LAB}/instances"
NEVER = "2099-01-01T00:00:00Z"
MERGE = "application/merge-patch+json"
WRONG = "the token is not one of ours"


async def made(w: World, user: str = "mia", name: str = "ci", **spec: Any) -> str:
    """The bearer of a new credential of somebody's."""
    session = await w.login(user)
    await w.create(OURS, named(name, **{"expiresAt": NEVER, **spec}), token=session)
    reply = await w.call("POST", f"{OURS}/{name}/token", {}, token=session)
    assert reply.code == 201, reply.body
    return str(reply.json["token"])


async def code(w: World, method: str, path: str, body: Any = None, *, token: str, source: str = "") -> int:
    """Of an answer, perhaps by way of the portal from somewhere."""
    if not source:
        return (await w.call(method, path, body, token=token)).code
    headers = {"authorization": f"Bearer {token}", "x-bessemer-source": source}
    return (await w.call(method, path, body, peer=Peer("system:portal", (), ""), headers=headers)).code


async def test_a_credential_is_its_owner(w: World) -> None:
    token = await made(w)
    assert token.startswith("bsc_acme--lab/ci.")
    me = (await w.call("GET", "/whoami", token=token)).json
    assert (me["name"], me["admin"], me["tenants"]) == ("mia", False, {"acme": "member"})
    assert await code(w, "POST", VMS, instance("vm"), token=token) == 201
    body = (await w.call("GET", f"{OURS}/ci")).json
    assert (body["spec"]["user"], len(body["status"]["secrets"])) == ("mia", 1)
    assert body["metadata"]["ownerReferences"][0]["name"] == "mia"


async def test_it_is_told_of_no_tenant_but_its_own(w: World) -> None:
    await w.create(f"{BASE}/tenants", tenant("third", mia="tenant_admin"))
    for place in ("acme", "third"):
        await w.create(f"{BASE}/roles", named(f"{place}--seer", rules=[{"kinds": ["Instance"], "verbs": ["get"]}]))
        seer = {"role": f"{place}--seer", "subjects": [{"kind": "User", "name": "mia"}]}
        await w.create(f"{BASE}/rolebindings", named(f"{place}--mia", **seer))
    await w.create(f"{BASE}/projects", named("third--lab"))
    told, everything = await made(w, reach="tenant"), await w.login("mia")
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    for path, body in (
        ("/whoami", None),
        (f"{BASE}/roles", None),
        (f"{BASE}/rolebindings", None),
        ("/apis/authentication.k8s.io/v1/selfsubjectreviews", review),
    ):
        method = "POST" if body else "GET"
        assert b"third" in (await w.call(method, path, body, token=everything)).body, path
        reply = await w.call(method, path, body, token=told)
        assert (reply.code, b"third" in reply.body) == (201 if body else 200, False), path


@pytest.mark.parametrize("reach", ["project", "tenant"])
async def test_it_sees_no_price_plan_but_its_own_tenants(w: World, reach: str) -> None:
    """Its owner pays by another one elsewhere."""
    for plan in ("standard", "research"):
        await w.create(f"{BASE}/priceplans", named(plan))
    third = tenant("third", mia="tenant_admin")
    await w.create(f"{BASE}/tenants", {**third, "spec": {**third["spec"], "pricePlan": "research"}})
    token, session = await made(w, reach=reach), await w.login("mia")
    named_only = await made(w, name="few", reach=reach, names=["research"], verbs=["get"])
    for path, bearer, answer in (
        ("standard", session, 200),
        ("research", session, 200),
        ("standard", token, 200),
        ("research", token, 404),
        ("research", named_only, 404),
        ("standard", named_only, 403),
    ):
        assert await code(w, "GET", f"{BASE}/priceplans/{path}", token=bearer) == answer, (path, answer)
    listed = (await w.call("GET", f"{BASE}/priceplans", token=token)).json["items"]
    assert [item["metadata"]["name"] for item in listed] == ["standard"]


async def test_an_administrators_is_reviewed_within_its_bounds(w: World) -> None:
    await w.call("PATCH", f"{BASE}/users/mia", {"spec": {"admin": True}}, media=MERGE)
    token = await made(w, reach="owner", verbs=["get"], kinds=["Instance"])
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    found = await w.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)
    user = found.json["status"]["user"]
    assert user["groups"] == ["system:authenticated"]

    async def allowed(verb: str, **change: Any) -> bool:
        spec = {"user": user["username"], "groups": user["groups"], "extra": user["extra"], **change}
        act = {"verb": verb, "group": "bessemer.dev", "resource": "instances", "namespace": "acme--lab"}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
        asked = {**body, "spec": {**spec, "resourceAttributes": act}}
        reply = await w.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", asked)
        assert reply.code == 201, reply.body
        return bool(reply.json["status"]["allowed"])

    assert [await allowed("get"), await allowed("delete")] == [True, False]
    assert not await allowed("delete", groups=["system:masters"])
    assert not await allowed("get", user="ann")


async def test_its_secret_is_shown_once_and_kept_as_its_hash(w: World) -> None:
    token = await made(w)
    secret = token.rpartition(".")[2]
    assert len(secret) == 43
    assert secret.encode() not in (await w.call("GET", f"{OURS}/ci")).body
    assert (await w.call("POST", f"{OURS}/ci/token", {}, token=await w.login("mia"))).headers[
        "cache-control"
    ] == "no-store"


async def test_it_costs_no_argon2(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await made(w)
    monkeypatch.setattr(w.api.state.passwords, "_verify", None)
    monkeypatch.setattr(w.api.state.passwords, "_hash", None)
    assert await code(w, "GET", VMS, token=token) == 200


BEARERS = ("", ".", "acme--lab/ci", "acme--lab/ci.", "acme--lab/no.x", "no--lab/ci.x", "acme--lab/../ci.x", "/ci.x")


async def test_what_is_wrong_is_one_answer(w: World) -> None:
    good = await made(w)
    assert await code(w, "GET", VMS, token=good) == 200
    for bearer in (*BEARERS, "ci.x", "acme/ci.x", "acme--lab/ci.\u00e9", "a" * 9000):
        reply = await w.call("GET", VMS, token=f"bsc_{bearer}")
        assert (reply.code, reply.json["message"]) == (401, WRONG), bearer


async def test_one_credentials_secret_opens_no_other(w: World) -> None:
    one, other = await made(w, name="one"), await made(w, name="two")
    crossed = f"bsc_acme--lab/one.{other.rpartition('.')[2]}"
    assert (await w.call("GET", VMS, token=crossed)).json["message"] == WRONG
    assert await code(w, "GET", VMS, token=one) == 200


# --- its owner --------------------------------------------------------------------------------------------------------


async def members(w: World, **people: str) -> None:
    spec = tenant("acme", **people)["spec"]
    assert (await w.call("PATCH", f"{BASE}/tenants/acme", {"spec": spec}, media=MERGE)).code == 200


async def test_it_is_dead_the_moment_that_its_owner_loses_the_role(w: World) -> None:
    token = await made(w)
    await w.create(VMS, instance("vm"))
    assert await code(w, "DELETE", f"{VMS}/vm?dryRun=All", token=token) == 200
    await members(w, mia="reader")
    assert await code(w, "GET", f"{VMS}/vm", token=token) == 200
    assert await code(w, "DELETE", f"{VMS}/vm", token=token) == 403
    await members(w, ann="tenant_admin")
    assert await code(w, "GET", f"{VMS}/vm", token=token) == 404
    assert await code(w, "GET", VMS, token=token) == 404


async def test_it_is_dead_the_moment_that_its_owner_is_disabled_or_gone(w: World) -> None:
    token = await made(w)
    await w.call("PATCH", f"{BASE}/users/mia", {"spec": {"disabled": True}}, media=MERGE)
    reply = await w.call("GET", VMS, token=token)
    assert (reply.code, reply.json["message"]) == (401, "the credential's owner may not sign in")
    await w.call("PATCH", f"{BASE}/users/mia", {"spec": {"disabled": False}}, media=MERGE)
    assert await code(w, "GET", VMS, token=token) == 200
    await w.call("DELETE", f"{BASE}/users/mia")
    assert await code(w, "GET", VMS, token=token) == 401


async def test_the_next_user_of_that_name_has_no_credentials(w: World) -> None:
    """Its owner is one User, by uid; and it goes with that one."""
    token = await made(w)
    other = await made(w, name="other")
    stored = orjson.loads((await w.store.objects.get(Key("ApplicationCredential", "acme--lab", "other"))).body)
    before = {**stored, "spec": {**stored["spec"], "userUid": "of one before"}}
    await w.store.objects.replace(before, CONTROLLER)
    reply = await w.call("GET", VMS, token=other)
    assert (reply.code, reply.json["message"]) == (401, "the credential's owner is gone")
    mia = Key("User", "", "mia")
    await w.store.objects.delete(mia, CONTROLLER)
    left = orjson.loads((await w.store.objects.get(mia)).body)
    await w.store.objects.replace({**left, "metadata": {**left["metadata"], "finalizers": []}}, CONTROLLER)
    await w.create(f"{BASE}/users", named("mia"))
    assert await code(w, "GET", VMS, token=token) == 401
    gone = await w.call("GET", f"{OURS}/ci")
    assert "deletionTimestamp" in gone.json["metadata"], "its bindings go before it does"


async def test_an_open_watch_of_it_ends_with_it(w: World) -> None:
    token = await made(w)
    async with w.watch(f"{VMS}?watch=true", token=token) as events:
        await w.call("PATCH", f"{OURS}/ci", {"spec": {"disabled": True}}, media=MERGE)
        while (event := await events.next()) is not None:
            assert event["type"] in ("BOOKMARK", "ERROR")
    reply = await w.call("GET", VMS, token=token)
    assert (reply.code, reply.json["message"]) == (401, "the credential is disabled")


# --- its bounds -------------------------------------------------------------------------------------------------------


async def test_verbs_kinds_and_names_bound_it(w: World) -> None:
    for name in ("a", "b"):
        await w.create(VMS, instance(name))
    reads = await made(w, name="reads", verbs=["get", "list"], kinds=["Instance"])
    assert await code(w, "GET", VMS, token=reads) == 200
    assert await code(w, "GET", f"{VMS}?watch=true&timeoutSeconds=1", token=reads) == 403
    assert await code(w, "POST", VMS, instance("c"), token=reads) == 403
    assert await code(w, "DELETE", f"{VMS}/a", token=reads) == 403
    assert await code(w, "GET", f"{LAB}/endpoints", token=reads) == 403
    assert await code(w, "GET", f"{LAB}/endpoints/none", token=reads) == 403
    one = await made(w, name="one", names=["a"])
    assert await code(w, "PATCH", f"{VMS}/a", {}, token=one) == 415  # it may, and the body says nothing
    assert await code(w, "GET", f"{VMS}/b", token=one) == 403
    assert [item["metadata"]["name"] for item in (await w.call("GET", VMS, token=one)).json["items"]] == ["a"]
    assert await code(w, "POST", VMS, instance("a2"), token=one) == 403


async def test_subresources_go_with_their_kind(w: World) -> None:
    await w.create(VMS, instance("vm"))
    other = await made(w, name="other", kinds=["Endpoint"])
    assert await code(w, "GET", f"{VMS}/vm/log", token=other) == 403
    mine = await made(w, name="mine", kinds=["Instance"])
    assert await code(w, "GET", f"{VMS}/vm/log", token=mine) == 503  # no host runs it


async def test_it_stays_in_its_project_unless_it_reaches_further(w: World) -> None:
    await w.create(f"{BASE}/projects", named("acme--two"))
    await w.create(f"{BASE}/namespaces/acme--two/instances", instance("far"))
    await w.create(VMS, instance("near"))
    near, far = await made(w, name="near"), await made(w, name="far", reach="tenant")
    for token, seen in ((near, False), (far, True)):
        path = f"{BASE}/namespaces/acme--two/instances/far"
        assert await code(w, "GET", path, token=token) == (200 if seen else 403)
        listed = await w.call("GET", f"{BASE}/instances", token=token)
        assert [item["metadata"]["name"] for item in listed.json["items"]] == (["near", "far"] if seen else ["near"])
        projects = (await w.call("GET", f"{BASE}/projects", token=token)).json["items"]
        assert len(projects) == (2 if seen else 1)
        async with w.watch(f"{BASE}/instances?watch=true", token=token) as events:
            assert {name for _, name in await events.names(2 if seen else 1)} == ({"near", "far"} if seen else {"near"})
    assert await code(w, "GET", f"{BASE}/flavors", token=near) == 200


async def test_a_project_in_the_body_is_held_within_its_reach_too(w: World) -> None:
    await w.create(f"{BASE}/projects", named("acme--two"))
    token = await made(w, "ann")
    there = {**instance("far"), "metadata": {"name": "far", "namespace": "acme--two"}}
    here = {**instance("near"), "metadata": {"name": "near", "namespace": "acme--lab"}}
    assert await code(w, "POST", f"{BASE}/instances", there, token=token) == 403
    assert await code(w, "POST", f"{BASE}/instances", here, token=token) == 201
    assert await code(w, "POST", f"{BASE}/projects", named("acme--three"), token=token) == 403
    wide = await made(w, "ann", name="wide", reach="tenant")
    assert await code(w, "POST", f"{BASE}/instances", there, token=wide) == 201
    assert await code(w, "POST", f"{BASE}/projects", named("acme--three"), token=wide) == 201
    assert await code(w, "DELETE", f"{BASE}/projects/acme--two", token=token) in (403, 404)


async def test_what_it_is_told_that_it_may_is_what_it_may(w: World) -> None:
    await w.create(f"{BASE}/projects", named("acme--two"))
    token = await made(w, kinds=["Instance"], verbs=["get", "list"])
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

    async def may(verb: str, resource: str, namespace: str = "") -> bool:
        asked = {"verb": verb, "group": "bessemer.dev", "resource": resource, "namespace": namespace}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        reply = await w.call("POST", path, {**body, "spec": {"resourceAttributes": asked}}, token=token)
        return bool(reply.json["status"]["allowed"])

    assert await may("list", "instances", "acme--lab")
    assert not await may("list", "instances", "acme--two")
    assert not await may("create", "instances", "acme--lab")
    assert not await may("list", "endpoints", "acme--lab")
    assert not await may("list", "hosts")


async def test_roles_bound_it(w: World) -> None:
    await w.create(VMS, instance("vm"))
    token = await made(w, "ann", roles=["reader"])
    assert await code(w, "GET", f"{VMS}/vm", token=token) == 200
    assert await code(w, "DELETE", f"{VMS}/vm", token=token) == 403
    assert await code(w, "GET", VMS, token=await made(w, "mia", name="more", roles=["tenant-admin"])) == 200
    assert await code(w, "POST", f"{BASE}/projects", named("acme--four"), token=token) in (403, 404)


async def test_an_administrators_rights_go_with_reach_alone(w: World) -> None:
    await w.call("PATCH", f"{BASE}/users/mia", {"spec": {"admin": True}}, media=MERGE)
    near, far = await made(w, name="near"), await made(w, name="far", reach="owner")
    assert await code(w, "GET", f"{BASE}/hosts", token=near) == 403
    assert await code(w, "GET", f"{BASE}/users/ann", token=near) == 403
    assert await code(w, "POST", VMS, instance("vm"), token=near) == 201
    assert await code(w, "GET", f"{BASE}/hosts", token=far) == 200
    assert await code(w, "GET", f"{BASE}/namespaces/other--lab/instances", token=far) == 200


SOURCES = {
    "192.0.2.77": 200,
    "::ffff:192.0.2.77": 200,
    "192.0.3.1": 401,
    "2001:db8:1::9": 200,
    "2001:db8:2::9": 401,
    "::ffff:192.0.3.1": 401,
    "not an address": 401,
}


async def test_networks_bound_where_it_is_used_from(w: World) -> None:
    token = await made(w, networks=["192.0.2.0/24", "2001:db8:1::/48"])
    assert {source: await code(w, "GET", VMS, token=token, source=source) for source in SOURCES} == SOURCES


async def test_it_expires() -> None:
    clock = FakeClock()
    async with world(clock) as w:
        token = await made(w, expiresAt=rfc3339(clock.now() + 100))
        clock.jump(99)
        assert await code(w, "GET", VMS, token=token) == 200
        clock.jump(2)
        reply = await w.call("GET", VMS, token=token)
        assert (reply.code, reply.json["message"]) == (401, "the credential has expired")


GRANTS = [
    ("POST", OURS, named("child", expiresAt=NEVER)),
    ("POST", f"{OURS}/ci/token", {}),
    ("PATCH", f"{OURS}/ci", {"spec": {"verbs": None}}),
    ("DELETE", f"{OURS}/ci", None),
    ("POST", f"{LAB}/apikeys", named("k")),
    ("POST", f"{LAB}/apikeys/key/token", {}),
    ("POST", f"{BASE}/users/mia/password", {"password": "a whole new password"}),
    ("POST", f"{BASE}/users/ann/signinlink", {}),
    ("POST", f"{BASE}/users", named("back-door")),
    ("PATCH", f"{BASE}/users/mia", {"spec": {"displayName": "Me"}}),
    ("DELETE", f"{BASE}/sessions/any", None),
    ("PATCH", f"{BASE}/tenants/acme", {"spec": {"members": []}}),
    ("POST", f"{BASE}/tenants", named("mine")),
    ("POST", f"{BASE}/hosts/h/token", {}),
]


async def test_it_lets_nobody_in_unless_it_is_unrestricted(w: World) -> None:
    """Also where its owner is the platform's administrator."""
    await w.call("PATCH", f"{BASE}/users/mia", {"spec": {"admin": True}}, media=MERGE)
    await w.create(f"{LAB}/apikeys", named("key"))
    await w.host("h")
    tight = await made(w, reach="owner")
    whole = await made(w, name="whole", reach="owner", unrestricted=True)
    for method, path, body in GRANTS:
        media = MERGE if method == "PATCH" else "application/json"
        assert (await w.call(method, path, body, token=tight, media=media)).code == 403, path
    for method, path, body in GRANTS:
        media = MERGE if method == "PATCH" else "application/json"
        persons = path.endswith("signinlink")  # an administrator's in person
        reply = await w.call(method, path, body, token=whole, media=media)
        assert reply.code in ((403,) if persons else (200, 201, 404)), path


def test_every_route_that_makes_a_secret_is_known() -> None:
    from bessemer.api.credentials import SECRETS

    rooms = ("account", "hosts", "endpointsecrets")
    makers = {rule.path.rpartition("/")[2] for rule in ROUTES if rule.handler.__module__.endswith(rooms)}
    assert makers - {"login", "whoami", "heartbeat", "stream", "secrets", "join"} == SECRETS - {"clientsecret"}
    assert {rule.path.rpartition("/")[2] for rule in ROUTES} >= SECRETS


# --- who writes it ----------------------------------------------------------------------------------------------------


async def test_nobody_makes_one_for_somebody_else(w: World) -> None:
    ann = await w.login("ann")
    assert (await w.call("POST", OURS, named("c", expiresAt=NEVER, user="mia"), token=ann)).code == 422
    refused = await w.call("POST", OURS, named("c", expiresAt=NEVER))
    assert (refused.code, "is none: sign in as one" in refused.json["message"]) == (403, True)
    rob = await w.login("rob")
    assert (await w.call("POST", OURS, named("c", expiresAt=NEVER), token=rob)).code == 403


async def test_only_its_owner_changes_it_and_others_may_end_it(w: World) -> None:
    token = await made(w, "ann", verbs=["get"])
    mia = await w.login("mia")
    path = f"{OURS}/ci"
    for who in ({"token": mia}, {}):  # another member; the platform's administrator
        assert (await w.call("PATCH", path, {"spec": {"verbs": None}}, media=MERGE, **who)).code == 403
        assert (await w.call("POST", f"{path}/token", {}, **who)).code == 403
        stolen = {"spec": {"user": "mia", "userUid": None}}
        assert (await w.call("PATCH", path, stolen, media=MERGE, **who)).code == 422
    body = (await w.call("GET", path)).json
    assert (body["spec"]["user"], body["spec"]["verbs"]) == ("ann", ["get"])
    away = {"metadata": {"labels": {"bessemer.dev/user": "mia"}, "ownerReferences": []}}
    changed = (await w.call("PATCH", path, away, media=MERGE, token=mia)).json["metadata"]
    assert changed["labels"] == {"bessemer.dev/user": "ann"}
    assert changed["ownerReferences"][0]["name"] == "ann"
    assert (await w.call("PATCH", path, {"spec": {"disabled": True}}, media=MERGE, token=mia)).code == 200
    assert await code(w, "GET", VMS, token=token) == 401
    assert (await w.call("PATCH", path, {"spec": {"disabled": False}}, media=MERGE, token=mia)).code == 403
    assert (await w.call("DELETE", path, token=mia)).code == 200


async def test_an_apply_without_its_owner_keeps_it(w: World) -> None:
    mia = await w.login("mia")
    body = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "ApplicationCredential", **named("ci", expiresAt=NEVER)}
    path = f"{OURS}/ci?fieldManager=git"
    for verbs in ([], ["get"]):
        body["spec"] = {"expiresAt": NEVER, **({"verbs": verbs} if verbs else {})}
        reply = await w.call("PATCH", path, body, media="application/apply-patch+yaml", token=mia)
        assert reply.code in (200, 201), reply.body
        assert reply.json["spec"]["user"] == "mia"
    stored = (await w.call("GET", f"{OURS}/ci")).json
    put = {**stored, "spec": {"expiresAt": NEVER}}
    assert (await w.call("PUT", f"{OURS}/ci", put, token=mia)).json["spec"]["user"] == "mia"


# --- rotation and use -------------------------------------------------------------------------------------------------


async def test_two_secrets_overlap_for_as_long_as_is_said() -> None:
    clock = FakeClock()
    async with world(clock) as w:
        first = await made(w, overlapSeconds=600)
        mia = await w.login("mia")

        async def rotate(**body: Any) -> str:
            return str((await w.call("POST", f"{OURS}/ci/token", body, token=mia)).json["token"])

        async def good(*tokens: str) -> list[int]:
            return [await code(w, "GET", VMS, token=token) for token in tokens]

        second = await rotate()
        assert await good(first, second) == [200, 200]
        clock.jump(599)
        assert await good(first, second) == [200, 200]
        clock.jump(2)
        assert await good(first, second) == [401, 200]
        third = await rotate(overlapSeconds=0)
        assert await good(second, third) == [401, 200]
        fourth = await rotate()
        fifth = await rotate()
        assert await good(third, fourth, fifth) == [401, 200, 200]
        assert len((await w.call("GET", f"{OURS}/ci")).json["status"]["secrets"]) == 2
        for wrong in (-1, 10**9, "1", True, None):
            assert (await w.call("POST", f"{OURS}/ci/token", {"overlapSeconds": wrong}, token=mia)).code == 400


async def test_of_rotations_at_once_each_gives_a_secret_and_two_are_good(w: World) -> None:
    await made(w)
    mia = await w.login("mia")
    replies = await asyncio.gather(*(w.call("POST", f"{OURS}/ci/token", {}, token=mia) for _ in range(4)))
    assert [reply.code for reply in replies] == [201] * 4
    codes = [await code(w, "GET", VMS, token=reply.json["token"]) for reply in replies]
    assert sorted(codes) == [200, 200, 401, 401]


async def test_its_last_use_is_written_once_a_minute_and_leaves_no_row(w: World) -> None:
    clock = FakeClock(1_750_000_020.0)
    async with world(clock) as w:
        token = await made(w)

        async def revision() -> str:
            return str((await w.call("GET", f"{OURS}/ci")).json["metadata"]["resourceVersion"])

        before = await revision()
        await asyncio.gather(*(code(w, "GET", VMS, token=token) for _ in range(20)))
        once = await revision()
        assert once != before
        clock.jump(30)
        assert await code(w, "GET", VMS, token=token) == 200
        assert await revision() == once
        clock.jump(30)
        assert await code(w, "GET", VMS, token=token) == 200
        status = (await w.call("GET", f"{OURS}/ci")).json["status"]
        assert (status["lastUsed"], status["lastSource"]) == (rfc3339(1_750_000_080 // 60 * 60), "192.0.2.1")
        rows = [row for row in await w.store.audit.rows() if "ApplicationCredential" in row.key]
        assert [row.verb for row in rows] == ["create", "token", "update status"]


async def test_a_use_that_cannot_be_written_is_no_refusal(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from bessemer.core.errors import Unavailable

    token = await made(w)

    async def full(*args: Any, **options: Any) -> Any:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(w.store.objects, "replace", full)
    assert await code(w, "GET", VMS, token=token) == 200


async def test_the_trail_says_which_credential_acted(w: World) -> None:
    token = await made(w)
    await w.create(VMS, instance("vm"), token=token)
    rows = [row for row in await w.store.audit.rows() if row.key == "Instance acme--lab/vm"]
    assert [(row.writer, row.verb) for row in rows] == [("user:mia/acme--lab/ci", "create")]
    assert Writer("user", "mia/acme--lab/ci").name.split("/", 1) == ["mia", "acme--lab/ci"]


async def test_a_review_says_which_credential_it_is(w: World) -> None:
    token = await made(w)
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    info = (await w.call("POST", path, body, token=token)).json["status"]["userInfo"]
    assert (info["username"], info["extra"]["bessemer.dev/credential"]) == ("mia", ["acme--lab/ci"])

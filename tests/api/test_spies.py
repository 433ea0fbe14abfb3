"""What somebody of another tenant tries to learn, sideways: each answer about what is theirs is one about nothing."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from tests.api.world import BASE, World, instance, named, tenant, world

MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
LAB, OTHER = "/api/v1/namespaces/acme--lab", "/api/v1/namespaces/other--lab"
MARK = "mark-of-another-7f3a"


async def check_like_nothing(w: World, method: str, path: str, *, there: str, token: str, **options: Any) -> None:
    """Of what is another's, and of what is nowhere, one answer but for the name that was asked for."""
    answers = []
    for name in (there, "nowhere"):
        body = options.get("body")
        said = orjson.loads(orjson.dumps(body).replace(b"NAME", name.encode())) if body is not None else None
        reply = await w.call(
            method, path.replace("NAME", name), said, token=token, media=options.get("media", "application/json")
        )
        answers.append((reply.code, reply.body.replace(name.encode(), b"NAME")))
    assert answers[0] == answers[1], (method, path)
    assert answers[0][0] in (400, 403, 404, 405, 422), (method, path, answers[0])


THEIRS = f"{BASE}/namespaces/other--lab"
ACTS = (
    ("GET", "", None),
    ("PUT", "", {"metadata": {"name": "NAME"}, "spec": {}}),
    ("PATCH", "", {"metadata": {"labels": {"a": "b"}}}),
    ("DELETE", "", None),
    ("GET", "/status", None),
    ("PUT", "/status", {"metadata": {"name": "NAME"}, "spec": {}, "status": {}}),
    ("PATCH", "/status", {"status": {}}),
    ("GET", "/scale", None),
    ("PATCH", "/scale", {"spec": {"replicas": 0}}),
    ("GET", "/log", None),
    ("GET", "/secrets", None),
    ("POST", "/token", {}),
)


@pytest.mark.parametrize("plural", ["instances", "endpoints", "apikeys", "applicationcredentials", "claims"])
async def test_objects_and_parts_of_another_are_like_none(w: World, plural: str) -> None:
    await w.create(f"{THEIRS}/instances", instance("there"))
    await w.create(f"{THEIRS}/apikeys", named("there"))
    mia = await w.login("mia")
    for method, part, body in ACTS:
        path = f"{THEIRS}/{plural}/NAME{part}"
        await check_like_nothing(
            w,
            method,
            path,
            there="there",
            token=mia,
            body=body,
            media=MERGE if method == "PATCH" else "application/json",
        )
    applied = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "Instance", "metadata": {"name": "NAME"}, "spec": {}}
    path = f"{THEIRS}/instances/NAME?fieldManager=x"
    await check_like_nothing(w, "PATCH", path, there="there", token=mia, body=applied, media=APPLY)


@pytest.mark.parametrize(
    "selector",
    [
        "fieldSelector=metadata.name%3DNAME",
        "fieldSelector=metadata.namespace%3Dother--lab,metadata.name%3DNAME",
        "labelSelector=app%3DNAME",
        "labelSelector=app+in+(NAME)",
        "fieldSelector=metadata.namespace!%3Dacme--lab",
        "limit=1",
    ],
)
async def test_no_selector_tells_of_what_is_not_shown(w: World, selector: str) -> None:
    await w.create(f"{OTHER}/configmaps", {"metadata": {"name": "there", "labels": {"app": "there"}}})
    mia = await w.login("mia")
    found = []
    for name in ("there", "nowhere"):
        reply = await w.call("GET", f"/api/v1/configmaps?{selector.replace('NAME', name)}", token=mia)
        deleted = await w.call("DELETE", f"{LAB}/configmaps?{selector.replace('NAME', name)}", token=mia)
        assert (reply.code, deleted.code) == (200, 200)
        found.append((reply.json["items"], reply.json["metadata"], deleted.json["items"]))
    assert found[0] == found[1]
    assert found[0][0] == found[0][2] == []
    assert set(found[0][1]) == {"resourceVersion"}, "not even how many follow"


async def test_a_token_to_continue_by_is_worth_nothing_to_another(w: World) -> None:
    for place in (LAB, OTHER):
        for number in range(4):
            await w.create(f"{place}/configmaps", {"metadata": {"name": f"{place[-9:-5].strip('/')}{number}"}})
            await w.create(f"{place}/secrets", {"metadata": {"name": f"s{number}"}, "stringData": {"k": MARK}})
    eve, rob = await w.login("eve"), await w.login("rob")
    first = (await w.call("GET", f"{LAB}/configmaps?limit=1", token=await w.login("mia"))).json
    on = quote(first["metadata"]["continue"])
    reply = await w.call("GET", f"/api/v1/configmaps?continue={on}", token=eve)
    assert reply.code in (400, 410)
    assert "items" not in reply.json
    assert (await w.call("GET", f"{LAB}/configmaps?continue={on}", token=eve)).code == 404
    first = (await w.call("GET", f"{LAB}/configmaps?limit=1", token=rob)).json
    on = quote(first["metadata"]["continue"])
    assert (await w.call("GET", f"{LAB}/secrets?continue={on}", token=rob)).code == 403
    assert MARK.encode() not in reply.body


async def test_a_watch_is_not_taken_up_again_without_its_binding() -> None:
    async with world(FakeClock()) as w:
        binding = named("acme--new", role="reader", subjects=[{"kind": "User", "name": "new"}])
        await w.create(f"{BASE}/rolebindings", binding)
        new, path = await w.login("new"), f"{LAB}/configmaps?watch=1"
        async with w.watch(path, token=new) as events:
            await w.create(f"{LAB}/configmaps", {"metadata": {"name": "seen"}})
            assert await events.names(1) == [("ADDED", "seen")]
            assert (await w.call("DELETE", f"{BASE}/rolebindings/acme--new")).code == 200
            told = await events.next()
            assert (told["type"], told["object"]["code"]) == ("ERROR", 410)
            assert await events.next() is None
        await w.create(f"{LAB}/configmaps", {"metadata": {"name": MARK}})
        for query in (f"&resourceVersion={w.store.revision - 1}", ""):
            reply = await w.call("GET", path + query, token=new)
            assert (reply.code, MARK.encode() in reply.body) == (404, False)
        reply = await w.call("GET", "/api/v1/configmaps", token=new)
        assert reply.json.get("items", []) == []


async def gone(w: World, *keys: Key) -> None:
    """Delete them, as their controllers do in the end."""
    for key in keys:
        await w.store.objects.delete(key, CONTROLLER)
        if key.kind in ("Project", "Tenant"):
            body = orjson.loads((await w.store.objects.get(key)).body)
            body["metadata"]["finalizers"] = []
            await w.store.objects.replace(body, CONTROLLER)


async def test_who_gets_a_name_gets_none_of_its_past() -> None:
    """A tenant is gone, and another one has its name: history and trail begin with it."""
    async with world(FakeClock()) as w:
        await w.create(f"{BASE}/tenants", tenant("newco", eve="tenant_admin"))
        await w.create(f"{BASE}/projects", named("newco--lab", displayName=MARK))
        await w.create(f"{BASE}/roles", named("newco--seer", description=MARK, rules=[]))
        maps = "/api/v1/namespaces/newco--lab/configmaps"
        eve = await w.login("eve")
        await w.create(maps, {"metadata": {"name": "plans"}, "data": {"plan": MARK}}, token=eve)
        plans = (await w.store.objects.get(Key("ConfigMap", "newco--lab", "plans"))).uid
        await w.store.events.emit(Key("ConfigMap", "newco--lab", "plans"), plans, "Told", MARK)
        before = w.store.revision
        await gone(
            w, Key("ConfigMap", "newco--lab", "plans"), Key("Project", "", "newco--lab"), Key("Tenant", "", "newco")
        )
        assert isinstance(w.clock, FakeClock)
        await w.clock.advance(5)
        await w.create(f"{BASE}/tenants", tenant("newco", new="tenant_admin"))
        new = await w.login("new")
        more = ("/api/v1/configmaps", f"{BASE}/projects", f"{BASE}/roles")  # which show nothing before there is some
        for again in (False, True):
            for path in (maps, f"{BASE}/tenants", *(more if again else ())):
                for since in (1, before - 1, before):
                    assert await first_of_watch(w, f"{path}?watch=1&resourceVersion={since}", new) == 410, (path, again)
            if not again:
                await w.create(f"{BASE}/projects", named("newco--lab"), token=new)
                await w.create(f"{BASE}/roles", named("newco--seer", rules=[]), token=new)
        assert (await w.call("GET", "/api/v1/namespaces/newco--lab/events", token=new)).json["items"] == []
        trail = await w.call("GET", "/audit?tenant=newco&limit=1000", token=new)
        assert trail.json["rows"]
        assert MARK.encode() not in trail.body
        assert {row["writer"] for row in trail.json["rows"]} <= {"user:admin", "user:new"}
        now = w.store.revision
        await w.create(maps, {"metadata": {"name": "fresh"}}, token=new)
        async with w.watch(f"{maps}?watch=1&resourceVersion={now}", token=new) as events:
            assert await events.names(1) == [("ADDED", "fresh")]


async def first_of_watch(w: World, path: str, token: str) -> int:
    async with w.watch(path, token=token) as events:
        told = await events.next()
        assert told is not None
        assert MARK not in str(told)
        return int(told["object"].get("code", 200))


# --- what would move --------------------------------------------------------------------------------------------------


async def test_nothing_moves_into_another_place(w: World) -> None:
    made = await w.create(f"{LAB}/configmaps", {"metadata": {"name": "k"}})
    mia = await w.login("mia")
    for change in (
        {"metadata": {"namespace": "other--lab"}},
        {"metadata": {"name": "l"}},
        {"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}},
    ):
        for method, body, media in (
            ("PATCH", change, MERGE),
            ("PUT", {**made, "metadata": {**made["metadata"], **change["metadata"]}}, "application/json"),
        ):
            reply = await w.call(method, f"{LAB}/configmaps/k", body, token=mia, media=media)
            assert reply.code in (400, 409, 422), (method, change, reply.body)
    assert (await w.call("GET", f"{LAB}/configmaps/k")).json == made
    for body in ({"metadata": {"name": "k", "namespace": "other--lab"}},):
        for path in (f"{LAB}/configmaps", "/api/v1/configmaps"):
            assert (await w.call("POST", path, body, token=mia)).code in (400, 403, 404, 405), path


async def test_no_role_of_another_is_told_from_one_that_is_none(w: World) -> None:
    await w.create(f"{BASE}/roles", named("other--there", rules=[]))
    ann = await w.login("ann")
    subjects = [{"kind": "User", "name": "mia"}]
    for spec in (
        {"role": "other--NAME", "subjects": subjects},
        {"role": "reader", "subjects": subjects, "scope": {"project": "other--NAME"}},
        {"role": "reader", "subjects": subjects, "scope": {"tenant": "other"}},
    ):
        await check_like_nothing(
            w, "POST", f"{BASE}/rolebindings", there="there", token=ann, body=named("acme--x", **spec)
        )
    said = named("other--NAME", rules=[])
    await check_like_nothing(w, "POST", f"{BASE}/roles", there="there", token=ann, body=said)
    generated = {"metadata": {"generateName": "other--"}, "spec": {"rules": []}}
    assert (await w.call("POST", f"{BASE}/roles", generated, token=ann)).code == 403


async def test_an_event_is_told_in_its_own_project_alone(w: World) -> None:
    made = await w.create(f"{THEIRS}/instances", instance("there"))
    mia, eve = await w.login("mia"), await w.login("eve")
    about = {"kind": "Instance", "name": "there", "namespace": "other--lab", "uid": made["metadata"]["uid"]}
    told = {"metadata": {"name": "spy"}, "involvedObject": about, "reason": "Told", "message": MARK}
    assert (await w.call("POST", f"{OTHER}/events", told, token=mia)).code == 404
    assert (await w.call("POST", f"{LAB}/events", told, token=mia)).code in (201, 422)
    for query in ("", f"?fieldSelector=involvedObject.uid%3D{made['metadata']['uid']}"):
        for path in ("/api/v1/events", f"{OTHER}/events"):
            assert MARK.encode() not in (await w.call("GET", path + query, token=eve)).body
    await asyncio.sleep(0)

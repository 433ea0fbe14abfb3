"""DELETE of a collection: exactly what the asker may delete of what they may read, each as if asked for alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest

from bessemer.api import deleting
from bessemer.core.clock import FakeClock
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import Key
from tests.api.world import ADMIN, BASE, GATEWAY, World, instance, named, world

LAB, OTHER = "/api/v1/namespaces/acme--lab", "/api/v1/namespaces/other--lab"
MAPS, SECRETS = f"{LAB}/configmaps", f"{LAB}/secrets"
INSTANCES = f"{BASE}/namespaces/acme--lab/instances"


async def maps(w: World, *names: str, at: str = MAPS, **labels: str) -> None:
    for name in names:
        await w.create(at, {"metadata": {"name": name, "labels": labels}, "data": {"a": "1"}})


async def left(w: World, at: str = MAPS) -> list[str]:
    return [item["metadata"]["name"] for item in (await w.call("GET", at)).json["items"]]


def gone(reply: Any) -> list[str]:
    assert reply.code == 200, reply.body
    return [item["metadata"]["name"] for item in reply.json["items"]]


async def test_what_is_selected_goes_and_is_answered_as_a_list(w: World) -> None:
    await maps(w, "a", "b", app="x")
    await maps(w, "c", app="y")
    mia = await w.login("mia")
    reply = await w.call("DELETE", f"{MAPS}?labelSelector=app%3Dx", token=mia)
    assert gone(reply) == ["a", "b"]
    assert (reply.json["kind"], reply.json["apiVersion"]) == ("ConfigMapList", "v1")
    assert int(reply.json["metadata"]["resourceVersion"]) > 0
    assert await left(w) == ["c"]
    assert gone(await w.call("DELETE", f"{MAPS}?fieldSelector=metadata.name!%3Dc", token=mia)) == []
    assert gone(await w.call("DELETE", f"{MAPS}?labelSelector=app+in+(x,y)", token=mia)) == ["c"]


async def test_a_dry_run_deletes_nothing_and_says_what_would_go(w: World) -> None:
    await maps(w, "a", "b")
    before = (await w.call("GET", MAPS)).json
    for path, body in ((f"{MAPS}?dryRun=All", None), (MAPS, {"dryRun": ["All"]})):
        reply = await w.call("DELETE", path, body)
        assert gone(reply) == ["a", "b"]
        told = [item["metadata"]["resourceVersion"] for item in reply.json["items"]]
        assert told == [item["metadata"]["resourceVersion"] for item in before["items"]]
    assert (await w.call("GET", MAPS)).json == before
    reply = await w.call("DELETE", f"{MAPS}?dryRun=Some")
    assert (reply.code, await left(w)) == (422, ["a", "b"])


@pytest.mark.parametrize("path", [MAPS, f"{MAPS}/a"])
@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"dryRun":["All"],"dryRun":[]}', "dryRun"),
        (b'{"preconditions":{"uid":"other"},"preconditions":{}}', "preconditions"),
        (b'{"preconditions":{"uid":"other","uid":""}}', "preconditions.uid"),
    ],
)
async def test_options_that_stand_twice_delete_nothing(w: World, path: str, raw: bytes, field: str) -> None:
    await maps(w, "a")
    for query in ("", "?fieldValidation=Ignore"):
        reply = await w.call("DELETE", path + query, raw)
        words = f'strict decoding error: duplicate field "{field}"'
        assert (reply.code, reply.json["message"], await left(w)) == (400, words, ["a"])


async def test_options_hold_for_each(w: World) -> None:
    await maps(w, "a", "b")
    for body, code in (
        ({"propagationPolicy": "Sideways"}, 422),
        ({"propagationPolicy": "Orphan", "orphanDependents": True}, 422),
        ({"orphanDependents": "perhaps"}, 400),
    ):
        assert (await w.call("DELETE", MAPS, body)).code == code
    assert (await w.call("DELETE", f"{MAPS}?propagationPolicy=Foreground", {"propagationPolicy": "Orphan"})).code == 400
    assert (await w.call("DELETE", MAPS, {"preconditions": {"uid": "other"}})).code == 409
    assert (await w.call("DELETE", f"{MAPS}?labelSelector=%3D%3D")).code == 400
    assert await left(w) == ["a", "b"]
    assert gone(await w.call("DELETE", f"{MAPS}?propagationPolicy=Background&watch=1&timeoutSeconds=1")) == ["a", "b"]


async def owned(w: World, name: str, *, by: str, **said: Any) -> None:
    """A ConfigMap that another owns."""
    above = (await w.call("GET", f"{MAPS}/{by}")).json["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": by, "uid": above, "blockOwnerDeletion": True}
    await w.create(MAPS, {"metadata": {"name": name, "ownerReferences": [owner], **said}})


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?propagationPolicy=Foreground", None),
        ("", {"propagationPolicy": "Foreground"}),
        ("?propagationPolicy=Foreground", {"propagationPolicy": "Foreground"}),
    ],
)
async def test_in_the_foreground_owners_wait_for_what_they_own(w: World, query: str, said: Any) -> None:
    await maps(w, "top")
    await owned(w, "held", by="top", finalizers=["example.com/hold"])
    await owned(w, "free", by="top")
    reply = await w.call("DELETE", f"{MAPS}/top{query}", said)
    assert reply.code == 200
    assert reply.json["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert "deletionTimestamp" in reply.json["metadata"]
    assert await left(w) == ["held", "top"]
    merge = "application/merge-patch+json"
    reply = await w.call("PATCH", f"{MAPS}/held", {"metadata": {"finalizers": None}}, media=merge)
    assert reply.code == 200
    assert await left(w) == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?propagationPolicy=Orphan", None),
        ("?orphanDependents=true", None),
        ("", {"propagationPolicy": "Orphan"}),
        ("", {"orphanDependents": True}),
        ("?orphanDependents=true", {"propagationPolicy": "Orphan"}),
    ],
)
async def test_what_is_owned_may_be_left_behind(w: World, query: str, said: Any) -> None:
    await maps(w, "top", "other")
    await owned(w, "below", by="top")
    reply = await w.call("DELETE", f"{MAPS}/top{query}", said)
    assert (reply.code, reply.json["metadata"]["finalizers"]) == (200, ["orphan"])
    assert await left(w) == ["below", "other"]
    assert "ownerReferences" not in (await w.call("GET", f"{MAPS}/below")).json["metadata"]


async def test_a_collection_goes_as_is_wished(w: World) -> None:
    await maps(w, "a", "b", app="x")
    await owned(w, "below", by="a")
    await owned(w, "held", by="b", finalizers=["example.com/hold"])
    reply = await w.call("DELETE", f"{MAPS}?labelSelector=app%3Dx", {"propagationPolicy": "Foreground"})
    assert gone(reply) == ["a", "b"]
    assert [item["metadata"]["finalizers"] for item in reply.json["items"]] == [["foregroundDeletion"]] * 2
    assert await left(w) == ["b", "held"]
    reply = await w.call("DELETE", f"{MAPS}?labelSelector=app%3Dx", {"propagationPolicy": "Orphan"})
    assert gone(reply) == ["b"]
    assert await left(w) == ["held"]


async def test_only_who_may_delete_an_owner_may_hold_it_up(w: World) -> None:
    """Else whoever may see an administrator's object could keep it from going."""
    mia = await w.login("mia")
    tenant = (await w.call("GET", f"{BASE}/tenants/acme", token=mia)).json
    owner = {"apiVersion": tenant["apiVersion"], "kind": "Tenant", "name": "acme", "uid": tenant["metadata"]["uid"]}
    blocking = {**owner, "blockOwnerDeletion": True}
    reply = await w.call("POST", MAPS, {"metadata": {"name": "a", "ownerReferences": [blocking]}}, token=mia)
    assert (reply.code, "blockOwnerDeletion" in reply.json["message"]) == (403, True)
    reply = await w.call("POST", MAPS, {"metadata": {"name": "a", "ownerReferences": [owner]}}, token=mia)
    assert reply.code == 201
    merge, change = "application/merge-patch+json", {"metadata": {"ownerReferences": [blocking]}}
    assert (await w.call("PATCH", f"{MAPS}/a", change, token=mia, media=merge)).code == 403
    assert (await w.call("PATCH", f"{MAPS}/a", change, media=merge)).code == 200
    kept = {"metadata": {"ownerReferences": [blocking], "labels": {"a": "b"}}}
    assert (await w.call("PATCH", f"{MAPS}/a", kept, token=mia, media=merge)).code == 200, "it stood there before"


async def test_what_has_finalizers_is_marked_and_answered_so(w: World) -> None:
    await maps(w, "free")
    await w.create(MAPS, {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}})
    reply = await w.call("DELETE", MAPS)
    assert gone(reply) == ["free", "held"]
    assert [("deletionTimestamp" in item["metadata"]) for item in reply.json["items"]] == [False, True]
    assert await left(w) == ["held"]


async def test_what_it_owned_goes_along_and_quota_is_given_back(w: World) -> None:
    for name in ("one", "two"):
        await w.create(INSTANCES, instance(name))
    made = (await w.call("GET", f"{INSTANCES}/one")).json
    owner = {"apiVersion": made["apiVersion"], "kind": "Instance", "name": "one", "uid": made["metadata"]["uid"]}
    await w.create(MAPS, {"metadata": {"name": "owned", "ownerReferences": [owner]}})
    reply = await w.call("DELETE", INSTANCES, token=await w.login("mia"))
    assert gone(reply) == ["one", "two"]
    for name in ("one", "two"):  # as its controller does, once nothing runs
        body = orjson.loads((await w.store.objects.get(Key("Instance", "acme--lab", name))).body)
        body["metadata"]["finalizers"] = []
        await w.store.objects.replace(body, CONTROLLER)
    assert await left(w) == []
    used = {use.meter: use.used for use in await w.store.capacity.use("project/acme--lab")}
    assert used["instances"] == 0


async def test_a_part_at_a_time(w: World) -> None:
    await maps(w, *(f"m{number}" for number in range(5)))
    reply = await w.call("DELETE", f"{MAPS}?limit=2")
    assert gone(reply) == ["m0", "m1"]
    reply = await w.call("DELETE", f"{MAPS}?limit=2&continue={reply.json['metadata']['continue']}")
    assert gone(reply) == ["m2", "m3"]
    assert await left(w) == ["m4"]


async def test_more_than_a_page_goes_and_nothing_that_is_made_meanwhile(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleting, "PAGE", 3)
    await maps(w, *(f"m{number}" for number in range(10)))
    take, taken = deleting._Done.take, 0

    async def slowly(done: Any, items: Any) -> None:
        nonlocal taken
        await take(done, items)
        taken += 1
        if taken == 1:
            await maps(w, "new")

    monkeypatch.setattr(deleting._Done, "take", slowly)
    assert len(gone(await w.call("DELETE", MAPS))) == 10
    assert await left(w) == ["new"]


async def test_it_works_for_so_long_and_says_how_far_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    async with world(clock) as w:
        await maps(w, *(f"m{number:02}" for number in range(20)))
        take = deleting._Done.take

        async def slowly(done: Any, items: Any) -> None:
            await take(done, items)
            await clock.advance(deleting.SECONDS * 0.6)

        monkeypatch.setattr(deleting._Done, "take", slowly)
        reply = await w.call("DELETE", MAPS)
        assert (reply.code, reply.json["message"]) == (503, "16 objects were deleted, and there are more: ask again")
        assert int(reply.headers["retry-after"]) > 0
        assert len(await left(w)) == 4


async def test_calls_at_once_put_no_more_in_the_writers_line_than_one(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one tenant; another's goes on beside them."""
    names = [f"m{number:02}" for number in range(30)]
    for at in (MAPS, f"{OTHER}/configmaps"):
        await maps(w, *names, at=at)
    objects, standing, most = w.api.state.ports.objects, Counter[str](), Counter[str]()
    delete = objects.delete

    async def counted(key: Key, *given: Any, **more: Any) -> Any:
        standing[key.namespace] += 1
        most[key.namespace] = max(most[key.namespace], standing[key.namespace])
        most["both"] = max(most["both"], standing.total())
        try:
            for _ in range(20):
                await asyncio.sleep(0)
            return await delete(key, *given, **more)
        finally:
            standing[key.namespace] -= 1

    monkeypatch.setattr(objects, "delete", counted)
    calls = [w.call("DELETE", MAPS) for _ in range(8)]
    replies = await asyncio.gather(*calls, w.call("DELETE", f"{OTHER}/configmaps"))
    assert [reply.code for reply in replies] == [200] * 9
    assert (most["acme--lab"], most["other--lab"]) == (deleting.AT_ONCE, deleting.AT_ONCE)
    assert most["both"] > deleting.AT_ONCE
    assert await left(w) == await left(w, f"{OTHER}/configmaps") == []
    assert w.api.state.deletions.free()


async def test_of_much_no_copy_is_kept(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deleting, "ANSWER_BYTES", 100)
    await maps(w, "a", "b")
    reply = await w.call("DELETE", MAPS)
    assert (reply.json["kind"], reply.json["status"]) == ("Status", "Success")
    assert reply.json["message"] == "2 objects were deleted"
    assert await left(w) == []


async def test_each_deletion_stands_in_the_trail(w: World) -> None:
    await maps(w, "a", "b")
    await w.call("DELETE", MAPS, token=await w.login("mia"), headers={"x-request-id": "all-of-them"})
    rows = [row for row in await w.store.audit.rows() if row.request_id == "all-of-them"]
    assert [(row.writer, row.verb, row.key) for row in rows] == [
        ("user:mia", "delete", "ConfigMap acme--lab/a"),
        ("user:mia", "delete", "ConfigMap acme--lab/b"),
    ]


# --- who may ----------------------------------------------------------------------------------------------------------


async def test_nobody_deletes_what_is_not_theirs(w: World) -> None:
    for at in (MAPS, f"{OTHER}/configmaps"):
        await maps(w, "a", at=at)
    agent = await w.host("h1")
    for user, code in (("rob", 403), ("eve", 404), ("new", 404)):
        reply = await w.call("DELETE", MAPS, token=await w.login(user))
        absent = await w.call("DELETE", MAPS.replace("lab", "none"), token=await w.login(user))
        assert reply.code == code, (user, reply.body)
        if code == 404:
            assert reply.body.replace(b"acme--lab", b"acme--none") == absent.body
    for peer in (agent, GATEWAY):
        assert (await w.call("DELETE", MAPS, peer=peer)).code in (403, 404)
    assert (await w.call("DELETE", MAPS, peer=None)).code == 401
    assert await left(w) == await left(w, f"{OTHER}/configmaps") == ["a"]


async def test_no_collection_of_all_projects_goes_at_once(w: World) -> None:
    await maps(w, "a")
    for path in ("/api/v1/configmaps", f"{BASE}/instances", "/api/v1/namespaces", f"{BASE}/customs"):
        reply = await w.call("DELETE", path)
        assert reply.code in (404, 405), path
    assert await left(w) == ["a"]


@pytest.mark.parametrize("end", ["/", "//", "/.", "/./", "/..", "/../configmaps", "/../configmaps/", "/a/.."])
async def test_a_path_that_some_read_otherwise_deletes_nothing(w: World, end: str) -> None:
    """An object called ``.`` is there for nobody, and its path is the collection's for many clients and proxies."""
    await maps(w, "a")
    reply = await w.call("DELETE", MAPS + end)
    assert (reply.code, reply.json["reason"]) == (400, "BadRequest")
    assert "deletes nothing" in reply.json["message"]
    assert (await w.call("DELETE", f"{MAPS}/a/")).code == 400
    assert await left(w) == ["a"]
    assert (await w.call("GET", f"{MAPS}/")).code == 200, "who reads may end in a slash"


async def test_a_tenants_administrator_deletes_their_projects_alone(w: World) -> None:
    await w.create(f"{BASE}/projects", named("acme--den"))
    ann = await w.login("ann")
    assert gone(await w.call("DELETE", f"{BASE}/projects?dryRun=All", token=ann)) == ["acme--den", "acme--lab"]
    assert (await w.call("DELETE", f"{BASE}/projects", token=await w.login("mia"))).code == 403
    there = {item.key.name for item in (await w.store.objects.list(Scope(kind="Project"))).items}
    assert there == {"acme--den", "acme--lab", "other--lab"}


async def bound(w: World, user: str, rules: list[dict[str, Any]]) -> str:
    """Somebody with a Role of these rules in the project, and nothing else."""
    await w.create(f"{BASE}/roles", named("acme--some", rules=rules))
    subjects = [{"kind": "User", "name": user}]
    spec = {"role": "acme--some", "subjects": subjects, "scope": {"project": "acme--lab"}}
    await w.create(f"{BASE}/rolebindings", named("acme--some", **spec))
    return await w.login(user)


async def test_the_verb_is_its_own_and_worth_nothing_without_get(w: World) -> None:
    await maps(w, "a")
    new = await bound(w, "new", [{"kinds": ["ConfigMap"], "verbs": ["get", "list", "delete"]}])
    assert (await w.call("DELETE", MAPS, token=new)).code == 403
    rules = [{"kinds": ["ConfigMap"], "verbs": ["deletecollection"]}]
    await w.call("PATCH", f"{BASE}/roles/acme--some", {"spec": {"rules": rules}}, media="application/merge-patch+json")
    assert gone(await w.call("DELETE", MAPS, token=new)) == []
    assert await left(w) == ["a"]


async def test_rights_by_name_delete_those_names(w: World) -> None:
    await maps(w, "a", "b", "c")
    verbs = ["get", "list", "deletecollection"]
    rules = [
        {"kinds": ["ConfigMap"], "verbs": verbs, "names": ["a", "b"]},
        {"kinds": ["ConfigMap"], "verbs": ["get", "list"]},
    ]
    new = await bound(w, "new", rules)
    assert gone(await w.call("DELETE", f"{MAPS}?labelSelector=!x", token=new)) == ["a", "b"]
    assert await left(w) == ["c"]


async def test_what_is_withdrawn_amid_it_ends_it(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await maps(w, *(f"m{number:02}" for number in range(20)))
    mia, take = await w.login("mia"), deleting._Done.take

    async def withdrawn(done: Any, items: Any) -> None:
        await take(done, items)
        spec = {"members": [{"user": "ann", "role": "tenant-admin"}]}
        await w.call("PATCH", f"{BASE}/tenants/acme", {"spec": spec}, media="application/merge-patch+json")

    monkeypatch.setattr(deleting._Done, "take", withdrawn)
    await w.call("DELETE", MAPS, token=mia)
    assert len(await left(w)) == 20 - deleting.AT_ONCE


async def test_ways_in_are_closed_by_administrators_in_person(w: World) -> None:
    await bound(w, "new", [{"kinds": ["*"], "verbs": ["*"]}])
    providers = f"{BASE}/identityproviders"
    assert (await w.call("DELETE", providers, token=await w.login("ann"))).code == 403
    assert gone(await w.call("DELETE", providers, peer=ADMIN)) == []


async def test_secrets_go_and_are_not_shown(w: World) -> None:
    await w.create(SECRETS, {"metadata": {"name": "s"}, "stringData": {"k": "mark-7f3a"}})
    reply = await w.call("DELETE", SECRETS)
    assert gone(reply) == ["s"]
    assert "data" not in reply.json["items"][0]

"""Lists and watches: one revision, in pages or not; every change once, in order; ended by whoever may end them."""

from __future__ import annotations

import asyncio

from bessemer.api.context import Limits
from bessemer.core.clock import FakeClock, settle
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from bessemer.store import Store
from tests.api.world import BASE, World, instance, world

LAB = f"{BASE}/namespaces/acme--lab/instances"
MERGE = "application/merge-patch+json"
TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}


def labelled(name: str, **labels: str) -> dict[str, object]:
    return {**instance(name), "metadata": {"name": name, "labels": labels}}


async def names(w: World, query: str) -> list[str]:
    reply = await w.call("GET", f"{LAB}?{query}")
    assert reply.code == 200, reply.body
    return [item["metadata"]["name"] for item in reply.json["items"]]


async def test_an_empty_list(w: World) -> None:
    reply = await w.call("GET", LAB)
    assert reply.json == {
        "apiVersion": "bessemer.dev/v1alpha1",
        "kind": "InstanceList",
        "metadata": {"resourceVersion": str(w.store.revision)},
        "items": [],
    }


async def test_pages_are_of_one_revision(w: World) -> None:
    for i in range(7):
        await w.create(LAB, instance(f"i{i}"))
    first = (await w.call("GET", f"{LAB}?limit=3")).json
    assert first["metadata"]["remainingItemCount"] == 4
    await w.create(LAB, instance("i9"))
    found, token = [i["metadata"]["name"] for i in first["items"]], first["metadata"]["continue"]
    while token:
        page = (await w.call("GET", f"{LAB}?limit=3&continue={token}")).json
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        found += [i["metadata"]["name"] for i in page["items"]]
        token = page["metadata"].get("continue")
    assert found == [f"i{i}" for i in range(7)]
    used = await w.call("GET", f"{LAB}?limit=3&continue={first['metadata']['continue']}")
    assert (used.code, used.json["reason"]) == (410, "Expired")


async def test_selectors(w: World) -> None:
    await w.create(LAB, labelled("a", tier="web", x="1"))
    await w.create(LAB, labelled("b", tier="db"))
    await w.create(LAB, labelled("c"))
    assert await names(w, "labelSelector=tier%3Dweb") == ["a"]
    assert await names(w, "labelSelector=tier!%3Dweb") == ["b", "c"]
    assert await names(w, "labelSelector=tier in (web,db)") == ["a", "b"]
    assert await names(w, "labelSelector=!tier") == ["c"]
    assert await names(w, "labelSelector=tier,x%3D1") == ["a"]
    assert await names(w, "fieldSelector=metadata.name%3Db") == ["b"]
    assert await names(w, "fieldSelector=metadata.name!%3Db") == ["a", "c"]
    assert await names(w, "fieldSelector=metadata.namespace%3Dother--lab") == []
    assert await names(w, "fieldSelector=metadata.name%3Da,metadata.name%3Db") == []
    assert await names(w, "limit=1&labelSelector=!tier") == []


async def test_a_watch_begins_with_what_there_is(w: World) -> None:
    await w.create(LAB, instance("a"))
    async with w.watch(f"{LAB}?watch=1") as events:
        assert await events.names(1) == [("ADDED", "a")]
        await w.create(LAB, instance("b"))
        await w.call("PATCH", f"{LAB}/b", {"spec": {"running": False}}, media=MERGE)
        assert await events.names(2) == [("ADDED", "b"), ("MODIFIED", "b")]
        assert events.code == 200


async def test_a_watch_goes_on_from_a_revision(w: World) -> None:
    await w.create(LAB, instance("a"))
    revision = (await w.call("GET", LAB)).json["metadata"]["resourceVersion"]
    made = await w.create(LAB, instance("b"))
    async with w.watch(f"{LAB}?watch=true&resourceVersion={revision}") as events:
        event = await events.next()
        assert (event["type"], event["object"]) == ("ADDED", made)
        await remove(w.store, "b")
        assert await events.names(2) == [("MODIFIED", "b"), ("DELETED", "b")]


async def remove(store: Store, name: str) -> None:
    """Delete it, and let its finalizer go as its controller would."""
    key = Key("Instance", "acme--lab", name)
    await store.objects.delete(key, CONTROLLER)
    body = {
        "apiVersion": "bessemer.dev/v1alpha1",
        "kind": "Instance",
        "metadata": {"name": name, "namespace": "acme--lab"},
    }
    spec = {"flavor": "small", "image": "micro", "running": True, "restartPolicy": "Always", "tolerations": []}
    await store.objects.replace({**body, "spec": spec}, CONTROLLER)


async def test_history_that_is_gone_is_told_in_the_stream(w: World) -> None:
    async with w.watch(f"{LAB}?watch=1&resourceVersion={10**9}") as events:
        event = await events.next()
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert await events.next() is None


async def test_leaving_a_selector_is_a_deletion(w: World) -> None:
    await w.create(LAB, labelled("a", tier="web"))
    for selector in ("tier%3Dweb", "tier in (web,x)"):
        await w.call("PATCH", f"{LAB}/a", {"metadata": {"labels": {"tier": "web"}}}, media=MERGE)
        async with w.watch(f"{LAB}?watch=1&labelSelector={selector}") as events:
            assert await events.names(1) == [("ADDED", "a")]
            await w.call("PATCH", f"{LAB}/a", {"metadata": {"labels": {"tier": "db"}}}, media=MERGE)
            await w.call("PATCH", f"{LAB}/a", {"metadata": {"labels": {"other": "x"}}}, media=MERGE)
            await w.call("PATCH", f"{LAB}/a", {"metadata": {"labels": {"tier": "web"}}}, media=MERGE)
            assert await events.names(2) == [("DELETED", "a"), ("ADDED", "a")]


async def test_watched_tables_say_their_columns_once(w: World) -> None:
    await w.create(LAB, instance("a"))
    async with w.watch(f"{LAB}?watch=1", headers=TABLE) as events:
        first = await events.next()
        await w.create(LAB, instance("b"))
        second = await events.next()
    assert (first["object"]["kind"], first["object"]["rows"][0]["cells"][0]) == ("Table", "a")
    assert first["object"]["columnDefinitions"]
    assert second["object"]["columnDefinitions"] is None


async def test_namespaces_are_watched_as_namespaces(w: World) -> None:
    async with w.watch("/api/v1/namespaces?watch=1") as events:
        event = await events.next()
        assert (event["object"]["kind"], event["object"]["metadata"]["name"]) == ("Namespace", "acme--lab")


async def test_a_watch_ends_when_its_time_is_up(w: World) -> None:
    async with w.watch(f"{LAB}?watch=1&timeoutSeconds=1") as events:
        assert await events.next() is None


async def test_a_watch_ends_when_the_server_stops(w: World) -> None:
    async with w.watch(f"{LAB}?watch=1") as events:
        await settle()
        w.api.close()
        assert await events.next() is None


async def test_bookmarks_come_with_time_and_only_when_asked_for() -> None:
    clock = FakeClock()
    async with world(clock, limits=Limits(bookmark_seconds=30)) as w:
        path = f"{LAB}?watch=1&resourceVersion={w.store.revision}"
        async with w.watch(f"{path}&allowWatchBookmarks=True") as events, w.watch(path) as plain:
            await settle()
            await clock.advance(31)
            event = await events.next()
            assert event["type"] == "BOOKMARK"
            assert event["object"]["kind"] == "Instance"
            assert int(event["object"]["metadata"]["resourceVersion"]) == w.store.revision
            await settle()
            assert plain.lines.empty()


async def test_a_bookmark_comes_where_nothing_else_was_told_for_a_while() -> None:
    clock = FakeClock()
    async with world(clock, limits=Limits(bookmark_seconds=30)) as w:
        path = f"{LAB}?watch=1&resourceVersion={w.store.revision}&allowWatchBookmarks=true"
        async with w.watch(path) as events:
            await settle()
            await clock.advance(20)
            await w.create(LAB, instance("vm"))
            assert (await events.next())["type"] == "ADDED"
            await clock.advance(20)
            await settle()
            assert events.lines.empty()
            await clock.advance(11)
            assert (await events.next())["type"] == "BOOKMARK"


async def test_a_watch_ends_once_its_reader_may_not_read() -> None:
    clock = FakeClock()
    async with world(clock, limits=Limits(bookmark_seconds=30)) as w:
        mia = await w.login("mia")
        async with w.watch(f"{LAB}?watch=1", token=mia) as events:
            await clock.advance(31)
            await w.call("PATCH", f"{BASE}/tenants/acme", {"spec": {"members": []}}, media=MERGE)
            await clock.advance(31)
            assert (await events.next())["object"]["reason"] == "Expired"
            assert await events.next() is None


async def test_a_watch_over_all_projects_ends_when_they_change() -> None:
    clock = FakeClock()
    async with world(clock, limits=Limits(bookmark_seconds=30)) as w:
        ann = await w.login("ann")
        async with w.watch(f"{BASE}/instances?watch=1", token=ann) as events:
            await settle()
            await w.create(f"{BASE}/namespaces/other--lab/instances", instance("theirs"))
            await w.create(LAB, instance("mine"))
            assert await events.names(1) == [("ADDED", "mine")]
            await w.create(f"{BASE}/projects", {"metadata": {"name": "acme--more"}, "spec": {}})
            await clock.advance(31)
            assert (await events.next())["object"]["reason"] == "Expired"
            assert await events.next() is None


async def test_watchers_are_counted_and_gone_when_they_go(w: World) -> None:
    async with w.watch(f"{LAB}?watch=1"):
        await settle()
        assert b'bessemer_api_watches{resource="instances"} 1.0' in (await w.call("GET", "/metrics")).body
    await asyncio.sleep(0)
    assert b'bessemer_api_watches{resource="instances"} 0.0' in (await w.call("GET", "/metrics")).body

"""Lists in pages and lists of a revision, as clients ask for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.ports import CONTROLLER, Page, Scope
from bessemer.store.compaction import History
from tests.api.kubectl import kubectl
from tests.api.world import BASE, Reply, World, instance, named, served, world

LAB = f"{BASE}/namespaces/acme--lab/instances"
MERGE = "application/merge-patch+json"


@pytest.fixture
async def four() -> AsyncIterator[World]:
    """With four Instances, and a clock that stands."""
    async with world(FakeClock()) as w:
        for name in "abcd":
            await w.create(LAB, {**instance(name), "metadata": {"name": name, "labels": {"tier": "web"}}})
        yield w


def names(reply: Reply) -> list[str]:
    assert reply.code == 200, reply.body
    return [item["metadata"]["name"] for item in reply.json["items"]]


async def lose(w: World) -> None:
    """Nobody came back for a minute."""
    assert isinstance(w.clock, FakeClock)
    await w.clock.advance(61)
    await w.store.tidy()


# --- continue -----------------------------------------------------------------------------------------------------


async def test_a_list_that_was_lost_may_go_on_at_what_there_is(four: World) -> None:
    """The Status is Kubernetes' to the letter, so that client-go lists again and others may go on."""
    first = await four.call("GET", f"{LAB}?limit=2")
    await lose(four)
    await four.create(LAB, instance("bb"))
    lost = await four.call("GET", f"{LAB}?limit=2&continue={first.json['metadata']['continue']}")
    proceed = lost.json["metadata"]["continue"]
    assert lost.code == 410
    assert lost.json == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {"continue": proceed},
        "status": "Failure",
        "message": "The provided continue parameter is too old to display a consistent list result. You can start a "
        "new list without the continue parameter, or use the continue token in this response to retrieve the remainder "
        "of the results. Continuing with the provided token results in an inconsistent list - objects that were "
        "created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        "reason": "Expired",
        "code": 410,
    }
    page = await four.call("GET", f"{LAB}?limit=2&continue={proceed}")
    assert (names(page), page.json["metadata"]["resourceVersion"]) == (["bb", "c"], str(four.store.revision))
    assert names(await four.call("GET", f"{LAB}?continue={page.json['metadata']['continue']}")) == ["d"]


async def test_nobody_goes_on_with_anothers_list(four: World) -> None:
    mia, ann = await four.login("mia"), await four.login("ann")
    token = (await four.call("GET", f"{LAB}?limit=2", token=mia)).json["metadata"]["continue"]
    for path, asker in ((LAB, ann), ("/api/v1/namespaces/acme--lab/configmaps", mia)):
        reply = await four.call("GET", f"{path}?continue={token}", token=asker)
        assert (reply.code, reply.json["reason"]) == (400, "BadRequest")
    assert names(await four.call("GET", f"{LAB}?continue={token}", token=mia)) == ["c", "d"]


async def test_who_may_not_read_any_more_goes_on_with_nothing(four: World) -> None:
    mia = await four.login("mia")
    token = (await four.call("GET", f"{LAB}?limit=2", token=mia)).json["metadata"]["continue"]
    await four.call("PATCH", f"{BASE}/tenants/acme", {"spec": {"members": []}}, media=MERGE)
    assert (await four.call("GET", f"{LAB}?continue={token}", token=mia)).code in (403, 404)


async def test_what_was_there_before_a_project_is_not_shown_in_it(four: World) -> None:
    """Its name was somebody else's, perhaps."""
    path = f"{BASE}/projects"
    token = (await four.call("GET", f"{path}?limit=1")).json["metadata"]["continue"]
    list_token = (await four.call("GET", f"{LAB}?limit=1")).json["metadata"]["continue"]
    await four.create(path, named("acme--more"))
    assert names(await four.call("GET", f"{path}?continue={token}")) == ["other--lab"]
    directory = four.api.state.directory
    directory._born["Project", "acme--lab"] = four.store.revision  # as if it had been made anew
    await four.create(LAB, instance("new"))
    lost = await four.call("GET", f"{LAB}?continue={list_token}")
    assert lost.code == 410
    assert "new" in names(await four.call("GET", f"{LAB}?continue={lost.json['metadata']['continue']}"))


async def test_how_many_follow_is_told_only_without_selectors(four: World) -> None:
    async def told(query: str) -> Any:
        meta = (await four.call("GET", f"{LAB}?limit=1&{query}")).json["metadata"]
        assert meta["continue"]
        return meta.get("remainingItemCount")

    assert await told("") == 3
    for selector in ("labelSelector=tier%3Dweb", "labelSelector=tier in (web,db)", "fieldSelector=metadata.name!%3Db"):
        assert await told(selector) is None, selector


async def test_one_tenants_storm_of_lists_costs_no_other_its_own(four: World) -> None:
    """Each is of another revision, so each has a place of its own."""
    theirs = f"{BASE}/namespaces/other--lab/instances"
    for name in "ab":
        await four.create(theirs, instance(name))
    eve, mia = await four.login("eve"), await four.login("mia")
    quiet = (await four.call("GET", f"{theirs}?limit=1", token=eve)).json["metadata"]["continue"]
    for number in range(66):
        await four.call("PATCH", f"{LAB}/a", {"metadata": {"labels": {"n": str(number)}}}, media=MERGE)
        last = await four.call("GET", f"{LAB}?limit=1", token=mia)
    assert four.store.metrics.snapshots == 64
    assert names(await four.call("GET", f"{theirs}?continue={quiet}", token=eve)) == ["b"]
    rest = await four.call("GET", f"{LAB}?continue={last.json['metadata']['continue']}", token=mia)
    assert names(rest) == ["b", "c", "d"]


# --- resourceVersion ------------------------------------------------------------------------------------------------


async def test_a_list_of_a_revision(four: World) -> None:
    """Exactly that is told of the newest alone: of what was, changes are kept, and not what they changed."""
    now = four.store.revision

    async def asked(revision: int, match: str) -> tuple[int, Any]:
        more = f"&resourceVersionMatch={match}" if match else ""
        reply = await four.call("GET", f"{LAB}?resourceVersion={revision}{more}")
        if reply.code != 200:
            return reply.code, reply.json["reason"]
        assert len(reply.json["items"]) == 4
        return 200, int(reply.json["metadata"]["resourceVersion"])

    for match in ("", "NotOlderThan", "Exact"):
        assert await asked(now, match) == (200, now)
        assert await asked(now + 7, match) == (504, "Timeout")
    for revision in (0, 1, now - 1):
        assert await asked(revision, "") == await asked(revision, "NotOlderThan") == (200, now)
    assert await asked(now - 1, "Exact") == (410, "Expired")
    assert await asked(0, "Exact") == (422, "Invalid")
    await four.create(f"{BASE}/users", named("late"))
    assert await asked(now, "Exact") == (410, "Expired")
    reply = await four.call("GET", f"{LAB}?resourceVersion={now}&resourceVersionMatch=Exact")
    assert reply.json["message"] == "The resourceVersion for the provided list is too old."


async def test_what_is_gone_is_told_with_the_revision_of_its_end(four: World) -> None:
    async with four.watch(f"{LAB}?watch=1&resourceVersion={four.store.revision}") as events:
        left = (await four.call("DELETE", f"{LAB}/b")).json
        await four.store.objects.replace({**left, "metadata": {**left["metadata"], "finalizers": []}}, CONTROLLER)
        marked, gone = await events.next(), await events.next()
    assert (marked["type"], gone["type"]) == ("MODIFIED", "DELETED")
    revisions = [int(body["metadata"]["resourceVersion"]) for body in (left, marked["object"], gone["object"])]
    assert revisions[0] == revisions[1] < revisions[2] == four.store.revision


async def test_a_watch_of_what_history_has_dropped_is_answered_and_ends(four: World) -> None:
    """With 200 and the error in the stream: clients list again then, and go on."""
    object.__setattr__(four.store, "history", History(revisions=2))
    await four.store.tidy()
    async with four.watch(f"{LAB}?watch=1&resourceVersion=1") as events:
        event = await events.next()
        assert events.code == 200
        assert (event["type"], event["object"]["kind"], event["object"]["metadata"]) == ("ERROR", "Status", {})
        assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
        assert "details" not in event["object"]
        assert await events.next() is None
    listed = await four.call("GET", LAB)
    async with four.watch(f"{LAB}?watch=1&resourceVersion={listed.json['metadata']['resourceVersion']}") as events:
        await four.create(LAB, instance("e"))
        assert await events.names(1) == [("ADDED", "e")]


# --- clients --------------------------------------------------------------------------------------------------------


@pytest.mark.real
async def test_kubectl_reads_a_page_at_a_time(four: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, limits = four.store.objects.list, []

    async def listed(scope: Scope, *, limit: int = 0, **more: Any) -> Page:
        if scope.kind == "Instance" and limit:
            limits.append(limit)
            await four.create(LAB, instance(f"z{len(limits)}"))
        return await real(scope, limit=limit, **more)

    async with served(four, tmp_path) as server:
        monkeypatch.setattr(four.store.objects, "list", listed)
        said = await kubectl(server).run("get", "instances", "--chunk-size=1", "-o", "name")
    assert said.split() == [f"instance.bessemer.dev/{name}" for name in (*"abcd", "z1")]
    assert limits == [1] * 5

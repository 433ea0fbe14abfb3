"""What Argo CD and Flux ask, in the order in which they ask it: read from their public source, played over plain HTTP.

Argo CD: gitops-engine's cluster cache and its diff; Flux: the apply loop of its ssa package, and kstatus.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from bessemer.api import Limits
from bessemer.api.discovery import AGGREGATED, OPENAPI_V2, OPENAPI_V2_ASKED
from bessemer.api.protobuf import KINDS as TABLES
from bessemer.api.protobuf import MEDIA
from bessemer.core.clock import FakeClock, settle
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import GROUP, Key
from tests.api.test_protobuf import encoded, enveloped
from tests.api.world import BASE, PATIENCE_SECONDS, Events, World, instance, world

LAB = f"{BASE}/namespaces/acme--lab"
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
Leave = Callable[[], Awaitable[None]]
TRACKING = "argocd.argoproj.io/instance"
VM = {
    "apiVersion": f"{GROUP}/v1alpha1",
    "kind": "Instance",
    "metadata": {"name": "vm", "namespace": "acme--lab", "labels": {TRACKING: "shop"}},
    "spec": {"flavor": "small", "image": "micro"},
}


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def discovered(w: World, token: str) -> list[tuple[str, str, bool]]:
    """(path, kind, namespaced) of all that has list and watch, each in the first version of its group that has it, as
    ServerPreferredResources finds them."""
    found: dict[tuple[str, str], tuple[str, str, bool]] = {}
    for place in ("/api", "/apis"):
        reply = await w.call("GET", place, headers={"accept": f"{AGGREGATED},application/json"}, token=token)
        for group in reply.json["items"]:
            name = group["metadata"].get("name", "")
            for version, resource in ((v["version"], r) for v in group["versions"] for r in v["resources"]):
                base = f"/apis/{name}/{version}" if name else f"/api/{version}"
                if {"list", "watch"} <= set(resource["verbs"]):
                    kind = resource["responseKind"]["kind"]
                    one = (f"{base}/{resource['resource']}", kind, resource["scope"] == "Namespaced")
                    found.setdefault((name, kind), one)
    return [*found.values()]


# --- Argo CD ----------------------------------------------------------------------------------------------------------


async def test_argo_caches_all_that_there_is(w: World) -> None:
    """Each kind with list and watch is listed by pages and watched from there; one that fails would fail them all."""
    token = await w.login("ann")
    await w.create(f"{LAB}/instances", VM, token=token)
    await w.create("/api/v1/namespaces/acme--lab/secrets", {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
    assert (await w.call("GET", "/version", token=token)).json["major"] == "1"
    kinds = await discovered(w, token)
    assert {"Instance", "Secret", "ConfigMap", "Event", "Namespace", "Lease"} <= {kind for _, kind, _ in kinds}
    for path, kind, _ in kinds:
        items, after = [], ""
        while True:
            reply = await w.call("GET", f"{path}?limit=1&continue={quote(after)}", token=token)
            if reply.code == 403:  # respectRBAC: what may not be listed is asked about, in protobuf, and left out
                group = path.split("/")[2] if path.startswith("/apis") else ""
                plural = path.rpartition("/")[2]
                spec = {"resourceAttributes": {"verb": "list", "group": group, "resource": plural}}
                table = TABLES["authorization.k8s.io/v1", "SelfSubjectAccessReview"]
                raw = enveloped("authorization.k8s.io/v1", "SelfSubjectAccessReview", encoded({"spec": spec}, table))
                review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
                said = await w.call("POST", review, raw, media=MEDIA, token=token)
                assert said.json["status"]["allowed"] is False, kind
                break
            assert (reply.code, reply.json["kind"]) == (200, f"{kind}List")
            items += reply.json["items"]
            assert all(item["metadata"]["resourceVersion"] for item in items), "an item without one ends a RetryWatcher"
            after = reply.json["metadata"].get("continue", "")
            if not after:
                revision = reply.json["metadata"]["resourceVersion"]
                query = f"watch=true&allowWatchBookmarks=true&resourceVersion={revision}"
                async with w.watch(f"{path}?{query}", token=token) as events:
                    await opened(events)
                    assert (events.code, events.lines.empty()) == (200, True), "nothing has happened since"
                break
        if kind == "Instance":
            assert [item["metadata"]["name"] for item in items] == ["vm"]


async def opened(events: Events) -> None:
    """Once a watch is answered."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not events.code:
            await asyncio.sleep(0)


async def test_argo_follows_what_it_has_listed() -> None:
    """A RetryWatcher: each event has a later revision, and it goes on from the last, which may be a bookmark's."""
    clock = FakeClock()
    async with world(clock, limits=Limits(bookmark_seconds=30)) as w:
        path = f"{LAB}/instances"
        at = (await w.call("GET", f"{path}?limit=500")).json["metadata"]["resourceVersion"]
        query = "watch=true&allowWatchBookmarks=true&resourceVersion="
        async with w.watch(f"{path}?{query}{at}") as events:
            await w.create(path, VM)
            await w.call("PATCH", f"{path}/vm", {"spec": {"running": False}}, media=MERGE)
            await settle()
            seen = [await events.next() for _ in range(2)]
            await settle()
            await clock.advance(31)
            seen.append(await events.next())
        assert [event["type"] for event in seen] == ["ADDED", "MODIFIED", "BOOKMARK"]
        revisions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen]
        assert int(at) < revisions[0] < revisions[1] <= revisions[2] <= w.store.revision
        async with w.watch(f"{path}?{query}{revisions[-1]}") as events:
            await w.call("DELETE", f"{path}/vm", {"propagationPolicy": "Foreground"})
            await let_go(w)
            left = [await events.next()]
            while left[-1]["type"] != "DELETED":
                left.append(await events.next())
        assert {event["type"] for event in left[:-1]} == {"MODIFIED"}, "and nothing again that it has seen"
        later = [int(event["object"]["metadata"]["resourceVersion"]) for event in left]
        assert revisions[-1] < later[0]
        assert later == sorted({*later})


async def test_argo_lists_again_where_the_history_is_gone(w: World) -> None:
    """The watch is answered, says so in the stream, and ends; what was listed anew is followed from there."""
    path, query = f"{LAB}/instances", "watch=true&allowWatchBookmarks=true&resourceVersion="
    async with w.watch(f"{path}?{query}1") as events:
        told = await events.next()
        assert (events.code, told["type"], told["object"]["kind"]) == (200, "ERROR", "Status")
        assert (told["object"]["code"], told["object"]["reason"]) == (410, "Expired")
        assert await events.next() is None
    at = (await w.call("GET", f"{path}?limit=500")).json["metadata"]["resourceVersion"]
    async with w.watch(f"{path}?{query}{at}") as events:
        await w.create(path, VM)
        assert ((await events.next())["type"], events.code) == ("ADDED", 200)


async def let_go(w: World) -> None:
    """The instance's own controller has nothing left to do."""
    body = orjson.loads((await w.store.objects.get(Key("Instance", "acme--lab", "vm"))).body)
    assert "deletionTimestamp" in body["metadata"]
    body["metadata"]["finalizers"] = [one for one in body["metadata"]["finalizers"] if "/" not in one]
    await w.store.objects.replace(body, CONTROLLER)


async def test_argo_deletes_in_the_foreground_to_the_end(w: World) -> None:
    """What it tracks stays until what that owns is gone, and is gone then: it asks until it is told so."""
    maps = "/api/v1/namespaces/acme--lab/configmaps"
    top = await w.create(maps, {"metadata": {"name": "top"}})
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "top", "uid": top["metadata"]["uid"]}
    part = {"name": "part", "ownerReferences": [{**owner, "blockOwnerDeletion": True}], "finalizers": ["x.dev/held"]}
    await w.create(maps, {"metadata": part})
    await w.create(f"{LAB}/instances", VM)
    options = {"propagationPolicy": "Foreground"}
    for path, marks in ((f"{maps}/top", ["foregroundDeletion"]), (f"{LAB}/instances/vm", ["bessemer.dev/instance"])):
        reply = await w.call("DELETE", path, options)
        assert (reply.code, set(marks) <= set(reply.json["metadata"]["finalizers"])) == (200, True)
        there = await w.call("GET", path)
        assert (there.code, "deletionTimestamp" in there.json["metadata"]) == (200, True)
        assert (await w.call("DELETE", path, options)).code == 200, "it asks again at each sync"
    assert "deletionTimestamp" in (await w.call("GET", f"{maps}/part")).json["metadata"]
    await w.call("PATCH", f"{maps}/part", {"metadata": {"finalizers": None}}, media=MERGE)
    await let_go(w)
    for path in (f"{maps}/part", f"{maps}/top", f"{LAB}/instances/vm"):
        reply = await w.call("GET", path)
        assert (reply.code, reply.json["reason"]) == (404, "NotFound"), path


async def test_argo_reads_the_openapi_before_anything(w: World) -> None:
    """It is fatal for all applications where this fails."""
    reply = await w.call("GET", "/openapi/v2", headers={"accept": f"application/json,{OPENAPI_V2_ASKED}"})
    assert reply.code == 200
    reply = await w.call("GET", "/openapi/v2", headers={"accept": OPENAPI_V2_ASKED})
    assert (reply.code, reply.headers["content-type"], len(reply.body) > 1000) == (200, OPENAPI_V2, True)


async def test_argo_syncs_and_sees_that_it_is_in_sync(w: World) -> None:
    """Dry run, apply, compare by a dry run; its tracking label finds what it made; deleted in the foreground."""
    query = "fieldManager=argocd-controller&fieldValidation=Strict"
    path = f"{LAB}/instances/vm"
    dry = await w.call("PATCH", f"{path}?{query}&dryRun=All&force=true", VM, media=APPLY)
    assert (dry.code, (await w.call("GET", path)).code) == (201, 404)
    made = await w.call("PATCH", f"{path}?{query}&force=true", VM, media=APPLY)
    assert made.code == 201
    again = await w.call("PATCH", f"{path}?{query}&dryRun=All&force=true", VM, media=APPLY)
    assert again.json == made.json, "a dry run of what is there says what is there: no drift"
    listed = await w.call("GET", f"{LAB}/instances?labelSelector={quote(TRACKING)}%3Dshop")
    assert [item["metadata"]["name"] for item in listed.json["items"]] == ["vm"]
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}
    gone = await w.call("DELETE", path, options)
    assert (gone.code, "deletionTimestamp" in gone.json["metadata"]) == (200, True)
    table = TABLES["", "DeleteOptions"]
    raw = enveloped("v1", "DeleteOptions", encoded({"propagationPolicy": "Foreground"}, table))
    assert (await w.call("DELETE", path, raw, media=MEDIA)).code == 200


async def test_argo_applies_from_the_client_too(w: World) -> None:
    """The three-way patch that kubectl's libraries compute, of a kind of Kubernetes' own and of one of ours."""
    applied = "kubectl.kubernetes.io/last-applied-configuration"
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}}
    path = "/api/v1/namespaces/acme--lab/configmaps"
    first = {**config, "metadata": {"name": "c", "annotations": {applied: orjson.dumps(config).decode()}}}
    await w.create(path, first)
    patch = {"metadata": {"annotations": {applied: "{}"}}, "data": {"b": None, "c": "3"}}
    reply = await w.call("PATCH", f"{path}/c", patch, media="application/strategic-merge-patch+json")
    assert (reply.code, reply.json["data"]) == (200, {"a": "1", "c": "3"})
    await w.create(f"{LAB}/instances", VM)
    change = {"metadata": {"annotations": {applied: "{}"}}, "spec": {"running": False}}
    reply = await w.call("PATCH", f"{LAB}/instances/vm", change, media="application/merge-patch+json")
    assert (reply.code, reply.json["spec"]["running"]) == (200, False)


# --- Flux -------------------------------------------------------------------------------------------------------------


async def nothing() -> None:
    """Nobody does anything meanwhile."""


async def flux(w: World, path: str, config: dict[str, Any], token: str, *, leave: Leave = nothing) -> str:
    """What Flux's manager does with one object: created, configured, or unchanged. ``leave`` is what others do while
    an object that it deleted goes."""
    manager = "fieldManager=kustomize-controller&force=true"
    there = await w.call("GET", path, token=token)
    dry = await w.call("PATCH", f"{path}?{manager}&dryRun=All", config, media=APPLY, token=token)
    if dry.code == 422 and there.code == 200:  # with force: what cannot be changed is made again
        gone = await w.call("DELETE", path, {"propagationPolicy": "Background"}, token=token)
        assert gone.code in (200, 404), gone.body
        await leave()
        return await flux(w, path, config, token, leave=leave)
    assert dry.code in (200, 201), dry.body

    def matter(one: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in one.items() if name not in ("status", "metadata")}
        return {**kept, **{part: one["metadata"].get(part) for part in ("labels", "annotations", "ownerReferences")}}

    if there.code == 200 and matter(there.json) == matter(dry.json):
        return "unchanged"
    done = await w.call("PATCH", f"{path}?{manager}", config, media=APPLY, token=token)
    assert done.code in (200, 201), done.body
    return "created" if there.code == 404 else "configured"


async def test_flux_applies_what_differs_and_nothing_else(w: World) -> None:
    token = await w.login("mia")
    path, maps = f"{LAB}/instances/vm", "/api/v1/namespaces/acme--lab/configmaps/c"
    secrets = "/api/v1/namespaces/acme--lab/secrets/s"
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "1"}}
    for place, said, changed in (
        (path, VM, {**VM, "spec": {**VM["spec"], "running": False}}),  # type: ignore[dict-item]
        (maps, config, {**config, "data": {"b": "2"}}),
        (secrets, secret, {**secret, "stringData": {"b": "2"}}),
    ):
        assert await flux(w, place, said, token) == "created"
        before = (await w.call("GET", place, token=token)).json["metadata"]["resourceVersion"]
        assert await flux(w, place, said, token) == "unchanged"
        assert (await w.call("GET", place, token=token)).json["metadata"]["resourceVersion"] == before
        assert await flux(w, place, changed, token) == "configured"
        assert await flux(w, place, changed, token) == "unchanged"
    assert (await w.call("GET", maps, token=token)).json["data"] == {"b": "2"}
    assert (await w.call("GET", secrets, token=token)).json["data"] == {"b": "Mg=="}


async def test_flux_undoes_what_somebody_changed(w: World) -> None:
    token, path = await w.login("mia"), "/api/v1/namespaces/acme--lab/configmaps/c"
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
    await flux(w, path, config, token)
    drift = {"data": {"a": "by hand", "b": "another's"}}
    await w.call("PATCH", f"{path}?fieldManager=kubectl-edit", drift, media="application/merge-patch+json")
    assert await flux(w, path, config, token) == "configured"
    assert (await w.call("GET", path)).json["data"] == {"a": "1", "b": "another's"}
    assert await flux(w, path, config, token) == "unchanged"


async def test_flux_reads_how_far_an_object_is(w: World) -> None:
    """kstatus: in progress while the status is of an older generation, current once it is of this one and Ready."""

    def kstatus(one: dict[str, Any]) -> str:
        if "deletionTimestamp" in one["metadata"]:
            return "Terminating"
        status = one.get("status", {})
        if status.get("observedGeneration", 0) != one["metadata"]["generation"]:
            return "InProgress"
        ready = next((c["status"] for c in status.get("conditions", ()) if c["type"] == "Ready"), "True")
        return "Current" if ready == "True" else "InProgress"

    path = f"{LAB}/instances/vm"
    made = await w.create(f"{LAB}/instances", VM)
    assert kstatus(made) == "InProgress"
    body = orjson.loads((await w.store.objects.get(Key("Instance", "acme--lab", "vm"))).body)
    ready = {"type": "Ready", "status": "True", "reason": "Ready", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    body["status"] = {"phase": "Running", "observedGeneration": 1, "conditions": [{**ready, "message": ""}]}
    await w.store.objects.replace(body, CONTROLLER, part="status")
    assert kstatus((await w.call("GET", path)).json) == "Current"
    change = await w.call("PATCH", path, {"spec": {"running": False}}, media="application/merge-patch+json")
    assert kstatus(change.json) == "InProgress"
    assert kstatus((await w.call("DELETE", path, {"propagationPolicy": "Background"})).json) == "Terminating"


async def test_flux_makes_again_what_cannot_be_changed(w: World) -> None:
    """It deletes, and tries again at once, so that it meets what is still going, and deletes that again."""
    token, path = await w.login("mia"), f"{LAB}/instances/vm"
    assert await flux(w, path, VM, token) == "created"
    first = (await w.call("GET", path)).json
    passed: list[str] = []

    async def leave() -> None:
        there = await w.call("GET", path)
        passed.append("going" if "deletionTimestamp" in there.json["metadata"] else "there")
        if len(passed) == 3:
            await let_go(w)

    other = {**VM, "spec": {"flavor": "large", "image": "micro"}}
    assert await flux(w, path, other, token, leave=leave) == "created"
    made = (await w.call("GET", path)).json
    assert passed == ["going"] * 3
    assert (made["spec"]["flavor"], made["metadata"]["uid"] != first["metadata"]["uid"]) == ("large", True)
    assert (made["metadata"]["generation"], "deletionTimestamp" in made["metadata"]) == (1, False)
    assert await flux(w, path, other, token, leave=leave) == "unchanged"


async def test_flux_sees_that_a_field_cannot_change_and_prunes(w: World) -> None:
    path = f"{LAB}/instances/vm"
    await w.create(f"{LAB}/instances", VM)
    other = {**VM, "spec": {"flavor": "large", "image": "micro"}}
    query = "fieldManager=kustomize-controller&force=true&dryRun=All"
    refused = await w.call("PATCH", f"{path}?{query}", other, media=APPLY)
    assert (refused.code, refused.json["reason"]) == (422, "Invalid")
    assert refused.json["details"]["causes"][0]["field"] == "spec.flavor"
    await w.create(f"{LAB}/instances", instance("old"))
    partial = {"accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
    seen = (await w.call("GET", f"{LAB}/instances/old", headers=partial)).json
    options = {"propagationPolicy": "Background", "preconditions": {"uid": seen["metadata"]["uid"]}}
    assert (await w.call("DELETE", f"{LAB}/instances/old", options)).code == 200
    assert (await w.call("DELETE", f"{LAB}/instances/old", {"preconditions": {"uid": "another"}})).code == 409

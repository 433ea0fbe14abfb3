"""Discovery and OpenAPI v3 as clients ask for them: in both forms, under tags and hashes, however the path is said."""

from __future__ import annotations

from typing import Any

import orjson

from bessemer.api.discovery import AGGREGATED, OPENAPI_V2, OPENAPI_V2_ASKED, Discovery
from bessemer.api.shown import Resources
from bessemer.kinds import KINDS
from tests.api.test_openapi2 import inside
from tests.api.world import BASE, Reply, World, instance

V3 = "/openapi/v3/apis/bessemer.dev/v1alpha1"
PLACES = ("/api", "/apis", "/api/v1", "/apis/bessemer.dev", BASE, "/openapi/v2", "/openapi/v3", V3)
KUBECTL = f"{AGGREGATED},{AGGREGATED.replace('v=v2', 'v=v2beta1')},application/json"


async def check_tag(w: World, place: str, accept: str = "application/json", media: str = "application/json") -> str:
    """The tag of a document in a form, which is asked for each time as clients do."""

    async def get(**more: str) -> Reply:
        return await w.call("GET", place, peer=None, headers={"accept": accept, **more})

    first = await get()
    assert (first.code, first.headers["content-type"]) == (200, media)
    assert first.headers["vary"] == "Accept, Accept-Encoding"
    tag = first.headers["etag"]
    for named in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = await get(**{"if-none-match": named})
        assert (again.code, again.body, again.headers["etag"]) == (304, b"", tag)
    for named in ('"other"', tag.strip('"'), tag[:-2] + '"', '"' * 5000):
        assert (await get(**{"if-none-match": named})).body == first.body
    return tag


async def test_every_document_is_kept_under_its_tag(w: World) -> None:
    for place in PLACES:
        await check_tag(w, place)


async def test_each_form_has_a_tag_of_its_own(w: World) -> None:
    """Aggregated discovery and the protobuf: kubectl keeps them for hours, and asks by their tags."""
    for place, accept, media in (
        ("/api", AGGREGATED, AGGREGATED),
        ("/apis", KUBECTL, AGGREGATED),
        ("/openapi/v2", OPENAPI_V2_ASKED, OPENAPI_V2),
    ):
        tag, plain = await check_tag(w, place, accept, media), await check_tag(w, place)
        assert tag != plain
        other = await w.call("GET", place, peer=None, headers={"accept": accept, "if-none-match": plain})
        assert (other.code, other.headers["content-type"]) == (200, media), "the other form is not this one"


def test_every_reference_of_v3_resolves_where_it_stands() -> None:
    """Each document is read alone."""
    for place in Resources(KINDS).groups():
        document = orjson.loads(Discovery(Resources(KINDS), "test").openapi(*place).body)
        found = {one["$ref"] for one in inside(document) if "$ref" in one}
        assert found, place
        assert {one.removeprefix("#/components/schemas/") for one in found} <= document["components"]["schemas"].keys()


async def test_a_status_is_described_as_it_is_served(w: World) -> None:
    for group, version in Resources(KINDS).groups():
        place = f"/apis/{group}/{version}" if group else f"/api/{version}"
        served = (await w.call("GET", place)).json["resources"]
        paths = (await w.call("GET", f"/openapi/v3{place}")).json["paths"]
        described = {path.split("/")[-3]: said for path, said in paths.items() if path.endswith("/{name}/status")}
        assert described.keys() == {one["name"].removesuffix("/status") for one in served if "/" in one["name"]}
        for said in described.values():
            assert said.keys() == {"parameters", "get", "put", "patch"}
            names = {parameter["name"] for parameter in said["patch"]["parameters"]}
            assert {"fieldManager", "fieldValidation", "force", "dryRun"} == names
        ids = [said["operationId"] for path in paths.values() for way, said in path.items() if way != "parameters"]
        assert len(ids) == len(set(ids))


async def check_path(w: World, place: str) -> None:
    plain = await w.call("GET", place)
    for path in (f"{place}/", f"{place}?timeout=32s&pretty=true&x=1", f"{place}/?hash="):
        reply = await w.call("GET", path)
        assert (reply.code, reply.body) == (200, plain.body), path


async def test_the_path_and_the_query_are_read_as_clients_write_them(w: World) -> None:
    for place in PLACES:
        await check_path(w, place)


async def test_objects_too(w: World) -> None:
    lab = f"{BASE}/namespaces/acme--lab/instances"
    made = await w.call("POST", f"{lab}/?fieldManager=x&timeout=32s&pretty=true&x=1", instance("vm"))
    assert made.code == 201
    for path in (f"{lab}/vm", f"{lab}/vm/", f"{lab}/vm/status/", f"{lab}/vm?pretty=1&timeout=1s&export=true"):
        assert (await w.call("GET", path)).body == made.body, path
    assert len((await w.call("GET", f"{lab}/?pretty=true")).json["items"]) == 1


async def test_the_form_is_the_one_that_is_liked_best(w: World) -> None:
    for accept, media in (
        (AGGREGATED, AGGREGATED),
        (KUBECTL, AGGREGATED),
        (AGGREGATED.replace("v=v2", "v=v2beta1") + ",application/json", "application/json"),
        ("application/json, */*", "application/json"),
        (f"application/json, {AGGREGATED}", "application/json"),
        (f"application/json;q=0.5, {AGGREGATED}", AGGREGATED),
        ("application/vnd.kubernetes.protobuf, application/json", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
    ):
        for place in ("/api", "/apis"):
            reply = await w.call("GET", place, headers={"accept": accept}, peer=None)
            assert (reply.code, reply.headers["content-type"]) == (200, media), accept
            assert (reply.json["kind"] == "APIGroupDiscoveryList") == (media == AGGREGATED)


async def test_what_we_do_not_speak_is_refused(w: World) -> None:
    for place in PLACES:
        reply = await w.call("GET", place, headers={"accept": "application/vnd.kubernetes.protobuf"})
        assert (reply.code, reply.json["reason"]) == (406, "NotAcceptable"), place
        assert "application/json" in reply.json["message"]


async def test_what_is_not_there(w: World) -> None:
    for place in ("/apis/none.dev", "/apis/bessemer.dev/v9", "/api/v9", f"{V3}x", "/openapi/v4"):
        reply = await w.call("GET", place, peer=None)
        assert (reply.code, reply.json["reason"]) == (404, "NotFound"), place


async def test_the_index_leads_to_documents_that_may_be_kept_for_ever(w: World) -> None:
    index = (await w.call("GET", "/openapi/v3", peer=None)).json["paths"]
    assert index.keys() == {"api/v1", "apis/bessemer.dev/v1alpha1", "apis/bessemer.dev/v1beta1", *NATIVE}
    for place in index.values():
        reply = await w.call("GET", place["serverRelativeURL"] + "&timeout=32s", peer=None)
        assert reply.code == 200
        assert "immutable" in reply.headers["cache-control"]
        assert reply.headers["etag"].strip('"') == place["serverRelativeURL"].partition("hash=")[2]


async def test_a_document_under_another_hash_is_elsewhere(w: World) -> None:
    right = (await w.call("GET", "/openapi/v3")).json["paths"]["apis/bessemer.dev/v1alpha1"]["serverRelativeURL"]
    for wrong in ("AB12", "%0d%0aX:%20y", "//evil.example"):
        reply = await w.call("GET", f"{V3}?hash={wrong}", peer=None)
        assert (reply.code, reply.headers["location"]) == (307, right)
        assert "cache-control" not in reply.headers
    assert "cache-control" not in (await w.call("GET", V3)).headers


NATIVE = {"apis/apiextensions.k8s.io/v1", "apis/coordination.k8s.io/v1", "apis/events.k8s.io/v1"}


def ours(known: Discovery) -> Any:
    """Our group in the aggregated form, where it stands once."""
    items = orjson.loads(known.aggregated(core=False).body)["items"]
    (item,) = [each for each in items if each["metadata"]["name"] == "bessemer.dev"]
    return item


def test_a_group_with_two_versions_stands_once() -> None:
    known = Discovery(Resources(KINDS), "test")
    (group,) = [each for each in orjson.loads(known.groups().body)["groups"] if each["name"] == "bessemer.dev"]
    assert [version["version"] for version in group["versions"]] == ["v1beta1", "v1alpha1"]
    assert group["preferredVersion"]["version"] == "v1beta1"
    assert orjson.loads(known.group("bessemer.dev").body) == group
    item = ours(known)
    assert [version["version"] for version in item["versions"]] == ["v1beta1", "v1alpha1"]
    assert len(item["versions"][0]["resources"]) == 1
    assert orjson.loads(known.openapi_index().body)["paths"].keys() == {
        "api/v1",
        "apis/bessemer.dev/v1alpha1",
        "apis/bessemer.dev/v1beta1",
        *NATIVE,
    }


def test_every_resource_can_be_cached_by_those_who_follow_all() -> None:
    """GitOps controllers follow what has list and watch, and both forms say the same."""
    known = Discovery(Resources(KINDS), "test")
    listed = orjson.loads(known.resources("bessemer.dev", "v1alpha1").body)["resources"]
    aggregated = ours(known)["versions"][1]["resources"]
    assert [r["resource"] for r in aggregated] == [r["name"] for r in listed if "/" not in r["name"]]
    reviews = [resource for resource in aggregated if resource["verbs"] == ["create"]]
    assert [resource["resource"] for resource in reviews] == ["placementreviews"]
    for resource in aggregated:
        if resource in reviews:
            continue  # asked, and never kept
        assert {"get", "list", "watch"} <= set(resource["verbs"])
        status = next(r for r in listed if r["name"] == f"{resource['resource']}/status")
        assert status["verbs"] == resource["subresources"][0]["verbs"] == ["get", "patch", "update"]
        plain = next(r for r in listed if r["name"] == resource["resource"])
        assert plain["verbs"] == resource["verbs"]
        assert plain["namespaced"] == (resource["scope"] == "Namespaced")
        assert (plain["kind"], plain["singularName"]) == (
            resource["responseKind"]["kind"],
            resource["singularResource"],
        )
        assert len(plain["storageVersionHash"]) == 12

"""Server-side apply over HTTP, and the entries that every write keeps: in the words of a Kubernetes server."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bessemer.api import managed
from bessemer.api.schema import of_resource
from bessemer.core.clock import FakeClock
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import API_VERSION, Key, Kind
from bessemer.kinds import KINDS
from tests.api.test_hostile import JSON_VALUES
from tests.api.world import BASE, Reply, World, instance, world

LAB = f"{BASE}/namespaces/acme--lab/instances"
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"


def config(name: str = "a", *, kind: str = "Instance", metadata: Any = None, **spec: Any) -> dict[str, Any]:
    given = {"name": name, **(metadata or {})}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": given, **({"spec": spec} if spec else {})}


def vm(**spec: Any) -> dict[str, Any]:
    return config(**{"flavor": "small", "image": "micro", **spec})


async def apply(w: World, body: Any, query: str = "fieldManager=m2", *, path: str = f"{LAB}/a", **said: Any) -> Reply:
    return await w.call("PATCH", f"{path}?{query}", body, media=APPLY, **said)


def entries(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Who holds what, without times."""
    return [
        {k: v for k, v in entry.items() if k in ("manager", "operation", "fieldsV1", "subresource")}
        for entry in body["metadata"].get("managedFields", ())
    ]


def owned(body: dict[str, Any], manager: str) -> Any:
    found = [entry["fieldsV1"] for entry in body["metadata"].get("managedFields", ()) if entry["manager"] == manager]
    return found[0] if found else None


ALL_OF_SPEC: dict[str, Any] = {
    "f:spec": {
        ".": {},
        "f:flavor": {},
        "f:image": {},
        "f:restartPolicy": {},
        "f:running": {},
        "f:tolerations": {},
    }
}


async def test_a_create_owns_what_it_makes() -> None:
    async with world(FakeClock()) as w:  # which stands: when it was made and when it was owned are one second
        await check_owned(w)


async def check_owned(w: World) -> None:
    labelled = {**instance("a"), "metadata": {"name": "a", "labels": {"tier": "web"}}}
    made = await w.create(LAB, labelled, headers={"user-agent": "kubectl/v1.37.1 (linux/amd64)"})
    (entry,) = made["metadata"]["managedFields"]
    assert entry == {
        "apiVersion": API_VERSION,
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:tier": {}}}, **ALL_OF_SPEC},
        "manager": "kubectl",
        "operation": "Update",
        "time": made["metadata"]["creationTimestamp"],
    }
    told = await w.create(f"{LAB}?fieldManager=me", instance("b"), headers={"user-agent": "kubectl/v1.37.1"})
    assert [entry["manager"] for entry in entries(told)] == ["me"]
    assert [entry["manager"] for entry in entries(await w.create(LAB, instance("c")))] == ["unknown"]


async def test_a_generated_name_is_owned(w: World) -> None:
    made = await w.create(LAB, {"metadata": {"generateName": "gn-"}, "spec": {"flavor": "s", "image": "i"}})
    assert owned(made, "unknown") == {"f:metadata": {"f:generateName": {}}, **ALL_OF_SPEC}


async def test_an_update_takes_what_it_changes(w: World) -> None:
    await w.create(f"{LAB}?fieldManager=one", instance("a"))
    reply = await w.call("PATCH", f"{LAB}/a?fieldManager=two", {"spec": {"running": False}}, media=MERGE)
    assert owned(reply.json, "two") == {"f:spec": {"f:running": {}}}
    assert "f:running" not in owned(reply.json, "one")["f:spec"]
    same = await w.call("PATCH", f"{LAB}/a?fieldManager=three", {"spec": {"running": False}}, media=MERGE)
    assert same.json == reply.json
    body = {**reply.json, "spec": {**reply.json["spec"], "running": True}}
    put = await w.call("PUT", f"{LAB}/a?fieldManager=one", body)
    assert [entry["manager"] for entry in entries(put.json)] == ["one"]


@pytest.mark.parametrize("cleared", [[], [{}]])
async def test_entries_are_cleared_and_come_back_with_the_first_apply(w: World, cleared: list[Any]) -> None:
    made = await w.create(LAB, instance("a"))
    reply = await w.call("PUT", f"{LAB}/a", {**made, "metadata": {**made["metadata"], "managedFields": cleared}})
    assert "managedFields" not in reply.json["metadata"]
    changed = await w.call("PATCH", f"{LAB}/a", {"spec": {"running": False}}, media=MERGE)
    assert "managedFields" not in changed.json["metadata"]
    refused = await apply(w, vm(running=True))
    assert refused.json["details"]["causes"][0]["message"] == f'conflict with "before-first-apply" using {API_VERSION}'
    taken = await apply(w, vm(running=True), "fieldManager=m2&force=true")
    assert [entry["manager"] for entry in entries(taken.json)] == ["m2", "before-first-apply"]


async def test_a_client_that_knows_no_entries_takes_none_away(w: World) -> None:
    made = await w.create(LAB, instance("a"))
    kept = {k: v for k, v in made["metadata"].items() if k != "managedFields"}
    wrong = [{"manager": "m", "operation": "Steal"}]
    for metadata in (kept, {**kept, "managedFields": wrong}, {**kept, "managedFields": None}):
        reply = await w.call("PUT", f"{LAB}/a", {**made, "metadata": metadata})
        assert reply.json == made
    told = [{**made["metadata"]["managedFields"][0], "manager": "other"}]
    reply = await w.call("PUT", f"{LAB}/a", {**made, "metadata": {**kept, "managedFields": told}})
    assert reply.json["metadata"]["managedFields"] == told


async def test_apply_makes_what_is_not_there(w: World) -> None:
    reply = await apply(w, vm())
    assert reply.code == 201
    assert entries(reply.json) == [
        {"manager": "m2", "operation": "Apply", "fieldsV1": {"f:spec": {"f:flavor": {}, "f:image": {}}}}
    ]
    assert reply.json["spec"]["running"] is True
    again = await apply(w, vm())
    assert (again.code, again.json) == (200, reply.json)


async def test_apply_takes_yaml(w: World) -> None:
    text = b"apiVersion: bessemer.dev/v1alpha1\nkind: Instance\nspec: {flavor: small, image: micro}\n"
    assert (await apply(w, text)).json["metadata"]["name"] == "a"
    assert (await apply(w, b"a: [")).code == 400
    assert (await apply(w, b"- 1")).code == 400


async def test_another_value_of_somebody_elses_field_is_a_conflict(w: World) -> None:
    await w.create(LAB, instance("a"))
    reply = await apply(w, config(running=False))
    assert reply.code == 409
    assert reply.json == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f'Apply failed with 1 conflict: conflict with "unknown" using {API_VERSION}: .spec.running',
        "reason": "Conflict",
        "details": {
            "causes": [
                {
                    "reason": "FieldManagerConflict",
                    "message": f'conflict with "unknown" using {API_VERSION}',
                    "field": ".spec.running",
                }
            ]
        },
        "code": 409,
    }
    forced = await apply(w, config(running=False), "fieldManager=m2&force=True")
    assert (forced.code, forced.json["spec"]["running"]) == (200, False)
    assert owned(forced.json, "m2") == {"f:spec": {"f:running": {}}}
    assert "f:running" not in owned(forced.json, "unknown")["f:spec"]
    shared = await apply(w, config(running=False), "fieldManager=m3")
    assert owned(shared.json, "m3") == owned(shared.json, "m2")


async def test_what_is_applied_no_more_goes(w: World) -> None:
    first = await apply(w, {**vm(running=False), "metadata": {"name": "a", "labels": {"l": "1", "m": "1"}}})
    assert first.json["spec"]["running"] is False
    await apply(w, config(metadata={"labels": {"l": "1", "k": "2"}}), "fieldManager=m3")
    reply = await apply(w, vm())
    assert reply.json["spec"] == {**first.json["spec"], "running": True}
    assert reply.json["metadata"]["labels"] == {"l": "1", "k": "2"}


async def test_items_of_a_keyed_list_have_their_own_owners(w: World) -> None:
    people = f"{BASE}/tenants/acme"
    before = (await w.call("GET", people)).json["spec"]["members"]
    body = config("acme", kind="Tenant", members=[{"user": "new", "role": "reader"}])
    reply = await apply(w, body, path=people)
    assert reply.json["spec"]["members"] == [*before, {"user": "new", "role": "reader"}]
    item = 'k:{"user":"new"}'
    assert owned(reply.json, "m2")["f:spec"]["f:members"] == {item: {".": {}, "f:role": {}, "f:user": {}}}
    refused = await apply(w, config("acme", kind="Tenant", members=[{"user": "rob", "role": "member"}]), path=people)
    assert refused.json["details"]["causes"][0]["field"] == '.spec.members[user="rob"].role'
    reply = await apply(w, config("acme", kind="Tenant"), path=people)
    assert reply.json["spec"]["members"] == before
    twice = config("acme", kind="Tenant", members=[{"user": "rob"}, {"user": "rob"}])
    assert (await apply(w, twice, path=people)).code == 400


async def test_apply_keeps_the_kinds_own_finalizer(w: World) -> None:
    reply = await apply(w, config("acme--lab", kind="Project"), path=f"{BASE}/projects/acme--lab")
    had = reply.json["metadata"]["finalizers"]
    body = config("acme--lab", kind="Project", metadata={"finalizers": ["x.dev/f"]})
    reply = await apply(w, body, path=f"{BASE}/projects/acme--lab")
    assert sorted(reply.json["metadata"]["finalizers"]) == sorted([*had, "x.dev/f"])
    reply = await apply(w, config("acme--lab", kind="Project"), path=f"{BASE}/projects/acme--lab")
    assert reply.json["metadata"]["finalizers"] == had


WRONG = [
    ("", config(), 422, 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply'),
    ("fieldManager=m&force=maybe", config(), 400, "strconv.ParseBool"),
    ("fieldManager=" + "m" * 129, config(), 422, "fieldManager: Too long: may not be more than 128 bytes"),
    ("fieldManager=a%00b", config(), 422, "should only contain printable characters"),
    ("fieldManager=m2", config(metadata={"managedFields": []}), 400, "metadata.managedFields must be nil"),
    (
        "fieldManager=m2",
        {"metadata": {"name": "a"}},
        400,
        f"Incorrect version specified in apply patch. Specified patch version: , expected: {API_VERSION}",
    ),
    ("fieldManager=m2", {"apiVersion": API_VERSION}, 400, "Specified patch kind: , expected: Instance"),
    ("fieldManager=m2", config("b"), 400, "does not match the name on the URL (a)"),
    ("fieldManager=m2", vm(typo=1), 400, 'strict decoding error: unknown field "spec.typo"'),
    ("fieldManager=m2", {**config(), "metadata": ["a"]}, 400, "metadata must be an object"),
    ("fieldManager=m2", vm(restartPolicy="Often"), 422, "spec.restartPolicy"),
    ("fieldManager=m2", config(), 422, "spec: Required value"),
    ("fieldManager=m2", {**vm(), "metadata": {"resourceVersion": "5"}}, 409, "the object is not there"),
    ("fieldManager=m2", vm(tolerations=[{"value": "x"}]), 400, 'omits key field "key"'),
]


@pytest.mark.parametrize(("query", "body", "code", "words"), WRONG)
async def test_what_is_wrong_is_told(w: World, query: str, body: Any, code: int, words: str) -> None:
    reply = await apply(w, body, query)
    assert reply.code == code, reply.body
    assert words in reply.json["message"]


async def test_the_manager_is_required_in_kubernetes_words(w: World) -> None:
    assert (await apply(w, config(), "")).json["details"] == {
        "group": "meta.k8s.io",
        "kind": "PatchOptions",
        "causes": [
            {
                "reason": "FieldValueRequired",
                "message": "Required value: is required for apply patch",
                "field": "fieldManager",
            }
        ],
    }
    forced = await w.call("PATCH", f"{LAB}/a?force=true", {"spec": {}}, media=MERGE)
    assert "force: Forbidden: may not be specified for non-apply patch" in forced.json["message"]


async def test_fields_left_out_are_not_owned(w: World) -> None:
    reply = await apply(w, vm(typo=1), "fieldManager=m2&fieldValidation=Warn")
    assert reply.headers["warning"] == '299 - "unknown field \\"spec.typo\\""'
    assert owned(reply.json, "m2") == {"f:spec": {"f:flavor": {}, "f:image": {}}}


async def test_a_dry_run_keeps_nothing(w: World) -> None:
    reply = await apply(w, vm(), "fieldManager=m2&dryRun=All")
    assert reply.code == 201
    assert (await w.call("GET", f"{LAB}/a")).code == 404
    made = (await apply(w, vm())).json
    await apply(w, vm(running=False), "fieldManager=m2&dryRun=All")
    assert (await w.call("GET", f"{LAB}/a")).json == made


async def test_apply_under_a_revision(w: World) -> None:
    made = (await apply(w, vm())).json
    old = {"resourceVersion": str(int(made["metadata"]["resourceVersion"]) - 1)}
    reply = await apply(w, {**vm(running=False), "metadata": old})
    assert (reply.code, reply.json["reason"]) == (409, "Conflict")


async def test_who_may_not_create_applies_nothing_new(w: World) -> None:
    rob = await w.login("rob")
    assert (await apply(w, vm(), token=rob)).code == 403
    eve = await w.login("eve")
    assert (await apply(w, vm(), token=eve)).code == 404
    mia = await w.login("mia")
    assert (await apply(w, vm(), token=mia)).code == 201
    tenant = config("mine", kind="Tenant")
    assert (await apply(w, tenant, path=f"{BASE}/tenants/mine", token=mia)).code == 404


async def test_a_lost_race_is_tried_again(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await apply(w, vm())
    objects = w.store.objects
    replace = objects.replace
    raced: list[bool] = []

    async def late(body: Any, *arguments: Any, **named: Any) -> Any:
        if not raced:
            raced.append(True)
            stored = await objects.get(Key("Instance", "acme--lab", "a"))
            label = orjson.loads(stored.body)
            label["metadata"]["labels"] = {"by": "another"}
            await replace(label, CONTROLLER)
        return await replace(body, *arguments, **named)

    monkeypatch.setattr(objects, "replace", late)
    reply = await apply(w, vm(running=False))
    assert (reply.code, reply.json["spec"]["running"]) == (200, False)
    assert reply.json["metadata"]["labels"] == {"by": "another"}


async def test_a_status_is_applied_under_its_own_entry(w: World) -> None:
    agent = await w.host("h1")
    await w.create(LAB, instance("a"))
    await w.claim("a", "h1", "acme--lab")
    place = f"{BASE}/namespaces/acme--lab/claims/instance-a-0"
    body = {**config("instance-a-0", kind="Claim"), "status": {"phase": "Running"}}
    reply = await apply(w, body, path=f"{place}/status", peer=agent)
    assert reply.code == 200, reply.body
    assert reply.json["status"]["phase"] == "Running"
    mine = {"manager": "m2", "operation": "Apply", "subresource": "status", "fieldsV1": {"f:status": {"f:phase": {}}}}
    assert mine in entries(reply.json)
    again = await apply(w, body, path=f"{place}/status", peer=agent)
    assert again.json == reply.json
    put = await w.call("PUT", f"{place}/status", {**again.json, "status": {"phase": "Stopped"}}, peer=agent)
    assert (put.json["status"]["phase"], entries(put.json)) == ("Stopped", entries(again.json))
    assert (await apply(w, body, path=f"{place}/status")).code == 403
    for stale in ({"resourceVersion": "1"}, {"uid": "of-another"}):
        pinned = {**body, "metadata": {**body["metadata"], **stale}}
        assert (await apply(w, pinned, path=f"{place}/status", peer=agent)).code == 409


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([("a",), ("metadata",), ("spec",), ("status",), ("metadata", "labels"), ("spec", "tolerations")]),
    JSON_VALUES,
    st.sampled_from(["Strict", "Ignore"]),
)
async def test_any_configuration_gets_an_answer_that_is_ours(
    w: World, at: tuple[str, ...], value: Any, how: str
) -> None:
    """Of what is there, and of what is not."""
    body: dict[str, Any] = vm()
    inner = body
    for name in at[:-1]:
        inner = inner[name]
    inner[at[-1]] = value
    await w.call("POST", LAB, instance("a"))
    for name, status in (("a", 200), ("none", 201)):
        if isinstance(body["metadata"], dict):
            body["metadata"]["name"] = name
        query = f"fieldManager=m&force=true&dryRun=All&fieldValidation={how}"
        reply = await apply(w, body, query, path=f"{LAB}/{name}")
        assert reply.code in (status, 400, 409, 422), (reply.code, reply.body)


SENT = [{"manager": "m", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:running": {}}}}]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["manager", "operation", "fieldsV1", "time", "subresource", "apiVersion", ""]), JSON_VALUES)
async def test_any_entries_get_an_answer_that_is_ours(w: World, field: str, value: Any) -> None:
    """And whatever they are, what is stored can be read and applied to."""
    sent = [{**SENT[0], field: value}] if field else value
    await w.call("POST", LAB, instance("a"))
    patch = {"spec": {"running": True}, "metadata": {"managedFields": sent}}
    reply = await w.call("PATCH", f"{LAB}/a", patch, media=MERGE)
    assert reply.code in (200, 400, 422), (reply.code, reply.body)
    assert (await apply(w, vm(running=False), "fieldManager=m&force=true&dryRun=All")).code == 200


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_what_tells_items_apart_is_required_of_them(kind: Kind[Any, Any]) -> None:
    """Else an item without it could be stored, and nobody could own it."""
    left = [of_resource(kind.resource, kind.group, version=kind.version, kind=kind.name)]
    while left:
        schema = left.pop()
        left += [inner for inner in (schema.get("properties") or {}).values() if isinstance(inner, dict)]
        left += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
        if schema.get("x-kubernetes-list-type") == "map":
            assert set(schema["x-kubernetes-list-map-keys"]) <= set(schema["items"]["required"])


MANY = {f"annotation-{number:05}": "" for number in range(6_000)}


async def test_entries_that_would_not_fit_are_refused_to_who_applies(w: World) -> None:
    await w.create(LAB, instance("a"))
    reply = await apply(w, {**vm(), "metadata": {"name": "a", "annotations": MANY}}, "fieldManager=m2&force=true")
    assert (reply.code, reply.json["reason"]) == (413, "RequestEntityTooLarge")
    assert "managedFields" in reply.json["message"]
    for number in range(managed.ENTRIES_MAX + 5):
        reply = await apply(w, {**config(), "metadata": {"name": "a", "labels": {"x": "y"}}}, f"fieldManager=a{number}")
    assert reply.code == 413
    body = (await w.call("GET", f"{LAB}/a")).json
    assert len(body["metadata"]["managedFields"]) == managed.ENTRIES_MAX
    assert (await w.call("DELETE", f"{LAB}/a")).code == 200


async def test_who_updates_is_not_refused_for_entries_that_would_not_fit(w: World) -> None:
    made = await w.create(LAB, {**instance("a"), "metadata": {"name": "a", "annotations": MANY}})
    assert "managedFields" not in made["metadata"]
    reply = await w.call("PATCH", f"{LAB}/a", {"metadata": {"labels": {"x": "y"}}}, media=MERGE)
    assert reply.code == 200


async def test_the_schema_says_how_lists_are_merged(w: World) -> None:
    document = (await w.call("GET", f"/openapi/v3/apis/{API_VERSION}")).json
    tenant = document["components"]["schemas"]["dev.bessemer.v1alpha1.Tenant"]["properties"]
    for field, keys in (("members", ["user"]), ("tolerations", ["key"])):
        found = tenant["spec"]["properties"][field]
        assert (found["x-kubernetes-list-type"], found["x-kubernetes-list-map-keys"]) == ("map", keys)
    assert tenant["status"]["properties"]["conditions"]["x-kubernetes-list-map-keys"] == ["type"]
    assert tenant["metadata"]["properties"]["finalizers"]["x-kubernetes-list-type"] == "set"

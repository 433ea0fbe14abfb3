"""Secrets: who may read them, where their data is and is not, and that no answer pairs a revision with other data."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from bessemer.api.access import Target
from bessemer.api.keeping import APPLIED, shown
from bessemer.api.resources import load
from bessemer.api.state import Call
from bessemer.core.errors import Unavailable
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import Change, Key
from bessemer.kinds.kubernetes.files import BYTES_MAX, MOST
from bessemer.store.schema import METADATA, sealed
from tests.api.world import BASE, World, instance, world

SECRETS = "/api/v1/namespaces/acme--lab/secrets"
KEY = Key("Secret", "acme--lab", "s")
MERGE = "application/merge-patch+json"
TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
PARTIAL = {"accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
WORD = "correct-horse-battery-staple"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def secret(name: str = "s", **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, **fields.pop("metadata", {})}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, **fields}


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def everything(w: World) -> bytes:
    """All that the store ever wrote that is no ciphertext of a sealed value."""
    reader = w.store._reader
    tables = [table for name, table in METADATA.tables.items() if name != "sealed"]
    rows = [row for table in tables for row in await reader.ask(select(table))]
    return b"".join(cell if isinstance(cell, bytes) else str(cell).encode() for row in rows for cell in row)


async def test_text_becomes_data_and_comes_back(w: World) -> None:
    made = await w.create(SECRETS, secret(stringData={"a": "text"}, data={"a": b64("old"), "b": b64("kept")}))
    assert (made["type"], made["data"], "stringData" in made) == ("Opaque", {"a": b64("text"), "b": b64("kept")}, False)
    assert (await w.call("GET", f"{SECRETS}/s")).json == made
    assert (await w.call("GET", SECRETS)).json["items"] == [made]
    assert "sealed" not in made
    [entry] = made["metadata"]["managedFields"]
    assert set(entry["fieldsV1"]["f:data"]) == {".", "f:a", "f:b"}


async def test_what_is_secret_is_in_no_row_but_the_sealed_one(w: World) -> None:
    applied = {APPLIED: f'{{"data":{{"a":"{b64(WORD)}"}}}}', "other": "kept"}
    await w.create(SECRETS, secret(stringData={"a": WORD}, metadata={"annotations": applied}))
    await w.call("PATCH", f"{SECRETS}/s", {"stringData": {"b": WORD}}, media=MERGE)
    read = (await w.call("GET", f"{SECRETS}/s")).json
    assert read["data"] == {"a": b64(WORD), "b": b64(WORD)}
    assert read["metadata"]["annotations"] == applied
    written = await everything(w)
    assert b'"sealed"' in written, "the bodies are among what is looked through"
    for word in (WORD.encode(), b64(WORD).encode(), b64(WORD).encode()[:20]):
        assert word not in written
    await w.call("DELETE", f"{SECRETS}/s")
    left = await w.store._reader.ask(select(sealed.c.field))
    assert [field for (field,) in left if field.startswith("data/")] == []


async def test_one_version_is_kept_and_the_one_before_is_destroyed(w: World) -> None:
    await w.create(SECRETS, secret(stringData={"a": "one"}))
    before = orjson.loads((await w.store.objects.get(KEY)).body)["sealed"]
    await w.call("PATCH", f"{SECRETS}/s", {"stringData": {"a": "two"}}, media=MERGE)
    now = await w.store.objects.get(KEY)
    after = orjson.loads(now.body)["sealed"]
    assert (before["keys"], after["keys"], before["version"] != after["version"]) == (1, 1, True)
    assert await w.store.sealed.get(now.uid, f"data/{before['version']}") is None
    assert await w.store.sealed.get(now.uid, f"data/{after['version']}") is not None


async def test_a_write_that_changes_nothing_keeps_the_revision(w: World) -> None:
    made = await w.create(SECRETS, secret(stringData={"a": "one"}))
    revision = made["metadata"]["resourceVersion"]
    for method, body, media in (
        ("PUT", made, "application/json"),
        ("PATCH", {"data": {"a": b64("one")}}, MERGE),
        ("PATCH", {"stringData": {"a": "one"}}, "application/strategic-merge-patch+json"),
    ):
        reply = await w.call(method, f"{SECRETS}/s", body, media=media)
        assert (reply.code, reply.json["metadata"]["resourceVersion"]) == (200, revision)
    path, config = f"{SECRETS}/s?fieldManager=x&force=true", secret(stringData={"a": "one"})
    first = await w.call("PATCH", path, config, media="application/apply-patch+yaml")
    again = await w.call("PATCH", path, config, media="application/apply-patch+yaml")
    assert first.json["metadata"]["resourceVersion"] == again.json["metadata"]["resourceVersion"]
    assert "f:a" in first.json["metadata"]["managedFields"][0]["fieldsV1"]["f:data"]


async def test_labels_change_and_the_data_stays(w: World) -> None:
    await w.create(SECRETS, secret(stringData={"a": "one"}))
    mark = orjson.loads((await w.store.objects.get(KEY)).body)["sealed"]
    reply = await w.call("PATCH", f"{SECRETS}/s", {"metadata": {"labels": {"x": "y"}}}, media=MERGE)
    assert (reply.json["data"], reply.json["metadata"]["labels"]) == ({"a": b64("one")}, {"x": "y"})
    assert orjson.loads((await w.store.objects.get(KEY)).body)["sealed"] == mark


async def test_a_stale_write_is_a_conflict_and_seals_nothing(w: World) -> None:
    made = await w.create(SECRETS, secret(stringData={"a": "one"}))
    await w.call("PATCH", f"{SECRETS}/s", {"stringData": {"a": "two"}}, media=MERGE)
    made["data"] = {"a": b64("stale")}
    assert (await w.call("PUT", f"{SECRETS}/s", made)).code == 409
    assert (await w.call("GET", f"{SECRETS}/s")).json["data"] == {"a": b64("two")}


async def test_patches_that_race_are_all_there(w: World) -> None:
    await w.create(SECRETS, secret())
    changes = [w.call("PATCH", f"{SECRETS}/s", {"stringData": {f"k{i}": "v"}}, media=MERGE) for i in range(6)]
    assert {reply.code for reply in await asyncio.gather(*changes)} == {200}
    assert len((await w.call("GET", f"{SECRETS}/s")).json["data"]) == 6


async def test_a_dry_run_answers_the_data_and_keeps_nothing(w: World) -> None:
    reply = await w.call("POST", f"{SECRETS}?dryRun=All", secret(stringData={"a": "one"}))
    assert (reply.code, reply.json["data"]) == (201, {"a": b64("one")})
    assert (await w.call("GET", f"{SECRETS}/s")).code == 404
    await w.create(SECRETS, secret(stringData={"a": "one"}))
    reply = await w.call("PATCH", f"{SECRETS}/s?dryRun=All", {"stringData": {"a": "two"}}, media=MERGE)
    assert reply.json["data"] == {"a": b64("two")}
    assert (await w.call("GET", f"{SECRETS}/s")).json["data"] == {"a": b64("one")}


# --- who may ----------------------------------------------------------------------------------------------------------


async def test_members_may_and_readers_may_not(w: World) -> None:
    await w.create(SECRETS, secret(stringData={"a": WORD}), token=await w.login("mia"))
    for user, list_code, get_code in (("ann", 200, 200), ("mia", 200, 200), ("rob", 403, 404), ("eve", 404, 404)):
        token = await w.login(user)
        assert (await w.call("GET", SECRETS, token=token)).code == list_code, user
        for headers in ({}, TABLE, PARTIAL):
            reply = await w.call("GET", f"{SECRETS}/s", token=token, headers=headers)
            assert (reply.code, get_code == 200 or WORD.encode() not in reply.body) == (get_code, True), user
        if get_code == 404:
            for method in ("PUT", "PATCH", "DELETE"):
                assert (await w.call(method, f"{SECRETS}/s", secret(), token=token, media=MERGE)).code == 404, user
    assert (await w.call("GET", "/api/v1/secrets", token=await w.login("eve"))).json["items"] == []
    agent = await w.host("rack-a")
    assert (await w.call("GET", f"{SECRETS}/s", peer=agent)).code in (403, 404)


async def test_tables_and_metadata_open_nothing(w: World) -> None:
    await w.create(SECRETS, secret(stringData={"a": WORD, "b": "x"}, metadata={"annotations": {APPLIED: WORD}}))
    for headers in (TABLE, PARTIAL):
        reply = await w.call("GET", SECRETS, headers=headers)
        assert b64(WORD).encode() not in reply.body
        assert b"version" not in reply.body.replace(b"apiVersion", b"").replace(b"resourceVersion", b"")
    [row] = (await w.call("GET", SECRETS, headers=TABLE)).json["rows"]
    assert row["cells"][:3] == ["s", "Opaque", 2]
    [row] = (await w.call("GET", f"{SECRETS}?includeObject=Object", headers=TABLE)).json["rows"]
    assert (row["cells"][:3], row["object"]["data"]["b"]) == (["s", "Opaque", 2], b64("x"))


async def test_they_are_found_by_labels_and_by_type(w: World) -> None:
    for number, status in enumerate(("superseded", "deployed")):
        labels = {"owner": "helm", "status": status, "name": "web"}
        name = f"sh.helm.release.v1.web.v{number}"
        await w.create(
            SECRETS, secret(name, type="helm.sh/release.v1", data={"release": b64("x")}, metadata={"labels": labels})
        )
    await w.create(SECRETS, secret("plain"))

    async def names(query: str) -> list[str]:
        return [item["metadata"]["name"] for item in (await w.call("GET", f"{SECRETS}?{query}")).json["items"]]

    assert await names("labelSelector=name%3Dweb,owner%3Dhelm,status%3Ddeployed") == ["sh.helm.release.v1.web.v1"]
    assert await names("labelSelector=owner%3Dhelm,status%20in%20(superseded)") == ["sh.helm.release.v1.web.v0"]
    assert await names("fieldSelector=type%3DOpaque") == ["plain"]
    assert len(await names("fieldSelector=type%3Dhelm.sh/release.v1")) == 2
    assert (await w.call("GET", f"{SECRETS}?fieldSelector=data%3Dx")).code == 400


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (secret(data={"a": "no base64!"}), "data[a]"),
        (secret(data={"a/b": ""}), "data[a/b]"),
        (secret(data={"..": ""}), "data[..]"),
        (secret(data={"a": 1}), "data.a"),
        (secret(stringData={"a": 1}), "stringData.a"),
        (secret(stringData=[]), "stringData"),
        (secret(type="kubernetes.io/tls", stringData={"tls.crt": "x"}), "data[tls.key]"),
        (secret(type="kubernetes.io/basic-auth"), "data[username]"),
        (
            secret(type="kubernetes.io/dockerconfigjson", stringData={".dockerconfigjson": "x"}),
            "data[.dockerconfigjson]",
        ),
        (secret(data={"a": base64.b64encode(bytes(BYTES_MAX + 1)).decode()}), "data"),
    ],
)
async def test_what_is_wrong_is_named(w: World, body: dict[str, Any], field: str) -> None:
    reply = await w.call("POST", SECRETS, body)
    assert reply.code == 422, reply.body
    assert reply.json["details"]["causes"][0]["field"] == field
    assert (await w.call("GET", f"{SECRETS}/s")).code == 404


async def test_a_whole_mebibyte_is_kept(w: World) -> None:
    data = {"a": base64.b64encode(bytes(BYTES_MAX)).decode()}
    await w.create(SECRETS, secret(data=data))
    assert (await w.call("GET", f"{SECRETS}/s")).json["data"] == data


async def test_what_is_immutable_stays_as_it_is(w: World) -> None:
    await w.create(SECRETS, secret(stringData={"a": "one"}, immutable=True))
    for change, field in (
        ({"stringData": {"a": "two"}}, "data"),
        ({"immutable": False}, "immutable"),
        ({"immutable": None}, "immutable"),
        ({"type": "other"}, "type"),
    ):
        reply = await w.call("PATCH", f"{SECRETS}/s", change, media=MERGE)
        assert (reply.code, reply.json["details"]["causes"][0]["field"]) == (422, field)
    reply = await w.call("PATCH", f"{SECRETS}/s", {"metadata": {"labels": {"x": "y"}}}, media=MERGE)
    assert (reply.code, reply.json["data"]) == (200, {"a": b64("one")})


async def test_a_project_holds_so_many_and_no_more(w: World) -> None:
    for number in range(MOST):
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"s{number}", "namespace": "acme--lab"}}
        await w.store.objects.create(body, CONTROLLER)
    reply = await w.call("POST", SECRETS, secret("one-more"))
    assert (reply.code, "1000" in reply.json["message"], "acme--lab" in reply.json["message"]) == (403, True, True)
    await w.call("DELETE", f"{SECRETS}/s0")
    await w.create(SECRETS, secret("one-more"))


# --- changes ----------------------------------------------------------------------------------------------------------


async def test_a_watch_shows_each_revision_with_its_own_data(w: World) -> None:
    async with w.watch(f"{SECRETS}?watch=1") as events:
        await w.create(SECRETS, secret(stringData={"a": "one"}))
        one = await events.next()
        assert (one["type"], one["object"]["data"]) == ("ADDED", {"a": b64("one")})
        await w.call("PATCH", f"{SECRETS}/s", {"stringData": {"a": "two"}}, media=MERGE)
        two = await events.next()
        assert (two["type"], two["object"]["data"]) == ("MODIFIED", {"a": b64("two")})
        await w.call("DELETE", f"{SECRETS}/s")
        gone = await events.next()
        assert (gone["type"], "data" in gone["object"], "sealed" in gone["object"]) == ("DELETED", False, False)


async def test_what_is_past_is_passed_over_and_what_is_there_is_told(w: World) -> None:
    """A watch that resumes behind three versions: the revisions whose data is gone are left out."""
    since = (await w.call("GET", SECRETS)).json["metadata"]["resourceVersion"]
    await w.create(SECRETS, secret("gone", stringData={"a": "x"}))
    await w.create(SECRETS, secret(stringData={"a": "1"}))
    for value in ("2", "3"):
        await w.call("PATCH", f"{SECRETS}/s", {"stringData": {"a": value}}, media=MERGE)
    await w.call("DELETE", f"{SECRETS}/gone")
    last = (await w.call("GET", f"{SECRETS}/s")).json
    async with w.watch(f"{SECRETS}?watch=1&resourceVersion={since}") as events:
        event = await events.next()
        assert (event["type"], event["object"]) == ("MODIFIED", last)
        event = await events.next()
        assert (event["type"], event["object"]["metadata"]["name"]) == ("DELETED", "gone")
    async with w.watch(f"{SECRETS}?watch=1&resourceVersion={since}", headers=TABLE) as events:
        rows = [(await events.next())["object"]["rows"][0]["cells"][:3] for _ in range(5)]
        assert rows[0] == ["gone", "Opaque", 1], "tables show every revision: they open nothing"


async def test_what_leaves_a_selector_is_told_though_its_data_is_gone(w: World) -> None:
    since = (await w.call("GET", SECRETS)).json["metadata"]["resourceVersion"]
    await w.create(SECRETS, secret(stringData={"a": "1"}, metadata={"labels": {"in": "yes"}}))
    left = {"metadata": {"labels": {"in": "no"}}, "stringData": {"a": "2"}}
    await w.call("PATCH", f"{SECRETS}/s", left, media=MERGE)
    await w.call("PATCH", f"{SECRETS}/s", {"stringData": {"a": "3"}}, media=MERGE)
    for selector in ("in%3Dyes", "in%20in%20(yes,maybe)"):
        async with w.watch(f"{SECRETS}?watch=1&resourceVersion={since}&labelSelector={selector}") as events:
            event = await events.next()
            assert (event["type"], "data" in event["object"], "sealed" in event["object"]) == ("DELETED", False, False)


async def call_of(w: World) -> Call:
    """A request of the administrator about the project's Secrets, as far as `keeping` looks at it."""
    resource = w.api.state.resources.find("", "v1", plural="secrets")
    assert resource is not None
    made = Call(state=w.api.state, connection=None, request_id="", credentials=None)  # type: ignore[arg-type]
    return replace(made, target=Target(resource, "acme--lab"))


async def test_a_list_shows_what_has_changed_since_its_snapshot_as_it_is_now(w: World) -> None:
    for name in ("changed", "gone", "same"):
        await w.create(SECRETS, secret(name, stringData={"a": "1"}))
    page = await w.store.objects.list(Scope(kind="Secret", namespace="acme--lab"))
    await w.call("PATCH", f"{SECRETS}/changed", {"stringData": {"a": "2"}}, media=MERGE)
    await w.call("DELETE", f"{SECRETS}/gone")
    found = [orjson.loads(item.body) for item in await shown(await call_of(w), page.items)]
    assert [(b["metadata"]["name"], b["data"]["a"]) for b in found] == [("changed", b64("2")), ("same", b64("1"))]
    old = Change(1, "MODIFIED", page.items[0].key, page.items[0].uid, "", page.items[0].body)
    [kept] = await shown(await call_of(w), [old])
    assert "sealed" in orjson.loads(kept.body), "a change whose data is gone says so to its watch"


async def test_what_cannot_be_opened_can_be_deleted(w: World) -> None:
    await w.create(SECRETS, secret(stringData={"a": "1"}))
    await w.store._committer.submit(lambda tx: tx.run(sealed.update().values(ciphertext=b"\0" * 40)))
    assert (await w.call("GET", f"{SECRETS}/s")).code == 503
    with pytest.raises(Unavailable):
        await load(await call_of(w), replace((await call_of(w)).about, name="s"))
    assert (await w.call("DELETE", f"{SECRETS}/s")).code == 200


async def test_what_owned_it_takes_it_along_with_what_is_sealed(w: World) -> None:
    owner = await w.create(f"{BASE}/namespaces/acme--lab/instances", instance("vm"))
    reference = {"apiVersion": owner["apiVersion"], "kind": "Instance", "name": "vm", "uid": owner["metadata"]["uid"]}
    await w.create(SECRETS, secret(stringData={"a": "1"}, metadata={"ownerReferences": [reference]}))
    uid = (await w.store.objects.get(KEY)).uid
    mark = orjson.loads((await w.store.objects.get(KEY)).body)["sealed"]["version"]
    body = orjson.loads((await w.store.objects.get(Key("Instance", "acme--lab", "vm"))).body)
    body["metadata"]["finalizers"] = []
    await w.store.objects.replace(body, CONTROLLER)
    await w.call("DELETE", f"{BASE}/namespaces/acme--lab/instances/vm")
    assert (await w.call("GET", f"{SECRETS}/s")).code == 404
    assert await w.store.sealed.get(uid, f"data/{mark}") is None

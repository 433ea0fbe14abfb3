"""The trail over HTTP: who may read which rows, what is told in it, and that an export is whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.ports import Writer
from bessemer.core.resource import Key
from bessemer.core.trail import FileVerifier
from tests.api.world import BASE, PASSWORD, Reply, World, instance, world
from tests.oracle import trail as oracle

LAB = f"{BASE}/namespaces/acme--lab"


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world(FakeClock()) as made:
        yield made


async def rows(w: World, query: str = "", **options: Any) -> list[dict[str, Any]]:
    reply = await w.call("GET", f"/audit?{query}", **options)
    assert reply.code == 200, reply.body
    found: list[dict[str, Any]] = reply.json["rows"]
    return found


async def test_a_row_says_who_did_what_from_where_and_what_changed(w: World) -> None:
    token = await w.login("mia")
    made = await w.create(f"{LAB}/instances", instance("vm"), token=token)
    patch = {"spec": {"running": False}}
    reply = await w.call("PATCH", f"{LAB}/instances/vm", patch, token=token, media="application/merge-patch+json")
    assert reply.code == 200, reply.body
    last = (await rows(w, "kind=Instance&name=vm&namespace=acme--lab&verb=update"))[0]
    assert (last["writer"], last["source"], last["key"]) == ("user:mia", "192.0.2.1", "Instance acme--lab/vm")
    assert (last["uid"], last["tenant"], last["allowed"]) == (made["metadata"]["uid"], "acme", True)
    assert last["requestId"] == reply.headers["x-request-id"]
    assert last["change"]["after"] == {"spec": {"running": False}}
    assert list(last["change"]["before"]) == ["spec"]


async def test_sign_ins_good_and_refused_are_told(w: World) -> None:
    await w.login("mia")
    wrong = {"user": "mia", "password": "not " + PASSWORD}
    assert (await w.call("POST", "/login", wrong, peer=None)).code == 401
    found = await rows(w, "verb=login&limit=2")
    assert [(row["key"], row["allowed"]) for row in found] == [("User mia", False), ("User mia", True)]
    assert PASSWORD not in str(await rows(w, "limit=1000"))


async def test_secrets_that_are_read_and_bytes_that_are_opened_are_told(w: World) -> None:
    agent, token = await w.host("h1"), await w.login("mia")
    await w.create(f"{LAB}/instances", instance("vm"))
    claim = await w.claim("vm", "h1", "acme--lab")
    assert (await w.call("GET", f"{LAB}/claims/{claim.key.name}/secrets", peer=agent)).code == 200
    await w.call("GET", f"{LAB}/instances/vm/log", token=token)
    await w.dial(f"{LAB}/instances/vm/console")
    found = [(row["verb"], row["writer"], row["key"]) for row in await rows(w, "limit=3")]
    assert found == [
        ("console", "user:admin", "Instance acme--lab/vm"),
        ("log", "user:mia", "Instance acme--lab/vm"),
        ("secrets", "agent:h1", f"Claim acme--lab/{claim.key.name}"),
    ]


# --- whose rows ---------------------------------------------------------------------------------------------------


async def test_a_tenants_administrator_sees_what_is_the_tenants_alone(w: World) -> None:
    ann, eve = await w.login("ann"), await w.login("eve")
    await w.create(f"{LAB}/instances", instance("ours"), token=ann)
    await w.create(f"{BASE}/namespaces/other--lab/instances", instance("theirs"), token=eve)
    await w.call("GET", f"{LAB}/instances/ours", token=eve)
    await w.call("DELETE", f"{LAB}/instances/ours", token=await w.login("rob"))
    found = await rows(w, "limit=1000", token=ann)
    assert {row["tenant"] for row in found} == {"acme"}
    assert "eve" not in str(found), "who of another tenant tried is not theirs to know"
    assert "other" not in str(found).replace("another", "")
    assert [(row["writer"], row["verb"]) for row in found if not row["allowed"]] == [("user:rob", "delete")]
    assert {row["key"] for row in found} >= {"Tenant acme", "Project acme--lab", "Instance acme--lab/ours"}
    assert found == await rows(w, "limit=1000&tenant=acme", token=ann)
    whole = await rows(w, "tenant=acme&limit=1000")
    assert ("user:eve", False) in {(row["writer"], row["allowed"]) for row in whole}


async def test_whom_one_binds_is_no_member_and_a_members_program_is_theirs(w: World) -> None:
    ann, eve, mia = await w.login("ann"), await w.login("eve"), await w.login("mia")
    bound = {"role": "reader", "subjects": [{"kind": "User", "name": "eve"}]}
    await w.create(f"{BASE}/rolebindings", {"metadata": {"name": "acme--eve"}, "spec": bound}, token=ann)
    spec = {"expiresAt": "2099-01-01T00:00:00Z", "verbs": ["get"]}
    await w.create(f"{LAB}/applicationcredentials", {"metadata": {"name": "ci"}, "spec": spec}, token=mia)
    made = await w.call("POST", f"{LAB}/applicationcredentials/ci/token", {}, token=mia)
    await w.create(f"{LAB}/instances", instance("vm"), token=ann)
    for token in (eve, made.json["token"]):
        assert (await w.call("DELETE", f"{LAB}/instances/vm", token=token)).code == 403
    told = [row["writer"] for row in await rows(w, "tenant=acme&limit=1000", token=ann) if not row["allowed"]]
    assert told == ["user:mia/acme--lab/ci"]


@pytest.mark.parametrize("who", ["mia", "rob", "new"])
async def test_others_read_no_row(w: World, who: str) -> None:
    token = await w.login(who)
    for query in ("", "?tenant=acme", "?tenant=nobodys"):
        assert (await w.call("GET", f"/audit{query}", token=token)).code == 403


async def test_anothers_tenant_is_refused_as_one_that_is_not_there(w: World) -> None:
    ann = await w.login("ann")

    async def refusal(tenant: str) -> tuple[int, str]:
        reply = await w.call("GET", f"/audit?tenant={tenant}", token=ann)
        return reply.code, reply.body.decode().replace(tenant, "…")

    assert await refusal("other") == await refusal("nobodys")
    assert (await refusal("other"))[0] == 403


async def test_nobody_but_auditors_exports_and_nobody_but_administrators_trims(w: World) -> None:
    agent = await w.host("h1")
    for asker in ({"token": await w.login("ann")}, {"peer": agent}):
        assert (await w.call("GET", "/audit/export", **asker)).code == 403
        assert (await w.call("POST", "/audit/trim", {"through": 1, "digest": "0" * 64}, **asker)).code == 403
    assert (await w.call("GET", "/audit", peer=agent)).code == 403


async def test_who_rules_several_tenants_says_which(w: World) -> None:
    members = {"spec": {"members": [{"user": "ann", "role": "tenant-admin"}, {"user": "eve", "role": "tenant-admin"}]}}
    path, media = f"{BASE}/tenants/other", "application/merge-patch+json"
    assert (await w.call("PATCH", path, members, media=media)).code == 200
    ann = await w.login("ann")
    for _ in range(100):
        reply = await w.call("GET", "/audit", token=ann)
        if reply.code == 400:
            break
        await asyncio.sleep(0)
    assert reply.code == 400
    assert "acme, other" in reply.json["message"]
    assert {row["tenant"] for row in await rows(w, "tenant=other", token=ann)} == {"other"}


# --- pages --------------------------------------------------------------------------------------------------------


async def test_pages_go_on_where_the_last_one_ended(w: World) -> None:
    everything = await rows(w, "limit=1000")
    found: list[Any] = []
    more = ""
    while True:
        reply = await w.call("GET", f"/audit?limit=7&continue={more}")
        found += reply.json["rows"]
        more = reply.json["continue"]
        if not more:
            break
    assert found == everything
    assert [row["id"] for row in found] == list(range(len(found), 0, -1))


@pytest.mark.parametrize(
    "query", ["since=yesterday", "until=1", "limit=x", "limit=-1", "continue=x", "allowed=perhaps", "since=9999-99-99"]
)
async def test_what_cannot_be_read_is_refused(w: World, query: str) -> None:
    assert (await w.call("GET", f"/audit?{query}")).code == 400


# --- exports ------------------------------------------------------------------------------------------------------


def lines_of(reply: Reply) -> list[bytes]:
    return reply.body.splitlines()


def whole(lines: list[bytes]) -> FileVerifier:
    check = FileVerifier()
    for line in lines:
        assert check.line(line) is None
    assert check.end() is None
    return check


async def test_an_export_is_whole_and_stands_in_the_trail(w: World) -> None:
    reply = await w.call("GET", "/audit/export")
    assert (reply.code, reply.headers["content-type"]) == (200, "application/jsonl")
    check = whole(lines_of(reply))
    assert check.checks.last == check.checks.sound
    assert oracle.check(lines_of(reply), key=check.key) is None
    last = orjson.loads(lines_of(reply)[-2])
    assert (last["verb"], last["key"], last["writer"]) == ("export", "Trail 0", "user:admin")
    assert (await w.call("GET", "/audit/export?after=999999")).code == 409


async def test_what_was_archived_is_dropped_and_the_rest_verifies(w: World) -> None:
    archive = lines_of(await w.call("GET", "/audit/export"))
    row = orjson.loads(archive[10])
    said = {"through": row["id"], "digest": row["digest"]}
    assert (await w.call("POST", "/audit/trim", {**said, "digest": "0" * 64})).code == 409
    assert (await w.call("POST", "/audit/trim", said)).json == {"dropped": row["id"]}
    rest = lines_of(await w.call("GET", "/audit/export"))
    assert whole(rest).begins == (row["id"], row["digest"])
    assert (await rows(w, "verb=trim"))[0]["writer"] == "user:admin"
    assert min(found["id"] for found in await rows(w, "limit=1000")) == row["id"] + 1


NAUGHT = "0" * 64
NOTHING: list[Any] = [{}, [], {"through": 1}, {"through": 1, "digest": 7}]
NOTHING += [{"through": number, "digest": NAUGHT} for number in (True, 0, 1 << 60)]


@pytest.mark.parametrize("body", NOTHING)
async def test_a_trim_of_nothing_is_refused(w: World, body: Any) -> None:
    assert (await w.call("POST", "/audit/trim", body)).code == 400


async def test_denials_with_odd_names_do_not_break_the_trail(w: World) -> None:
    """A key in the trail may be a path, or what somebody likes to ask for."""
    token = await w.login("mia")
    for path in (
        "/metrics",
        f"{BASE}/namespaces/a--b--c/instances",
        f"{BASE}/namespaces/x%2Fy--z/instances/%20",
        "/audit/export",
    ):
        await w.call("GET", path, token=token)
    await w.store.audit.deny(Writer("user", "x"), "get", Key("Route", "", "/a--b/c d--e"), "no")
    assert await w.store.audit.verify() is None

"""Whose a key is: its maker's, unless who makes it may change the project."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.world import BASE, World, named

KEYS = f"{BASE}/namespaces/acme--lab/apikeys"
MERGE = {"content-type": "application/merge-patch+json"}


async def made(w: World, user: str, name: str, **spec: Any) -> tuple[int, dict[str, Any]]:
    """The code, and the spec or what is wrong with it."""
    token = await w.login(user) if user else ""
    reply = await w.call("POST", KEYS, named(name, **spec), **({"token": token} if token else {}))
    return reply.code, reply.json["spec"] if reply.code == 201 else reply.json


async def test_a_member_makes_keys_of_their_own(w: World) -> None:
    code, spec = await made(w, "mia", "a")
    assert (code, spec["owner"]) == (201, "mia")
    assert (await made(w, "mia", "b", owner="mia"))[0] == 201
    for owner in ("ann", "rob", "nobody"):
        code, said = await made(w, "mia", "c", owner=owner)
        assert code == 422
        assert said["details"]["causes"][0]["field"] == "spec.owner"


@pytest.mark.parametrize("user", ["ann", ""], ids=["tenant-admin", "admin"])
async def test_who_may_change_the_project_makes_anybodys(w: World, user: str) -> None:
    assert "owner" not in (await made(w, user, "a"))[1]
    assert (await made(w, user, "b", owner="mia", priority="priority"))[1]["owner"] == "mia"


async def test_it_stays_whose_it_is(w: World) -> None:
    await made(w, "mia", "a")
    await made(w, "", "none")
    session = await w.login("mia")
    body = (await w.call("GET", f"{KEYS}/a", token=session)).json
    del body["spec"]["owner"]
    body["spec"]["description"] = "another"
    reply = await w.call("PUT", f"{KEYS}/a", body, token=session)
    assert (reply.code, reply.json["spec"]["owner"]) == (200, "mia"), "who says nothing of it says nothing against it"
    for name, owner in (("a", "ann"), ("none", "mia")):
        change = {"spec": {"owner": owner}}
        assert (await w.call("PATCH", f"{KEYS}/{name}", change, headers=MERGE)).code == 422, "what was spent is theirs"
    assert (await w.call("PATCH", f"{KEYS}/a", {"spec": {"owner": None}}, headers=MERGE)).json["spec"]["owner"] == "mia"


async def test_its_secret_is_its_owners(w: World) -> None:
    await made(w, "mia", "a")
    await made(w, "ann", "of-ann", owner="ann")
    await made(w, "ann", "of-all")
    codes = {}
    for user in ("mia", "ann", ""):
        token = {"token": await w.login(user)} if user else {}
        for name in ("a", "of-ann", "of-all"):
            codes[user, name] = (await w.call("POST", f"{KEYS}/{name}/token", {}, **token)).code
    assert codes.pop(("mia", "of-ann")) == 403
    assert set(codes.values()) == {201}


async def test_before_others_is_not_a_members_to_say(w: World) -> None:
    assert (await made(w, "mia", "a", priority="flex"))[0] == 201
    assert (await made(w, "mia", "b", priority="default"))[0] == 201
    code, said = await made(w, "mia", "c", priority="priority")
    assert (code, said["details"]["causes"][0]["field"]) == (422, "spec.priority")
    session = await w.login("mia")

    async def change(name: str, priority: str, **by: Any) -> int:
        return (await w.call("PATCH", f"{KEYS}/{name}", {"spec": {"priority": priority}}, headers=MERGE, **by)).code

    assert await change("b", "priority", token=session) == 422
    assert await change("b", "priority") == 200
    assert await change("b", "flex", token=session) == 200
    assert await change("b", "default", token=session) == 422, "nor is to take back what another has lowered"
    assert await change("b", "default", token=await w.login("ann")) == 200

"""What is deleted and made again under the same name is another thing: it inherits nothing of the first."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import orjson
import pytest

from bessemer.core.errors import Conflict
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from bessemer.kinds import KINDS
from bessemer.kinds.parts import Parts
from tests.api.world import BASE, PASSWORD, PATIENCE_SECONDS, World, hashed, instance, named, tenant


async def remove(w: World, path: str, kind: str, name: str, *, namespace: str = "") -> None:
    """Delete over the api, and do once what the controller does then."""
    assert (await w.call("DELETE", f"{path}/{name}")).code == 200
    facts = next(k for k in KINDS if k.name == kind)
    if facts.finalize is None:
        return
    stored = await w.store.objects.get(Key(kind, namespace, name))
    ctx = SimpleNamespace(objects=w.store.objects, capacity=w.store.capacity, clock=w.clock, parts=Parts())
    await facts.finalize(ctx, facts.resource.load(stored.body))
    body = orjson.loads((await w.store.objects.get(stored.key)).body)
    body["metadata"]["finalizers"] = []
    await w.store.objects.replace(body, CONTROLLER)


async def user_again(w: World, name: str) -> None:
    await remove(w, f"{BASE}/users", "User", name)
    await w.create(f"{BASE}/users", named(name))
    made = await w.store.objects.get(Key("User", "", name))
    await w.store.sealed.put(made.uid, "password", hashed("somebody else's words"))


async def heard(w: World, user: str, tenants: int) -> None:
    """Until the directory has that many tenants of the user."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(w.api.state.directory.tenants(user)) != tenants:
            await asyncio.sleep(0)


async def test_a_user_made_again_belongs_to_no_tenant(w: World) -> None:
    await user_again(w, "ann")
    members = (await w.call("GET", f"{BASE}/tenants/acme")).json["spec"]["members"]
    assert [member["user"] for member in members] == ["mia", "rob"]
    await heard(w, "ann", 0)
    reply = await w.call("POST", "/login", {"user": "ann", "password": "somebody else's words"}, peer=None)
    token = reply.json["token"]
    assert (await w.call("GET", "/whoami", token=token)).json["tenants"] == {}
    assert (await w.call("GET", f"{BASE}/namespaces/acme--lab/instances", token=token)).code == 404
    assert (await w.call("GET", f"{BASE}/projects", token=token)).json["items"] == []


async def test_a_user_made_again_has_neither_session_nor_link_nor_password(w: World) -> None:
    token = await w.login("ann")
    link = (await w.call("POST", f"{BASE}/users/ann/signinlink", {})).json["secret"]
    await user_again(w, "ann")
    assert (await w.call("GET", "/whoami", token=token)).code == 401
    assert (await w.call("POST", "/login", {"link": link}, peer=None)).code == 401
    assert (await w.call("POST", "/login", {"user": "ann", "password": PASSWORD}, peer=None)).code == 401
    assert (await w.call("GET", f"{BASE}/sessions")).json["items"] == []


@pytest.mark.parametrize("purpose", ["cli", "portal", "link"])
@pytest.mark.parametrize("uid", ["", "another"])
async def test_a_session_that_outlived_its_user_is_nobodys(w: World, purpose: str, uid: str) -> None:
    """However it came to be left over: one restored from a backup, or written by a release that knew no uids."""
    made = await w.api.state.sessions.make(Key("User", "", "ann"), await uid_of(w, "ann"), purpose=purpose, seconds=99)
    name = made.token.removeprefix("bss_").partition(".")[0]
    body = orjson.loads((await w.store.objects.get(Key("Session", "", name))).body)
    body["spec"]["userUid"] = uid
    await w.store.objects.replace(body, CONTROLLER)
    if purpose == "link":
        assert (await w.call("POST", "/login", {"link": made.token}, peer=None)).code == 401
    assert (await w.call("GET", "/whoami", token=made.token)).code == 401


async def uid_of(w: World, user: str) -> str:
    return (await w.store.objects.get(Key("User", "", user))).uid


async def test_a_session_cannot_be_made_for_a_user_who_has_just_gone(w: World) -> None:
    uid = await uid_of(w, "new")
    await user_again(w, "new")
    with pytest.raises(Conflict):
        await w.api.state.sessions.make(Key("User", "", "new"), uid, purpose="cli", seconds=99)


async def test_a_tenant_made_again_has_no_members_projects_or_keys(w: World) -> None:
    ann = await w.login("ann")
    keys = f"{BASE}/namespaces/acme--lab/apikeys"
    await w.create(keys, named("k"), token=ann)
    digest = (await w.call("POST", f"{keys}/k/token", {}, token=ann)).json["token"]
    assert (await w.call("DELETE", f"{keys}/k", token=ann)).code == 200
    await remove(w, f"{BASE}/projects", "Project", "acme--lab")
    await remove(w, f"{BASE}/tenants", "Tenant", "acme")
    await w.create(f"{BASE}/tenants", tenant("acme", eve="reader"))
    await w.create(f"{BASE}/projects", named("acme--lab"))
    await w.create(keys, named("k"))
    assert "status" not in (await w.call("GET", f"{keys}/k")).json
    assert digest.encode() not in (await w.call("GET", keys)).body
    assert (await w.call("GET", "/whoami", token=ann)).json["tenants"] == {}
    for path in (keys, f"{keys}/k", f"{BASE}/tenants/acme", f"{BASE}/projects/acme--lab"):
        assert (await w.call("GET", path, token=ann)).code == 404, path


async def test_a_tenant_that_goes_takes_no_new_project_with_it(w: World) -> None:
    """Else one that is made behind the finalizer's back would be the next tenant's."""
    ann = await w.login("ann")
    assert (await w.call("DELETE", f"{BASE}/tenants/acme")).code == 200
    for token in (ann, ""):
        reply = await w.call("POST", f"{BASE}/projects", named("acme--behind"), token=token)
        assert (reply.code, reply.json["reason"]) == (403, "Forbidden")
        assert "tenant acme is being deleted" in reply.json["message"]


async def test_what_a_user_made_stays(w: World) -> None:
    mia = await w.login("mia")
    lab = f"{BASE}/namespaces/acme--lab/instances"
    await w.create(lab, instance("vm"), token=mia)
    await user_again(w, "mia")
    assert (await w.call("GET", f"{lab}/vm")).code == 200

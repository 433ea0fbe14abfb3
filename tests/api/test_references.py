"""What one may write that names another tenant's thing, or a place of theirs: each is refused, in the words, by the
field and with the headers of one that is nowhere; and what is taken gives nothing that tells them apart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bessemer.kinds import KINDS
from bessemer.kinds.fields import references
from tests.api.test_credentials import NEVER, made
from tests.api.test_terms import plainly
from tests.api.world import BASE, Reply, World, instance, named, world

MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
BINDINGS, ROLES, TENANT = f"{BASE}/rolebindings", f"{BASE}/roles", f"{BASE}/tenants/acme"
THEIRS, NOBODYS = "other", "those"
"""Two words of one length: a tenant that is there, and one that is not."""


@pytest.fixture
async def w() -> AsyncIterator[World]:
    """Tenants acme and other; other has a role, a credential, an endpoint's key, and nothing of it is acme's to see."""
    async with world() as found:
        await found.create(ROLES, named("other--seer", rules=[{"kinds": ["Instance"], "verbs": ["*"]}]))
        await found.create(BINDINGS, binding("other--own", "other--seer"))
        await found.create(BINDINGS, binding("acme--own", "reader"))
        await made_by_eve(found)
        yield found


async def made_by_eve(w: World) -> None:
    lab = f"{BASE}/namespaces/other--lab"
    await w.create(f"{lab}/apikeys", named("theirs"))
    await w.create(f"{lab}/applicationcredentials", named("ci", expiresAt=NEVER), token=await w.login("eve"))


def binding(name: str, role: str, **scope: Any) -> dict[str, Any]:
    return named(name, role=role, subjects=[{"kind": "User", "name": "rob"}], scope=scope)


def within(tenant: str) -> dict[str, tuple[str, dict[str, Any], int, str]]:
    """What an administrator of acme may try of a tenant: the collection, a body, the code, and a word of the answer."""
    apikey = {"kind": "ApiKey", "name": "theirs"}
    lab = f"{tenant}--lab"
    return {
        "a binding's role": (BINDINGS, binding("acme--x", f"{tenant}--seer"), 422, "spec.role"),
        "a role that a role includes": (ROLES, named("acme--x", includes=[f"{tenant}--seer"]), 422, "spec.includes"),
        "a binding's project": (BINDINGS, binding("acme--x", "reader", project=lab), 422, "spec.scope.project"),
        "a binding's tenant": (BINDINGS, binding("acme--x", "reader", tenant=tenant), 422, "spec.scope.tenant"),
        "a binding's object": (BINDINGS, binding("acme--x", "reader", project=lab, object=apikey), 422, "spec.scope"),
        "a binding of theirs": (BINDINGS, binding(f"{tenant}--x", "reader"), 403, "cannot create"),
        "a binding of theirs that is there": (BINDINGS, binding(f"{tenant}--own", "reader"), 403, "cannot create"),
        "a role of theirs that is there": (ROLES, named(f"{tenant}--seer", rules=[]), 403, "cannot create"),
        "a project of theirs that is there": (f"{BASE}/projects", named(lab), 403, "cannot create"),
        "a key in a project of theirs": (f"{BASE}/namespaces/{lab}/apikeys", named("theirs"), 404, "not found"),
    }


def told(reply: Reply, tenant: str) -> tuple[int, Any, dict[str, str]]:
    headers = {name: value for name, value in reply.headers.items() if name not in ("date", "x-request-id")}
    headers.pop("audit-id", None)
    return reply.code, plainly(reply, tenant), headers


@pytest.mark.parametrize("form", ["create", "dry run", "apply", "patch"])
async def test_what_is_named_of_another_tenant_is_refused_like_what_is_nowhere(w: World, form: str) -> None:
    ann = await w.login("ann")
    for what in within(THEIRS):
        answers = []
        for tenant in (THEIRS, NOBODYS):
            path, body, code, word = within(tenant)[what]
            reply = await sent(w, form, path, body=body, token=ann)
            answers.append(told(reply, tenant))
            named_by_path = form in ("apply", "patch") and code != 422
            assert reply.code in ((403, 404) if named_by_path else (code,)), (what, reply.body)
            assert word in reply.body.decode() or named_by_path, what
        assert answers[0] == answers[1], what


async def sent(w: World, form: str, path: str, *, body: dict[str, Any], token: str) -> Reply:
    """As it would be made, or as a change of the one that there is."""
    if form in ("create", "dry run"):
        return await w.call("POST", path + ("?dryRun=All" if form == "dry run" else ""), body, token=token)
    name = body["metadata"]["name"]
    if form == "apply":
        kind = next(kind.name for kind in KINDS if kind.plural == path.rpartition("/")[2])
        whole = {"apiVersion": "bessemer.dev/v1alpha1", "kind": kind, **body}
        return await w.call("PATCH", f"{path}/{name}?fieldManager=x", whole, media=APPLY, token=token)
    mine = "acme--own" if name == "acme--x" and path == BINDINGS else name
    if name == "acme--x" and path == ROLES:
        await w.create(ROLES, named("acme--x", rules=[]))
    reply = await w.call("PATCH", f"{path}/{mine}", {"spec": body["spec"]}, media=MERGE, token=token)
    if name == "acme--x" and path == ROLES:
        await w.call("DELETE", f"{path}/acme--x")
    return reply


def test_every_field_outside_projects_that_names_a_thing_of_a_tenants_is_among_them() -> None:
    """Kinds that a tenant's own people write; Tenant is the platform's."""
    found = {
        (kind.name, path)
        for kind in KINDS
        if not kind.namespaced and kind.name in ("Role", "RoleBinding", "Project")
        for path in references(kind.resource)
    }
    fields = [("role",), ("scope", "tenant"), ("scope", "project")]
    assert found == {("RoleBinding", ("spec", *field)) for field in fields}


async def test_a_role_of_another_tenants_is_no_bound_that_tells_of_it(w: World) -> None:
    """A credential's roles are names alone: what a role of theirs gives, or whether there is one, nobody of acme finds
    out by what is left to the credential."""
    vms = f"{BASE}/namespaces/acme--lab/instances"
    for reach in ("project", "tenant", "owner"):
        left = []
        for number, role in enumerate(("other--seer", "those--seer")):
            token = await made(w, "mia", f"{reach}{number}", roles=[role], reach=reach)
            replies = [
                await w.call("GET", vms, token=token),
                await w.call("POST", f"{vms}?dryRun=All", instance("vm"), token=token),
                await w.call("GET", f"{ROLES}/{role}", token=token),
                await w.call("GET", "/whoami", token=token),
            ]
            left.append([(reply.code, reply.body.decode().replace(role, "ROLE")[:60]) for reply in replies])
        assert left[0] == left[1], reach
        assert left[0][1][0] == 403


async def test_a_role_of_ones_own_tenant_is_a_bound(w: World) -> None:
    """Also of the platform's administrators, who read the roles of all."""
    await w.create(ROLES, named("acme--seer", rules=[{"kinds": ["Instance"], "verbs": ["get", "list"]}]))
    vms = f"{BASE}/namespaces/acme--lab/instances"
    token = await made(w, "mia", "ours", roles=["acme--seer"])
    assert (await w.call("GET", vms, token=token)).code == 200
    assert (await w.call("POST", f"{vms}?dryRun=All", instance("vm"), token=token)).code == 403
    await w.create(BINDINGS, named("root", role="admin", subjects=[{"kind": "User", "name": "new"}]))
    token = await made(w, "new", "root", roles=["other--seer"], reach="owner")
    assert (await w.call("GET", vms.replace("acme", "other"), token=token)).code == 200

"""``Impersonate-*``: whoever is known is refused, on every route that asks who; a stranger signs in first."""

from __future__ import annotations

import pytest

from bessemer.api.routes import ROUTES
from tests.api.test_dry_run import NOT_A_PLACE, asked, furnished, place
from tests.api.world import ADMIN, BASE, World, instance

VM = f"{BASE}/namespaces/acme--lab/instances/vm"
MIA = {"Impersonate-User": "mia"}


@pytest.mark.parametrize(
    ("header", "value", "resource", "told"),
    [
        ("Impersonate-User", "mia", "users", "mia"),
        ("Impersonate-User", "system:serviceaccount:flux:apps", "users", "system:serviceaccount:flux:apps"),
        ("Impersonate-Group", "system:masters", "groups", "system:masters"),
        ("impersonate-uid", "1", "uids", "1"),
        ("Impersonate-Extra-scopes", "all", "userextras", "all"),
        ("Impersonate-User", "", "users", ""),
        ("Impersonate-User", "a\x80" + "b" * 500, "users", "a\\x80" + "b" * 248 + "..."),
    ],
    ids=lambda value: value[:12],
)
async def test_nobody_acts_as_another(w: World, header: str, value: str, resource: str, told: str) -> None:
    await w.create(VM.rpartition("/")[0], instance("vm"))
    for token, name in ((await w.login("ann"), "ann"), ("", "admin")):
        at = w.store.revision
        reply = await w.call("DELETE", VM, headers={header: value.encode().decode("latin-1")}, token=token)
        assert (reply.code, reply.json["kind"], reply.json["reason"]) == (403, "Status", "Forbidden")
        assert reply.json["message"].startswith(f'{resource} "')
        assert f'User "{name}" cannot impersonate resource "{resource}"' in reply.json["message"]
        assert reply.json["message"].endswith("impersonation is not offered: use an application credential")
        assert reply.json["details"]["kind"] == resource
        assert w.store.revision == at
    assert (await w.call("GET", VM)).code == 200


async def test_a_stranger_is_told_to_sign_in(w: World) -> None:
    reply = await w.call("GET", VM, headers={"Impersonate-User": "admin"}, peer=None)
    assert (reply.code, reply.json["reason"]) == (401, "Unauthorized")
    wrong = await w.call("GET", VM, headers={"Impersonate-User": "admin"}, token="bss_no.such")
    assert wrong.code == 401
    assert (await w.call("GET", "/version", headers=MIA, peer=None)).code == 200


async def test_it_stands_in_the_trail(w: World) -> None:
    await w.call("DELETE", VM, headers={**MIA, "x-request-id": "the-one"})
    [row] = [row for row in await w.store.audit.rows() if row.request_id == "the-one"]
    assert (row.allowed, row.writer, row.verb, row.key) == (False, "user:admin", "delete", "Instance acme--lab/vm")
    assert 'users "mia" is forbidden' in row.reason


async def test_on_every_route_that_asks_who(w: World) -> None:
    """Whoever might do it otherwise: administrators, agents, gateways."""
    agent = await furnished(w)
    before = w.store.revision
    for rule in ROUTES:
        if rule.method == "WS" or rule.permission in ("public", "vouched") or rule.path == NOT_A_PLACE:
            continue
        reply = await asked(w, rule, "", agent=agent, body={}, headers=MIA)
        assert (reply.code, 'users "mia" is forbidden' in reply.body.decode().replace("\\", "")) == (403, True), rule
    assert w.store.revision == before
    socket = [rule for rule in ROUTES if rule.method == "WS"]
    for rule in socket:
        said = await w.dial(place(rule), peer=agent if rule.permission == "own-host" else ADMIN, headers=MIA)
        assert (said.code, said.json["details"]) == (403, {"name": "mia", "kind": "users"}), rule

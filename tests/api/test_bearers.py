"""What a gateway is told of who shows it a token: who that is, and where they may ask."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.api.ca import Peer
from tests.api.test_oidc import Site, s
from tests.api.world import BASE, named, tenant

__all__ = ["s"]

GATEWAY = Peer("system:gateway", (), "")


async def shown(s: Site, token: str, **more: Any) -> tuple[int, Any]:
    reply = await s.w.call("POST", f"{BASE}/bearers", {"token": token, **more}, peer=GATEWAY)
    return reply.code, reply.json


@pytest.mark.parametrize(("role", "may"), [("member", True), ("tenant-admin", True), ("reader", False)])
async def test_who_could_make_a_key_there_may_ask(s: Site, role: str, may: bool) -> None:
    await s.w.create(f"{BASE}/tenants", tenant("nord", **{"corp.ada": role.replace("-", "_")}))
    await s.w.create(f"{BASE}/tenants", tenant("other"))
    for project in ("nord--a", "nord--b", "other--lab"):
        await s.w.create(f"{BASE}/projects", named(project))
    mine = ["nord--a", "nord--b"] if may else []
    assert await shown(s, s.token()) == (200, {"user": "corp.ada", "projects": mine})
    assert await shown(s, s.token(), project="nord--b") == (200, {"user": "corp.ada", "projects": mine[1:]})
    assert await shown(s, s.token(), project="other--lab") == (200, {"user": "corp.ada", "projects": []})


async def test_a_token_of_nobody_is_an_answer_and_only_a_gateway_asks(s: Site) -> None:
    assert await shown(s, "eyJ.x.y") == (200, {"user": "", "projects": []})
    assert await shown(s, "bss_name.secret") == (200, {"user": "", "projects": []}), "a session is for the api"
    assert (await shown(s, "x" * 20_000))[0] == 400
    for asker in ({"token": s.token()}, {}):
        reply = await s.w.call("POST", f"{BASE}/bearers", {"token": s.token()}, **asker)
        assert reply.code == 403

"""Whoever leaves a tenant sees nothing more of it, in a page that stays open too; whoever joins sees it at once."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from tests.portal.test_guard import caller
from tests.portal.town import LAB, VM, Town

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def members(t: Town, tenant: str, **roles: str) -> None:
    stored = await t.w.store.objects.get(Key("Tenant", "", tenant))
    body = orjson.loads(stored.body)
    body["spec"]["members"] = [{"user": user, "role": role} for user, role in roles.items()]
    await t.w.store.objects.replace(body, CONTROLLER)


async def test_a_page_forgets_with_the_membership(t: Town) -> None:
    stored = await t.w.store.objects.get(Key("Tenant", "", "acme"))
    before = {m["user"]: m["role"] for m in orjson.loads(stored.body)["spec"]["members"]}
    user = next(name for name, role in before.items() if role == "member")
    path = f"/in/{LAB}/instances/{VM.name}"
    async with caller(t, user) as mia:
        assert (await mia.get(path)).status == 200
        await members(t, "acme", **{name: role for name, role in before.items() if name != user})
        async with asyncio.timeout(30):
            while (await mia.get(path)).status != 404:
                await asyncio.sleep(0.1)
            # Each kind has its own watch: one page may forget a moment before another.
            while VM.name in (shown := (await mia.get("/overview")).text) or LAB in shown:
                await asyncio.sleep(0.1)
        await members(t, "acme", **before)
        async with asyncio.timeout(30):
            while (await mia.get(path)).status != 200:
                await asyncio.sleep(0.1)

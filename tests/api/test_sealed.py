"""Which key seals what, over HTTP: for administrators, and never a key."""

from __future__ import annotations

import pytest

from tests.api.world import world


async def test_keys_are_counted_and_followed() -> None:
    async with world() as w:
        reply = await w.call("GET", "/sealed")
        assert reply.code == 200
        current = reply.json["current"]
        assert reply.json == {"current": current, "dataKeys": {current: 1}, "values": {current: 5}, "left": 0}
        assert (await w.call("POST", "/sealed/rotate", {"values": True})).json["values"] == {current: 5}
        assert (await w.store.audit.rows(limit=1000))[-1].key == "Sealed values"
        assert await w.login("mia")
        assert (await w.call("POST", "/sealed/rotate", None)).code == 200


@pytest.mark.parametrize("body", [{"values": "yes"}, [], {"values": None}])
async def test_what_cannot_be_read_is_refused(body: object) -> None:
    async with world(people=False) as w:
        assert (await w.call("POST", "/sealed/rotate", body)).code == 400


async def test_nobody_else_asks() -> None:
    async with world() as w:
        token = await w.login("ann")
        assert (await w.call("GET", "/sealed", token=token)).code == 403
        assert (await w.call("POST", "/sealed/rotate", {}, token=token)).code == 403

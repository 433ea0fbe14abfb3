"""What gateways say of endpoints that scale: kept while they are heard, and noted on who is waited for."""

from __future__ import annotations

from typing import Any

import orjson

from bessemer.core.clock import FakeClock
from bessemer.core.loads import LOADS, SUMS, WOKEN
from tests.api.test_terms import BASE, LAB
from tests.api.world import GATEWAY, World, world

PATH = f"{BASE}/loads"
MODEL = {"model": "smol", "flavor": "small"}


def load(uid: str, *, name: str = "chat", **said: int) -> dict[str, Any]:
    return {
        "project": "acme--lab",
        "name": name,
        "uid": uid,
        "busy": 0,
        "waiting": 0,
        "sums": [0.0] * len(SUMS),
        **said,
    }


async def say(w: World, *loads: dict[str, Any], asleep: tuple[int, ...] = (), query: str = "") -> int:
    body = {"holder": "g1", "boot": "b", "loads": list(loads), "asleep": list(asleep)}
    return (await w.call("POST", f"{PATH}{query}", body, peer=GATEWAY)).code


async def woken(w: World, name: str = "chat") -> str | None:
    found = (await w.call("GET", f"{LAB}/endpoints/{name}")).json
    annotations: dict[str, str] = found["metadata"].get("annotations") or {}
    return annotations.get(WOKEN)


async def test_a_report_is_kept_while_its_gateway_is_heard_and_wakes_whoever_sleeps() -> None:
    clock = FakeClock(1_750_000_000)
    async with world(clock) as w:
        scaled = {"metadata": {"name": "chat"}, "spec": {**MODEL, "scale": {"min": 0, "max": 2}}}
        uid = (await w.create(f"{LAB}/endpoints", scaled))["metadata"]["uid"]
        fixed = {"metadata": {"name": "fixed"}, "spec": MODEL}
        other = (await w.create(f"{LAB}/endpoints", fixed))["metadata"]["uid"]
        assert await say(w, load(uid, busy=3)) == 200
        (lease,) = await w.store.leases.held(LOADS)
        assert (lease.name, orjson.loads(lease.note)["loads"][0]["busy"]) == ("load/g1", 3)
        assert await woken(w) is None
        assert await say(w, load(uid, waiting=1), load(other, name="fixed", waiting=1), asleep=(0, 1, 7)) == 200
        assert (await woken(w), await woken(w, "fixed")) == ("2025-06-15T15:06:40Z", None)
        await clock.advance(5.0)
        await say(w, load(uid, waiting=1), asleep=(0,))
        assert await woken(w) == "2025-06-15T15:06:40Z", "it was woken just now"
        await clock.advance(10.0)
        await say(w, load("another", waiting=1), asleep=(0,))
        await say(w, load("none", name="none", waiting=1), asleep=(0,))
        assert await woken(w) == "2025-06-15T15:06:40Z", "that was another of its name"
        await say(w, load(uid, waiting=1), asleep=(0,))
        assert await woken(w) == "2025-06-15T15:06:55Z"
        assert await say(w, query="?last=true") == 200
        assert await w.store.leases.held(LOADS) == []


async def test_only_gateways_report_and_only_what_can_be_read() -> None:
    async with world(FakeClock(1_750_000_000)) as w:
        body = {"holder": "g1", "boot": "b"}
        assert (await w.call("POST", PATH, body, token=await w.login("mia"))).code == 403
        assert (await w.call("POST", PATH, body)).code == 403
        assert (await w.call("POST", PATH, {"loads": []}, peer=GATEWAY)).code == 400
        assert (await w.call("POST", PATH, {**body, "loads": [load("u", busy=-1)]}, peer=GATEWAY)).code == 400

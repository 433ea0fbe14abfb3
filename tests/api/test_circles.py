"""Endpoints that would answer for themselves: refused to whoever writes the last of them, by the field, in words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bessemer.kinds.inference.endpoint.circles import LOOKED_AT_MAX
from tests.api.world import BASE, World, world

AT, MERGE = f"{BASE}/namespaces/acme--lab/endpoints", "application/merge-patch+json"
OWN: dict[str, Any] = {"flavor": "small", "model": "smol"}


def of(*names: str) -> dict[str, Any]:
    return {"backends": [{"endpoint": name} for name in names]}


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        await made.create(f"{BASE}/flavors", {"metadata": {"name": "small"}, "spec": {"cpus": 1, "memory": "1Gi"}})
        yield made


async def test_the_last_of_a_circle_is_refused_by_its_field(w: World) -> None:
    await w.create(AT, {"metadata": {"name": "a"}, "spec": of("x", "b")})
    await w.create(AT, {"metadata": {"name": "b"}, "spec": {**OWN, "fallbacks": ["y", "c"]}})
    mia = await w.login("mia")
    refused = await w.call("POST", AT, {"metadata": {"name": "c"}, "spec": {**OWN, "fallbacks": ["z", "a"]}}, token=mia)
    [cause] = refused.json["details"]["causes"]
    assert (refused.code, cause["field"]) == (422, "spec.fallbacks[1]")
    assert cause["message"].endswith("makes a circle, in which it would answer for itself: c, then a, then b, then c")
    await w.create(AT, {"metadata": {"name": "c"}, "spec": OWN})
    refused = await w.call("PATCH", f"{AT}/c", {"spec": {"model": None, "flavor": None, **of("b")}}, media=MERGE)
    [cause] = refused.json["details"]["causes"]
    assert (refused.code, cause["field"]) == (422, "spec.backends[0].endpoint")
    assert cause["message"].endswith("c, then b, then c")


async def test_two_may_stand_in_for_each_other(w: World) -> None:
    await w.create(AT, {"metadata": {"name": "a"}, "spec": {**OWN, "fallbacks": ["b"]}})
    await w.create(AT, {"metadata": {"name": "b"}, "spec": {**OWN, "fallbacks": ["a", "s"]}})
    refused = await w.call("POST", AT, {"metadata": {"name": "s"}, "spec": of("a")})
    assert refused.code == 422, "what has no replicas of its own"


async def test_what_is_a_circle_already_may_be_written_again(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one is that two have written at once: the gateway asks each once."""
    await w.create(AT, {"metadata": {"name": "a"}, "spec": of("b")})
    with monkeypatch.context() as unseen:
        unseen.setattr("bessemer.kinds.inference.endpoint.circles.LOOKED_AT_MAX", 0)
        await w.create(AT, {"metadata": {"name": "b"}, "spec": of("a")})
    assert (await w.call("PATCH", f"{AT}/b", {"metadata": {"labels": {"k": "v"}}}, media=MERGE)).code == 200
    assert (await w.call("PATCH", f"{AT}/b", {"spec": of("a", "c")}, media=MERGE)).code == 422


async def test_no_more_are_looked_at_than_one_write_is_worth(w: World) -> None:
    for at in range(1, LOOKED_AT_MAX + 6):
        await w.create(AT, {"metadata": {"name": f"e{at}"}, "spec": of(f"e{at + 1}")})
    last = LOOKED_AT_MAX + 5
    assert (await w.call("PATCH", f"{AT}/e{last}", {"spec": of("e1")}, media=MERGE)).code == 200, "the gateway ends it"
    assert (await w.call("PATCH", f"{AT}/e{last}", {"spec": of(f"e{last - 2}")}, media=MERGE)).code == 422

"""Checks of a kind that has no control side: it is what it should be as soon as it is there, whoever runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.kinds.world import World


async def stays(world: World, kind: str, *, name: str, seconds: float = 400.0) -> None:
    """Nobody writes it for a while."""
    before, end = await world.object(kind, name, namespace=""), world.clock.monotonic() + seconds

    async def later() -> bool:
        return world.clock.monotonic() > end

    await world.until(later)
    assert before is not None
    assert await world.object(kind, name, namespace="") == before


async def check_converges(kind: str, spec: Mapping[str, Any]) -> None:
    async with World() as world:
        await world.create(kind, "still", spec, namespace="")
        await stays(world, kind, name="still")


async def check_converges_when_run_twice(kind: str, spec: Mapping[str, Any]) -> None:
    async with World() as world:
        await world.create(kind, "still", spec, namespace="")
        await world.crash()
        await stays(world, kind, name="still", seconds=20.0)


async def check_no_driver_is_called(kind: str, spec: Mapping[str, Any], **patch: Any) -> None:
    async with World() as world:
        await world.create(kind, "still", spec, namespace="")
        await world.patch(kind, "still", namespace="", **patch)
        await stays(world, kind, name="still", seconds=20.0)
        assert world.points.names["driver"] == [], "there is none"


async def check_deletes_cleanly(kind: str, spec: Mapping[str, Any]) -> None:
    async with World() as world:
        await world.create(kind, "still", spec, namespace="")
        await world.delete(kind, "still", namespace="")
        assert await world.object(kind, "still", namespace="") is None
        await world.check_clean()

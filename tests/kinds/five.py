"""The five tests that each kind passes, as checks of one `Case`: an object, its spec, and how it reads when settled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bessemer.core.resource import Kind
from bessemer.kinds import KINDS
from tests.api.world import BASE
from tests.api.world import world as api_world
from tests.kinds.points import Point
from tests.kinds.world import PROJECT, World

Step = Callable[[World], Awaitable[None]]

THEIRS = "acme--lab"
"""The project of the api's world to which the stranger (eve, an administrator of another tenant) has no way."""


async def nothing(_world: World) -> None:
    """No preparation is needed."""


@dataclass(frozen=True)
class Case:
    """One object of a kind. ``reason`` is the Ready reason of the settled object; ``before`` prepares the world."""

    kind: str
    name: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    namespace: str = PROJECT
    reason: str = "Ready"
    before: Step = nothing

    @property
    def facts(self) -> Kind[Any, Any]:
        return next(kind for kind in KINDS if kind.name == self.kind)

    async def settle(self, world: World) -> None:
        """Create it, and wait until it says what it should."""
        await self.before(world)
        await world.create(self.kind, self.name, self.spec, namespace=self.namespace)
        await self.settled(world)

    async def settled(self, world: World) -> None:
        async def holds() -> bool:
            found = await world.condition(self.kind, self.name, namespace=self.namespace)
            return found.get("reason") == self.reason and bool(found["current"])

        await world.until(holds)

    async def remove(self, world: World) -> None:
        await world.delete(self.kind, self.name, namespace=self.namespace)
        await world.until_gone(self.kind, self.name, namespace=self.namespace)

    async def live(self, stop: Point | None = None, *, until: float = 0.0) -> tuple[int, int, int]:
        """One whole life, perhaps with a stop; answers driver calls, commits and crashes."""
        async with World(stop=stop) as world:
            await self.settle(world)
            await self.remove(world)
            await world.check_clean()
            return len(world.points.names["driver"]), len(world.points.names["commit"]), world.crashes


async def check_converges(case: Case) -> Mapping[str, Any]:
    """It settles; answers the object."""
    async with World() as world:
        await case.settle(world)
        found = await world.object(case.kind, case.name, namespace=case.namespace)
        assert found is not None
        return found


async def check_converges_when_run_twice(case: Case) -> None:
    """Looked at again by another process, and again after the resync, it is not written and nothing is started."""
    async with World() as world:
        await case.settle(world)
        before = await world.object(case.kind, case.name, namespace=case.namespace)
        starts = [(host.qemu.starts, host.engine.starts) for host in world.hosts.values()]
        await world.crash()
        end = world.clock.monotonic() + 400

        async def later() -> bool:
            return world.clock.monotonic() > end

        await world.until(later)
        assert await world.object(case.kind, case.name, namespace=case.namespace) == before
        assert [(host.qemu.starts, host.engine.starts) for host in world.hosts.values()] == starts


async def check_converges_after_a_crash_at_every_call(case: Case, *, every: int = 1) -> None:
    """A stop before and after each driver call and each commit of its life; it converges and goes all the same."""
    drivers, commits, _ = await case.live()
    points: list[Point] = [("driver", i, m) for i in range(drivers) for m in ("before", "after")]
    points += [("commit", i, m) for i in range(commits) for m in ("before", "after")]
    unreached = [point for point in points[::every] if not await _crashed(case, point)]
    assert len(unreached) <= len(points) // every * 0.05, f"never reached: {unreached}"


async def _crashed(case: Case, point: Point) -> bool:
    """Whether a life came to the stop; lives differ by a commit or two, so it is tried more than once."""
    for _ in range(3):
        _, _, crashes = await case.live(point)
        assert crashes <= 1, point
        if crashes:
            return True
    return False


async def check_deletes_cleanly(case: Case) -> None:
    """Deleted from the settled state, and again right after its creation, it leaves nothing."""
    async with World() as world:
        await case.settle(world)
        await case.remove(world)
        await world.check_clean()
        await world.create(case.kind, case.name, case.spec, namespace=case.namespace)
        await case.remove(world)
        await world.check_clean()


async def check_is_denied_to_another_tenant(case: Case) -> None:
    """Over the api a stranger can neither see, nor change, nor make it in a project that is not theirs."""
    facts = case.facts
    place = f"/namespaces/{THEIRS}" if facts.namespaced else ""
    path = f"{BASE}{place}/{facts.plural}"
    async with api_world() as w:
        name = "acme--theirs" if case.kind == "Project" else "theirs"
        made = {"metadata": {"name": name}, "spec": dict(case.spec)}
        await w.create(path, made)
        eve = await w.login("eve")
        for method, body in (("GET", None), ("PUT", made), ("PATCH", {"spec": {}}), ("DELETE", None)):
            media = "application/merge-patch+json" if method == "PATCH" else "application/json"
            reply = await w.call(method, f"{path}/{name}", body, token=eve, media=media)
            readable = "anyone" in facts.rights
            assert reply.code in ((200, 403) if readable and method == "GET" else (403,) if readable else (404,)), (
                method
            )
        again = {**made, "metadata": {"name": f"{name}2"}}
        assert (await w.call("POST", path, again, token=eve)).code in (403, 404)
        listed = await w.call("GET", path, token=eve)
        if "anyone" not in facts.rights:
            assert name.encode() not in listed.body
        kept = await w.call("GET", f"{path}/{name}")
        assert kept.json["metadata"].get("deletionTimestamp") is None

"""The five tests that each kind passes, as checks of one `Case`: an object, its spec, and how it reads when settled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bessemer.core.resource import Kind
from bessemer.kinds import KINDS
from tests.api.world import World as ApiWorld
from tests.api.world import world as api_world
from tests.kinds.points import Point, Sort
from tests.kinds.world import PROJECT, World

Step = Callable[[World], Awaitable[None]]

THEIRS = "acme--lab"
"""The project of the api's world to which the stranger (eve, an administrator of another tenant) has no way."""


async def nothing(_world: World) -> None:
    """No preparation is needed."""


@dataclass(frozen=True)
class Life:
    """What one life came to: its calls by name, one after the other, and how often it was stopped."""

    calls: Mapping[Sort, Sequence[str]]
    crashes: int


Make = Callable[[ApiWorld], Awaitable[str]]
"""Makes an object in the api's world, of the project `THEIRS` where its kind has one; answers its name."""

Live = Callable[[Point | None], Awaitable[Life]]
"""One whole life, perhaps with a stop, that ends as it should or raises AssertionError."""

Choice = Callable[[Sequence[str]], Sequence[int]]
"""At which calls of a life it is stopped, out of the names of all."""


def every_one(names: Sequence[str]) -> Sequence[int]:
    return range(len(names))


def distinct(names: Sequence[Hashable]) -> Sequence[int]:
    """The first and the last call of each name."""
    last = {name: index for index, name in enumerate(names)}
    first = {name: len(names) - 1 - index for index, name in enumerate(reversed(names))}
    return sorted({*first.values(), *last.values()})


def in_each_setting(names: Sequence[str]) -> Sequence[int]:
    """The first and the last call of each name between the same two others: what only repeats itself is left out."""
    return distinct(list(zip(["", *names], names, [*names[1:], ""], strict=False)))


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

    async def live(self, stop: Point | None = None) -> Life:
        """Created, settled, removed."""
        async with World(stop=stop) as world:
            await self.settle(world)
            await self.remove(world)
            await world.check_clean()
            return Life(world.points.names, world.crashes)


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
        starts = world.starts
        await world.crash()
        end = world.clock.monotonic() + 400

        async def later() -> bool:
            return world.clock.monotonic() > end

        await world.until(later)
        assert await world.object(case.kind, case.name, namespace=case.namespace) == before
        assert world.starts == starts


async def check_converges_after_a_crash_at_every_call(case: Case, *, chosen: Choice = every_one) -> None:
    """A stop before and after each chosen driver call and commit of its life; it converges and goes all the same."""
    await check_lives_through(case.live, chosen=chosen)


async def check_lives_through(live: Live, *, chosen: Choice = every_one) -> None:
    """The life ends as it should though it is stopped, before and after each call that is chosen of it."""
    calls = min([(await live(None)).calls for _ in range(2)], key=lambda calls: sum(map(len, calls.values())))
    points: list[Point] = [
        (sort, index, moment)
        for sort, names in calls.items()
        for index in chosen(names)
        for moment in ("before", "after")
    ]
    assert points, "a life of which nothing was stopped proves nothing"
    unreached = [point for point in points if not await _crashed(live, point)]
    missed = [point for point in unreached if not _at_the_end(point, calls)]
    assert len(missed) <= len(points) * 0.05, f"never reached: {missed}"


def _at_the_end(point: Point, calls: Mapping[Sort, Sequence[str]]) -> bool:
    """Whether it is one of the last commits: a life may do with one or two less than the one that was counted."""
    sort, index, _ = point
    return sort == "commit" and index >= len(calls[sort]) - 2


async def _crashed(live: Live, point: Point) -> bool:
    """Whether a life came to the stop; lives differ by a commit or two, so it is tried more than once."""
    for _ in range(3):
        crashes = (await live(point)).crashes
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


async def check_is_denied_to_another_tenant(case: Case, *, make: Make | None = None) -> None:
    """Over the api a stranger can neither see (but what each signed-in user may), nor change, nor make it in a project
    that is not theirs. ``make`` is for what nobody may post."""
    facts = case.facts
    path = f"/apis/{facts.api_version}{f'/namespaces/{THEIRS}' if facts.namespaced else ''}/{facts.plural}"
    readable = "anyone" in facts.rights
    async with api_world() as w:
        named = "acme--theirs" if case.kind == "Project" or case.name.startswith("acme--") else "theirs"
        made = {"metadata": {"name": named}, "spec": dict(case.spec)}
        name = await make(w) if make is not None else (await w.create(path, made))["metadata"]["name"]
        before = (await w.call("GET", f"{path}/{name}")).json
        eve = await w.login("eve")
        for method, body in (("GET", None), ("PUT", made), ("PATCH", {"spec": {}}), ("DELETE", None)):
            media = "application/merge-patch+json" if method == "PATCH" else "application/json"
            reply = await w.call(method, f"{path}/{name}", body, token=eve, media=media)
            assert reply.code == (404 if not readable else 200 if method == "GET" else 403), method
        again = {**made, "metadata": {"name": f"{name}2"}}
        assert (await w.call("POST", path, again, token=eve)).code in (403, 404)
        listed = await w.call("GET", path, token=eve)
        assert (name.encode() in listed.body) == readable
        assert (await w.call("GET", f"{path}/{name}")).json == before

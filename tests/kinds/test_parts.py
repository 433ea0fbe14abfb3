"""A part's change finds those that it concerns, at the cost of those alone."""

from __future__ import annotations

from bessemer.core.ports import Page, Scope, Stored
from bessemer.core.resource import Key
from bessemer.kinds.parts import Parts, made_of
from tests.kinds.world import World

SMALL, LARGE, MICRO = Key("Flavor", "", "small"), Key("Flavor", "", "large"), Key("Image", "", "micro")
ONE, TWO = Key("Instance", "acme--lab", "one"), Key("Instance", "acme--lab", "two")


def test_it_tells_who_names_a_part_and_who_of_them_waits() -> None:
    parts = Parts()
    parts.note(ONE, (SMALL, MICRO), waits=True)
    parts.note(TWO, (SMALL, MICRO), waits=False)
    assert parts.concerned(SMALL, waiting=False) == [ONE, TWO]
    assert parts.concerned(SMALL, waiting=True) == [ONE]
    parts.note(ONE, (SMALL, MICRO), waits=False)
    assert parts.concerned(SMALL, waiting=True) == []
    assert parts.concerned(LARGE, waiting=False) == []


def test_one_of_the_same_name_made_of_something_else_is_found_there_alone() -> None:
    parts = Parts()
    parts.note(ONE, (SMALL, MICRO), waits=True)
    parts.note(ONE, (LARGE, MICRO), waits=True)
    assert parts.concerned(SMALL, waiting=True) == []
    assert parts.concerned(LARGE, waiting=True) == parts.concerned(MICRO, waiting=True) == [ONE]


def test_what_is_forgotten_leaves_nothing() -> None:
    parts = Parts()
    parts.note(ONE, (SMALL, MICRO), waits=True)
    parts.forget(ONE)
    parts.forget(ONE)
    assert (parts._parts, parts._named, parts._waiting) == ({}, {}, {})


async def test_a_flavor_that_comes_wakes_who_waits_for_it_also_after_a_restart() -> None:
    async with World() as world:
        await world.create("Instance", "vm", {"flavor": "late", "image": "micro"})
        await world.until_reason("Instance", "vm", "FlavorNotFound")
        await world.crash()
        crashed = world.clock.monotonic()

        async def leases_are_taken_over() -> bool:
            return world.clock.monotonic() > crashed + 25

        await world.until(leases_are_taken_over)
        began = world.clock.monotonic()
        await world.create("Flavor", "late", {"cores": 1, "memory": "256Mi"}, namespace="")
        await world.until_ready("Instance", "vm")
        assert world.clock.monotonic() - began < 10, "it was woken, and did not wait for its timer"


async def test_who_waits_for_the_last_reads_the_few_that_are_known_and_all_only_to_be_sure() -> None:
    class Shelf:
        """Tenants by name; what was asked for is kept."""

        def __init__(self, *names: str) -> None:
            self.names = list(names)
            self.asked: list[frozenset[str] | None] = []

        async def list(self, scope: Scope) -> Page:
            self.asked.append(scope.names)
            found = [name for name in self.names if scope.names is None or name in scope.names]
            return Page([Stored(Key("Tenant", "", name), name, 1, 1, "", b"{}") for name in found], 1)

    parts, plan, shelf = Parts(), Key("PricePlan", "", "standard"), Shelf("acme", "globex")

    async def users() -> list[str]:
        found = await made_of(shelf, parts, part=plan, kind="Tenant", still=lambda stored: stored.key.name != "other")
        return [stored.key.name for stored in found]

    parts.note(Key("Tenant", "", "acme"), (plan,), waits=False)
    assert (await users(), shelf.asked) == (["acme"], [frozenset({"acme"})])
    shelf.names = ["globex", "other"]
    assert (await users(), shelf.asked[1:]) == (["globex"], [frozenset({"acme"}), None]), (
        "what the index never heard of"
    )
    shelf.names = ["other"]
    assert await users() == []

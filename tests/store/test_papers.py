"""Objects that say their parts at the top, hold sealed values, and of which a project has so many and no more."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bessemer.core.errors import AlreadyExists, Conflict, Forbidden
from bessemer.core.ports import Stored, Writer
from bessemer.core.resource import Key
from bessemer.store import Store

MIA = Writer("user", "mia")


def paper(name: str = "p", **parts: Any) -> dict[str, Any]:
    return {"kind": "Paper", "metadata": {"name": name, "namespace": "acme--lab"}, **parts}


def body(stored: Stored) -> Any:
    return json.loads(stored.body)


async def test_parts_stand_at_the_top_and_what_is_no_part_is_not_kept(store: Store) -> None:
    made = await store.objects.create(paper(text={"a": 1}, other=2, spec={"x": 1}), MIA)
    assert body(made).keys() == {"apiVersion", "kind", "metadata", "text"}
    again = await store.objects.replace(paper(text={"a": 1}), MIA)
    assert (again.revision, again.generation) == (made.revision, 1)
    without = await store.objects.replace(paper(), MIA)
    assert (body(without).keys(), without.generation) == ({"apiVersion", "kind", "metadata"}, 2)


async def test_sealed_values_are_written_with_their_object(store: Store) -> None:
    made = await store.objects.create(paper(sealed={"v": 1}), MIA, sealed={"v/1": b"one"})
    assert await store.sealed.get(made.uid, "v/1") == b"one"
    await store.objects.replace(paper(sealed={"v": 1}, text="x"), MIA)
    assert await store.sealed.get(made.uid, "v/1") == b"one", "None leaves them as they are"
    await store.objects.replace(paper(sealed={"v": 2}), MIA, sealed={"v/2": b"two"})
    assert [await store.sealed.get(made.uid, f"v/{n}") for n in (1, 2)] == [None, b"two"]
    await store.objects.delete(Key("Paper", "acme--lab", "p"), MIA)
    assert await store.sealed.get(made.uid, "v/2") is None


async def test_what_is_refused_or_tried_seals_nothing(store: Store) -> None:
    made = await store.objects.create(paper(), MIA, sealed={"v": b"one"})
    with pytest.raises(AlreadyExists):
        await store.objects.create(paper(), MIA, sealed={"v": b"two"})
    stale = paper(text="x")
    stale["metadata"]["resourceVersion"] = str(made.revision + 7)
    with pytest.raises(Conflict):
        await store.objects.replace(stale, MIA, sealed={"v": b"two"})
    await store.objects.replace(paper(text="x"), MIA, sealed={"v": b"two"}, dry_run=True)
    assert await store.sealed.get(made.uid, "v") == b"one"


async def test_a_project_holds_so_many_whoever_is_first(store: Store) -> None:
    made = [store.objects.create(paper(f"p{n}"), MIA) for n in range(6)]
    found = await asyncio.gather(*made, return_exceptions=True)
    assert sorted(type(one).__name__ for one in found) == ["Forbidden"] * 3 + ["Stored"] * 3
    other = paper("elsewhere")
    other["metadata"]["namespace"] = "acme--other"
    await store.objects.create(other, MIA)
    await store.objects.replace(paper("p0", text="x"), MIA)
    await store.objects.delete(Key("Paper", "acme--lab", "p0"), MIA)
    await store.objects.create(paper("again"), MIA)
    with pytest.raises(Forbidden, match="acme--lab holds 3 of Paper"):
        await store.objects.create(paper("more"), MIA)


async def test_renewals_of_a_lease_leave_no_row(store: Store) -> None:
    def lease(holder: str, time: int) -> dict[str, Any]:
        metadata = {"name": "l", "namespace": "acme--lab"}
        return {"kind": "Lease", "metadata": metadata, "spec": {"holderIdentity": holder, "renewTime": str(time)}}

    await store.objects.create(lease("a", 1), MIA)
    for holder, time in (("a", 2), ("a", 3), ("b", 4), ("b", 5)):
        await store.objects.replace(lease(holder, time), MIA)
    assert [row.verb for row in await store.audit.rows()] == ["create", "update"]


async def test_events_are_anybodys_and_leave_no_row(store: Store) -> None:
    key = Key("Thing", "acme--lab", "t")
    event = {"kind": "Event", "metadata": {"name": "e", "namespace": "acme--lab"}, "message": "mine"}
    with pytest.raises(Forbidden):
        await store.objects.create(event, Writer("agent", "h1"))
    await store.objects.create(event, MIA)
    await store.events.emit(key, "u", "R", "ours")
    assert [row.verb for row in await store.audit.rows()] == []

"""Bodies of earlier releases: read as if they were of today, and rewritten with nobody noticing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.ports import CONTROLLER, Change, Scope
from bessemer.core.resource import Key
from bessemer.kinds import KINDS
from bessemer.store import Store, open_store, store_kinds
from tests.store import invariants
from tests.store.conftest import KEY
from tests.store.make import ALICE, read

FIRST = [json.loads(line) for line in (Path(__file__).parent / "data" / "0.1.0.jsonl").read_text().splitlines()]
"""A body of each kind that people write, and of Flavor three, as release 0.1.0 stored them."""
OF_FIRST = {name: replace(facts, forward=None) for name, facts in store_kinds(KINDS).items()}
"""What that release knew: no kind had a second version."""
NEAR = Key("Flavor", "", "near")


@pytest.fixture
async def old(place: str, clock: FakeClock) -> dict[str, Any]:
    """A store of the first release with its bodies in it; answers each body by kind and name, as stored."""
    store = open_store(place, clock=clock, kinds=OF_FIRST, seal_key=KEY)
    try:
        found = {}
        for body in FIRST:
            stored = await store.objects.create(body, CONTROLLER)
            found[str(stored.key)] = read(stored)
        return found
    finally:
        store.close()


@pytest.fixture
async def store(old: Any, place: str, clock: FakeClock) -> AsyncIterator[Store]:
    opened = open_store(place, clock=clock, kinds=store_kinds(KINDS), seal_key=KEY)
    yield opened
    opened.close()


async def served(store: Store) -> list[dict[str, Any]]:
    return [read(item) for item in (await store.objects.list(Scope(kind="Flavor"))).items]


def stored(place: str) -> dict[str, Any]:
    connection = invariants.connect(place)
    try:
        rows = connection.execute("SELECT name, body FROM objects WHERE kind = 'Flavor' ORDER BY name").fetchall()
        return {name: json.loads(bytes(body)) for name, body in rows}
    finally:
        connection.close()


async def test_every_kind_of_the_first_release_is_read(old: dict[str, Any], store: Store) -> None:
    by_name = {kind.name: kind for kind in KINDS}
    assert len(old) == len(FIRST)
    for body in old.values():
        kind, meta = by_name[body["kind"]], body["metadata"]
        now = await store.objects.get(Key(kind.name, meta.get("namespace", ""), meta["name"]))
        assert read(now)["apiVersion"] == kind.api_version
        assert kind.resource.load(now.body).uid == meta["uid"]
        if not kind.older:
            assert read(now) == body


async def test_what_is_read_is_of_the_newest_version(old: dict[str, Any], store: Store) -> None:
    before = old[str(NEAR)]
    got = read(await store.objects.get(NEAR))
    assert got["spec"]["devices"] == {"count": 8, "model": "H100-SXM5-80GB", "together": ["nvlink"]}
    assert (got["spec"]["cores"], got["spec"]["offered"], got["metadata"]) == (64, True, before["metadata"])
    assert got in await served(store)
    for since in (None, 0):
        async with aclosing(store.objects.watch(Scope(kind="Flavor"), since=since)) as changes:  # type: ignore[type-var]
            bodies = [change.body async for change in _some(changes, 3)]
        assert got in [json.loads(body) for body in bodies]


async def _some(changes: AsyncIterator[Any], count: int) -> AsyncIterator[Change]:
    async for change in changes:
        yield change
        count -= 1
        if not count:
            return


async def test_a_write_of_the_same_is_none_and_any_other_stores_the_newest(store: Store, place: str) -> None:
    got = await store.objects.get(NEAR)
    assert await store.objects.replace(read(got), ALICE) == got
    assert stored(place)["near"]["apiVersion"] == "bessemer.dev/v1alpha1"
    status = {**read(got), "status": {"phase": "Pending"}}
    moved = await store.objects.replace(status, CONTROLLER, part="status")
    assert (moved.generation, stored(place)["near"]) == (got.generation, read(moved))
    assert read(moved)["apiVersion"] == "bessemer.dev/v1beta1"


async def test_what_is_written_in_an_older_version_is_stored_in_the_newest(old: dict[str, Any], store: Store) -> None:
    said = old[str(NEAR)]
    said["spec"] |= {"cpus": 32}
    assert read(await store.objects.replace(said, ALICE))["spec"]["cores"] == 32


async def test_all_is_rewritten_at_its_revision_and_it_may_stop_anywhere(store: Store, place: str) -> None:
    before, revision = await served(store), store.revision
    await store.tidy()
    assert list(stored(place).values()) == before == await served(store)
    assert store.revision == revision
    invariants.check(place)
    await store.tidy()
    assert await served(store) == before


async def test_an_annotation_of_somebodys_spoils_nothing(old: dict[str, Any], place: str, clock: FakeClock) -> None:
    store = open_store(place, clock=clock, kinds=OF_FIRST, seal_key=KEY)
    said = old[str(NEAR)]
    said["metadata"]["annotations"]["conversion.bessemer.dev/v1beta1"] = "nonsense"
    await store.objects.replace(said, ALICE)
    store.close()
    store = open_store(place, clock=clock, kinds=store_kinds(KINDS), seal_key=KEY)
    try:
        got = read(await store.objects.get(NEAR))
    finally:
        store.close()
    assert (got["metadata"]["annotations"], got["spec"]["offered"]) == ({"note": "kept"}, True)


async def test_what_is_deleted_shows_the_newest(store: Store) -> None:
    assert read(await store.objects.delete(NEAR, ALICE))["apiVersion"] == "bessemer.dev/v1beta1"

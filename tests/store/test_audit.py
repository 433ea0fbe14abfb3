"""Audit, sealed values and events: what stands beside objects."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Conflict, NotFound, Unavailable
from bessemer.core.notices import Happening
from bessemer.core.ports import CONTROLLER, Scope, Writer
from bessemer.core.resource import Change, Key
from bessemer.store import Store, open_store
from bessemer.store.events import AGE_SECONDS, PER_OBJECT_MAX
from bessemer.store.transaction import Tx
from tests.store.conftest import KEY, KINDS
from tests.store.make import ALICE, PROJECT, agent, body, claim, inventory, read

# --- audit ------------------------------------------------------------------------------------------------------


async def test_acts_have_rows_observations_have_none(store: Store) -> None:
    writer = Writer("user", "alice", request_id="r1", source="10.0.0.1")
    thing = await store.objects.create(body("Thing", "a"), writer)
    await store.objects.replace(body("Thing", "a"), writer)
    await store.objects.replace(body("Thing", "a", spec={"size": 2}), writer)
    await store.objects.replace(body("Thing", "a") | {"status": {"phase": "Ready"}}, CONTROLLER, part="status")
    await store.objects.delete(thing.key, writer)
    await store.capacity.declare("h1", inventory())
    (taken,) = await store.capacity.take([claim("a")], CONTROLLER)
    await store.objects.replace(read(taken) | {"status": {"phase": "Gone"}}, agent("h1"), part="status")
    await store.capacity.retire(taken.key, CONTROLLER)
    await store.capacity.release(taken.key, CONTROLLER)
    await store.audit.deny(writer, "delete", taken.key, "not yours")
    rows = await store.audit.rows()
    assert [row.verb for row in rows] == ["create", "update", "delete", "take", "retire", "release", "delete"]
    first, last = rows[0], rows[-1]
    assert (first.id, first.writer, first.key, first.uid) == (1, "user:alice", f"Thing {PROJECT}/a", thing.uid)
    assert (first.allowed, first.reason, first.request_id, first.source) == (True, "", "r1", "10.0.0.1")
    assert (last.allowed, last.reason) == (False, "not yours")
    assert await store.audit.verify() is None
    assert [row.id for row in await store.audit.rows(after=2, limit=2)] == [3, 4]


async def test_a_refused_write_has_no_row(store: Store) -> None:
    await store.objects.create(body("Thing", "a"), ALICE)
    with pytest.raises(Conflict):
        await store.objects.replace(body("Thing", "a", spec={}, resourceVersion="9"), ALICE)
    assert len(await store.audit.rows()) == 1


def files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir()]


# --- sealed -----------------------------------------------------------------------------------------------------


async def test_secrets_are_kept_sealed_and_go_with_their_object(store: Store, tmp_path: Path) -> None:
    thing = await store.objects.create(body("Thing", "a"), ALICE)
    assert await store.sealed.get(thing.uid, "password") is None
    await store.sealed.put(thing.uid, "password", b"correct horse")
    await store.sealed.put(thing.uid, "password", b"battery staple")
    await store.sealed.put(thing.uid, "other", b"x")
    assert await store.sealed.get(thing.uid, "password") == b"battery staple"
    assert not any(b"battery staple" in on_disk for on_disk in files(tmp_path))
    await store.objects.delete(thing.key, ALICE)
    assert await store.sealed.get(thing.uid, "password") is None
    with pytest.raises(NotFound):
        await store.sealed.put(thing.uid, "password", b"late")


async def test_a_ciphertext_opens_in_its_place_with_its_key_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = open_store(path, clock=FakeClock(), kinds=KINDS, seal_key=KEY)
    one = await store.objects.create(body("Thing", "a"), ALICE)
    two = await store.objects.create(body("Thing", "b"), ALICE)
    await store.sealed.put(one.uid, "f", b"one")
    await store.sealed.put(two.uid, "f", b"two")
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "UPDATE sealed SET ciphertext = (SELECT ciphertext FROM sealed WHERE uid = ?) WHERE uid = ?",
            (one.uid, two.uid),
        )
    connection.close()
    with pytest.raises(Unavailable):
        await store.sealed.get(two.uid, "f")
    assert await store.sealed.get(one.uid, "f") == b"one"
    store.close()
    store = open_store(path, clock=FakeClock(), kinds=KINDS, seal_key=bytes(32))
    with pytest.raises(Unavailable):
        await store.sealed.get(one.uid, "f")
    store.close()


def test_a_short_key_is_no_key() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        open_store(":memory:", clock=FakeClock(), kinds=KINDS, seal_key=b"short")


# --- events -----------------------------------------------------------------------------------------------------


async def test_a_status_and_what_it_tells_are_written_together(store: Store) -> None:
    thing = await store.objects.create(body("Thing", "a"), ALICE)
    told = [Happening("Ready", "It runs", False), Happening("Stuck", "It does not", True)]
    status = {**body("Thing", "a"), "status": {"phase": "Running"}}
    written = await store.events.tell(status, CONTROLLER, happenings=told)
    assert (written.uid, read(written)["status"]) == (thing.uid, {"phase": "Running"})
    found = [read(item) for item in (await store.objects.list(Scope(kind="Event"))).items]
    assert {(one["type"], one["reason"], one["involvedObject"]["uid"]) for one in found} == {
        ("Normal", "Ready", thing.uid),
        ("Warning", "Stuck", thing.uid),
    }
    stale = {**status, "metadata": {**status["metadata"], "resourceVersion": "1"}, "status": {"phase": "Gone"}}
    with pytest.raises(Conflict):
        await store.events.tell(stale, CONTROLLER, happenings=[Happening("Gone", "It went", False)])
    assert len((await store.objects.list(Scope(kind="Event"))).items) == 2, "nothing is told that did not come to be"


async def test_an_event_is_what_kubectl_reads(store: Store, clock: FakeClock) -> None:
    thing = await store.objects.create(body("Thing", "a"), ALICE)
    await store.events.emit(thing.key, thing.uid, "Waiting", "No host", warning=True)
    await clock.advance(60)
    await store.events.emit(thing.key, thing.uid, "Waiting", "No host", warning=True)
    await store.events.emit(thing.key, thing.uid, "Ready", "It runs")
    ready, waiting = sorted(
        (read(item) for item in (await store.objects.list(Scope(kind="Event"))).items), key=lambda e: str(e["type"])
    )
    assert (ready["type"], ready["count"]) == ("Normal", 1)
    uid, name = waiting["metadata"]["uid"], waiting["metadata"]["name"]
    assert name.startswith("a.")
    assert waiting == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": name,
            "namespace": PROJECT,
            "uid": uid,
            "resourceVersion": "3",
            "generation": 1,
            "creationTimestamp": "2025-06-15T15:06:40Z",
        },
        "involvedObject": {
            "apiVersion": "bessemer.dev/v1alpha1",
            "kind": "Thing",
            "name": "a",
            "namespace": PROJECT,
            "uid": thing.uid,
        },
        "type": "Warning",
        "reason": "Waiting",
        "message": "No host",
        "count": 2,
        "firstTimestamp": "2025-06-15T15:06:40Z",
        "lastTimestamp": "2025-06-15T15:07:40Z",
        "source": {"component": "bessemer"},
        "reportingComponent": "bessemer",
        "reportingInstance": "",
    }


async def test_events_about_what_has_no_project_are_in_default(store: Store) -> None:
    await store.events.emit(Key("Host", "", "h1"), "u1", "Joined", "Hello")
    page = await store.objects.list(Scope(kind="Event", namespace="default"))
    assert [read(item)["involvedObject"]["name"] for item in page.items] == ["h1"]


async def test_an_object_keeps_its_newest_events(store: Store) -> None:
    for i in range(PER_OBJECT_MAX + 20):
        await store.events.emit(Key("Host", "", "h1"), "u1", "Tick", f"Number {i}")
    await store.events.emit(Key("Host", "", "h2"), "u2", "Tick", "Another's")
    events = [read(item) for item in (await store.objects.list(Scope(kind="Event"))).items]
    numbers = sorted(int(e["message"].split()[1]) for e in events if e["involvedObject"]["uid"] == "u1")
    assert numbers == list(range(20, PER_OBJECT_MAX + 20))
    assert len(events) == PER_OBJECT_MAX + 1


async def test_an_object_keeps_its_newest_events_also_of_one_group(store: Store) -> None:
    key = Key("Host", "", "h1")
    told = [store.events.emit(key, "u1", "Tick", f"Number {i}") for i in range(PER_OBJECT_MAX + 20)]
    await asyncio.gather(*told, store.events.emit(Key("Host", "", "h2"), "u2", "Tick", "Another's"))
    events = [read(item) for item in (await store.objects.list(Scope(kind="Event"))).items]
    numbers = sorted(int(e["message"].split()[1]) for e in events if e["involvedObject"]["uid"] == "u1")
    assert numbers == list(range(20, PER_OBJECT_MAX + 20))
    assert len(events) == PER_OBJECT_MAX + 1


async def test_what_a_group_tells_of_several_is_written_once(
    file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[int] = []
    settle = Tx.settle
    monkeypatch.setattr(Tx, "settle", lambda tx: (settled.append(len(tx._later.writes)), settle(tx))[1])
    told = (file_store.events.emit(Key("Host", "", f"h{n}"), f"u{n}", "Joined", "Hello") for n in range(8))
    await asyncio.gather(*told)
    assert settled == [], "how many events another has asks for nothing that was put off"
    assert len((await file_store.objects.list(Scope(kind="Event"))).items) == 8


async def test_events_outlive_their_object_and_go_by_age(store: Store, clock: FakeClock) -> None:
    thing = await store.objects.create(body("Thing", "a"), ALICE)
    await store.events.emit(thing.key, thing.uid, "Made", "Old")
    await store.objects.delete(thing.key, ALICE)
    await clock.advance(AGE_SECONDS - 10)
    await store.events.emit(thing.key, thing.uid, "Made", "Young")
    await store.tidy()
    assert len((await store.objects.list(Scope(kind="Event"))).items) == 2
    await clock.advance(20)
    await store.tidy()
    assert [read(item)["message"] for item in (await store.objects.list(Scope(kind="Event"))).items] == ["Young"]


async def test_events_are_watched(store: Store) -> None:
    watch = store.objects.watch(Scope(kind="Event", namespace=PROJECT))
    await anext(watch)
    await store.events.emit(Key("Thing", PROJECT, "a"), "u1", "Made", "x")
    await store.events.emit(Key("Thing", PROJECT, "a"), "u1", "Made", "x")
    found = [await anext(watch), await anext(watch)]
    assert [event.type for event in found if isinstance(event, Change)] == ["ADDED", "MODIFIED"]
    await watch.aclose()

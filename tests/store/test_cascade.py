"""Deletion in the foreground, and such that leaves behind: who waits for whom, what counts, and how much at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import update

from bessemer.core.clock import FakeClock
from bessemer.core.errors import NotFound, TooLarge
from bessemer.core.ports import CONTROLLER, Policy, Scope, Stored
from bessemer.core.quota import Quota
from bessemer.core.resource import Change, Key
from bessemer.store import Store, cascade, open_store
from bessemer.store.documents import BODY_BYTES_MAX, ENDING_BYTES
from bessemer.store.kinds import FOLLOWERS
from bessemer.store.schema import dependents
from bessemer.store.transaction import Tx
from tests.store.conftest import KEY, KINDS
from tests.store.invariants import check
from tests.store.make import ALICE, PROJECT, agent, body, claim, inventory, read

HELD = ["example.com/hold"]


def owner(*stored: Stored, blocks: bool | None = True) -> dict[str, Any]:
    """Metadata of what goes with these."""
    said = {} if blocks is None else {"blockOwnerDeletion": blocks}
    references = [
        {"apiVersion": "bessemer.dev/v1alpha1", "kind": one.key.kind, "name": one.key.name, "uid": one.uid, **said}
        for one in stored
    ]
    return {"ownerReferences": references}


async def make(store: Store, name: str, *owners: Stored, kind: str = "Thing", **metadata: Any) -> Stored:
    blocks = metadata.pop("blocks", True)
    return await store.objects.create(body(kind, name, **owner(*owners, blocks=blocks), **metadata), ALICE)


async def names(store: Store, kind: str = "Thing") -> list[str]:
    return [item.key.name for item in (await store.objects.list(Scope(kind=kind))).items]


async def everything(store: Store) -> list[Stored]:
    return list((await store.objects.list(Scope(kind="Thing"))).items)


async def finalizers(store: Store, name: str, kind: str = "Thing") -> list[str]:
    found: list[str] = read(await store.objects.get(Key(kind, PROJECT, name)))["metadata"].get("finalizers", [])
    return found


async def delete(store: Store, stored: Stored, policy: Policy | None = "Foreground") -> dict[str, Any]:
    return read(await store.objects.delete(stored.key, ALICE, policy=policy))


async def let_go(store: Store, name: str, *, kind: str = "Thing") -> None:
    """Whoever put a finalizer on takes it off."""
    document = read(await store.objects.get(Key(kind, PROJECT, name)))
    document["metadata"]["finalizers"] = [f for f in document["metadata"]["finalizers"] if "/" not in f]
    await store.objects.replace(document, CONTROLLER)


async def noted(store: Store) -> list[tuple[Any, ...]]:
    """What waits."""
    return [tuple(row) for row in await store._committer.submit(lambda tx: tx.all(cascade.cascades.select()))]


async def test_who_owns_nothing_is_marked_and_gone(store: Store) -> None:
    alone = await make(store, "alone")
    left = (await delete(store, alone))["metadata"]
    assert left["finalizers"] == ["foregroundDeletion"]
    assert "deletionTimestamp" in left
    assert left["generation"] == 2
    with pytest.raises(NotFound):
        await store.objects.get(alone.key)
    assert await noted(store) == []


async def test_dependents_go_first_and_watchers_see_it(store: Store) -> None:
    top = await make(store, "top")
    middle = await make(store, "middle", top)
    await make(store, "low", middle)
    since = store.revision
    await delete(store, top)
    assert await names(store) == []
    seen = []
    async with asyncio.timeout(60):
        async for event in store.objects.watch(Scope(kind="Thing"), since=since):
            if isinstance(event, Change):
                seen.append((event.type, event.key.name))
            if len(seen) == 5:
                break
    order = ["MODIFIED top", "MODIFIED middle", "DELETED low", "DELETED middle", "DELETED top"]
    assert [f"{what} {name}" for what, name in seen] == order
    rows = [(row.verb, row.key.rpartition("/")[2], row.writer) for row in (await store.audit.rows())[3:]]
    assert [row[:2] for row in rows] == [
        ("delete", "top"),
        ("collect", "middle"),
        ("collect", "low"),
        ("collect", "middle"),
        ("collect", "top"),
    ]
    assert {writer for *_, writer in rows} == {"user:alice"}


async def test_the_owner_waits_for_what_blocks_and_for_nothing_else(store: Store) -> None:
    top = await make(store, "top")
    await make(store, "blocks", top, finalizers=HELD)
    await make(store, "follows", top, finalizers=HELD, blocks=None)
    await delete(store, top)
    assert await finalizers(store, "top") == ["foregroundDeletion"]
    for name in ("blocks", "follows"):
        assert "deletionTimestamp" in read(await store.objects.get(Key("Thing", PROJECT, name)))["metadata"]
    await let_go(store, "blocks")
    assert await names(store) == ["follows"]
    await let_go(store, "follows")
    assert await names(store) == []
    assert await noted(store) == []


async def test_what_no_longer_blocks_lets_its_owner_go(store: Store) -> None:
    top = await make(store, "top")
    below = await make(store, "below", top, finalizers=HELD)
    await delete(store, top)
    document = read(await store.objects.get(below.key))
    document["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = False
    await store.objects.replace(document, ALICE)
    assert await names(store) == ["below"]


@pytest.mark.parametrize("names_it", [True, False])
async def test_who_lets_go_and_blocks_no_more_at_once_lets_its_owner_go(store: Store, names_it: bool) -> None:
    top = await make(store, "top")
    below = await make(store, "below", top, finalizers=HELD)
    await delete(store, top)
    document = read(await store.objects.get(below.key))
    del document["metadata"]["finalizers"]
    if names_it:
        document["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = False
    else:
        del document["metadata"]["ownerReferences"]
    await store.objects.replace(document, CONTROLLER)
    assert await names(store) == []


async def test_an_owners_own_finalizers_stand_longer(store: Store) -> None:
    top = await make(store, "top", kind="Guarded")
    await make(store, "below", top)
    assert (await delete(store, top))["metadata"]["finalizers"] == ["bessemer.dev/guarded", "foregroundDeletion"]
    assert await names(store) == []
    assert await finalizers(store, "top", "Guarded") == ["bessemer.dev/guarded"]
    await let_go(store, "top", kind="Guarded")
    assert await names(store, "Guarded") == []


async def test_a_dependent_with_another_owner_stays_and_blocks_nobody(store: Store) -> None:
    top, other = await make(store, "top"), await make(store, "other")
    await make(store, "shared", top, other)
    await delete(store, top)
    assert await names(store) == ["other", "shared"]
    document = read(await store.objects.get(Key("Thing", PROJECT, "shared")))
    assert [one["name"] for one in document["metadata"]["ownerReferences"]] == ["other"]
    await delete(store, other)
    assert await names(store) == []


async def test_what_is_left_behind_names_its_owner_no_more(store: Store) -> None:
    top = await make(store, "top")
    await make(store, "below", top)
    assert (await delete(store, top, "Orphan"))["metadata"]["finalizers"] == ["orphan"]
    assert await names(store) == ["below"]
    assert "ownerReferences" not in read(await store.objects.get(Key("Thing", PROJECT, "below")))["metadata"]
    assert await noted(store) == []


async def test_hardware_is_never_left_behind(store: Store) -> None:
    await store.capacity.declare("h1", inventory(4))
    top = await make(store, "top")
    await store.capacity.take([claim("vm", devices=("gpu-0",), **owner(top))], CONTROLLER)
    await make(store, "below", top)
    await delete(store, top, "Orphan")
    assert await names(store) == ["below"]
    left = read(await store.objects.get(Key("Claim", PROJECT, "instance-vm-0")))["metadata"]
    assert "deletionTimestamp" in left
    assert {"Role", "RoleBinding", "Session", "ApplicationCredential", "Claim"} == FOLLOWERS


async def test_what_is_wished_last_holds(store: Store) -> None:
    top = await make(store, "top")
    await make(store, "below", top, finalizers=HELD)
    await delete(store, top)
    assert (await delete(store, top, None))["metadata"]["finalizers"] == ["foregroundDeletion"], (
        "nothing else is wished"
    )
    await delete(store, top, "Background")
    assert await names(store) == ["below"]
    await let_go(store, "below")
    assert await names(store) == []


async def test_finalizers_that_stand_there_say_how(store: Store) -> None:
    top = await make(store, "top", finalizers=["orphan"])
    await make(store, "below", top)
    await delete(store, top, None)
    assert await names(store) == ["below"]
    again = await make(store, "again", finalizers=["foregroundDeletion"])
    await make(store, "held", again, finalizers=HELD)
    await delete(store, again, None)
    assert await names(store) == ["again", "below", "held"]


async def test_a_dry_run_changes_nothing(store: Store) -> None:
    top = await make(store, "top")
    await make(store, "below", top)
    for policy in ("Foreground", "Orphan"):
        left = read(await store.objects.delete(top.key, ALICE, dry_run=True, policy=policy))  # type: ignore[arg-type]
        assert "deletionTimestamp" in left["metadata"]
    assert await names(store) == ["below", "top"]
    assert "finalizers" not in read(await store.objects.get(top.key))["metadata"]
    assert await noted(store) == []


@pytest.mark.parametrize("length", [2, 3, 5])
async def test_a_ring_goes(store: Store, length: int) -> None:
    ring = [await make(store, "r0")]
    for number in range(1, length):
        ring.append(await make(store, f"r{number}", ring[-1]))
    first = read(await store.objects.get(ring[0].key))
    first["metadata"].update(owner(ring[-1]))
    await store.objects.replace(first, ALICE)
    await delete(store, ring[0])
    assert await names(store) == []
    assert await noted(store) == []


async def test_of_two_in_a_ring_that_wait_both_go(store: Store) -> None:
    left = await make(store, "left", finalizers=HELD)
    right = await make(store, "right", left)
    await make(store, "held", right, finalizers=HELD)
    first = read(await store.objects.get(left.key))
    first["metadata"].update(owner(right))
    await store.objects.replace(first, ALICE)
    await delete(store, right)
    await delete(store, left)
    assert await names(store) == ["held", "left"]
    assert await finalizers(store, "left") == HELD
    for name in ("left", "held"):
        await let_go(store, name)
    assert await names(store) == []


async def test_quota_and_money_are_counted_once(store: Store, place: str) -> None:
    """An Instance with its Claim, owned by a thing, twice over: by rows for each, and by both ways at once."""
    await store.objects.create(body("Tenant", "acme", namespace="", spec={"quota": {"instances": 9}}), ALICE)
    await store.objects.create(body("Project", PROJECT, namespace=""), ALICE)
    await store.objects.create(body("Host", "h1", namespace="", spec={}), ALICE)
    await store.capacity.declare("h1", inventory(4))
    await store.capacity.set_quota("tenant/acme", Quota(instances=9))
    top, second = await make(store, "top"), await make(store, "second")
    vm = await make(store, "vm", top, second, kind="Instance")
    await make(store, "below", vm, top)
    await store.capacity.take([claim("vm", devices=("gpu-0",), **owner(vm))], CONTROLLER)
    await delete(store, top)
    await delete(store, second)
    assert await finalizers(store, "vm", "Instance") == ["bessemer.dev/instance", "foregroundDeletion"]
    held = Key("Claim", PROJECT, "instance-vm-0")
    assert "deletionTimestamp" not in read(await store.objects.get(held))["metadata"], (
        "its owner's reconcile retires it"
    )
    document = read(await store.objects.get(held))
    document["status"] = {"phase": "Gone"}
    await store.objects.replace(document, agent("h1"), part="status")
    await store.capacity.retire(held, CONTROLLER)
    await store.capacity.release(held, CONTROLLER)
    assert await finalizers(store, "vm", "Instance") == ["bessemer.dev/instance"]
    assert await finalizers(store, "second") == ["foregroundDeletion"]
    await let_go(store, "vm", kind="Instance")
    assert await names(store) == []
    uses = {use.meter: use.used for use in await store.capacity.use("tenant/acme")}
    assert (uses["instances"], uses["claims"], uses["devices/H100"]) == (0, 0, 0)
    assert [row.kind for row in await store.ledger.entries()] == ["open", "state", "close"]
    check(place)


async def test_many_are_seen_to_a_few_at_a_time(
    store: Store, place: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left is taken up by whoever has the store next; each operation looks at `PART` and no more."""
    top = await make(store, "top")
    await asyncio.gather(*(make(store, f"n{number:03}", top) for number in range(cascade.PART * 3 + 5)))
    seen, see_to = list[int](), cascade._see_to
    parts = list[Tx]()

    def counting(tx: Tx, *args: Any, **named: Any) -> list[str]:
        if not parts or parts[-1] is not tx:
            parts.append(tx)
            seen.append(0)
        seen[-1] += 1
        return see_to(tx, *args, **named)

    monkeypatch.setattr(cascade, "_see_to", counting)
    await delete(store, top)
    assert len(await names(store)) == cascade.PART * 2 + 6
    store.close()
    again = open_store(place, clock=clock, kinds=KINDS, seal_key=KEY)
    await again.tidy()
    assert (await names(again), await noted(again)) == ([], [])
    assert seen == [cascade.PART] * 3 + [5]
    again.close()
    check(place)


async def test_the_process_that_was_asked_goes_on_by_itself(store: Store) -> None:
    top = await make(store, "top")
    await asyncio.gather(*(make(store, f"n{number:03}", top) for number in range(cascade.PART * 2)))
    tending = asyncio.create_task(store.tend())
    await asyncio.sleep(0)
    await delete(store, top)
    async with asyncio.timeout(60):
        while await names(store):
            await asyncio.sleep(0.01)
    assert await noted(store) == []
    tending.cancel()


@asynccontextmanager
async def tended(store: Store) -> AsyncIterator[None]:
    """What waits goes on by itself until all of it is gone; no round of tidying comes by."""
    tending = asyncio.create_task(store.tend())
    await asyncio.sleep(0)
    yield
    try:
        async with asyncio.timeout(60):
            while await noted(store) or await names(store):
                await asyncio.sleep(0.01)
    finally:
        tending.cancel()


async def test_dependents_of_dependents_go_on_by_themselves(store: Store) -> None:
    top = await make(store, "top")
    middle = await asyncio.gather(*(make(store, f"m{number}", top) for number in range(cascade.PART - 1)))
    await asyncio.gather(*(make(store, f"{one.key.name}-{number}", one) for one in middle for number in range(5)))
    async with tended(store):
        await delete(store, top)
    assert await names(store) == []


@pytest.mark.parametrize("policy", ["Background", "finalizer"])
async def test_who_collects_what_waits_sets_it_going(store: Store, policy: str) -> None:
    top = await make(store, "top", finalizers=HELD if policy == "finalizer" else [])
    middle = await make(store, "middle", top, finalizers=["foregroundDeletion"])
    await asyncio.gather(*(make(store, f"n{number}", middle) for number in range(3)))
    async with tended(store):
        await delete(store, top, "Background")
        if policy == "finalizer":
            await let_go(store, "top")
    assert await names(store) == []


@pytest.mark.parametrize("policy", ["Foreground", "Orphan"])
async def test_one_that_cannot_go_keeps_nobody_else(
    store: Store, monkeypatch: pytest.MonkeyPatch, policy: Policy
) -> None:
    """Whatever is wrong with it: its neighbours go, other owners' dependents go, and it is tried again."""
    top, other = await make(store, "top", finalizers=HELD), await make(store, "other")
    below = await asyncio.gather(*(make(store, f"n{number}", top) for number in range(cascade.PART + 8)))
    await asyncio.gather(*(make(store, f"o{number}", other) for number in range(cascade.PART + 8)))
    broken, see_to = sorted(below, key=lambda one: one.uid)[cascade.PART + 2], cascade._see_to

    def breaking(tx: Tx, uid: str, **named: Any) -> list[str]:
        if uid == broken.uid:
            raise KeyError("metadata")
        return see_to(tx, uid, **named)

    with monkeypatch.context() as patch:
        patch.setattr(cascade, "_see_to", breaking)
        await delete(store, top, policy)
        await delete(store, other)
        await store.tidy()
        assert "other" not in await names(store)
        owned = [one.key.name for one in await everything(store) if "ownerReferences" in read(one)["metadata"]]
        assert owned == [broken.key.name]
    await store.tidy()
    assert len(await names(store)) == (1 if policy == "Foreground" else 1 + len(below))
    assert await finalizers(store, "top") == HELD
    assert await noted(store) == []


async def test_who_asked_is_read_though_a_newer_release_said_more_of_him(store: Store) -> None:
    top = await make(store, "top")
    await asyncio.gather(*(make(store, f"n{number:03}", top) for number in range(cascade.PART + 1)))
    await delete(store, top)
    said = '{"kind":"user","name":"alice","request_id":"","source":"","device":"phone"}'
    await store._committer.submit(lambda tx: tx.run(update(cascade.cascades).values(writer=said)))
    await store.tidy()
    assert await names(store) == []
    assert (await store.audit.rows())[-1].writer == "user:alice"


async def test_what_is_as_large_as_may_be_goes_too(store: Store) -> None:
    top = await make(store, "top")
    empty = len((await make(store, "full", top, finalizers=HELD, annotations={"a": ""})).body)
    full = read(await store.objects.get(Key("Thing", PROJECT, "full")))
    full["metadata"]["annotations"] = {"a": "x" * (BODY_BYTES_MAX - empty)}
    assert len((await store.objects.replace(full, ALICE)).body) == BODY_BYTES_MAX
    await make(store, "below", Stored(top.key._replace(name="full"), full["metadata"]["uid"], 0, 0, "", b""))
    await delete(store, top)
    assert await names(store) == ["full", "top"]
    full = read(await store.objects.get(Key("Thing", PROJECT, "full")))
    full["metadata"]["annotations"]["a"] += "x" * ENDING_BYTES
    with pytest.raises(TooLarge):
        await store.objects.replace(full, ALICE)
    await let_go(store, "full")
    assert await names(store) == []


async def test_what_is_made_meanwhile_goes_too(store: Store) -> None:
    top = await make(store, "top")
    await make(store, "held", top, finalizers=HELD)
    await delete(store, top)
    await make(store, "late", top)
    await let_go(store, "held")
    assert await names(store) == ["late", "top"]
    await store.tidy()
    assert await names(store) == []


async def test_a_project_waits_until_it_is_empty(store: Store) -> None:
    await store.objects.create(body("Tenant", "acme", namespace="", spec={}), ALICE)
    project = await store.objects.create(body("Project", PROJECT, namespace=""), ALICE)
    await make(store, "inside")
    await delete(store, project)
    document = read(await store.objects.get(project.key))
    assert document["metadata"]["finalizers"] == ["bessemer.dev/project"]
    await store.objects.delete(Key("Thing", PROJECT, "inside"), ALICE)
    document["metadata"]["finalizers"] = []
    await store.objects.replace(document, CONTROLLER)
    assert await names(store, "Project") == []


async def test_who_deletes_one_of_many_looks_at_no_sibling(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statements of an end are as many with a thousand siblings as with none, and none of them reads theirs."""
    top = await make(store, "top")
    counts, all_of = [], Tx.all
    for more in (1, 60):
        await asyncio.gather(*(make(store, f"n{more}-{number}", top) for number in range(more)))
        rows = list[int]()

        def counting(self: Tx, *args: Any, rows: list[int] = rows, **named: Any) -> Any:
            found = all_of(self, *args, **named)
            rows.append(len(found))
            return found

        with monkeypatch.context() as patch:
            patch.setattr(Tx, "all", counting)
            await store.objects.delete(Key("Thing", PROJECT, f"n{more}-0"), ALICE)
        counts.append((len(rows), sum(rows)))
    assert counts[0] == counts[1]


async def test_what_a_release_before_wrote_is_taken_to_block(store: Store) -> None:
    """It says nothing of that, and a round of tidying has not read the body yet; the end of it is seen by the next."""
    top = await make(store, "top")
    await make(store, "below", top, finalizers=HELD, blocks=None)
    await store._committer.submit(lambda tx: tx.run(update(dependents).values(blocks=2)))
    await delete(store, top)
    assert await names(store) == ["below", "top"]
    await let_go(store, "below")
    await store.tidy()
    assert await names(store) == []

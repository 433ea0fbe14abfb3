"""The one writer of Claims: what is taken is taken once, counted once, billed once, and given back once."""

from __future__ import annotations

import asyncio

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Conflict, Forbidden, Invalid, NotFound, QuotaExceeded, Taken
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.notices import SPARED, Notice, mark_of
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.quota import Quota
from bessemer.core.resource import Key
from bessemer.core.values import WorkloadRef
from bessemer.store import Store
from tests.store.make import ALICE, PROJECT, agent, body, claim, inventory, read


async def used(store: Store, scope: str = "tenant/acme") -> dict[str, int]:
    return {use.meter: use.used for use in await store.capacity.use(scope) if use.used}


async def holders(store: Store) -> dict[str, str]:
    return {row.device: row.claim for row in await store.capacity.devices()}


async def report(store: Store, key: Key, host: str, phase: str) -> None:
    await store.objects.replace(
        {"kind": "Claim", "metadata": {"name": key.name, "namespace": key.namespace}, "status": {"phase": phase}},
        agent(host),
        part="status",
    )


async def test_take_moves_everything_at_once(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    (taken,) = await store.capacity.take([claim("a", devices=("gpu-0", "gpu-1"), labels={"app": "x"})], CONTROLLER)
    document = read(taken)
    assert document["status"] == {"phase": "Pending"}
    assert document["spec"]["host"] == taken.host == "h1"
    assert document["metadata"]["labels"] == {"app": "x"}
    found = await holders(store)
    assert [found["gpu-0"], found["gpu-1"], found["gpu-2"]] == [taken.uid, taken.uid, ""]
    counts = {"claims": 1, "devices/*": 2, "devices/H100": 2, "memory_bytes": 1 << 30, "milli_cores": 1000}
    assert await used(store) == await used(store, f"project/{PROJECT}") == counts
    (row,) = await store.ledger.entries()
    assert (row.kind, row.state, row.claim_uid, row.devices, row.milli_cores) == (
        "open",
        "deploying",
        taken.uid,
        2,
        1000,
    )
    assert [row.verb for row in await store.audit.rows()] == ["take"]


async def test_what_is_said_of_a_claim_stays_its_callers_and_has_a_shape(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    key, spec, metadata = claim("a", labels={"app": "x"})
    taking = asyncio.ensure_future(store.capacity.take([(key, spec, metadata)], CONTROLLER))
    await asyncio.sleep(0)
    metadata["labels"]["app"] = "y"
    (stored,) = await taking
    assert read(stored)["metadata"]["labels"] == {"app": "x"}
    assert metadata.keys() == {"labels"}
    key, spec, _ = claim("b")
    with pytest.raises(Invalid, match="metadata"):
        await store.capacity.take([(key, spec, {"labels": ["none"]})], CONTROLLER)


async def test_a_second_take_is_harmless(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    first = await store.capacity.take([claim("a", devices=("gpu-0",))], CONTROLLER)
    again = await store.capacity.take([claim("a", devices=("gpu-0",))], CONTROLLER)
    assert first == again
    assert (await used(store))["devices/*"] == 1


async def test_a_name_in_use_by_another_workload_is_refused(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    await store.capacity.take([claim("a")], CONTROLLER)
    key, spec, metadata = claim("a")
    other = spec.model_copy(update={"workload": WorkloadRef(kind="Instance", name="a", uid="another")})
    with pytest.raises(Conflict, match="another workload"):
        await store.capacity.take([(key, other, metadata)], CONTROLLER)


async def test_a_gang_is_all_or_none(store: Store) -> None:
    await store.capacity.declare("h1", inventory(gpus=1))
    gang = [claim("a", devices=("gpu-0",)), claim("b", devices=("gpu-0",))]
    with pytest.raises(Taken, match="gpu-0 of host h1 went to another claim"):
        await store.capacity.take(gang, CONTROLLER)
    assert set((await holders(store)).values()) == {""}
    assert await used(store) == {}
    assert not (await store.objects.list(Scope(kind="Claim"))).items
    assert await store.ledger.entries() == []


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (claim("a", host="h2"), "host h2 has nothing declared"),
        (claim("a", cores=32_001), "no 32001 milli-cores"),
        (claim("a", memory=(1 << 38) + 1), "bytes of memory left"),
        (claim("a", devices=("gpu-9",)), "gpu-9 is not on host h1 any more"),
        (claim("a", devices=("gpu-0", "gpu-0")), "went to another claim"),
    ],
)
async def test_taken_says_what_was_lost(store: Store, request_, words: str) -> None:
    await store.capacity.declare("h1", inventory())
    with pytest.raises(Taken, match=words):
        await store.capacity.take([request_], CONTROLLER)


async def test_a_cordoned_host_and_a_sick_device_refuse(store: Store) -> None:
    sick = inventory(1).model_copy(update={"devices": [Device(id="gpu-0", kind="gpu", model="H100", healthy=False)]})
    await store.capacity.declare("h1", sick)
    with pytest.raises(Taken, match="not healthy"):
        await store.capacity.take([claim("a", devices=("gpu-0",))], CONTROLLER)
    await store.capacity.declare("h1", inventory(), schedulable=False)
    with pytest.raises(Taken, match="cordoned"):
        await store.capacity.take([claim("a")], CONTROLLER)
    await store.capacity.declare("h1", inventory())
    await store.capacity.take([claim("a", devices=("gpu-0",))], CONTROLLER)


async def test_less_than_nothing_is_invalid(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    with pytest.raises(Invalid):
        await store.capacity.take([claim("a", cores=-1000)], CONTROLLER)


async def test_of_64_takers_of_the_last_device_one_wins(store: Store) -> None:
    await store.capacity.declare("h1", inventory(gpus=1, threads=256))
    takes = [store.capacity.take([claim(f"w{i}", devices=("gpu-0",))], CONTROLLER) for i in range(64)]
    results = await asyncio.gather(*takes, return_exceptions=True)
    assert sum(isinstance(result, Taken) for result in results) == 63
    (winner,) = [result for result in results if not isinstance(result, BaseException)]
    assert await holders(store) == {"gpu-0": winner[0].uid}
    assert (await used(store))["claims"] == 1


async def test_cores_are_sold_as_often_as_overcommit_says(store: Store) -> None:
    await store.capacity.declare("h1", inventory(threads=1), overcommit_milli=4000)
    for i in range(4):
        await store.capacity.take([claim(f"w{i}", cores=1000)], CONTROLLER)
    with pytest.raises(Taken):
        await store.capacity.take([claim("w4", cores=1)], CONTROLLER)


async def test_quota_says_what_is_left_and_who_may_raise_it(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    await store.capacity.set_quota("tenant/acme", Quota(devices={"H100": 3}))
    await store.capacity.take([claim("a", devices=("gpu-0", "gpu-1"))], CONTROLLER)
    with pytest.raises(QuotaExceeded) as caught:
        await store.capacity.take([claim("b", devices=("gpu-2", "gpu-3"))], CONTROLLER)
    words = "tenant acme: 2 H100 asked, 1 of 3 left; an administrator of the platform may raise the quota"
    assert str(caught.value) == words
    assert (await used(store))["devices/*"] == 2


async def test_a_quota_below_use_is_stated_and_touches_nothing(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    await store.capacity.take([claim("a", devices=("gpu-0", "gpu-1"))], CONTROLLER)
    await store.capacity.set_quota(f"project/{PROJECT}", Quota(devices={"*": 1}, claims=5))
    uses = {use.meter: (use.used, use.limit) for use in await store.capacity.use(f"project/{PROJECT}")}
    assert uses["devices/*"] == (2, 1)
    assert uses["claims"] == (1, 5)
    assert len((await store.objects.list(Scope(kind="Claim"))).items) == 1
    with pytest.raises(QuotaExceeded, match="0 of 1 left; an administrator of the tenant"):
        await store.capacity.take([claim("b", devices=("gpu-2",))], CONTROLLER)
    await store.capacity.take([claim("c")], CONTROLLER)
    await store.capacity.set_quota(f"project/{PROJECT}", Quota())
    await store.capacity.take([claim("b", devices=("gpu-2",))], CONTROLLER)


async def test_counted_kinds_meet_quota_at_creation_and_give_back_when_gone(store: Store) -> None:
    await store.capacity.set_quota("tenant/acme", Quota(instances=1))
    first = await store.objects.create(body("Instance", "a"), ALICE)
    with pytest.raises(QuotaExceeded, match="1 instances asked, 0 of 1 left"):
        await store.objects.create(body("Instance", "b"), ALICE)
    await store.objects.delete(first.key, ALICE)
    assert (await used(store)) == {"instances": 1}
    await store.objects.replace(body("Instance", "a"), CONTROLLER)
    assert (await used(store)) == {}
    await store.objects.create(body("Instance", "b"), ALICE)


async def test_release_waits_for_gone_or_a_fence(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    (a, b) = await store.capacity.take([claim("a", devices=("gpu-0",)), claim("b", devices=("gpu-1",))], CONTROLLER)
    with pytest.raises(Conflict, match="agent has not said so"):
        await store.capacity.release(a.key, CONTROLLER)
    await report(store, a.key, "h1", "Gone")
    await store.capacity.release(a.key, CONTROLLER)
    await store.capacity.release(b.key, CONTROLLER, fenced=True)
    await store.capacity.release(b.key, CONTROLLER, fenced=True)
    assert set((await holders(store)).values()) == {""}
    assert await used(store) == {}
    with pytest.raises(NotFound):
        await store.objects.get(a.key)
    assert [row.kind for row in await store.ledger.entries()] == ["open", "open", "state", "close", "close"]


async def test_amend_is_a_new_generation_of_the_same_claim(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    (taken,) = await store.capacity.take([claim("a")], CONTROLLER)
    same = await store.capacity.amend(taken.key, {}, CONTROLLER)
    assert same.revision == taken.revision
    new = await store.capacity.amend(taken.key, {"stopped": True}, CONTROLLER)
    assert (new.generation, read(new)["spec"]["intent"]) == (2, {"stopped": True})
    again = await store.capacity.amend(taken.key, {"stopped": True}, CONTROLLER)
    assert again == new


async def test_retire_marks_once(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    (taken,) = await store.capacity.take([claim("a")], CONTROLLER)
    first = await store.capacity.retire(taken.key, CONTROLLER)
    assert read(first)["metadata"]["deletionTimestamp"]
    assert await store.capacity.retire(taken.key, CONTROLLER) == first


async def test_a_notice_is_told_once_and_asks_for_no_end(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    (taken,) = await store.capacity.take([claim("a")], CONTROLLER)
    first = await store.capacity.retire(taken.key, CONTROLLER, notice=Notice(1_800_000_000, "for another"))
    meta = read(first)["metadata"]
    assert Notice.read(meta["annotations"]) == Notice(1_800_000_000, "for another")
    assert ("deletionTimestamp" in meta, first.generation) == (False, taken.generation)
    again = await store.capacity.retire(taken.key, CONTROLLER, notice=Notice(1_900_000_000, "for a third"))
    assert again == first
    ended = await store.capacity.retire(taken.key, CONTROLLER)
    assert read(ended)["metadata"]["deletionTimestamp"]
    late = await store.capacity.retire(taken.key, CONTROLLER, notice=Notice(1, "too late"))
    assert late == ended
    assert await store.audit.verify() is None


async def test_a_notice_is_taken_back_while_its_time_has_not_come(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    (taken,) = await store.capacity.take([claim("a")], CONTROLLER)
    assert await store.capacity.retire(taken.key, CONTROLLER, notice=SPARED) == taken
    far = Notice(9_000_000_000, "for another", asker=mark_of("somebody"))
    told = await store.capacity.retire(taken.key, CONTROLLER, notice=far)
    assert Notice.read(read(told)["metadata"]["annotations"]) == far
    assert "somebody" not in str(read(told))
    spared = await store.capacity.retire(taken.key, CONTROLLER, notice=SPARED)
    assert "ends-" not in str(read(spared))
    assert (spared.generation, spared.revision > told.revision) == (taken.generation, True)
    # Once its time has come, or its end was asked for, it is too late.
    due = await store.capacity.retire(taken.key, CONTROLLER, notice=Notice(1, "for another"))
    assert await store.capacity.retire(taken.key, CONTROLLER, notice=SPARED) == due
    (other,) = await store.capacity.take([claim("b")], CONTROLLER)
    await store.capacity.retire(other.key, CONTROLLER, notice=far)
    ended = await store.capacity.retire(other.key, CONTROLLER)
    assert await store.capacity.retire(other.key, CONTROLLER, notice=SPARED) == ended
    assert await store.audit.verify() is None


async def test_a_word_for_an_earlier_claim_of_the_name_changes_nothing(store: Store) -> None:
    """Its writer was held up on the way; the name is another's by now, and that one runs."""
    await store.capacity.declare("h1", inventory())
    key, spec, metadata = claim("a", devices=("gpu-0",))
    (first,) = await store.capacity.take([(key, spec, metadata)], CONTROLLER)
    await store.capacity.release(key, CONTROLLER, fenced=True, uid=first.uid)
    (second,) = await store.capacity.take([(key, spec, metadata)], CONTROLLER)
    await store.capacity.release(key, CONTROLLER, fenced=True, uid=first.uid)
    for late in (
        store.capacity.retire(key, CONTROLLER, uid=first.uid),
        store.capacity.amend(key, {"running": False}, CONTROLLER, uid=first.uid),
    ):
        with pytest.raises(Conflict, match="another one by now"):
            await late
    assert await store.objects.get(second.key) == second
    assert (await holders(store))["gpu-0"] == second.uid
    await store.capacity.release(key, CONTROLLER, fenced=True, uid=second.uid)
    assert (await holders(store))["gpu-0"] == ""


async def test_rows_are_not_made_out_of_what_has_changed_since(store: Store) -> None:
    """A controller was held up with an older Host and an older Tenant in its hand."""
    host, tenant = [
        await store.objects.create(body(kind, name, namespace=""), ALICE)
        for kind, name in (("Host", "h1"), ("Tenant", "acme"))
    ]
    await store.capacity.declare("h1", inventory(), revision=str(host.revision))
    await store.capacity.set_quota("tenant/acme", Quota(milli_cores=2000), revision=str(tenant.revision))
    for stored in (host, tenant):
        await store.objects.replace({**read(stored), "status": {"phase": "Seen"}}, CONTROLLER, part="status")
    for late in (
        store.capacity.declare("h1", Inventory(), schedulable=False, revision=str(host.revision)),
        store.capacity.withdraw("h1", revision=str(host.revision)),
        store.capacity.set_quota("tenant/acme", Quota(milli_cores=9000), revision=str(tenant.revision)),
        store.capacity.set_quota("tenant/none", Quota(), revision="1"),
    ):
        with pytest.raises(Conflict, match="changed since"):
            await late
    await store.capacity.take([claim("a", devices=("gpu-0",))], CONTROLLER)
    with pytest.raises(QuotaExceeded):
        await store.capacity.take([claim("b"), claim("c")], CONTROLLER)


async def test_a_claimed_device_that_vanishes_is_lost_and_may_come_back(store: Store) -> None:
    await store.capacity.declare("h1", inventory(gpus=2))
    (taken,) = await store.capacity.take([claim("a", devices=("gpu-1",))], CONTROLLER)
    await store.capacity.declare("h1", inventory(gpus=0))
    (row,) = await store.capacity.devices()
    assert (row.device, row.claim, row.lost) == ("gpu-1", taken.uid, True)
    await store.capacity.declare("h1", inventory(gpus=2))
    assert [(row.device, row.lost) for row in await store.capacity.devices()] == [("gpu-0", False), ("gpu-1", False)]
    await store.capacity.declare("h1", inventory(gpus=0))
    await store.capacity.release(taken.key, CONTROLLER, fenced=True)
    assert await store.capacity.devices() == []
    assert await used(store) == {}


async def test_a_claim_keeps_what_it_was_counted_as(store: Store) -> None:
    """A claimed device that comes back as another model must not leave a counter behind."""
    await store.capacity.declare("h1", inventory(gpus=1))
    (taken,) = await store.capacity.take([claim("a", devices=("gpu-0",))], CONTROLLER)
    await store.capacity.declare("h1", inventory(gpus=1, model="H200"))
    await store.capacity.release(taken.key, CONTROLLER, fenced=True)
    assert await used(store) == {}


async def test_totals_follow_the_inventory(store: Store) -> None:
    await store.capacity.declare("h1", inventory(threads=4))
    (taken,) = await store.capacity.take([claim("a", cores=4000)], CONTROLLER)
    await store.capacity.declare("h1", Inventory(numa=[NumaNode(id=1, cores=1, threads=2, memory_bytes=1 << 30)]))
    with pytest.raises(Taken):
        await store.capacity.take([claim("b")], CONTROLLER)
    await store.capacity.release(taken.key, CONTROLLER, fenced=True)
    await store.capacity.declare("h1", inventory(threads=2))
    await store.capacity.take([claim("b", cores=2000)], CONTROLLER)


async def test_withdraw_refuses_while_a_claim_stands(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    (taken,) = await store.capacity.take([claim("a")], CONTROLLER)
    with pytest.raises(Conflict, match="1 claims stand on host h1"):
        await store.capacity.withdraw("h1")
    await store.capacity.release(taken.key, CONTROLLER, fenced=True)
    await store.capacity.withdraw("h1")
    await store.capacity.withdraw("h1")
    assert await store.capacity.devices() == []


async def test_only_the_control_side_takes(store: Store) -> None:
    for writer in (ALICE, agent("h1")):
        with pytest.raises(Forbidden):
            await store.capacity.take([claim("a")], writer)


async def test_ledger_follows_the_agents_word(store: Store, clock: FakeClock) -> None:
    await store.capacity.declare("h1", inventory())
    (taken,) = await store.capacity.take([claim("a")], CONTROLLER)
    for phase in ("Preparing", "Starting", "Running", "Running", "Stopping", "Lost", "Running", "Stopped"):
        await clock.advance(10)
        await report(store, taken.key, "h1", phase)
    rows = await store.ledger.entries()
    start = rows[0].at
    assert [(row.at - start, row.state) for row in rows] == [
        (0, "deploying"),
        (30, "running"),
        (60, "lost"),
        (70, "running"),
        (80, "stopped"),
    ]
    with pytest.raises(Invalid, match="no phase"):
        await report(store, taken.key, "h1", "Dancing")


async def test_clock_jumps_never_turn_an_interval_around(store: Store, clock: FakeClock) -> None:
    await store.capacity.declare("h1", inventory())
    (taken,) = await store.capacity.take([claim("a")], CONTROLLER)
    for jump, phase in ((86_400, "Running"), (-172_800, "Lost"), (5, "Running"), (86_400 * 3, "Gone")):
        clock.jump(jump)
        await report(store, taken.key, "h1", phase)
    clock.jump(-86_400 * 9)
    await store.capacity.release(taken.key, CONTROLLER)
    times = [row.at for row in await store.ledger.entries()]
    assert times == sorted(times)
    assert len(times) == 6

"""Devices in part: what several have of one goes together at every commit, is counted, billed and given back once."""

from __future__ import annotations

import asyncio
import random

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import BessemerError, QuotaExceeded, Taken
from bessemer.core.ports import CONTROLLER
from bessemer.core.quota import Quota, begun, said, title_of
from bessemer.core.resource import Key
from bessemer.core.slices import Partitioning, Profile
from bessemer.core.values import ClaimSpec
from bessemer.drivers.inspect.tables import known
from bessemer.store import Guard, Store, open_store, sharing
from bessemer.store.check import check_store
from tests.store.conftest import KEY, KINDS
from tests.store.invariants import check, connect
from tests.store.make import PROJECT, claim, inventory

H100 = known()["H100-80GB"]
ROWS = "SELECT host, device, claim, milli, profile, start FROM shares ORDER BY claim"


def part(name: str, milli: int, device: str = "gpu-0", **more):
    return claim(name, devices=(device,), part=(milli, "", 0), **more)


def instance(name: str, profile: str, start: int, *, device: str = "gpu-0", milli: int | None = None):
    return claim(name, devices=(device,), part=(milli or H100.milli_of(profile), profile, start))


async def take(store: Store, *claims) -> None:
    await store.capacity.take(claims, CONTROLLER)


async def end(store: Store, name: str) -> None:
    await store.capacity.release(Key("Claim", PROJECT, f"instance-{name}-0"), CONTROLLER, fenced=True)


async def holders(store: Store) -> dict[str, str]:
    return {row.device: row.claim for row in await store.capacity.devices()}


async def used(store: Store, scope: str = "tenant/acme") -> dict[str, int]:
    uses = {use.meter: use.used for use in await store.capacity.use(scope) if use.used}
    return {meter: amount for meter, amount in uses.items() if meter.partition("/")[0] in ("devices", "shares")}


# --- what goes together -----------------------------------------------------------------------------------------


async def test_several_share_a_device_up_to_all_of_it(store: Store) -> None:
    await store.capacity.declare("h1", inventory(2))
    await take(store, *(part(name, 250) for name in "abcd"))
    assert await holders(store) == {"gpu-0": sharing.SHARED, "gpu-1": ""}
    with pytest.raises(Taken, match="gpu-0 of host h1 is asked for 1001 thousandths in all"):
        await take(store, part("e", 1))
    await end(store, "b")
    with pytest.raises(Taken, match="1001 thousandths"):
        await take(store, part("e", 251), part("f", 1, "gpu-1"))
    await take(store, part("e", 250))
    for name in "acde":
        await end(store, name)
    assert await holders(store) == {"gpu-0": "", "gpu-1": ""}
    await take(store, claim("whole", devices=("gpu-0",)))


async def test_what_is_whole_somebodys_is_not_shared_and_the_other_way_round(store: Store) -> None:
    await store.capacity.declare("h1", inventory(3))
    await take(store, claim("whole", devices=("gpu-0",)), part("share", 1, "gpu-1"))
    await take(store, instance("cut", "1g.10gb", 6, device="gpu-2"))
    for wanted, why in (
        (part("a", 1), "went to another claim"),
        (instance("a", "1g.10gb", 0), "went to another claim"),
        (claim("a", devices=("gpu-1",)), "went to others in part"),
        (claim("a", devices=("gpu-2",)), "went to others in part"),
        (instance("a", "1g.10gb", 0, device="gpu-1"), "shared by thousandths and cut at once"),
        (part("a", 1, "gpu-2"), "shared by thousandths and cut at once"),
    ):
        with pytest.raises(Taken, match=why):
            await take(store, wanted)
    assert len(await store.ledger.entries()) == 3


async def test_instances_stand_where_their_device_allows(store: Store) -> None:
    await store.capacity.declare("h1", inventory(1))
    await take(store, instance("a", "3g.40gb", 4), instance("b", "1g.10gb+me", 0))
    for wanted, why in (
        (instance("c", "1g.10gb", 0), "has not those slices free"),
        (instance("c", "1g.10gb", 7), "has not those slices free"),
        (instance("c", "2g.20gb", 1), "has not those slices free"),
        (instance("c", "1g.10gb+me", 1), "has not those slices free"),
        (instance("c", "9g.1gb", 1, milli=125), "has no such profile"),
        (instance("c", "1g.10gb", 1, milli=250), "or its instance is another part of it"),
    ):
        with pytest.raises(Taken, match=why):
            await take(store, wanted)
    await take(store, instance("c", "2g.20gb", 2), instance("d", "1g.10gb", 1))
    await end(store, "a")
    await take(store, instance("e", "1g.20gb", 6))


async def test_what_cannot_be_cut_is_not(store: Store, place: str) -> None:
    report = inventory(1)
    await store.capacity.declare("h1", report.model_copy(update={"partitions": {}}))
    with pytest.raises(Taken, match="cannot be cut"):
        await take(store, instance("a", "1g.10gb", 0))
    await store.capacity.declare("h1", report)
    await take(store, instance("a", "1g.10gb", 0))
    await store.capacity.declare("h1", report.model_copy(update={"partitions": {}}))
    with pytest.raises(Taken, match="cannot be cut"):
        await take(store, instance("b", "1g.10gb", 1))
    found = {
        tally.check: tally.wrong
        async for tally in check_store(place, clock=FakeClock(), kinds=KINDS, guard=Guard.of(KEY))
    }
    assert found["shares"] == [], "what stands by an older table stays"
    await end(store, "a")
    assert await holders(store) == {"gpu-0": ""}


async def test_a_share_is_of_one_device(store: Store) -> None:
    await store.capacity.declare("h1", inventory(2))
    with pytest.raises(Taken, match="a share of 2 devices"):
        await take(store, claim("a", devices=("gpu-0", "gpu-1"), part=(500, "", 0)))
    with pytest.raises(Taken, match="not on host"):
        await take(store, part("a", 500, "gpu-9"))


async def test_a_second_take_of_a_share_is_harmless(store: Store) -> None:
    await store.capacity.declare("h1", inventory(1))
    await take(store, part("a", 600))
    await take(store, part("a", 600))
    assert await used(store) == {"shares/H100": 600, "shares/*": 600, "devices/H100": 1, "devices/*": 1}


async def test_a_shared_device_that_vanishes_is_lost_until_the_last_of_it_is_gone(store: Store) -> None:
    await store.capacity.declare("h1", inventory(2))
    await take(store, part("a", 500, "gpu-1"), part("b", 500, "gpu-1"))
    await store.capacity.declare("h1", inventory(1))
    lost = [(row.device, row.claim, row.lost) for row in await store.capacity.devices()]
    assert lost == [("gpu-0", "", False), ("gpu-1", sharing.SHARED, True)]
    await end(store, "a")
    with pytest.raises(Taken, match="gpu-1 is not on host h1 any more"):
        await take(store, part("c", 250, "gpu-1"))
    assert len(await store.capacity.devices()) == 2
    await end(store, "b")
    assert [row.device for row in await store.capacity.devices()] == ["gpu-0"]
    assert await used(store) == {}


async def test_a_share_keeps_what_it_was_counted_as(store: Store) -> None:
    await store.capacity.declare("h1", inventory(1))
    await take(store, part("a", 500))
    await store.capacity.declare("h1", inventory(1, model="H200"))
    await end(store, "a")
    assert await used(store) == {}


async def test_a_device_that_is_not_sound_is_not_shared(store: Store) -> None:
    found = inventory(1)
    sick = [found.devices[0].model_copy(update={"healthy": False})]
    await store.capacity.declare("h1", found.model_copy(update={"devices": sick}))
    with pytest.raises(Taken, match="not healthy"):
        await take(store, part("a", 500))


async def test_tables_go_with_their_host(store: Store, place: str) -> None:
    await store.capacity.declare("h1", inventory(1))
    await store.capacity.withdraw("h1")
    connection = connect(place)
    assert connection.execute("SELECT * FROM partitions").fetchall() == []
    connection.close()


async def test_rivals_race_for_the_last_quarter(store: Store, place: str) -> None:
    await store.capacity.declare("h1", inventory(1))
    await take(store, part("a", 750))
    answers = await asyncio.gather(*(take(store, part(f"r{n}", 250)) for n in range(12)), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["NoneType", *["Taken"] * 11]
    check(place)


@pytest.mark.real
async def test_two_processes_race_for_the_last_quarter(server, clock: FakeClock) -> None:
    url = server.database("rivals_of_a_quarter")
    stores = [open_store(url, clock=clock, kinds=KINDS, seal_key=KEY) for _ in range(2)]
    try:
        await stores[0].capacity.declare("h1", inventory(2))
        await take(stores[0], part("a", 750), instance("i", "4g.40gb", 0, device="gpu-1"))
        for wanted in (
            lambda n: part(f"q{n}", 250),
            lambda n: instance(f"c{n}", "3g.40gb", 4, device="gpu-1"),
        ):
            turns = [take(stores[n % 2], wanted(n)) for n in range(10)]
            answers = await asyncio.gather(*turns, return_exceptions=True)
            assert sorted(type(answer).__name__ for answer in answers) == ["NoneType", *["Taken"] * 9]
        check(url)
    finally:
        for store in stores:
            store.close()


async def test_nothing_is_shared_while_a_release_serves_that_knows_nothing_of_it(place: str, store: Store) -> None:
    await store.capacity.declare("h1", inventory(1))
    connection = connect(place)
    connection.execute("UPDATE counters SET value = 7 WHERE name = 'carries'")
    try:
        with pytest.raises(Taken, match="not shared while a release serves"):
            await take(store, part("a", 500))
        await take(store, claim("b", devices=("gpu-0",)))
        await end(store, "b")
    finally:
        connection.execute("UPDATE counters SET value = 8 WHERE name = 'carries'")
        connection.close()
    await take(store, part("a", 500))


# --- what is counted and billed ---------------------------------------------------------------------------------


async def test_four_quarters_are_one_device_of_a_quota(store: Store) -> None:
    await store.capacity.declare("h1", inventory(4))
    await store.capacity.set_quota("tenant/acme", Quota(devices={"H100": 2}))
    await take(store, *(part(name, 250) for name in "abc"), part("d", 250, "gpu-1"))
    assert await used(store) == {"shares/H100": 1000, "shares/*": 1000, "devices/H100": 1, "devices/*": 1}
    await take(store, claim("whole", devices=("gpu-2",)))
    with pytest.raises(QuotaExceeded, match="1 H100 asked, 0 of 2 left"):
        await take(store, part("e", 1, "gpu-1"))
    assert await holders(store) == {"gpu-0": "*", "gpu-1": "*", "gpu-2": (await holders(store))["gpu-2"], "gpu-3": ""}
    await end(store, "a")
    await take(store, instance("i", "2g.20gb", 4, device="gpu-3"))
    assert (await used(store))["devices/H100"] == 2
    for name in ("b", "c", "d", "i", "whole"):
        await end(store, name)
    assert await used(store) == {}


async def test_the_sum_over_models_has_its_own_parts(store: Store) -> None:
    await store.capacity.declare("h1", inventory(1))
    await store.capacity.declare("h2", inventory(1, model="A100"))
    await take(store, part("a", 500), part("b", 500, host="h2"))
    assert await used(store) == {
        "shares/H100": 500,
        "shares/A100": 500,
        "shares/*": 1000,
        "devices/H100": 1,
        "devices/A100": 1,
        "devices/*": 1,
    }


def test_a_bound_of_devices_lets_through_what_it_would_were_parts_counted_exactly() -> None:
    for bound in range(4):
        for whole in range(4):
            for milli in range(0, 3001, 50):
                assert (whole + begun(milli) <= bound) == (1000 * whole + milli <= 1000 * bound)


def test_parts_are_said_in_devices() -> None:
    assert [said(meter, 250) for meter in ("shares/H100", "shares/*")] == ["0.25 H100 in part", "0.25 devices in part"]
    assert title_of("shares/H100") == "H100 in part"


async def test_the_ledger_says_how_much_of_a_device_it_is(store: Store) -> None:
    await store.capacity.declare("h1", inventory(2))
    await take(store, part("a", 250), instance("b", "7g.80gb", 0, device="gpu-1"))
    await end(store, "a")
    rows = [(row.kind, row.devices, row.device_milli, row.milli_devices) for row in await store.ledger.entries()]
    assert rows == [("open", 1, 250, 250), ("open", 1, 1000, 1000), ("close", 1, 250, 250)]


def test_a_claim_of_whole_devices_reads_as_it_did_before() -> None:
    _, spec, _ = claim("a", devices=("gpu-0",))
    assert not {"deviceMilli", "deviceProfile", "deviceStart"} & spec.dump().keys()
    _, spec, _ = instance("b", "1g.10gb", 6)
    assert ClaimSpec.model_validate(spec.dump()) == spec
    assert spec.dump()["deviceStart"] == 6


# --- by chance --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_came_and_went_the_rows_add_up(store: Store, place: str, seed: int) -> None:
    draw = random.Random(seed)
    await store.capacity.declare("h1", inventory(2))
    standing: list[str] = []
    names = [profile.name for profile in H100.profiles]
    for turn in range(60):
        if standing and draw.random() < 0.4:
            await end(store, standing.pop(draw.randrange(len(standing))))
            continue
        device, name = f"gpu-{draw.randrange(2)}", f"c{turn}"
        wanted = draw.choice(
            [
                claim(name, devices=(device,)),
                part(name, draw.choice((125, 250, 500, 999)), device),
                instance(name, draw.choice(names), draw.randrange(8), device=device),
            ]
        )
        try:
            await take(store, wanted)
        except Taken:
            continue
        standing.append(name)
    assert standing
    check(place)
    for name in standing:
        await end(store, name)
    check(place)
    assert await holders(store) == {"gpu-0": "", "gpu-1": ""}


async def test_a_fault_at_any_statement_leaves_nothing_half_done(store: Store, place: str) -> None:
    await store.capacity.declare("h1", inventory(2))
    session = store._committer._session
    execute, left = session.execute, [0]

    def faulty(statement, values):
        left[0] -= 1
        if left[0] < 0 and statement.is_dml:
            raise session.faults[0]("somebody pulled the plug")
        return execute(statement, values)

    async def taking() -> None:
        await take(store, part("a", 250), instance("b", "1g.20gb", 0, device="gpu-1"))

    async def giving() -> None:
        await end(store, "a")
        await end(store, "b")

    for step in (taking, giving):
        before, number = await holders(store), 0
        while await holders(store) == before:
            session.execute, left[0] = faulty, number
            try:
                await step()
            except (BessemerError, *session.faults):
                number += 1
            session.execute = execute
            check(place)
        assert number > 3, step.__name__
        await step()
    assert await used(store) == {}


# --- the judgement itself ---------------------------------------------------------------------------------------


def test_a_device_that_is_one_instance_can_be_had_as_that() -> None:
    whole = Partitioning(
        memory=1,
        compute=1,
        instances=1,
        profiles=(Profile(name="all", memory=1, compute=1, starts=(0,), engines=True),),
    )
    assert sharing.wrong([(1000, "all", 0)], whole) == ""
    assert sharing.wrong([(1000, "all", 0), (1000, "all", 0)], whole) == "has not those slices free"
    assert sharing.wrong([], None) == ""

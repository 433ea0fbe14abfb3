"""Counters under load: of 64 tasks that fight for the last units as many win as there are, never one more, never one
lost. Clients, processes and what befalls them are in ``tests/failover``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest

from bessemer.core.clock import Clock, FakeClock
from bessemer.core.errors import Invalid, QuotaExceeded, Taken, Unavailable
from bessemer.core.ports import CONTROLLER, Scope, Stored
from bessemer.core.quota import METERS, Meter, Quota, amounts_of, bounds_of, meter_of_kind, said
from bessemer.core.resource import Key
from bessemer.store import Guard, Store, StoreKind, open_store, quota
from bessemer.store.check import check_store
from bessemer.store.documents import decode
from bessemer.store.transaction import Tx
from tests.store.conftest import KEY, KINDS
from tests.store.faults import at_commits, gone_after
from tests.store.invariants import check, connect
from tests.store.make import ALICE, PROJECT, agent, body, claim, inventory

CLIENTS = 64


def opened(place: str, clock: Clock) -> Store:
    return open_store(place, clock=clock, kinds=KINDS, seal_key=KEY)


@pytest.fixture
def processes(place: str, clock: FakeClock, by_the_tests_clock: None) -> Iterator[list[Store]]:
    """Stores of one database as several processes would have them open, a writer's thread each, all of them in this one
    (`tests.failover.rivals` has real ones); of a file there is one."""
    stores = [opened(place, clock) for _ in range(4 if place.startswith("postgresql:") else 1)]
    yield stores
    for store in stores:
        store.close()


async def used(store: Store, scope: str = "tenant/acme") -> dict[str, int]:
    return {use.meter: use.used for use in await store.capacity.use(scope) if use.used}


async def outcomes(calls: list[object]) -> tuple[list[Stored], list[BaseException]]:
    found = await asyncio.gather(*calls, return_exceptions=True)  # type: ignore[call-overload]
    return [one for one in found if not isinstance(one, BaseException)], [
        one for one in found if isinstance(one, BaseException)
    ]


# --- who comes first --------------------------------------------------------------------------------------------


async def test_of_64_clients_for_the_last_units_as_many_win_as_there_are(processes: list[Store], place: str) -> None:
    await processes[0].objects.create(
        body("Tenant", "acme", spec={"quota": {"instances": 7}}, namespace=""), CONTROLLER
    )
    for round_ in range(3):
        calls = [
            processes[n % len(processes)].objects.create(body("Instance", f"r{round_}-{n}"), ALICE)
            for n in range(CLIENTS)
        ]
        made, refused = await outcomes(calls)
        assert (len(made), len(refused)) == (7, CLIENTS - 7)
        assert {str(error) for error in refused} == {
            "tenant acme: 1 instances asked, 0 of 7 left; an administrator of the platform may raise the quota"
        }
        assert (await used(processes[-1]))["instances"] == 7
        await asyncio.gather(*(processes[0].objects.delete(one.key, ALICE) for one in made))
        instances = [body("Instance", one.key.name) for one in made]
        await asyncio.gather(*(processes[-1].objects.replace(one, CONTROLLER) for one in instances))
        assert "instances" not in await used(processes[0]), "each that went gave its unit back"
    check(place)


async def test_of_64_clients_for_the_last_device_one_wins_and_gives_it_back(processes: list[Store], place: str) -> None:
    for n in range(8):
        await processes[0].capacity.declare(f"h{n}", inventory(gpus=1, threads=256))
    await processes[0].capacity.set_quota("tenant/acme", Quota(devices={"H100": 1}))
    for round_ in range(3):
        calls = [
            processes[n % len(processes)].capacity.take(
                [claim(f"w{round_}-{n}", host=f"h{n % 8}", devices=("gpu-0",))], CONTROLLER
            )
            for n in range(CLIENTS)
        ]
        made, refused = await outcomes(calls)
        assert len(made) == 1, "the bound is the tenant's, on whichever of eight hosts"
        assert {type(error) for error in refused} <= {QuotaExceeded, Taken}
        ((taken,),) = made
        assert (await used(processes[-1]))["devices/H100"] == 1
        said_gone = {"kind": "Claim", "metadata": {"name": taken.key.name, "namespace": PROJECT}}
        await processes[0].objects.replace({**said_gone, "status": {"phase": "Gone"}}, agent(taken.host), part="status")
        await asyncio.gather(*(store.capacity.release(taken.key, CONTROLLER, uid=taken.uid) for store in processes))
        assert await used(processes[-1]) == {}, "released by several at once, given back once"
    check(place)


async def test_what_counts_by_its_status_is_counted_as_that_is_written(processes: list[Store], place: str) -> None:
    store = processes[0]
    tenant = body("Tenant", "acme", spec={"quota": {"contentBytes": 700}}, namespace="")
    await store.objects.create(tenant, CONTROLLER)
    for n in range(CLIENTS):
        await store.objects.create(body("ProjectModel", f"m-{n}"), ALICE)
    assert "content_bytes" not in await used(store)

    def hold(n: int, amount: int) -> Awaitable[Stored]:
        said = {**body("ProjectModel", f"m-{n}"), "status": {"heldBytes": amount}}
        return processes[n % len(processes)].objects.replace(said, CONTROLLER, part="status")

    made, refused = await outcomes([hold(n, 100) for n in range(CLIENTS)])
    assert (len(made), len(refused)) == (7, CLIENTS - 7)
    assert {str(error) for error in refused} == {
        "tenant acme: 100 B of content of models asked, 0 B of 700 B left; "
        "an administrator of the platform may raise the quota"
    }
    first = int(made[0].key.name.partition("-")[2])
    for amount, stands in ((40, 640), (40, 640), (100, 700), (0, 600)):
        await hold(first, amount)
        assert (await used(processes[-1]))["content_bytes"] == stands
    await hold(first, 100)
    await store.objects.delete(Key("ProjectModel", PROJECT, f"m-{first}"), ALICE)
    assert (await used(store), await used(store, f"project/{PROJECT}")) == ({"content_bytes": 600},) * 2
    check(place)


async def test_what_counts_by_its_status_is_counted_anew_by_a_release_that_knows_it(
    tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "store.db"
    older = {**KINDS, "ProjectModel": StoreKind(namespaced=True)}
    store = open_store(path, clock=clock, kinds=older, seal_key=KEY)
    for name, amount in (("a", 300), ("b", 400)):
        said = {**body("ProjectModel", name), "status": {"heldBytes": amount}}
        await store.objects.create(said, ALICE)
        await store.objects.replace(said, CONTROLLER, part="status")
    store.close()
    for _ in range(2):
        store = opened(str(path), clock)
        assert await used(store) == {"content_bytes": 700}
        store.close()
    found = {tally.check: tally async for tally in check_store(path, clock=clock, kinds=KINDS, guard=Guard.of(KEY))}
    assert (found["quota"].ok, found["quota"].rows) == (True, 2)


async def test_a_bound_that_moves_meanwhile_is_held_at_each_moment(processes: list[Store], place: str) -> None:
    first = processes[0]
    tenant = await first.objects.create(body("Tenant", "acme", spec={"quota": {"instances": 2}}, namespace=""), ALICE)

    async def raise_it() -> None:
        for bound in range(3, 9):
            await first.objects.replace(
                body("Tenant", "acme", spec={"quota": {"instances": bound}}, namespace="", uid=tenant.uid), ALICE
            )

    creates = [processes[n % len(processes)].objects.create(body("Instance", f"i{n}"), ALICE) for n in range(CLIENTS)]
    (made, refused), _ = await asyncio.gather(outcomes(creates), raise_it())
    assert 2 <= len(made) <= 8
    assert len(made) + len(refused) == CLIENTS
    assert (await used(first))["instances"] == len(made)
    await first.objects.replace(body("Tenant", "acme", spec={"quota": {"instances": 1}}, namespace=""), ALICE)
    with pytest.raises(QuotaExceeded, match="0 of 1 left"):
        await processes[-1].objects.create(body("Instance", "late"), ALICE)
    check(place)


async def test_a_quota_holds_from_the_write_that_states_it(store: Store) -> None:
    await store.objects.create(body("Tenant", "acme", spec={"quota": {"projects": 1}}, namespace=""), ALICE)
    project = body("Project", PROJECT, spec={"quota": {"instances": 0}}, namespace="")
    await store.objects.create(project, ALICE)
    with pytest.raises(QuotaExceeded, match=f"project {PROJECT}: 1 instances asked, 0 of 0 left; an administrator of"):
        await store.objects.create(body("Instance", "a"), ALICE)
    with pytest.raises(QuotaExceeded, match="tenant acme: 1 projects asked, 0 of 1 left"):
        await store.objects.create(body("Project", "acme--more", namespace=""), ALICE)
    await store.objects.replace({**project, "spec": {"quota": {}}}, ALICE)
    await store.objects.create(body("Instance", "a"), ALICE)
    with pytest.raises(Invalid, match="the quota of Project"):
        await store.objects.replace({**project, "spec": {"quota": {"moons": 1}}}, ALICE)


# --- crashes ----------------------------------------------------------------------------------------------------


async def life(store: Store) -> None:
    """A life that counts at each step, each harmless when it is repeated."""
    await store.capacity.declare("h1", inventory())
    made = {item.key.name for item in (await store.objects.list(Scope(kind="Instance"))).items}
    if "a" not in made:
        await store.objects.create(body("Instance", "a"), ALICE)
    (taken,) = await store.capacity.take([claim("a", devices=("gpu-0", "gpu-1"))], CONTROLLER)
    await store.capacity.release(taken.key, CONTROLLER, fenced=True, uid=taken.uid)
    for item in (await store.objects.list(Scope(kind="Instance"))).items:
        await store.objects.delete(item.key, ALICE)
        await store.objects.replace(body("Instance", item.key.name), CONTROLLER)


@pytest.mark.parametrize("before", [True, pytest.param(False, marks=pytest.mark.long)])
async def test_what_is_used_is_what_stands_after_a_crash_at_every_commit(
    place: str, clock: FakeClock, before: bool
) -> None:
    store = opened(place, clock)
    commits = 0
    session = store._committer._session  # type: ignore[attr-defined]

    def counted() -> None:
        nonlocal commits
        commits += 1

    at_commits(session, counted)
    await life(store)
    store.close()
    assert commits >= 6
    for stop in range(commits):
        store = opened(place, clock)
        gone_after(store._committer._session, stop, before=before)  # type: ignore[attr-defined]
        with pytest.raises(Unavailable):
            await life(store)
        store.close()
        check(place)
        store = opened(place, clock)
        await life(store)
        assert await used(store) == {}
        store.close()
        check(place)


# --- the register -----------------------------------------------------------------------------------------------


def test_the_register_says_of_each_meter_how_it_is_counted() -> None:
    for meter in METERS:
        ways = (bool(meter.kind), meter.per_claim is not None, meter.by_model, bool(meter.window_seconds), meter.told)
        assert sum(ways) == 1, f"{meter.name} is counted in {sum(ways)} ways"
        assert Quota.model_fields[meter.name].description
    assert meter_of_kind("Instance") == "instances"
    assert meter_of_kind("Claim") == "", "which are counted where they are taken"
    _, spec, _ = claim("a", devices=("gpu-0",))
    assert amounts_of(spec, {"H100": 2}) == {
        "milli_cores": 1000,
        "memory_bytes": 1 << 30,
        "claims": 1,
        "devices/H100": 2,
        "devices/*": 2,
    }
    assert bounds_of(Quota(instances=3, devices={"*": 2})) == {"devices/*": 2, "instances": 3}
    assert [said(meter, 2000) for meter in ("milli_cores", "memory_bytes", "devices/H100", "api_keys")] == [
        "2 cores",
        "2.0 KiB of memory",
        "2000 H100",
        "2000 API keys",
    ]


async def test_a_meter_that_joins_counts_what_stands_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    path = tmp_path / "store.db"
    store = open_store(path, clock=clock, kinds=KINDS, seal_key=KEY)
    await store.capacity.declare("h1", inventory())
    for name in ("a", "b"):
        await store.objects.create(body("Thing", name), ALICE)
    await store.capacity.take([claim("w", cores=3000)], CONTROLLER)
    store.close()
    # Things are counted, and so are halves of cores. That it takes one line is shown in tests/api/test_onemeter.py.
    new = (Meter(name="things", kind="Thing"), Meter(name="halves", per_claim=lambda c: c.milli_cores // 500))
    monkeypatch.setattr(quota, "METERS", (*METERS, *new))
    kinds = {**KINDS, "Thing": KINDS["Instance"].__class__(namespaced=True, meter="things")}
    for _ in range(2):
        store = open_store(path, clock=clock, kinds=kinds, seal_key=KEY)
        found = await used(store)
        assert (found["things"], found["halves"], found["milli_cores"]) == (2, 6, 3000)
        store.close()
    store = open_store(path, clock=clock, kinds=kinds, seal_key=KEY)
    await store.objects.delete(Key("Thing", PROJECT, "a"), ALICE)
    assert (await used(store, f"project/{PROJECT}"))["things"] == 1
    store.close()


def forget_meters(place: str, *, said: tuple[bytes, bytes] = (b"", b"")) -> None:
    """As a store was that had met none of them; with other words in a body."""
    with connect(place) as connection:
        connection.execute("DELETE FROM counters WHERE name LIKE 'meter/%'")
        ((kept,),) = connection.execute("SELECT body FROM objects WHERE kind = 'Tenant'").fetchall()
        assert said[0] in bytes(kept)
        mark = "%s" if place.startswith("postgresql:") else "?"
        changed = [bytes(kept).replace(*said) if said[0] else bytes(kept)]
        connection.execute(f"UPDATE objects SET body = {mark} WHERE kind = 'Tenant'", changed)
        connection.commit()


async def bounds(store: Store) -> dict[str, int]:
    return {use.meter: use.limit for use in await store.capacity.use("tenant/acme") if use.limit is not None}


async def test_a_meter_that_waits_is_not_bounded_with_those_that_do_not(
    place: str, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """And each quota is read once, however many meters there are."""
    store = opened(place, clock)
    stated = {"quota": {"instances": 3, "endpoints": 2, "devices": {"*": 4}, "spendMicro": 7}}
    await store.objects.create(body("Tenant", "acme", namespace="", spec=stated), ALICE)
    await store.capacity.set_quota("tenant/acme", Quota())
    store.close()
    forget_meters(place)
    read: list[bytes] = []
    monkeypatch.setattr(quota, "decode", lambda body: (read.append(body), decode(body))[1])
    monkeypatch.setattr(quota, "unaware", lambda tx, meter: meter in ("instances", "devices", "spend_micro"))
    store = opened(place, clock)
    assert await bounds(store) == {"endpoints": 2}
    assert len(read) == 1
    monkeypatch.setattr(quota, "unaware", lambda tx, meter: False)
    await store.tidy()
    assert await bounds(store) == {"instances": 3, "endpoints": 2, "devices/*": 4, "spend_micro": 7}
    store.close()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (b'{"instances":"x","claims":"y","mystery":1,"endpoints":2}', {"instances": 3, "claims": 0, "endpoints": 2}),
        (b'{"devices":[1],"endpoints":4}', {"devices/*": 0, "endpoints": 4}),
        (b"7", {meter.name + "/*" * meter.by_model: 0 for meter in METERS} | {"instances": 3}),
    ],
)
async def test_a_quota_that_cannot_be_read_stops_no_start_and_gives_nothing(
    place: str, clock: FakeClock, words: bytes, expected: dict[str, int]
) -> None:
    """What of it can be read holds; of the rest stays what was bounded, and nothing is given where nothing was."""
    store = opened(place, clock)
    await store.objects.create(body("Tenant", "acme", namespace="", spec={"quota": {"instances": 3}}), ALICE)
    store.close()
    forget_meters(place, said=(b'{"instances":3}', words))
    store = opened(place, clock)
    assert await bounds(store) == expected
    await store.objects.replace(body("Tenant", "acme", namespace="", spec={"quota": {"claims": 9}}), ALICE)
    assert await bounds(store) == {"claims": 9}
    store.close()


# --- windows ----------------------------------------------------------------------------------------------------


async def test_what_is_given_out_of_a_minute_never_passes_the_bound(processes: list[Store]) -> None:
    first = processes[0]
    await first.capacity.set_quota("tenant/acme", Quota(tokens_per_minute=100))
    calls = [
        processes[n % len(processes)].capacity.hold(PROJECT, meter="tokens_per_minute", amount=9)
        for n in range(CLIENTS)
    ]
    given, refused = await outcomes(calls)
    assert (len(given), len(refused)) == (11, CLIENTS - 11)
    assert sorted(share.left for share in given) == [100 - 9 * n for n in range(11, 0, -1)]
    assert "9 tokens per minute asked, 1 of 100 left" in str(refused[0])
    (use,) = await first.capacity.use("tenant/acme")
    assert (use.used, use.limit) == (99, 100)


async def test_a_minute_ends_and_the_next_begins_whole(store: Store, clock: FakeClock) -> None:
    await store.capacity.set_quota("tenant/acme", Quota(tokens_per_minute=100))
    await store.capacity.set_quota(f"project/{PROJECT}", Quota(tokens_per_minute=60))
    share = await store.capacity.hold(PROJECT, meter="tokens_per_minute", amount=60)
    assert (share.amount, share.left) == (60, 0)
    assert 0 < share.until - clock.now() <= 60
    with pytest.raises(QuotaExceeded, match=f"project {PROJECT}: 1 tokens per minute asked, 0 of 60 left"):
        await store.capacity.hold(PROJECT, meter="tokens_per_minute", amount=1)
    assert (await store.capacity.hold("acme--other", meter="tokens_per_minute", amount=40)).left == 0
    with pytest.raises(QuotaExceeded, match="tenant acme"):
        await store.capacity.hold("acme--other", meter="tokens_per_minute", amount=1)
    await clock.advance(60)
    assert await used(store) == {}
    assert (await store.capacity.hold(PROJECT, meter="tokens_per_minute", amount=60)).left == 0
    with pytest.raises(QuotaExceeded, match="61 tokens per minute asked"):
        await store.capacity.hold(PROJECT, meter="tokens_per_minute", amount=61)


async def test_windows_go_by_the_clock_that_all_replicas_share(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.capacity.set_quota("tenant/acme", Quota(tokens_per_minute=100))
    shared = clock.now() + 1000 * 60
    monkeypatch.setattr(Tx, "server_time", property(lambda _: shared))
    share = await store.capacity.hold(PROJECT, meter="tokens_per_minute", amount=100)
    assert 0 < share.until - shared <= 60
    shared -= 900 * 60
    share = await store.capacity.hold(PROJECT, meter="tokens_per_minute", amount=100)
    assert 0 < share.until - shared <= 60, "a window far ahead is taken for none"
    with pytest.raises(QuotaExceeded):
        await store.capacity.hold(PROJECT, meter="tokens_per_minute", amount=1)


async def test_what_is_told_of_a_window_goes_by_that_clock(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica whose own clock is wrong says the same as the others."""
    await store.capacity.set_quota("tenant/acme", Quota(tokens_per_minute=100))
    await store.capacity.hold(PROJECT, meter="tokens_per_minute", amount=60)
    if store._reader.remote:
        wrong = clock.now() + 3600.0
        monkeypatch.setattr(clock, "now", lambda: wrong)
    uses = {use.meter: use.used for use in await store.capacity.use("tenant/acme")}
    assert uses["tokens_per_minute"] == 60


async def test_more_is_given_back_than_was_counted(store: Store, place: str) -> None:
    """An older release beside this one counted less."""
    await store.capacity.declare("h1", inventory())
    (taken,) = await store.capacity.take([claim("a")], CONTROLLER)
    connection = connect(place)
    connection.execute("UPDATE quota SET used = 0")
    connection.close()
    await store.capacity.release(taken.key, CONTROLLER, fenced=True)
    assert await used(store) == {}
    await store.capacity.take([claim("b")], CONTROLLER)
    assert (await used(store))["claims"] == 1


async def test_without_a_bound_everything_is_given_and_nobody_counts(store: Store) -> None:
    share = await store.capacity.hold(PROJECT, meter="tokens_per_minute", amount=1 << 30)
    assert share.left is None
    with pytest.raises(Invalid, match="not counted within a window"):
        await store.capacity.hold(PROJECT, meter="instances", amount=1)
    with pytest.raises(Invalid):
        await store.capacity.hold(PROJECT, meter="tokens_per_minute", amount=-1)

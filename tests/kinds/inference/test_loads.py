"""What gateways report is added up, who is silent takes nothing away, and an Endpoint has what was decided."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from bessemer.core.clock import rfc3339
from bessemer.core.loads import COUNT_MAX, HEARD_SECONDS, LOADS, SUMS, WOKEN, EndpointLoad, LoadReport
from bessemer.core.ports import Scope
from bessemer.core.resource import Key
from bessemer.kinds.inference.loads import CUT_SECONDS, Heard, Scalers, Standing
from bessemer.kinds.inference.scaling import Scale
from tests.kinds.world import PROJECT, USER, World

KEY = Key("Endpoint", "acme--lab", "chat")
SPEC = {"model": "smol", "flavor": "serve", "slots": 4}


def standing(wanted: int = 1, **scale: Any) -> Standing:
    return Standing(Scale(**{"min": 1, "max": 5, **scale}), 4, wanted, wanted, 0)


def load(
    uid: str = "u", *, busy: int = 0, waiting: int = 0, arrived: float = 0, project: str = "acme--lab"
) -> EndpointLoad:
    sums = tuple(arrived if name == "arrived" else 0.0 for name in SUMS)
    return EndpointLoad(project=project, name="chat", uid=uid, busy=busy, waiting=waiting, sums=sums)


def report(*loads: EndpointLoad, holder: str = "g1", boot: str = "b") -> LoadReport:
    return LoadReport(holder=holder, boot=boot, loads=list(loads))


def live(*reports: LoadReport) -> list[Heard]:
    return [Heard(one, -10.0) for one in reports]


def named(scalers: Scalers, wanted: int = 1, *, now: float = 0.0, **scale: Any) -> tuple[int | None, str]:
    verdict, silence = scalers.name("u", KEY, standing=standing(wanted, **scale), now=now)
    return verdict.replicas if verdict is not None else None, silence


def test_loads_of_several_gateways_are_one() -> None:
    scalers = Scalers()
    assert named(scalers) == (None, "")
    woken: list[Key] = []
    for now in range(0, 20, 2):
        woken = scalers.look(live(report(load(busy=4)), report(load(busy=5), holder="g2")), now=float(now))
    assert woken == [KEY]
    assert named(scalers, now=20.0) == (4, ""), "9 of 4 slots, of which 0.7 are to be busy"


def test_nobody_who_reports_changes_nothing() -> None:
    scalers = Scalers()
    named(scalers, 3)
    assert scalers.look([], now=0.0) == [KEY], "that nobody reports is told"
    assert named(scalers, 3, now=1.0) == (None, "no gateway is heard of: nothing is changed")
    for now in range(2, 4000, 50):
        assert scalers.look([], now=float(now)) == []
        assert named(scalers, 3, now=float(now))[0] is None


def test_what_a_silent_gateway_may_serve_is_not_taken_away_until_it_is_given_up() -> None:
    scalers, there, gone = Scalers(), report(holder="g1"), report(load(busy=9), holder="g2")
    named(scalers, 4)
    for now in range(0, 400, 2):
        scalers.look([Heard(there, -1.0), Heard(gone, 1.0 + now / 2)], now=float(now))
        decided, silence = named(scalers, 4, now=float(now))
        assert decided == 4
        assert silence == "gateway g2 fell silent: what it may serve still is not taken away"
    for now in range(400, 800, 2):
        scalers.look([Heard(there, -1.0), Heard(gone, CUT_SECONDS + 1.0)], now=float(now))
    assert named(scalers, 4, now=800.0) == (1, "")


def test_a_gateway_that_began_anew_counts_from_nothing() -> None:
    scalers = Scalers()
    named(scalers)
    for now, boot, arrived in ((0, "a", 1000.0), (2, "a", 1010.0), (4, "b", 5.0), (6, "b", 15.0)):
        scalers.look(live(report(load(arrived=arrived), boot=boot)), now=float(now))
    assert scalers._known["u"].sums.arrived == 10 + 5 + 10


@pytest.mark.parametrize("wild", ["1e999", "NaN", "-1", "1.7e308"])
def test_what_no_gateway_counts_is_refused(wild: str) -> None:
    """Sums of such numbers are none: who decides by them would end, and the control plane with it."""
    sums = ", ".join([wild, *["0"] * (len(SUMS) - 1)])
    load = f'{{"project": "p", "name": "n", "uid": "u", "busy": 0, "waiting": 0, "sums": [{sums}]}}'
    with pytest.raises(ValidationError):
        LoadReport.model_validate_json(f'{{"holder": "g", "boot": "b", "loads": [{load}]}}')


def test_the_most_that_can_be_reported_is_decided_on() -> None:
    scalers = Scalers()
    named(scalers)
    for step in range(60):
        many = COUNT_MAX * step / 60
        loads = [
            EndpointLoad(project="p", name="n", uid="u", busy=COUNT_MAX, waiting=COUNT_MAX, sums=(many,) * len(SUMS))
        ]
        scalers.look(live(*(report(*loads, holder=f"g{number}") for number in range(50))), now=2.0 * step)
        named(scalers, now=2.0 * step)
    assert named(scalers, now=120.0)[0] == 5


def test_a_start_takes_as_long_as_those_before() -> None:
    scalers = Scalers()
    named(scalers, 1)
    scalers.name("u", KEY, standing=Standing(Scale(max=5), 4, 1, 1, 0), now=0.0)
    scalers.name("u", KEY, standing=Standing(Scale(max=5), 4, 2, 1, 1), now=10.0)
    scalers.name("u", KEY, standing=Standing(Scale(max=5), 4, 2, 2, 0), now=110.0)
    assert scalers._known["u"].scaler.means.start_seconds == 60.0


def test_what_a_reconcile_leaves_behind_is_decided_by_at_once() -> None:
    """Else an endpoint would seem to start, and not fall asleep, until somebody looks at it for another reason."""
    scalers = Scalers()
    scalers.name("u", KEY, standing=Standing(Scale(max=5), 4, 1, 1, 0), now=0.0)
    scalers.name("u", KEY, standing=Standing(Scale(max=5), 4, 1, 1, 0), now=10.0)
    scalers.stands("u", wanted=2, ready=1, cache_share=None, now=10.0)
    scalers.stands("u", wanted=2, ready=2, cache_share=0.9, now=14.0)
    known = scalers._known["u"]
    assert (known.standing.ready, known.standing.starting, known.standing.cache_share) == (2, 0, 0.9)
    assert known.scaler.means.start_seconds == 12.0, "20 s were thought, and 4 it took"
    scalers.stands("unheard-of", wanted=1, ready=1, cache_share=None, now=20.0)


async def said(world: World, **said: int) -> None:
    """A gateway reports."""
    found = await world.object("Endpoint", "chat")
    assert found is not None
    one = load(found["metadata"]["uid"], project=PROJECT, **said)
    note = orjson.dumps(report(one).dump()).decode()
    await world.store.leases.acquire(f"{LOADS}g1", "g1", HEARD_SECONDS, note=note)


async def scaling(world: World) -> tuple[int, int]:
    """What was decided, and what is there."""
    found = await world.object("Endpoint", "chat")
    assert found is not None
    status = found.get("status", {})
    return status.get("scaling", {}).get("wanted", -1), status.get("readyReplicas", 0)


async def until(world: World, wanted: tuple[int, int], **busy: int) -> None:
    async def holds() -> bool:
        await said(world, **busy)
        await world.loads.look()
        return await scaling(world) == wanted

    await world.until(holds, seconds=3000.0)


async def test_an_endpoint_has_what_is_asked_of_it_and_sleeps_and_wakes() -> None:
    async with World() as world:
        await world.create("Endpoint", "chat", {**SPEC, "scale": {"min": 0, "max": 2, "idleSeconds": 30}})
        await world.until_ready("Endpoint", "chat")
        assert await scaling(world) == (1, 1), "the first shows that it can be"
        assert {(k.standing.ready, k.standing.starting) for k in world.loads._scalers._known.values()} == {(1, 0)}
        await until(world, (2, 2), busy=4, waiting=2)
        await until(world, (0, 0))
        found = await world.object("Endpoint", "chat")
        assert found is not None
        assert (found["status"]["phase"], found["status"]["message"]) == ("Stopped", "it sleeps until somebody asks")
        found["metadata"].setdefault("annotations", {})[WOKEN] = rfc3339(world.clock.now())
        await world.store.objects.replace(found, USER)
        await world.until_ready("Endpoint", "chat")
        found = await world.object("Endpoint", "chat")
        assert found is not None
        assert found["status"]["scaling"]["why"] == "a request waits for it"
        page = await world.store.objects.list(Scope(kind="Event", namespace=PROJECT))
        events = [orjson.loads(stored.body) for stored in page.items]
        told = [event.get("message") or event.get("note") for event in events if event["reason"] == "Scaled"]
        assert any(words.startswith("from 1 to 2 replicas: ") for words in told)
        assert any(words.startswith("from 0 to 1 replicas: a request waits for it") for words in told)
        await world.delete("Endpoint", "chat")
        await world.until_gone("Endpoint", "chat")
        await world.check_clean()


async def test_what_was_decided_outlives_its_controller_and_reports_that_do_not_come() -> None:
    async with World() as world:
        await world.create("Endpoint", "chat", {**SPEC, "scale": {"min": 1, "max": 3}})
        await world.until_ready("Endpoint", "chat")
        await until(world, (2, 2), busy=5)
        await world.crash(frozenset({"control"}))
        for _ in range(10):
            await world.loads.look()
            await world.clock.advance(60.0)
            await world.until_ready("Endpoint", "chat")
        assert await scaling(world) == (2, 2)
        await world.patch("Endpoint", "chat", scale=None, replicas=1)

        async def plain() -> bool:
            return await scaling(world) == (-1, 1)

        await world.until(plain)

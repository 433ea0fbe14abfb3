"""The crash matrix as tests: some stops and every phase always, one kind's whole in `make test`, everything in `make
test-long`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from bessemer.drivers.qemu.fake import Fault
from bessemer.gateway import Follower, Tables
from bessemer.kinds.compute.instance import host
from bessemer.kinds.compute.instance.spec import InstancePhase
from bessemer.kinds.inference.endpoint.spec import EndpointPhase
from tests import crash
from tests.lives import SCENARIOS, Phases, Scenario, Stage

NAMES = list(SCENARIOS)


def check(matrix: crash.Matrix, *, tried: int) -> None:
    assert not matrix.problems(), "\n".join([str(matrix), *matrix.problems()])
    assert matrix.tried == tried
    assert not matrix.missed, f"never stopped in {sorted(matrix.missed)}"


@pytest.mark.parametrize("name", NAMES)
async def test_converges_after_some_stops(name: str) -> None:
    matrix = await crash.explore(name, victims=crash.VICTIMS, every=41, offset=3)
    assert not matrix.problems(), "\n".join(matrix.problems())
    assert matrix.tried >= 3 * len(crash.VICTIMS)


@pytest.mark.parametrize(
    ("kind", "phases"),
    [
        ("Instance", frozenset(get_args(InstancePhase))),
        # No host gives a replica up, so no Endpoint comes to it by itself.
        ("Endpoint", frozenset(get_args(EndpointPhase)) - {"Failed"}),
    ],
)
def test_the_scenarios_come_to_every_phase(kind: str, phases: Phases) -> None:
    covered = Phases().union(*(scenario.phases for scenario in SCENARIOS.values() if scenario.kind == kind))
    assert covered == phases | {"Claim Lost"}


@pytest.mark.parametrize("victims", crash.VICTIMS)
@pytest.mark.parametrize("name", NAMES)
async def test_converges_after_a_stop_in_each_phase(name: str, victims: str) -> None:
    matrix = await crash.explore_phases(name, victims=victims)
    assert matrix.wrong == []
    assert not matrix.missed, f"never stopped in {sorted(matrix.missed)}"


async def test_a_phase_that_comes_at_other_points_in_each_life_is_stopped_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which commit is the how-many-eth depends on the writer's thread: on a busy machine none may be where it was."""
    life = await crash.live("Instance-in-trouble")

    async def elsewhere(_name: str) -> crash.Life:
        return replace(life, phases={("commit", 0, "before"): SCENARIOS["Instance-in-trouble"].phases})

    monkeypatch.setattr(crash, "shortest", elsewhere)
    matrix = await crash.explore_phases("Instance-in-trouble", victims="control")
    assert matrix.wrong == []
    assert matrix.missed == set()


@pytest.mark.long
async def test_an_endpoint_converges_after_every_stop() -> None:
    matrix = await crash.explore("Endpoint")
    check(matrix, tried=len(crash.points(matrix.first)))


@pytest.mark.long
@pytest.mark.parametrize("victims", crash.VICTIMS)
@pytest.mark.parametrize("name", NAMES)
async def test_converges_after_a_stop_at_every_driver_call_and_every_commit(
    name: str, victims: str, record_property: Callable[[str, object], None]
) -> None:
    """A life stopped before and after each driver call and each commit ends as the one that was not."""
    matrix = await crash.explore(name, victims=[victims])
    check(matrix, tried=len(crash.points(matrix.first)))
    record_property("stops", matrix.reached.total())
    record_property("unreached", len(matrix.unreached["commit"]))


@pytest.mark.parametrize("name", NAMES)
async def test_every_call_has_a_moment_after_it_also_one_that_is_refused(name: str) -> None:
    life = await crash.live(name)
    assert life.phases.keys() == set(crash.points(life))


async def test_a_place_that_was_taken_anew_just_before_a_crash_is_kept() -> None:
    """The instance still says Failed, which was said of the claim before: the new one is not let go for it."""
    async with Stage("Instance", "vm") as world:
        qemu = world.hosts["h1"].qemu
        qemu.faults["*"] = Fault.WRONG_CPUS
        await world.create("Instance", "vm", {"flavor": "small", "image": "micro"})

        async def given_up() -> bool:
            return await world.phases() == {"Failed"}

        await world.until(given_up)
        qemu.faults.clear()
        world.points.arm(("commit", 0, "after"))
        await world.patch("Instance", "vm", restartPolicy="Never")
        await world.until_ready("Instance", "vm")
        assert world.points.names["commit"][0].startswith("capacity.take")
        assert (world.crashes, qemu.starts) == (1, host.BOOTS + 1)
        assert len(crash.intervals(await world.store.ledger.entries())) == 2, "that which failed, and one more"


async def test_a_kind_that_forgets_what_it_did_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrix is worth its time only if it fails for a host side whose effects cannot be found again."""
    words = iter(range(1000))
    monkeypatch.setattr(host, "nonce_of", lambda _claim: f"word-{next(words)}")
    with pytest.raises(AssertionError, match="ReportInvalid"):
        await crash.live("Instance")


async def test_stops_that_are_never_reached_are_no_success() -> None:
    first = await crash.live("Endpoint")
    # So many more commits than there are that the last are never reached, whatever the thread puts together.
    padded = replace(first, drivers=[*first.drivers, "engine.never"], commits=[*first.commits, *["objects.never"] * 99])
    for sort, indexes, said in (
        ("driver", (0, len(first.drivers)), "1 stops at driver calls were never reached: everything: before driver"),
        ("commit", (0, len(first.commits) + 97, len(first.commits) + 98), "2 of 3 stops at commits were never reached"),
    ):
        matrix = crash.Matrix("Endpoint", padded)
        for index in indexes:
            await crash.check(matrix, (sort, index, "before"), "everything")
        assert (matrix.reached, matrix.wrong) == ({sort: 1}, [])
        assert [words.startswith(said) for words in matrix.problems()] == [True]
        assert matrix.missed >= {"Ready", "Degraded"}, "nothing was stopped there"


Known = Mapping[tuple[str, str], Mapping[str, str]]
"""Of each endpoint: where its replicas are, by uid."""


class Gateway:
    """What a gateway is to an Endpoint: tables, filled from its watches."""

    def __init__(self, world: Stage) -> None:
        self._tables = Tables(lambda _host: Path("/fake/doors"))
        self.following = asyncio.create_task(Follower(world.store.objects, self._tables, clock=world.clock).run())

    def known(self) -> Known:
        found = self._tables.endpoints.items()
        return {place: {uid: one.address for uid, one in entry.replicas.items()} for place, entry in found}


class Watched(Stage):
    """A stage with a gateway that lives on, and another that is killed at the first point in each phase: a new one
    takes its place. A step of the scenario is done once all of them know the same."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario.kind, scenario.name)
        self.gateways: list[Gateway] = []
        self.seen: Phases = Phases()
        self.replicas: set[int] = set()
        """How many of one endpoint were known at the ends of steps."""

    async def phases(self) -> Phases:
        now = await super().phases()
        if self.gateways and now - self.seen:
            self.seen |= now
            self.gateways[-1].following.cancel()
            self.gateways.append(Gateway(self))
        return now

    async def until(self, holds: Callable[[], Awaitable[Any]], *, seconds: float = 900.0) -> None:
        async def holds_and_both_know() -> bool:
            return bool(await holds()) and not (self.gateways and self._known() != self.gateways[0].known())

        await super().until(holds_and_both_know, seconds=seconds)
        self.replicas |= {len(replicas) for replicas in self._known().values()}

    def _known(self) -> Known:
        return self.gateways[-1].known() if self.gateways else {}

    async def end(self) -> None:
        for gateway in self.gateways:
            gateway.following.cancel()
        await asyncio.gather(*(gateway.following for gateway in self.gateways), return_exceptions=True)


@pytest.mark.parametrize("name", [name for name in NAMES if SCENARIOS[name].kind == "Endpoint"])
async def test_a_gateway_killed_in_each_phase_knows_what_one_knows_that_lives(name: str) -> None:
    scenario = SCENARIOS[name]
    async with Watched(scenario) as world:
        world.gateways = [Gateway(world), Gateway(world)]
        await scenario.play(world)
        await world.end()
        assert not scenario.phases - world.seen
        assert len(world.gateways) >= 2 + len(scenario.phases)
        assert max(world.replicas) == (2 if name == "Endpoint" else 1), "it knew every replica"

"""Turns, end to end: real store, loops and agents with fake drivers; who floods, who comes later, who is stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from bessemer.core.asking import Asker, Decision, Gang, GangDecision, Refusal, Request
from bessemer.core.clock import FakeClock, epoch
from bessemer.core.errors import NotFound
from bessemer.core.notices import Notice, mark_of
from bessemer.core.resource import tenant_of
from bessemer.kinds.fleet.demand import Demand
from bessemer.kinds.fleet.moving import Moving
from bessemer.kinds.fleet.queueing import Queueing
from bessemer.kinds.turns import spared
from bessemer.placement import FleetArrays, Hold
from bessemer.placement.facts import Tenure
from bessemer.placement.fleet import rename
from bessemer.placement.gangs import decide_gang
from bessemer.placement.own import Own
from bessemer.placement.queue import Pending, Rules, plan
from tests.kinds.five import Life, check_lives_through, distinct
from tests.kinds.points import Point
from tests.kinds.world import PROJECT, World
from tests.placement.queue.line import NOW, Line, gpus

THEIRS = "beta--lab"


async def furnish(world: World, **tenant: Any) -> None:
    """Another tenant, and flavors with a GPU or two."""
    await world.create("Tenant", "beta", tenant, namespace="")
    await world.create("Project", THEIRS, {}, namespace="")
    for name, count in (("one", 1), ("two", 2)):
        spec = {"cores": 1, "memory": "256Mi", "disk": "1Gi", "devices": {"model": "H100", "count": count}}
        await world.create("Flavor", name, spec, namespace="")
    await world.until_ready("Project", THEIRS, namespace="")


async def make(world: World, name: str, *, namespace: str = PROJECT, flavor: str = "one", **spec: Any) -> None:
    await world.create("Instance", name, {"flavor": flavor, "image": "micro", **spec}, namespace=namespace)


async def claims(world: World) -> list[dict[str, Any]]:
    return await world.bodies("Claim")


async def holders(world: World) -> dict[str, int]:
    """Tenant → claims that stand and are to stay."""
    some = [c for c in await claims(world) if "deletionTimestamp" not in c["metadata"]]
    return dict(Counter(tenant_of(c["metadata"]["namespace"]) for c in some))


async def status(world: World, name: str, *, namespace: str = PROJECT) -> dict[str, Any]:
    found = await world.object("Instance", name, namespace=namespace)
    assert found is not None
    return found.get("status", {})


def condition(said: dict[str, Any], name: str) -> dict[str, Any]:
    return next((c for c in said.get("conditions", ()) if c["type"] == name), {})


async def test_who_floods_leaves_the_others_their_share() -> None:
    async with World(hosts=2, gpus=2) as world:
        await furnish(world)
        for number in range(7):
            await make(world, f"flood{number}", preemptible=True)

        async def full() -> bool:
            waiting = [await status(world, f"flood{n}") for n in range(7)]
            return await holders(world) == {"acme": 4} and sum(bool(s.get("waitingSince")) for s in waiting) == 3

        await world.until(full)
        for number in range(4):
            await make(world, f"mine{number}", namespace=THEIRS, preemptible=True)

        async def shared() -> bool:
            running = [await status(world, f"mine{n}", namespace=THEIRS) for n in range(4)]
            return sum(said.get("phase") == "Running" for said in running) == 2

        await world.until(shared)
        assert await holders(world) == {"acme": 2, "beta": 2}
        # It stays so: what is shared as it should be is nobody's to take back.
        end = world.clock.monotonic() + 700

        async def later() -> bool:
            assert await holders(world) == {"acme": 2, "beta": 2}
            return world.clock.monotonic() > end

        await world.until(later)


async def test_a_higher_priority_has_what_is_preemptible_stopped() -> None:
    async with World(hosts=1, gpus=1) as world:
        await furnish(world, maxPriority=10)
        await make(world, "low", preemptible=True)
        await world.until_ready("Instance", "low")
        asked = world.clock.now()
        await make(world, "high", namespace=THEIRS, priority=7)

        async def told() -> bool:
            return condition(await status(world, "low"), "Preempted").get("status") == "True"

        await world.until(told, seconds=30)
        said = await status(world, "low")
        assert said["phase"] == "Running"
        assert "priority 7" in condition(said, "Preempted")["message"]
        assert "beta" not in str(said)
        await world.crash()  # what was told stands in the store

        async def placed() -> bool:
            return (await status(world, "high", namespace=THEIRS)).get("phase") == "Running"

        await world.until(placed, seconds=200)
        assert world.clock.now() >= asked + 30
        low = await status(world, "low")
        assert low["phase"] == "Pending"
        assert condition(low, "Ready")["reason"] in ("Queued", "Unschedulable")
        assert epoch(low["waitingSince"]) >= asked + 30
        events = await world.bodies("Event")
        assert "Preempted" in [e["reason"] for e in events if e["involvedObject"]["name"] == "low"]
        # Once there is room it runs again, and says no more of it.
        await world.delete("Instance", "high", namespace=THEIRS)
        await world.until_ready("Instance", "low")
        assert condition(await status(world, "low"), "Preempted")["status"] == "False"


async def stopped_for_another(stop: Point | None) -> Life:
    """One is stopped for another, which then goes; the first has its place again, and goes too."""
    async with World(gpus=1, stop=stop) as world:
        await furnish(world, maxPriority=10)
        await make(world, "low", preemptible=True)
        await world.until_ready("Instance", "low")
        await make(world, "high", namespace=THEIRS, priority=7)
        await world.until_ready("Instance", "high", namespace=THEIRS)
        await world.delete("Instance", "high", namespace=THEIRS)
        await world.until_ready("Instance", "low")
        await world.delete("Instance", "low")
        await world.until_gone("Instance", "low")
        await world.until_gone("Instance", "high", namespace=THEIRS)
        await world.check_clean()
        return Life(world.points.names, world.crashes)


async def told(world: World) -> bool:
    return "ends-at" in str([c["metadata"] for c in await claims(world)])


async def spared_again(stop: Point | None) -> Life:
    """One is told to end for another, which goes before it is time: nobody is stopped."""
    async with World(gpus=1, stop=stop) as world:
        await furnish(world, maxPriority=10)
        await make(world, "low", preemptible=True)
        await world.until_ready("Instance", "low")
        (before,) = await claims(world)
        await make(world, "high", namespace=THEIRS, priority=7)
        await world.until(lambda: told(world))
        await world.delete("Instance", "high", namespace=THEIRS)
        await world.until(lambda: _not(told(world)), seconds=28)
        end = world.clock.monotonic() + 60

        async def later() -> bool:
            assert [c["metadata"]["uid"] for c in await claims(world)] == [before["metadata"]["uid"]]
            return world.clock.monotonic() > end

        await world.until(later)
        said = await status(world, "low")
        assert (said["phase"], condition(said, "Preempted")["status"]) == ("Running", "False")
        await world.delete("Instance", "low")
        await world.until_gone("Instance", "low")
        await world.check_clean()
        return Life(world.points.names, world.crashes)


async def test_what_was_told_is_taken_back_where_nobody_needs_it() -> None:
    await check_lives_through(spared_again, chosen=lambda names: words(names)[:2])


async def test_a_gang_is_told_whole_and_spared_whole() -> None:
    """Whoever needs one place of it has all of it told: what stays is worth nothing without it."""
    async with World(hosts=2, gpus=1) as world:
        await furnish(world, maxPriority=10)
        spec = {"flavor": "one", "members": 2, "script": "sleep 999", "preemptible": True, "subnet": ""}
        await world.create("Job", "train", spec, namespace=PROJECT)
        await world.until(lambda: _count(world, 2))
        await make(world, "high", namespace=THEIRS, priority=7)

        async def both() -> bool:
            return sum("ends-at" in str(c["metadata"]) for c in await claims(world)) == 2

        await world.until(both, seconds=30)
        assert len({c["spec"]["host"] for c in await claims(world)}) == 2
        await world.delete("Instance", "high", namespace=THEIRS)
        await world.until(lambda: _not(told(world)), seconds=28)
        assert await _count(world, 2)


async def test_what_is_together_is_spared_by_one_answer(clock: FakeClock) -> None:
    """Whether it is needed may be another in between: then a part of it would end for nothing, and all with it."""
    told, answers, retired = Notice(int(clock.now()) + 10, "why", asker="them"), iter((False, True, True)), []

    async def retire(key: str, *_args: Any, **_more: Any) -> None:
        retired.append(key)
        raise NotFound("it is gone")

    fleet = SimpleNamespace(wanted=lambda _asker, *, hosts, claims: next(answers))
    ctx: Any = SimpleNamespace(clock=clock, fleet=fleet, capacity=SimpleNamespace(retire=retire))
    members: Any = [
        SimpleNamespace(
            key=f"m{n}",
            uid=f"m{n}",
            deleting=False,
            metadata=SimpleNamespace(annotations=told.annotations()),
            spec=SimpleNamespace(host=f"h{n}"),
        )
        for n in range(3)
    ]
    assert await spared(ctx, members, together=True) == []
    assert retired == ["m0", "m1", "m2"]


async def test_who_finds_another_place_gives_back_the_one_that_was_made() -> None:
    async with World(hosts=2, gpus=1) as world:
        await furnish(world, maxPriority=10)
        for name in ("kept", "low"):
            await make(world, name, preemptible=name == "low")
            await world.until_ready("Instance", name)
        await make(world, "high", namespace=THEIRS, priority=7)
        await world.until(lambda: told(world))
        await world.delete("Instance", "kept")
        await world.until_ready("Instance", "high", namespace=THEIRS, seconds=28)
        await world.until(lambda: _not(told(world)), seconds=28)
        assert (await status(world, "low"))["phase"] == "Running"


def words(names: Sequence[str]) -> Sequence[int]:
    """What is written of a stop: each notice, and each end that is asked for."""
    return [index for index, name in enumerate(names) if "retire" in name]


async def test_a_crash_at_each_word_of_a_stop_changes_nothing() -> None:
    await check_lives_through(stopped_for_another, chosen=words)


@pytest.mark.long
async def test_a_crash_at_any_call_changes_nothing() -> None:
    await check_lives_through(stopped_for_another, chosen=distinct)


async def test_what_is_not_preemptible_is_never_stopped() -> None:
    async with World(hosts=1, gpus=1) as world:
        await furnish(world, maxPriority=10)
        await make(world, "low")
        await world.until_ready("Instance", "low")
        await make(world, "high", namespace=THEIRS, priority=7)
        end = world.clock.monotonic() + 400

        async def later() -> bool:
            assert (await status(world, "low"))["phase"] == "Running"
            return world.clock.monotonic() > end

        await world.until(later)
        assert condition(await status(world, "low"), "Preempted") == {}


@pytest.mark.parametrize("quota", [{"claims": 0}, {"spendMicro": 0}])
async def test_nobody_is_stopped_for_who_could_not_take_the_place(quota: dict[str, int]) -> None:
    spec = {"cores": 1, "memory": "256Mi", "disk": "1Gi", "devices": {"model": "H100", "count": 1}}
    async with World(hosts=1, gpus=1) as world:
        await furnish(world, maxPriority=10)
        await make(world, "low", preemptible=True)
        await world.until_ready("Instance", "low")
        # It asks for its place once there is its flavor: by then the bound stands, which refuses whoever comes later.
        await make(world, "high", namespace=THEIRS, priority=7, flavor="late")
        await world.patch("Tenant", "beta", namespace="", quota=quota)
        await world.until_ready("Tenant", "beta", namespace="")
        await world.create("Flavor", "late", spec, namespace="")
        end, stood = world.clock.monotonic() + 300, set()

        async def later() -> bool:
            stood.update(c["metadata"]["uid"] for c in await claims(world))
            return world.clock.monotonic() > end

        await world.until(later, seconds=400)
        assert len(stood) == 1
        said = await status(world, "high", namespace=THEIRS)
        assert condition(said, "Ready")["reason"] == "QuotaExceeded"
        assert condition(await status(world, "low"), "Preempted") == {}
        # Nor is anything kept for it.
        assert not world.fleet.plan().kept


async def test_a_priority_above_its_tenants_counts_as_the_tenants() -> None:
    async with World(hosts=1, gpus=1) as world:
        await furnish(world, maxPriority=2)
        await make(world, "vm", namespace=THEIRS, priority=7)
        await world.until(lambda: holders(world))
        assert [c["spec"]["priority"] for c in await claims(world)] == [2]


async def test_after_a_restart_the_order_is_the_same() -> None:
    async with World(hosts=1, gpus=1) as world:
        await furnish(world)
        await make(world, "held")
        await world.until_ready("Instance", "held")
        for number in range(3):
            await make(world, f"a{number}")
        await make(world, "b", namespace=THEIRS)

        async def waiting() -> bool:
            return world.fleet.ready() and len(world.fleet.plan().order) == 4

        await world.until(waiting)
        before = world.fleet.plan()
        first = await world.object("Instance", "b", namespace=THEIRS)
        assert first is not None
        assert next(iter(before.order)) == first["metadata"]["uid"]
        await world.crash()
        await world.until(waiting)
        assert world.fleet.plan() == before


async def test_nobody_starves_beside_smaller_ones() -> None:
    """Two devices at once, beside an endless line of requests for one, of a tenant with a hundred times the weight:
    after ten minutes what becomes free is kept for it."""
    async with World(hosts=1, gpus=2) as world:
        await furnish(world, weight=100)
        for name in ("small0", "small1"):
            await make(world, name, namespace=THEIRS)
        await world.until(lambda: _count(world, 2))
        began = world.clock.monotonic()
        await make(world, "big", flavor="two")
        await world.until(lambda: _waits(world, "big"))
        await world.until(lambda: _past(world, began + 5))
        for name in ("small2", "small3", "small4"):
            await make(world, name, namespace=THEIRS)
        # Before it is overdue others have what is free and too small for it; after that, nobody.
        await world.until(lambda: _past(world, began + 300))
        await world.delete("Instance", "small0", namespace=THEIRS)
        await world.until(lambda: _past(world, began + 360))
        assert await holders(world) == {"beta": 2}
        await world.until(lambda: _past(world, began + 660))
        await world.delete("Instance", "small1", namespace=THEIRS)
        await world.until(lambda: _past(world, began + 760))
        assert await holders(world) == {"beta": 1}
        (last,) = [c["spec"]["workload"]["name"] for c in await claims(world)]
        await world.delete("Instance", last, namespace=THEIRS)
        await world.until_ready("Instance", "big", seconds=60)


async def _not(found: Awaitable[bool]) -> bool:
    return not await found


async def _waits(world: World, name: str) -> bool:
    return bool((await status(world, name)).get("waitingSince"))


async def _count(world: World, number: int) -> bool:
    return sum((await holders(world)).values()) == number


async def _past(world: World, at: float) -> bool:
    return world.clock.monotonic() > at


class _Yard:
    """A feed that has been read."""

    def __init__(self, arrays: FleetArrays) -> None:
        self.arrays, self.own = arrays, Own(arrays)
        self.demand = Demand(arrays, FakeClock())
        self.moving = Moving(arrays, lambda _hosts: None)
        self.lost: set[str] = set()

    def decide(self, request: Request) -> Decision | Refusal:
        return self.own.decide(request)

    def decide_gang(self, gang: Gang) -> GangDecision | Refusal:
        return decide_gang(self.arrays, gang, policy=self.own.policy)

    def assume(self, decision: Decision, claim_uid: str, *, tenure: Tenure | None = None, before: str = "") -> None:
        rename(self.arrays, before, uid=claim_uid, hold=replace(Hold.of(decision), tenure=tenure or Tenure()))

    def forget(self, claim_uid: str, *, lost: bool = False) -> None:
        if lost:
            self.lost.add(claim_uid)
        else:
            self.arrays.drop(claim_uid)

    def recall(self, workload_uid: str) -> None:
        for name in [name for name in self.lost if name.startswith(f"{workload_uid}/")]:
            self.arrays.drop(name)

    def ready(self) -> bool:
        return True

    def expire(self) -> None: ...


def queueing_over(line: Line, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Queueing:
    """A queue in which nobody waits, over a feed that has been read."""
    feed: Any = _Yard(line.fleet)
    queueing = Queueing(feed, feed, clock=clock)
    monkeypatch.setattr(queueing.line.waiting, "_unread", set())
    return queueing


def test_a_place_that_was_said_is_nobody_elses_before_it_is_taken(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(hosts=1)
    line.runs("r", 3)
    queueing = queueing_over(line, clock, monkeypatch)
    first, other = (Asker(uid=uid, project=PROJECT, since=NOW) for uid in ("first", "other"))
    said = queueing.decide(gpus(1), first)
    assert isinstance(said, Decision)
    assert isinstance(queueing.decide(gpus(1), other), Refusal)
    # Whoever asks again has not taken it; once it is taken it is counted once.
    assert queueing.decide(gpus(1), first) == said
    queueing.assume(said, "first/0")
    assert line.fleet.device_milli[0].min() == 0
    line.fleet.drop("first/0")
    assert isinstance(queueing.decide(gpus(1), other), Decision)


def test_what_somebody_lost_keeps_others_from_it_for_a_while_and_not_who_asks_anew(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(hosts=1)
    line.runs("r", 3)
    queueing = queueing_over(line, clock, monkeypatch)
    first, other = (Asker(uid=uid, project=PROJECT, since=NOW) for uid in ("first", "other"))
    said = queueing.decide(gpus(1), first)
    assert isinstance(said, Decision)
    queueing.assume(said, "first/0")
    queueing.forget("first/0", lost=True)
    assert isinstance(queueing.decide(gpus(1), other), Refusal)
    queueing.line.leave("other")
    assert queueing.decide(gpus(1), first) == said


def test_nothing_is_left_of_places_that_nobody_took_where_nobody_waits(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks is answered by the feed at once then, and no plan is made that would look at all of them."""
    line = Line(hosts=2)
    queueing = queueing_over(line, clock, monkeypatch)
    for number in range(50):
        said = queueing.decide(gpus(1), Asker(uid=f"gone{number}", project=PROJECT, since=NOW))
        assert isinstance(said, Decision)
        line.fleet.drop(f"gone{number}/promised/{number + 1}")  # as the feed does once it is over
    assert len(queueing._promised._by) <= 2
    standing = Asker(uid="standing", project=PROJECT, since=NOW)
    said = queueing.decide_gang(Gang(member=gpus(1), count=3), standing)
    assert isinstance(said, GangDecision)
    assert isinstance(queueing.decide(gpus(1), Asker(uid="other", project=PROJECT, since=NOW)), Decision)
    assert len(queueing._promised._by["standing"]) == 3, "what still stands is not touched"


def test_a_plan_that_was_dear_to_make_gives_a_place_once(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for one replica after the other is not sent where the one before went."""
    line = Line(hosts=1)
    line.runs("r", 2)
    queueing = queueing_over(line, clock, monkeypatch)
    large, several = Asker(uid="large", project=PROJECT, since=NOW), Asker(uid="several", project=PROJECT, since=NOW)
    assert isinstance(queueing.decide(gpus(5), large), Refusal)
    queueing.line.join(Pending(several, gpus(1)))
    queueing._made = replace(queueing._planned(), took=1.0)
    took = []
    for replica in range(2):
        said = queueing.decide(gpus(1), several)
        assert isinstance(said, Decision)
        queueing.assume(said, f"several/{replica}")
        took += said.devices
    assert len(set(took)) == 2


async def test_a_gang_that_lost_its_places_was_in_vain_once(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(hosts=2)
    for number in range(2):
        line.runs(f"low{number}", 4, host=f"h{number}", priority=-1, preemptible=True, project="beta--lab")
    queueing = queueing_over(line, clock, monkeypatch)
    gang, asker = Gang(member=gpus(1), count=6), Asker(uid="gang", project=PROJECT, since=NOW)

    def stops() -> bool:
        said = queueing.decide_gang(gang, asker)
        assert isinstance(said, Refusal)
        # Nobody knows when it starts for whom nobody is stopped.
        assert (said.stops is None) == (said.expected is None)
        return said.stops is not None

    assert stops()
    for after in (61, 121):
        for rank in range(gang.count):
            line.fleet.hold(f"gang/{rank}", Hold("h0", (), ()))
        for rank in range(gang.count):
            queueing.forget(f"gang/{rank}")
        assert not stops()
        await clock.advance(after - 2)
        assert not stops()
        await clock.advance(2)
        assert stops()


def test_who_is_far_back_is_told_once_why_not(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    line, told = Line(hosts=1), []
    line.runs("all", 4)
    queueing, own = queueing_over(line, clock, monkeypatch), Own(line.fleet)
    monkeypatch.setattr(queueing.drafts, "rules", Rules(depth=1))
    monkeypatch.setattr(queueing._feed, "decide", lambda request: told.append(request) or own.decide(request))
    assert isinstance(queueing.decide(gpus(1), Asker(uid="first", project=PROJECT, since=NOW)), Refusal)
    told.clear()
    back = Asker(uid="back", project=PROJECT, since=NOW + 1)
    assert isinstance(queueing.decide(gpus(1), back), Refusal)
    assert len(told) == 1
    line.fleet.drop("all")
    assert isinstance(queueing.decide(gpus(1), back), Decision)


def test_who_waits_with_a_deadline_asks_for_no_new_plan_each_time(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, made = Line(hosts=1), []
    line.runs("all", 4)
    queueing = queueing_over(line, clock, monkeypatch)
    monkeypatch.setattr("bessemer.kinds.fleet.drafts.plan", lambda *args, **more: made.append(1) or plan(*args, **more))

    def ask(now: int) -> None:
        for number in range(20):
            asker = Asker(uid=f"job{number}", project=PROJECT, since=NOW, ends=now + 1000)
            assert isinstance(queueing.decide(gpus(1), asker), Refusal)

    ask(NOW)
    made.clear()
    ask(NOW + 1)
    assert len(made) <= 1

    # Nor does each of many that are new, while a plan was dear to make.
    assert queueing._made is not None
    queueing._made = replace(queueing._made, took=1.0)
    made.clear()
    for number in range(20):
        asker = Asker(uid=f"new{number}", project=PROJECT, since=NOW)
        assert isinstance(queueing.decide(gpus(1), asker), Refusal)
    assert made == []

    # Nor does each claim that was told, and looks whether it must end.
    assert not queueing.wanted(mark_of("nobody"), hosts={"h0"})
    assert queueing.wanted(mark_of("job0"), hosts={"h0"})
    assert made == []


@pytest.mark.parametrize(("priority", "wanted"), [(1, True), (0, False)])
def test_what_was_told_for_one_who_is_gone_ends_for_another_who_counts_on_it(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, priority: int, wanted: bool
) -> None:
    line, now = Line(hosts=1), int(clock.now())
    line.runs("told", 4, preemptible=True, ends=now + 10, project="beta--lab", since=now - 1000)
    queueing = queueing_over(line, clock, monkeypatch)
    other = Asker(uid="other", project=PROJECT, priority=priority, since=now)
    assert isinstance(queueing.decide(gpus(4), other), Refusal)
    gone = mark_of("gone")
    assert queueing.wanted(gone, hosts={"h0"}, claims={"told"}) == wanted
    assert not queueing.wanted(gone, hosts={"h0"}, claims={"another"})

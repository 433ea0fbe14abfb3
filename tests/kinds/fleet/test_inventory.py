"""FleetFeed: the arrays follow Hosts and Claims, change by change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import orjson
import pytest
from structlog.testing import capture_logs

from bessemer.core.asking import Decision, Gang, GangDecision, Refusal
from bessemer.core.clock import FakeClock
from bessemer.core.errors import Expired, Unavailable
from bessemer.core.ports import Bookmark, Scope
from bessemer.core.resource import Change
from bessemer.drivers.inspect.tables import known
from bessemer.kinds.fleet.inventory import ASSUMED_SECONDS, CONTENDED_SECONDS, CONTENDED_SLACK, FleetFeed
from bessemer.kinds.fleet.lost import LOST_SECONDS
from bessemer.placement import Hold
from bessemer.placement.facts import Tenure
from bessemer.placement.thought import Thought
from tests.kinds.fleet.yard import HEARTBEAT_SECONDS, Yard
from tests.placement.hosts import ask, inventory


def placed(fleet: FleetFeed, **request) -> Decision:
    answer = fleet.decide(ask(**request))
    assert isinstance(answer, Decision), answer
    return answer


def refused(fleet: FleetFeed, **request) -> Refusal:
    answer = fleet.decide(ask(**request))
    assert isinstance(answer, Refusal), answer
    return answer


@asynccontextmanager
async def one_of_several(yard: Yard) -> AsyncIterator[FleetFeed]:
    """The feed of a process that decides beside others, followed while the block lasts."""
    feed = FleetFeed(yard.store.objects, yard.clock, order="one")
    task = asyncio.create_task(feed.run())
    yield feed
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_before_it_has_read_the_fleet_it_decides_nothing() -> None:
    async with Yard() as yard:
        feed = FleetFeed(yard.store.objects, yard.clock)
        assert not feed.ready()
        with pytest.raises(Unavailable):
            feed.decide(ask())


async def test_it_follows_hosts_and_claims() -> None:
    async with Yard() as yard:
        await yard.create("Host", "h1")
        assert str(refused(yard.fleet)) == "1 host: not reachable"
        await yard.join("h1", inventory(gpus=2))
        await yard.advance(20)
        assert placed(yard.fleet, device_count=2).host == "h1"
        await yard.take("vm", "h1", devices=["gpu0"])
        assert str(refused(yard.fleet, device_count=2)) == "1 host: short of 2 GPUs (1 free)"
        await yard.end("vm", "h1")
        assert placed(yard.fleet, device_count=2).host == "h1"
        await yard.patch("Host", "h1", unschedulable=True)
        assert str(refused(yard.fleet)) == "1 host: cordoned"
        await yard.patch("Host", "h1", unschedulable=False, taints=[{"key": "mine"}])
        assert refused(yard.fleet).cheapest == "tolerate mine"
        yard.silent.add("h1")
        await yard.advance(HEARTBEAT_SECONDS + 2)
        assert str(refused(yard.fleet)) == "1 host: not reachable"
        await yard.delete("Host", "h1")
        await yard.advance(2)
        assert str(refused(yard.fleet)) == "there are no hosts"


async def test_it_follows_parts_of_devices() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(gpus=2, partitions={"H100": known()["H100-80GB"]}))
        await yard.advance(20)
        await yard.take("share", "h1", devices=["gpu0"], device_milli=600)
        cut = {"device_milli": 500, "device_profile": "3g.40gb", "device_start": 4}
        await yard.take("cut", "h1", devices=["gpu1"], **cut)
        assert str(refused(yard.fleet, device_count=1)) == "1 host: short of 1 GPU (0 free)"
        assert placed(yard.fleet, device_count=1, device_milli=400).devices == ("gpu0",)
        decision = placed(yard.fleet, device_count=1, device_profile="4g.40gb")
        assert (decision.devices, decision.device_start) == (("gpu1",), 0)
        yard.fleet.assume(decision, "somebody/0")
        assert refused(yard.fleet, device_count=1, device_profile="1g.10gb").reasons[0].code == "ShortOfDevices"
        yard.fleet.forget("somebody/0")
        for name in ("share", "cut"):
            await yard.end(name, "h1")
        assert len(placed(yard.fleet, device_count=2).devices) == 2


async def test_a_refusal_says_what_others_may_do() -> None:
    async with Yard() as yard:
        for name in ("h1", "h2"):
            await yard.create("Host", name)
            await yard.join(name, inventory(gpus=2))
        await yard.advance(20)
        arrays = yard.fleet._arrays
        for uid, name in (("one", "h1"), ("two", "h2")):
            found = placed(yard.fleet, device_count=1)
            hold = Hold(name, ("gpu0",), found.allocations, request=ask(device_count=1))
            arrays.hold(uid, replace(hold, tenure=Tenure(ends=1_800_000_000)))
        words = "wait until 2027-01-15T08:00:00Z: enough on h1 will have ended by then"
        assert refused(yard.fleet, device_count=2).cheapest == words
        arrays.hold("two", replace(hold, tenure=Tenure(restartable=True)))
        asked = "ask an administrator of the platform for a Consolidation: it fits once one claim goes to another host"
        assert refused(yard.fleet, device_count=2).cheapest == asked, "nobody's claim is named, and no host of theirs"


async def test_a_fake_host_is_for_those_who_tolerate_it() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(fake=True))
        await yard.advance(20)
        assert str(refused(yard.fleet)) == "1 host: tainted bessemer.dev/fake"
        assert placed(yard.fleet, tolerations=("bessemer.dev/fake",)).fake


async def test_what_was_there_is_read_after_a_start() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(gpus=1))
        await yard.advance(20)
        await yard.take("vm", "h1", devices=["gpu0"])
        await yard.crash()
        await yard.quiet()
        assert str(refused(yard.fleet, device_count=1)) == "1 host: short of 1 GPU (0 free)"


async def test_an_assumption_counts_until_its_claim_is_seen_or_its_time_is_over() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(gpus=1))
        await yard.advance(20)
        decision = placed(yard.fleet, device_count=1)
        yard.fleet.assume(decision, "w-vm/0")
        refused(yard.fleet, device_count=1)
        yard.fleet.forget("w-vm/0")
        placed(yard.fleet, device_count=1)
        yard.fleet.assume(decision, "w-vm/0")
        await yard.advance(ASSUMED_SECONDS)
        placed(yard.fleet, device_count=1)
        yard.fleet.assume(decision, "w-vm/0")
        uid = await yard.take("vm", "h1", devices=["gpu0"])
        yard.fleet.assume(decision, uid)
        await yard.advance(ASSUMED_SECONDS + 1)
        assert str(refused(yard.fleet, device_count=1)) == "1 host: short of 1 GPU (0 free)"
        await yard.end("vm", "h1")
        assert placed(yard.fleet, device_count=1), "nothing of the assumption is left"


async def test_what_is_assumed_anew_under_a_name_has_its_whole_time() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(gpus=1))
        await yard.advance(20)
        decision = placed(yard.fleet, device_count=1)
        yard.fleet.assume(decision, "w-vm/0")
        yard.fleet.forget("w-vm/0")
        await yard.advance(ASSUMED_SECONDS - 1)
        yard.fleet.assume(decision, "w-vm/0")
        await yard.advance(ASSUMED_SECONDS - 1)
        refused(yard.fleet, device_count=1)
        await yard.advance(1)
        assert placed(yard.fleet, device_count=1) == decision


async def test_a_gang_is_assumed_member_by_member_until_its_claims_are_seen() -> None:
    async with Yard() as yard:
        for name in ("h1", "h2"):
            await yard.host(name, inventory(gpus=2, leaf="l1"))
        await yard.advance(20)
        gang = Gang(member=ask(device_count=2), count=2, policy="required")
        decision = yard.fleet.decide_gang(gang)
        assert isinstance(decision, GangDecision)
        assert [member.host for member in decision.members] == ["h1", "h2"]
        for rank, member in enumerate(decision.members):
            yard.fleet.assume(member, f"w-job/{rank}")
        assert str(yard.fleet.decide_gang(gang)) == "2 hosts: short of 2 GPUs (at most 0 free)"
        yard.fleet.forget("w-job/1")
        one = yard.fleet.decide_gang(gang)
        assert isinstance(one, Refusal)
        assert one.cheapest == "ask for at most 1 member"
        await yard.advance(ASSUMED_SECONDS)
        assert yard.fleet.decide_gang(gang) == decision


async def test_before_it_has_read_the_fleet_it_decides_no_gang() -> None:
    async with Yard() as yard:
        with pytest.raises(Unavailable):
            FleetFeed(yard.store.objects, yard.clock).decide_gang(Gang(member=ask(), count=2))


async def test_a_refusal_is_worked_out_once_until_something_changes() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory())
        await yard.advance(20)
        first = refused(yard.fleet, cores=1000)
        assert refused(yard.fleet, cores=1000) is first
        await yard.take("vm", "h1")
        assert refused(yard.fleet, cores=1000) is not first


async def test_who_lost_a_place_to_another_process_takes_what_costs_hardly_more() -> None:
    async with Yard() as yard, one_of_several(yard) as feed:
        await yard.host("h1", inventory(gpus=1))
        await yard.advance(20)
        decision = placed(feed, device_count=1)
        board = feed.demand.own._board
        assert board.slack == 0
        feed.assume(decision, "w-vm/0")
        feed.forget("w-vm/0", lost=True)
        refused(feed, device_count=1)
        await yard.advance(LOST_SECONDS)
        placed(feed, device_count=1)
        assert board.slack == CONTENDED_SLACK
        await yard.advance(CONTENDED_SECONDS)
        placed(feed, device_count=1)
        assert board.slack == 0


async def test_what_was_lost_to_another_process_counts_as_taken_until_that_is_heard_of() -> None:
    async with Yard() as yard, one_of_several(yard) as feed:
        await yard.host("h1", inventory(gpus=2))
        await yard.advance(20)
        decision = placed(feed, device_count=1)
        feed.assume(decision, "w-vm/0")
        feed.forget("w-vm/0", lost=True)
        other = placed(feed, device_count=1)
        assert other.devices != decision.devices, "whoever asks next does not lose the same"
        feed.assume(other, "w-vm/0")
        assert placed(feed, device_count=1).devices == decision.devices, "who asks again has no more than he took"
        feed.forget("w-vm/0", lost=True)
        uid = await yard.take("faster", "h1", devices=[*other.devices])
        await yard.advance(LOST_SECONDS)
        assert placed(feed, device_count=1).devices == decision.devices
        assert [*feed.arrays.held.at("h1")] == [uid]


async def test_what_was_lost_is_free_in_its_time_however_much_is_lost_meanwhile() -> None:
    async with Yard() as yard, one_of_several(yard) as feed:
        await yard.host("h1", inventory(gpus=4))
        await yard.advance(20)
        for number in range(4):
            feed.assume(placed(feed, device_count=1), f"w-{number}/0")
            feed.forget(f"w-{number}/0", lost=True)
            await yard.advance(0.8 * LOST_SECONDS)
            feed.expire()
        assert [*feed.arrays.held.at("h1")] == ["w-3/0"]


async def test_what_was_refused_and_not_lost_is_free_at_once_and_so_is_ones_own_for_who_asks_anew() -> None:
    async with Yard() as yard, one_of_several(yard) as feed:
        await yard.host("h1", inventory(gpus=1))
        await yard.advance(20)
        decision = placed(feed, device_count=1)
        feed.assume(decision, "w-vm/0")
        feed.forget("w-vm/0")
        assert placed(feed, device_count=1) == decision
        assert feed.demand.own._board.slack == 0
        feed.assume(decision, "w-vm/0")
        feed.forget("w-vm/0", lost=True)
        feed.lost.recall("w-other")
        refused(feed, device_count=1)
        feed.lost.recall("w-vm")
        assert placed(feed, device_count=1) == decision


async def test_who_is_alone_lost_a_place_to_nobody() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(gpus=1))
        await yard.advance(20)
        yard.fleet.assume(placed(yard.fleet, device_count=1), "w-vm/0")
        yard.fleet.forget("w-vm/0")
        placed(yard.fleet, device_count=1)
        assert yard.fleet.demand.own._board.slack == 0


class Script:
    """Objects whose watches play what a test wrote: items, and errors to raise."""

    def __init__(self, hosts: list[list[Change | Bookmark | Exception]]) -> None:
        self.hosts = hosts
        self.since: list[int | None] = []

    async def watch(self, scope: Scope, *, since: int | None = None) -> AsyncIterator[Change | Bookmark]:
        if scope.kind != "Host":
            yield Bookmark(1)
            await asyncio.Event().wait()
        self.since.append(since)
        for item in self.hosts.pop(0):
            if isinstance(item, Exception):
                raise item
            yield item
        if not self.hosts:
            await asyncio.Event().wait()


async def host_change(revision: int, name: str) -> Change:
    async with Yard() as yard:
        await yard.host(name, inventory())
        await yard.advance(20)
        host = await yard.load(name)
        body = host.model_dump_json(by_alias=True, exclude_none=True).encode()
        return Change(revision, "ADDED", host.key, host.uid, "", body)


async def test_a_host_of_which_nobody_can_make_sense_is_left_out_and_stops_no_other() -> None:
    """Its report was stored when more was allowed, or is a lie that nobody thought of."""
    one, two = await host_change(2, "h1"), await host_change(3, "h2")
    body = orjson.loads(one.body)
    body["status"]["report"]["numa"] *= 1000
    lies = replace(one, revision=4, body=orjson.dumps(body))
    clock = FakeClock()
    feed = FleetFeed(Script([[one, two, Bookmark(3), lies]]), clock)  # type: ignore[arg-type]
    task = asyncio.create_task(feed.run())
    with capture_logs() as logs:
        await clock.advance(1)
    assert not task.done()
    assert str(refused(feed, cores=100)).startswith("1 host"), "h2 alone is left"
    [line] = [line for line in logs if line["event"] == "left out of placement"]
    assert (line["name"], line["object_uid"]) == ("h1", one.uid)
    assert "numa" in line["error"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_goes_on_after_an_interruption_and_lists_anew_only_when_history_ran_out() -> None:
    one, two = await host_change(2, "h1"), await host_change(3, "h2")
    script = Script(
        [
            [one, two, Bookmark(3), Unavailable("away")],
            [Bookmark(9), Expired("list again")],
            [two, Bookmark(12)],
        ]
    )
    clock = FakeClock()
    feed = FleetFeed(script, clock)  # type: ignore[arg-type]
    task = asyncio.create_task(feed.run())
    await clock.advance(5)
    assert script.since == [None, 3, None]
    assert placed(feed).host == "h2"
    assert str(refused(feed, cores=100)).startswith("1 host"), "h1 vanished while nobody told"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_thinking_does_away_with_no_refusal_and_those_of_gangs_are_kept() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(gpus=2))
        await yard.advance(20)
        arrays, gang = yard.fleet._arrays, Gang(member=ask(device_count=1), count=2)
        yard.fleet.assume(placed(yard.fleet, device_count=1), "somebody/0")
        single, together = refused(yard.fleet, device_count=2), yard.fleet.decide_gang(gang)
        with Thought(arrays):
            arrays.drop("somebody/0")
            assert placed(yard.fleet, device_count=2)
            assert isinstance(yard.fleet.decide_gang(gang), GangDecision)
            arrays.hold("thought", Hold("h1", ("gpu0", "gpu1"), ()))
            assert str(refused(yard.fleet, device_count=2)) == "1 host: short of 2 GPUs (0 free)"
            assert yard.fleet.decide_gang(gang) is yard.fleet.decide_gang(gang)
        assert str(single) == "1 host: short of 2 GPUs (1 free)"
        assert refused(yard.fleet, device_count=2) is single
        assert yard.fleet.decide_gang(gang) is together


async def test_what_was_assumed_for_too_long_is_forgotten_in_earnest_and_in_no_thought() -> None:
    async with Yard() as yard:
        await yard.host("h1", inventory(gpus=2))
        await yard.advance(20)
        yard.fleet.assume(placed(yard.fleet, device_count=2), "somebody/0")
        with Thought(yard.fleet._arrays):
            yard.clock._monotonic += ASSUMED_SECONDS
            refused(yard.fleet, device_count=1)
        assert placed(yard.fleet, device_count=2)
        await yard.advance(1)
        assert placed(yard.fleet, device_count=2)

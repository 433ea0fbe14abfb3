"""A day in a cloud: who comes and goes, what breaks, and what must hold all the while. Everything follows from a seed.

`Day.live` draws one happening after the other, lets time pass up to each, and holds the cloud to its invariants after
each. `Day.end` deletes everything, and nothing may be left.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from bessemer.core.errors import AlreadyExists, QuotaExceeded
from bessemer.core.resource import Key
from bessemer.core.values import UsageBatch, UsageRecord
from bessemer.drivers.process.protocol import End
from tests.sim.cloud import TENANTS, TOLERATE, Cloud
from tests.sim.invariants import Invariants

DAY_SECONDS = 86_400.0

Happening = Callable[["Day"], Awaitable[None]]


@dataclass
class Day:
    """One day of one cloud. Each thing happens once, in any order, and then as often as its weight says."""

    cloud: Cloud
    random: random.Random
    seconds: float = DAY_SECONDS
    happenings: int = 400
    weights: Mapping[str, tuple[Happening, float]] = field(default_factory=lambda: WEIGHTS)
    seen: Counter[str] = field(default_factory=Counter)
    agenda: list[tuple[float, Happening]] = field(default_factory=list)
    down: dict[str, str] = field(default_factory=dict)
    """Hosts that are silent, and how they became so."""
    sent: list[UsageBatch] = field(default_factory=list)
    made: int = 0

    def __post_init__(self) -> None:
        self.invariants = Invariants(self.cloud)

    async def live(self) -> None:
        """The whole day."""
        clock = self.cloud.clock
        end = clock.monotonic() + self.seconds
        rate = self.happenings / self.seconds
        names, weights = list(self.weights), [weight for _, weight in self.weights.values()]
        first = self.random.sample(names, len(names))
        while clock.monotonic() < end:
            await self._until(clock.monotonic() + self.random.expovariate(rate))
            name = first.pop() if first else self.random.choices(names, weights)[0]
            self.seen[name] += 1
            await self.weights[name][0](self)
            await self.check()

    async def _until(self, at: float) -> None:
        """Let time pass; what was promised for then happens on the way."""
        clock = self.cloud.clock
        while due := sorted((entry for entry in self.agenda if entry[0] <= at), key=lambda entry: entry[0]):
            when, happening = due[0]
            self.agenda.remove(due[0])
            await clock.pass_time(max(0.0, when - clock.monotonic()))
            await happening(self)
        await clock.pass_time(max(0.0, at - clock.monotonic()))

    def later(self, seconds: float, happening: Happening) -> None:
        self.agenda.append((self.cloud.clock.monotonic() + seconds, happening))

    async def check(self) -> None:
        self.cloud.check_tasks()
        await self.cloud.traffic.settle()
        await self.invariants.check()

    async def end(self) -> None:
        """Everybody comes back, everything is deleted, and nothing is left."""
        cloud = self.cloud
        await self._until(cloud.clock.monotonic() + 3600)
        for name in list(self.down):
            await bring_back(self, name)
        if not cloud.gateway.up:
            cloud.gateway.start()
        for controller in cloud.controllers:
            controller.relieve()
        for kind in ("Instance", "Endpoint"):
            for found in await cloud.bodies(kind):
                await cloud.delete(Key(kind, found["metadata"]["namespace"], found["metadata"]["name"]))
        for _ in range(40):
            await cloud.clock.pass_time(300)
            await self.check()
            if not any([await cloud.bodies(kind) for kind in ("Instance", "Endpoint", "Claim")]):
                break
        assert cloud.gateway.waiting == 0, "all of the spool is settled"
        await self.invariants.nothing_left([*cloud.gateway.metered, *(r for batch in self.sent for r in batch.records)])


# --- who comes and goes -----------------------------------------------------------------------------------------


async def instance_comes(day: Day) -> None:
    flavor = day.random.choice(("small", "small", "large", "one-gpu"))
    await _comes(day, "Instance", {"flavor": flavor, "image": "micro", "tolerations": TOLERATE})


async def endpoint_comes(day: Day) -> None:
    flavor, most = day.random.choice((("one-gpu", 6), ("all-gpus", 3), ("small", 4)))
    spec = {"model": "smol", "flavor": flavor, "replicas": day.random.randint(1, most), "tolerations": TOLERATE}
    await _comes(day, "Endpoint", spec)


async def _comes(day: Day, kind: str, spec: dict[str, object]) -> None:
    day.made += 1
    key = Key(kind, f"{day.random.choice(TENANTS)}--lab", f"w{day.made}")
    try:
        await day.cloud.create(kind, key.name, spec, project=key.namespace)
    except (QuotaExceeded, AlreadyExists):
        day.seen["refused by quota"] += 1
        return

    async def goes(day: Day) -> None:
        await day.cloud.delete(key)

    day.later(day.random.expovariate(1 / 5400) + 60, goes)


async def instance_is_stopped_or_started(day: Day) -> None:
    found = await day.cloud.bodies("Instance")
    if found:
        chosen = day.random.choice(found)
        await day.cloud.patch(_key(chosen), running=not chosen["spec"].get("running", True))


async def endpoint_is_scaled(day: Day) -> None:
    found = await day.cloud.bodies("Endpoint")
    if found:
        await day.cloud.patch(_key(day.random.choice(found)), replicas=day.random.randint(0, 6))


async def quota_changes(day: Day) -> None:
    cores = day.random.choice((100_000, 600_000, 1_200_000))
    devices = day.random.choice((8, 48, 96))
    quota = {"milliCores": cores, "memoryBytes": 6 << 40, "devices": {"*": devices}, "instances": 40}
    await day.cloud.patch(Key("Tenant", "", day.random.choice(TENANTS)), quota=quota)


async def usage_comes_twice(day: Day) -> None:
    """Another gateway's spool, sent again from somewhere before its end."""
    found = await day.cloud.bodies("Endpoint")
    if not found:
        return
    chosen = day.random.choice(found)
    first = sum(len(batch.records) for batch in day.sent) + 1
    count = day.random.randint(1, 5)
    records = [_record(day, chosen, first + n) for n in range(count)]
    batch = UsageBatch(gateway_uid="another", spool_uid="s", first_sequence=first, records=records)
    day.sent.append(batch)
    for again in day.sent[-2:] * 2:
        assert await day.cloud.store.ledger.settle(again) == first + count - 1 or again is not batch


async def usage_is_metered(day: Day) -> None:
    """Requests are answered; whoever meters them may not hear that they are settled, and sends them again."""
    gateway, found = day.cloud.gateway, await day.cloud.bodies("Endpoint")
    if not found or not gateway.up:
        return
    chosen = day.random.choice(found)
    for _ in range(day.random.randint(1, 200)):
        gateway.meter(_record(day, chosen, len(gateway.metered) + 1))
    gateway.answers_lost = day.random.choice((0, 0, 1, 3))


def _record(day: Day, endpoint: dict[str, object], sequence: int) -> UsageRecord:
    metadata = endpoint["metadata"]
    assert isinstance(metadata, dict)
    return UsageRecord(
        at=int(day.cloud.clock.now()),
        request_id=f"r{sequence}",
        project=metadata["namespace"],
        endpoint=metadata["name"],
        endpoint_uid=metadata["uid"],
        api_key="app",
        model="smol",
        status=200,
        input_tokens=day.random.randint(1, 1000),
        output_tokens=day.random.randint(1, 1000),
    )


# --- what breaks ------------------------------------------------------------------------------------------------


async def guest_dies(day: Day) -> None:
    machine = day.random.choice(list(day.cloud.machines.values()))
    busy = [m for m in day.cloud.machines.values() if m.qemu.world.guests] or [machine]
    machine = day.random.choice(busy)
    for uid in list(machine.qemu.world.guests)[:1]:
        machine.qemu.world.kill_process(uid)


async def engine_dies(day: Day) -> None:
    for machine in day.random.sample(list(day.cloud.machines.values()), len(day.cloud.machines)):
        for engine in (await machine.engine.running())[:1]:
            await machine.engine.end(engine.uid, End.CRASHED)
            return


async def agent_restarts(day: Day) -> None:
    name = _one_that_is_up(day)
    await day.cloud.kill_agent(name)
    await day.cloud.clock.pass_time(day.random.choice((0.0, 0.3, 20.0)))
    await day.cloud.start_agent(name)


async def host_is_cut_off(day: Day) -> None:
    """What runs there goes on, and nobody hears of it. Some are fenced all the same, and have to clear away later."""
    name = _one_that_is_up(day)
    day.cloud.wire.cut_off(name)
    day.down[name] = "cut"
    if day.random.random() < 0.3:
        day.later(1000, _fence(name))
    day.later(day.random.uniform(100, 2400), _back(name))


async def host_dies(day: Day) -> None:
    """The machine is gone. Half of those that die are fenced before they come back."""
    name = _one_that_is_up(day)
    await day.cloud.kill_agent(name)
    await day.cloud.machines[name].power_off()
    day.down[name] = "dead"
    if day.random.random() < 0.5:
        day.later(1200, _fence(name))
    day.later(day.random.uniform(1500, 3600), _back(name))


def _fence(name: str) -> Happening:
    async def fence(day: Day) -> None:
        if name not in day.down:
            return
        day.seen["fenced"] += 1
        await day.cloud.patch(Key("Host", "", name), fenced=True)

    return fence


def _back(name: str) -> Happening:
    async def back(day: Day) -> None:
        await bring_back(day, name)

    return back


async def bring_back(day: Day, name: str) -> None:
    """The host is heard of again."""
    how = day.down.pop(name, "")
    await day.cloud.patch(Key("Host", "", name), fenced=False)
    if how == "cut":
        day.cloud.wire.cut.discard(name)
    elif how == "dead":
        await day.cloud.start_agent(name)


async def gateway_restarts(day: Day) -> None:
    """It dies with usage in its spool, now and then amid a record, and is back at once or after a while."""
    gateway = day.cloud.gateway
    if not gateway.up:
        return
    await usage_is_metered(day)
    await gateway.die(torn=day.random.choice((b"", b"\x40", b"\x40\0\0\0torn and of no use")))

    async def is_back(_day: Day) -> None:
        if not gateway.up:
            gateway.start()

    day.later(day.random.choice((0.0, 20.0, 1800.0)), is_back)


async def control_plane_restarts(day: Day) -> None:
    await day.cloud.restart(day.random.choice((0.0, 5.0, 120.0)))
    day.invariants.forget()


async def clock_jumps(day: Day) -> None:
    day.cloud.clock.jump(day.random.choice((-DAY_SECONDS, DAY_SECONDS)))


def _one_that_is_up(day: Day) -> str:
    return day.random.choice([name for name in day.cloud.machines if name not in day.down])


def _key(found: dict[str, object]) -> Key:
    metadata = found["metadata"]
    assert isinstance(metadata, dict)
    return Key(str(found["kind"]), metadata["namespace"], metadata["name"])


WEIGHTS: dict[str, tuple[Happening, float]] = {
    "instance comes": (instance_comes, 30),
    "endpoint comes": (endpoint_comes, 12),
    "instance is stopped or started": (instance_is_stopped_or_started, 8),
    "endpoint is scaled": (endpoint_is_scaled, 6),
    "quota changes": (quota_changes, 5),
    "usage comes twice": (usage_comes_twice, 5),
    "usage is metered": (usage_is_metered, 8),
    "guest dies": (guest_dies, 6),
    "engine dies": (engine_dies, 5),
    "agent restarts": (agent_restarts, 8),
    "host is cut off": (host_is_cut_off, 3),
    "host dies": (host_dies, 3),
    "gateway restarts": (gateway_restarts, 4),
    "control plane restarts": (control_plane_restarts, 3),
    "clock jumps": (clock_jumps, 1),
}
"""Each happening, and how often of a hundred."""

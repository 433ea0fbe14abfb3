"""How long it takes to plan for all who wait, at 10,000 hosts with 80,000 claims.

Every device is held by a claim of its own, of one of fifty tenants, that ends at a time of its own. A thousand requests
wait, of which no two are alike, of fifty tenants. A plan is made anew where anything changed: the figure is of one that
is made while a claim comes and goes, in milliseconds of one core, for that is how long nobody else is served. Then with
claims that may be stopped and requests of a higher priority, and with gangs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from _common import Figure, Options, figure, median, program
from bessemer.core.asking import Allocation, Asker, Decision, Gang, GangDecision, Request
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.units import GIB
from bessemer.placement import FleetArrays, Hold, HostFacts
from bessemer.placement.arrays import Arrays
from bessemer.placement.facts import Tenure
from bessemer.placement.gangs import place_gang
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.own import Own
from bessemer.placement.queue import Book, Pending, Plan, Rules, Running, plan

HOSTS, DEVICES, LEAF, TENANTS, WAITING = 10_000, 8, 32, 50, 1_000
NOW = 1_000_000
GOAL_MS = 300.0


async def measure(options: Options) -> list[Figure]:
    """Plans over one fleet, from plain to dear."""
    return list(_figures(options))


def _figures(options: Options) -> Iterator[Figure]:
    draw = random.Random(1)
    bench = _Bench(draw)
    runs = 3 if options.quick else 9
    plain = [_waits(draw, n, _request(n)) for n in range(WAITING)]
    yield bench.figure("1,000 different requests", plain, runs=runs, at_most=GOAL_MS)
    equal = [_waits(draw, n, _request(n % 5)) for n in range(WAITING)]
    yield bench.figure("1,000 requests of five shapes", equal, runs=runs)
    fewer = [_waits(draw, n, _request(n)) for n in range(50)]
    yield bench.figure("50 different requests", fewer, runs=runs)
    late = [_waits(draw, n, _request(n), ago=5_000) for n in range(WAITING)]
    yield bench.figure("1,000 different requests, all overdue", late, runs=runs, at_most=GOAL_MS)
    gangs = [_waits(draw, n, Gang(member=_request(n), count=2 + n % 31)) for n in range(WAITING)]
    yield bench.figure("1,000 different gangs of 2 to 32", gangs, runs=runs, at_most=GOAL_MS)
    high = [_waits(draw, n, _request(n), priority=1) for n in range(WAITING)]
    yield bench.figure("1,000 of a higher priority, all that runs may be stopped", high, runs=runs, at_most=GOAL_MS)
    above = [_waits(draw, n, Gang(member=_request(n), count=2 + n % 31), priority=1) for n in range(WAITING)]
    yield bench.figure("the same, gangs of 2 to 32", above, runs=runs, at_most=GOAL_MS)


@dataclass(frozen=True, slots=True)
class _Places:
    """By the product's own policy."""

    fleet: FleetArrays
    own: Own

    def place(self, request: Request) -> Decision | None:
        return self.own.place(request)

    def place_gang(self, gang: Gang, among: Arrays | None = None) -> GangDecision | None:
        return place_gang(among or self.fleet, gang, policy=self.own.policy)


# --- a fleet ----------------------------------------------------------------------------------------------------------


def _request(number: int) -> Request:
    """Of each number another."""
    return Request(
        tenant="",
        milli_cores=1000 + 10 * number,
        memory_bytes=GIB + number * (GIB >> 10),
        device_count=2 + number % 7,
        numa=("preferred", "legacy")[number % 2],
    )


def _waits(draw: random.Random, number: int, wants: Request | Gang, *, priority: int = 0, ago: int = 500) -> Pending:
    tenant = f"tenant-{number % TENANTS:02}"
    since = NOW - draw.randrange(1, ago)
    asker = Asker(uid=f"w{number:04}", project=f"{tenant}--p{number % 3}", priority=priority, since=since)
    return Pending(asker, wants)


@dataclass(slots=True)
class _Bench:
    draw: random.Random
    fleet: FleetArrays = field(default_factory=FleetArrays)

    def __post_init__(self) -> None:
        devices = [
            Device(id=f"gpu{n}", kind="gpu", model="H100", numa_node=n // 4, pcie_switch=f"sw{n // 2}")
            for n in range(DEVICES)
        ]
        numa = [NumaNode(id=n, cores=64, threads=64, memory_bytes=512 * GIB) for n in range(2)]
        machine = Inventory(numa=numa, devices=devices)
        for n in range(HOSTS):
            above = {"leaf": f"leaf-{n // LEAF:03}", "spine": f"spine-{n // LEAF // 16:02}"}
            self.fleet.set_host(HostFacts(name=f"host-{n:05}", inventory=machine.model_copy(update=above)))
            for gpu in range(DEVICES):
                self.fleet.hold(f"c{n:05}-{gpu}", self._held(n, gpu))

    def _held(self, n: int, gpu: int) -> Hold:
        draw = self.draw
        tenure = Tenure(
            project=f"tenant-{draw.randrange(TENANTS):02}--p0",
            since=NOW - draw.randrange(400, 100_000),
            ends=NOW + draw.randrange(1, 100_000),
            preemptible=True,
        )
        part = Allocation(numa_node=gpu // 4, milli_cores=16_000, memory_bytes=128 * GIB)
        return Hold(f"host-{n:05}", (f"gpu{gpu}",), (part,), tenure=tenure)

    def figure(self, what: str, waiting: Sequence[Pending], *, runs: int, at_most: float | None = None) -> Figure:
        """Of each plan but the first, which reads everything."""
        own = Own(self.fleet)
        book, running = Book(self.fleet), Running(Holdings(self.fleet))

        def made() -> Plan:
            return plan(book, running, places=_Places(self.fleet, own), waiting=waiting, now=NOW, terms=({}, Rules()))

        made()
        seconds = []
        for _ in range(runs):
            uid = f"c{self.draw.randrange(HOSTS):05}-0"
            hold = self.fleet.drop(uid)
            assert hold is not None
            self.fleet.hold(uid, hold)
            began = time.process_time()
            made()
            seconds.append(time.process_time() - began)
        return figure(what, 1000 * median(seconds), "ms", at_most=at_most)


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])

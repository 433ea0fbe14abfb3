"""How few leaves gangs lie under after a long sequence, and how fast they are placed or refused, at 10,000 hosts.

Hosts have eight devices, 32 are under a leaf and 16 leaves under a spine. Gangs of 1 to 64 whole hosts come and leave
at random, so that nine hosts in ten are always in use; in powers of two, and of every size up to a leaf. Beside ours,
over the same arrays, filters and cuts within a host, stand first fit (in an order of hosts that is fixed) and random;
all see the same gangs come, and as many leave. A gang of up to 32 hosts could lie under one leaf: how many do is the
figure, and how many leaves they take.

Then a gang of 512 hosts, where those in use are scattered by chance, in blocks, in pieces of hosts, and where it cannot
be; in seconds of one core's time, so that what else runs on the machine does not count. Published beside: what
KAI-Scheduler says of 512 pods on 512 nodes, and of a gang that fits nowhere (docs/scale-tests/example-results.json).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from _common import Figure, Options, figure, median, percentile, program
from bessemer.core.asking import Decision, Gang, GangDecision, Request
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.units import GIB
from bessemer.main.process import have_read
from bessemer.placement import FleetArrays, Hold, HostFacts
from bessemer.placement.filters import sift
from bessemer.placement.gangs import decide_gang
from bessemer.placement.gangs.ground import Ground
from bessemer.placement.gangs.members import Told, settle
from bessemer.placement.sight import Sight

HOSTS, LEAF, SPINE = 10_000, 32, 16
USE = 0.9

Mix = Mapping[int, float]
POWERS: Mix = {1: 0.30, 2: 0.20, 4: 0.15, 8: 0.15, 16: 0.10, 32: 0.06, 64: 0.04}
EVERY: Mix = dict.fromkeys(range(1, LEAF + 1), 1 / LEAF)
"""Sizes of gangs, and how often each comes."""

LARGE = 512
GOAL_MS, GOAL_CHANGE_MS, GOAL_ONE_LEAF = 10.0, 100.0, 98.0
KAI_MS, KAI_VERDICT_MS = 48_700.0, 249_500.0

WHOLE = Request(tenant="acme", milli_cores=96_000, memory_bytes=768 * GIB, device_count=8)
PIECE = Request(
    tenant="acme", milli_cores=8_000, memory_bytes=64 * GIB, device_count=2, numa="required", same_switch=True
)

Rule = Callable[[FleetArrays, Gang], GangDecision | None]


async def measure(options: Options) -> list[Figure]:
    """The long sequence by each rule, then single gangs."""
    return [*_sequences(quick=options.quick), *_single(options)]


# --- a fleet ------------------------------------------------------------------------------------------------------


def _fleet() -> FleetArrays:
    devices = [
        Device(
            id=f"gpu{n}",
            kind="gpu",
            model="H100",
            numa_node=n // 4,
            pcie_switch=f"sw{n // 2}",
            nvlink_domain="nv",
            rail=n,
        )
        for n in range(8)
    ]
    numa = [NumaNode(id=n, cores=64, threads=64, memory_bytes=512 * GIB) for n in range(2)]
    machine = Inventory(numa=numa, devices=devices)
    fleet = FleetArrays()
    for n in range(HOSTS):
        leaf = n // LEAF
        above = {"leaf": f"leaf-{leaf:03}", "spine": f"spine-{leaf // SPINE:02}"}
        fleet.set_host(HostFacts(name=f"host-{n:05}", inventory=machine.model_copy(update=above)))
    return fleet


def _hold(fleet: FleetArrays, uid: str, member: Decision) -> None:
    fleet.hold(uid, Hold(member.host, member.devices, member.allocations, member.device_milli))


# --- a long sequence ----------------------------------------------------------------------------------------------


def _ours(fleet: FleetArrays, gang: Gang) -> GangDecision | None:
    answer = decide_gang(fleet, gang)
    return answer if isinstance(answer, GangDecision) else None


def _peer(order: Callable[[int], np.ndarray]) -> Rule:
    """Hosts that fit, in some order, until there are enough."""

    def rule(fleet: FleetArrays, gang: Gang) -> GangDecision | None:
        sight = Sight.of(fleet, gang.member)
        fits, reasons = sift(sight)
        ground = Ground.of(sight, gang, fits=fits)
        if ground.most(gang) < gang.count:
            return None
        chosen = order(len(ground.rows))[: gang.count]
        told = Told(len(ground.rows), reasons)
        members = settle(sight, ground.rows[chosen], counts=np.ones(gang.count, dtype=np.int64), told=told)
        leaves = len(set(ground.fabric.leaf[chosen].tolist()))
        return GangDecision(members=members, leaves=leaves, spines=len(set(ground.above("spine")[chosen].tolist())))

    return rule


@dataclass(slots=True)
class _Seen:
    """Of gangs that arrived after the fleet had filled: leaves of each of up to one leaf, by whether it could be on
    several; who was refused; and seconds of every decision."""

    leaves: list[int] = field(default_factory=list)
    of_several: list[int] = field(default_factory=list)
    refused: int = 0
    arrived: int = 0
    seconds: list[float] = field(default_factory=list)

    def under_one(self, leaves: Sequence[int]) -> float:
        return 100 * sum(n == 1 for n in leaves) / len(leaves)


def _sequence(rule: Rule, *, mix: Mix, seed: int, steps: int) -> _Seen:
    sizes, odds = list(mix), list(mix.values())
    dice = np.random.default_rng(seed)
    fleet, seen = _fleet(), _Seen()
    live: list[tuple[int, int]] = []
    used, number, warm = 0, 0, None
    while warm is None or number < warm + steps:
        while used > USE * HOSTS:
            warm = number if warm is None else warm
            at = int(dice.integers(len(live)))
            live[at], live[-1] = live[-1], live[at]
            gone, size = live.pop()
            for rank in range(size):
                fleet.drop(f"{gone}/{rank}")
            used -= size
        size = int(dice.choice(sizes, p=odds))
        began = time.thread_time()
        answer = rule(fleet, Gang(member=WHOLE, count=size))
        took = time.thread_time() - began
        number += 1
        if answer is not None:
            for rank, member in enumerate(answer.members):
                _hold(fleet, f"{number}/{rank}", member)
            live.append((number, size))
            used += size
        if warm is not None:
            _note(seen, answer, size=size, took=took)
    return seen


def _note(seen: _Seen, answer: GangDecision | None, *, size: int, took: float) -> None:
    seen.arrived += 1
    seen.seconds.append(took)
    seen.refused += answer is None
    if answer is not None and size <= LEAF:
        seen.leaves.append(answer.leaves)
        if size > 1:
            seen.of_several.append(answer.leaves)


def _sequences(*, quick: bool) -> Iterator[Figure]:
    seeds, steps = (range(1), 1_000) if quick else (range(3), 20_000)
    for words, mix in (("powers of two", POWERS), (f"every size to {LEAF}", EVERY)):
        found: dict[str, list[_Seen]] = {}
        for seed in seeds:
            dice = np.random.default_rng(seed + 100)
            rules: Mapping[str, Rule] = {
                "ours": _ours,
                "first fit": _peer(np.arange),
                "random": _peer(dice.permutation),
            }
            for name, rule in rules.items():
                if quick and mix is EVERY and name != "ours":
                    continue
                found.setdefault(name, []).append(_sequence(rule, mix=mix, seed=seed, steps=steps))
        where = f"{words}, {HOSTS:,} hosts, {100 * USE:.0f} % in use, after {steps:,} gangs"
        yield from _compared(found, where)


def _compared(found: Mapping[str, Sequence[_Seen]], where: str) -> Iterator[Figure]:
    """Medians over the seeds."""
    for name, runs in found.items():
        one = median([run.under_one(run.leaves) for run in runs])
        goal = GOAL_ONE_LEAF if name == "ours" else None
        yield figure(f"{name}: gangs of up to {LEAF} under one leaf, {where}", one, "%", at_least=goal)
        several = median([run.under_one(run.of_several) for run in runs])
        yield figure(f"{name}: of those the ones of 2 to {LEAF}", several, "%")
        yield figure(f"{name}: leaves of a gang of up to {LEAF}, mean", median(map(_mean_leaves, runs)), "")
        yield figure(f"{name}: refused", median([100 * run.refused / run.arrived for run in runs]), "%")
        yield figure(f"{name}: a decision, p50", 1e3 * median([median(run.seconds) for run in runs]), "ms")
        yield figure(f"{name}: a decision, p99", 1e3 * median([percentile(run.seconds, 0.99) for run in runs]), "ms")


def _mean_leaves(run: _Seen) -> float:
    return sum(run.leaves) / len(run.leaves)


# --- single gangs -------------------------------------------------------------------------------------------------


def _scattered(share: float) -> FleetArrays:
    """Each host in use by chance; which is what a large gang likes least."""
    dice = np.random.default_rng(7)
    fleet = _fleet()
    one = decide_gang(fleet, Gang(member=WHOLE, count=1))
    assert isinstance(one, GangDecision)
    for n in np.flatnonzero(dice.random(HOSTS) < share):
        taken = one.members[0]
        fleet.hold(str(n), Hold(f"host-{n:05}", taken.devices, taken.allocations))
    return fleet


def _unlike(fleet: FleetArrays) -> None:
    """A little of every host is held, of each another amount: no two are alike."""
    for n in range(HOSTS):
        small = Request(tenant="acme", milli_cores=1 + n, memory_bytes=GIB + n)
        place = decide_gang(fleet.view(np.array([n])), Gang(member=small, count=1))
        if isinstance(place, GangDecision):
            _hold(fleet, f"small-{n}", place.members[0])


def _milliseconds(work: Callable[[], object], *, runs: int) -> float:
    """The median of some runs."""
    seconds = []
    for _ in range(runs):
        began = time.thread_time()
        work()
        seconds.append(time.thread_time() - began)
    return 1e3 * median(seconds)


def _single(options: Options) -> Iterator[Figure]:
    # The collector as in a process of the product.
    have_read()
    fleet, runs = _scattered(USE), 5 if options.quick else 21
    kai = ("KAI-Scheduler, 512 pods of 512 nodes", KAI_MS)
    verdict = ("KAI-Scheduler, a gang that fits nowhere", KAI_VERDICT_MS)
    for what, gang, bound, peer in (
        (f"a gang of {LARGE} hosts", Gang(member=WHOLE, count=LARGE), GOAL_MS, kai),
        (f"a gang of {LARGE}, few spines first", Gang(member=WHOLE, count=LARGE, level="spine"), GOAL_MS, kai),
        ("64 in blocks of 4 under a leaf each", Gang(member=WHOLE, count=64, segment=4), None, None),
        (f"{LARGE} members of two devices, one switch", Gang(member=PIECE, count=LARGE), None, None),
    ):
        took = _milliseconds(lambda gang=gang: _decided(fleet, gang), runs=runs)  # type: ignore[misc]
        yield figure(f"{what}, {HOSTS:,} hosts, {100 * USE:.0f} % in use", took, "ms", at_most=bound, peer=peer)
    yield from _on_rails(runs)
    none = Gang(member=WHOLE, count=LEAF, policy="required")
    took = _milliseconds(lambda: _verdict(fleet, none), runs=runs)
    yield figure("it fits nowhere, and the counted reasons", took, "ms", at_most=GOAL_MS, peer=verdict)
    hopeless = Gang(member=WHOLE, count=2 * HOSTS, policy="required", segment=LEAF, per_host=1)
    for what, gang in (("the next wider level", none), ("everything tried", hopeless)):
        took = _milliseconds(lambda gang=gang: decide_gang(fleet, gang), runs=runs)  # type: ignore[misc]
        yield figure(f"the same with the cheapest change: {what}", took, "ms", at_most=GOAL_CHANGE_MS)
    _unlike(fleet)
    took = _milliseconds(lambda: _decided(fleet, Gang(member=WHOLE, count=LARGE)), runs=runs)
    yield figure(f"a gang of {LARGE} hosts, of which no two are alike", took, "ms", at_most=GOAL_MS)


def _on_rails(runs: int) -> Iterator[Figure]:
    """Where of each device there is an even chance that it is in use."""
    dice, fleet = np.random.default_rng(7), _fleet()
    for n in range(HOSTS):
        held = tuple(f"gpu{gpu}" for gpu in np.flatnonzero(dice.random(8) < 0.5))
        fleet.hold(str(n), Hold(f"host-{n:05}", held, ()))
    pair = Request(tenant="acme", milli_cores=8_000, memory_bytes=64 * GIB, device_count=2)
    gang = Gang(member=pair, count=LARGE, rails="required")
    took = _milliseconds(lambda: _decided(fleet, gang), runs=runs)
    yield figure(f"{LARGE} pairs of devices on the same rails, {HOSTS:,} hosts, half of the devices in use", took, "ms")


def _decided(fleet: FleetArrays, gang: Gang) -> None:
    assert isinstance(decide_gang(fleet, gang), GangDecision)


def _verdict(fleet: FleetArrays, gang: Gang) -> None:
    sight = Sight.of(fleet, gang.member)
    fits, reasons = sift(sight)
    assert reasons
    assert Ground.of(sight, gang, fits=fits).most(gang) < gang.count


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])

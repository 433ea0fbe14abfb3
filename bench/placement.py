"""How full a fleet gets, what is refused where as much goes as comes, how fast it is decided; beside published rules.

The trace is openb (cluster-trace-gpu-v2023 of Alibaba: 1,213 hosts, 6,212 GPUs), `--data DIR` with its files; without
it a small one is drawn, for which there are neither goals nor published figures. It is replayed by the code that places
in earnest, over a `Board`, under the rule of FGD's artefact: all requests shuffled, then drawn again until they want
130 % of what there is. Peers are rules of our own writing in the same replay, of the same seeds; how near each comes to
what was published of it stands first. Under churn requests come and leave, and who is refused does not come back.
Decisions are timed in seconds of one core's time, so that what else runs on the machine does not count.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import numpy as np

import _optimum
from _common import Figure, Options, figure, median, percentile, program
from _trace import drawn
from bessemer.core.asking import Allocation, Decision, Refusal, Request
from bessemer.core.beside import Companion
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.units import GIB
from bessemer.drivers.process.crew import reckon
from bessemer.main.process import have_read
from bessemer.placement import FleetArrays, Hold, HostFacts
from bessemer.placement.board import Board
from bessemer.placement.demand import Mix, Outlook
from bessemer.placement.facts import Tenure
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.moves.remedies import Remedies, by_name
from bessemer.placement.moves.removal import removals
from bessemer.placement.own import Own, classes, devices
from bessemer.placement.replay import Churned, Filled, Trace, openb, spread
from bessemer.placement.replay.arrivals import Visits, churning
from bessemer.placement.replay.bound import pooled
from bessemer.placement.replay.desk import OWN
from bessemer.placement.replay.jobs import ChurnJob, FillJob, replay
from bessemer.placement.replay.moving import Allowance
from bessemer.placement.shape import Shape

FIRST_SEED = 42
"""The artefact's seeds are this and the nine that follow."""

NODES = "openb_node_list_gpu_node.csv"
PODS = "openb_pod_list_{}.csv"
PEER = "FGD"
PEERS = (PEER, "BestFit", "GpuPacking", "GpuClustering", "DotProd", "Random", "FirstFit")

PUBLISHED: Mapping[str, tuple[float, float]] = {
    # policy: allocation in % at 100 % and at 130 % of arrivals on default, means of ten seeds
    "FGD": (95.23, 95.39),
    "BestFit": (92.86, 93.08),
    "GpuPacking": (91.78, 92.00),
    "GpuClustering": (91.65, 91.88),
    "DotProd": (90.62, 90.85),
    "Random": (86.30, 87.47),
}
"""Of the artefact's own results (hkust-adsl/kubernetes-scheduler-simulator, experiments/analysis/expected_results)."""

PUBLISHED_FGD: Mapping[str, float] = {
    "cpu050": 95.21,
    "cpu100": 95.35,
    "cpu200": 95.04,
    "cpu250": 93.41,
    "gpushare40": 94.15,
    "gpushare60": 91.40,
    "gpushare80": 89.30,
    "gpushare100": 86.90,
    "gpuspec10": 94.95,
    "gpuspec20": 94.84,
    "gpuspec25": 94.74,
    "gpuspec33": 94.55,
    "multigpu20": 95.65,
    "multigpu30": 96.46,
    "multigpu40": 96.99,
    "multigpu50": 97.18,
}
"""FGD at 130 % of arrivals, from the same results."""

NEAR = 0.5
"""Points within which a reproduction counts as one."""

GOALS: Mapping[tuple[str, float], float] = {
    ("default", 1.0): 96.1,
    ("default", 1.3): 96.2,
    ("gpuspec33", 1.0): 93.5,
    ("gpuspec33", 1.3): 95.8,
}
GAIN, MEAN_GAIN = 0.4, 1.0
"""Points more than FGD, on each workload and in the mean."""

HELD_OUT_GOAL, BLOCKED_GOAL = 95.1, 0.5
HELD_OUT = (
    "demand learned of the first half, arrivals of the second",
    "demand learned of the second half, arrivals of the first",
)
PICKY = "gpuspec33"
FILL_MOVES = Allowance(per_hundred=2.0, at_once=1)
CHURN_MOVES = Allowance(per_hundred=0.7, at_once=8, gain=2.0, saved=200)
MOVES_GOALS = {"fill with moves": 2.0, "churn with moves": 0.5}
"""For a hundred arrivals, in the mean over seeds: what one seed may use is more where others need little."""
LOAD = 0.95
STAYS, STAYS_QUICK = (3.0, 5.0), (0.5, 0.5)
"""Of the warm-up and of what is counted, in mean stays."""
HOSTS = 10_000
KUBE_PER_SECOND = 180.0


@dataclass(frozen=True)
class Source:
    """Traces by the name of their workload; ``real`` where they are the published ones."""

    traces: Mapping[str, Trace]
    real: bool


async def measure(options: Options) -> list[Figure]:
    """Fill, hold out, churn, and decide fast."""
    source = _source(options)
    seeds = range(FIRST_SEED, FIRST_SEED + (2 if options.quick else 10))
    jobs = dict(_jobs(source, seeds, quick=options.quick))
    hands = len(os.sched_getaffinity(0))
    replays = dict(zip(jobs, reckon(replay, list(jobs.values()), hands=hands, told=_bar), strict=True))
    return [
        *_reproduced(source, replays),
        *_filled(source, replays),
        *_held_out(source, replays),
        *_churned(source, replays),
        *_moved(source, replays),
        *_near_optimum(worlds=12 if options.quick else 60),
        *_speed(source, quick=options.quick),
        *_room(hosts=HOSTS // 10 if options.quick else HOSTS),
        *_remedied(hosts=HOSTS // 10 if options.quick else HOSTS),
    ]


# --- what is replayed ---------------------------------------------------------------------------------------------

Key = tuple[str, str, str, int]
"""What is done, the workload, the policy, the seed."""

Replays = Mapping[Key, Filled | Churned]
Job = tuple[Key, FillJob | ChurnJob]


def _source(options: Options) -> Source:
    if not options.data:
        sizes = {"drawn": 0.0} if options.quick else {"drawn": 0.0, "drawn, picky": 0.33}
        hosts = 40 if options.quick else 200
        return Source({name: _drawn(hosts, picky) for name, picky in sizes.items()}, real=False)
    folder = Path(options.data)
    hosts = tuple(_read(folder / NODES, openb.read_hosts))
    files = sorted(folder.glob(PODS.format("*")))
    names = [path.stem.removeprefix("openb_pod_list_") for path in files]
    wanted = ("default",) if options.quick else names
    if "default" not in names:
        sys.exit(f"{folder} has no {PODS.format('default')}: name the folder with the files of openb")
    return Source(
        {n: Trace(hosts, tuple(_read(folder / PODS.format(n), openb.read_requests))) for n in wanted}, real=True
    )


def _drawn(hosts: int, picky: float) -> Trace:
    lines = drawn(1, hosts=hosts, picky=picky)
    return Trace(tuple(openb.read_hosts(lines.nodes)), tuple(openb.read_requests(lines.pods)))


def _read(path: Path, read):  # type: ignore[no-untyped-def]
    with path.open(encoding="utf-8", newline="") as lines:
        return read(lines, file=str(path))


def _jobs(source: Source, seeds: Sequence[int], *, quick: bool) -> Iterator[tuple[Key, FillJob | ChurnJob]]:
    first = next(iter(source.traces)) if not source.real else "default"
    for name, trace in source.traces.items():
        # In a quick run over the real trace the peers are one: the rest takes minutes.
        peers = PEERS if name == first and not (quick and source.real) else (PEER,)
        for policy in (OWN, *peers):
            for seed in seeds:
                yield ("fill", name, policy, seed), FillJob(trace=trace, seed=seed, policy=policy)
    for what, (learnt, new) in _halves(source.traces[first]).items():
        for policy in (OWN, PEER):
            for seed in seeds:
                yield (what, first, policy, seed), FillJob(trace=new, seed=seed, policy=policy, learned=learnt.requests)
    stays = STAYS_QUICK if quick and source.real else STAYS
    for policy in (OWN, PEER) if quick else (OWN, PEER, "BestFit"):
        for seed in seeds[:1] if quick else seeds:
            yield (
                ("churn", first, policy, seed),
                ChurnJob(trace=source.traces[first], seed=seed, policy=policy, load=LOAD, stays=stays),
            )
    yield from _moving(source, seeds[:1] if quick else seeds, first=first, stays=stays)


def _halves(trace: Trace) -> Mapping[str, tuple[Trace, Trace]]:
    """What is learned of, and what comes."""
    first, second = trace.halves()
    return dict(zip(HELD_OUT, ((first, second), (second, first)), strict=True))


def _moving(source: Source, seeds: Sequence[int], *, first: str, stays: tuple[float, float]) -> Iterator[Job]:
    """Where devices are asked for by model, and under churn, with moves."""
    picky = next((name for name in (PICKY, "drawn, picky") if name in source.traces), first)
    for seed in seeds:
        job = FillJob(trace=source.traces[picky], seed=seed, ratio=1.0, moves=FILL_MOVES)
        yield ("fill with moves", picky, OWN, seed), job
    for seed in seeds:
        trace = source.traces[first]
        yield (
            ("churn with moves", first, OWN, seed),
            ChurnJob(trace=trace, seed=seed, load=LOAD, stays=stays, moves=CHURN_MOVES),
        )


def _of(replays: Replays, what: str, name: str, policy: str) -> list[Filled | Churned]:
    return [found for key, found in replays.items() if key[:3] == (what, name, policy)]


def _allocated(replays: Replays, name: str, policy: str, *, at: float, what: str = "fill") -> float:
    """The mean over seeds, in %."""
    found = _of(replays, what, name, policy)
    return 100 * spread(one.levels[at] for one in found if isinstance(one, Filled)).mean


# --- figures ------------------------------------------------------------------------------------------------------


def _reproduced(source: Source, replays: Replays) -> Iterator[Figure]:
    """Peers against what was published of them."""
    rows = [(name, policy) for what, name, policy, seed in replays if what == "fill" and seed == FIRST_SEED]
    for name, policy in rows if source.real else ():
        known = PUBLISHED.get(policy, ()) if name == "default" else (PUBLISHED_FGD.get(name),)
        for at, there in zip((1.3, 1.0), reversed(known), strict=False):
            if there is None or policy == OWN:
                continue
            value = _allocated(replays, name, policy, at=at)
            yield Figure(
                metric=f"{policy} as it is here, {name} at {100 * at:.0f} %",
                value=float(f"{value:.4g}"),
                unit="%",
                peer="the artefact's own results",
                peer_value=there,
                goal=f"within {NEAR:g}",
                met=abs(value - there) <= NEAR,
            )


def _filled(source: Source, replays: Replays) -> Iterator[Figure]:
    """Ours against each peer, by workload."""
    gains = []
    for name in source.traces:
        for at in (1.0, 1.3):
            ours = _allocated(replays, name, OWN, at=at)
            peers = {p: _allocated(replays, name, p, at=at) for p in PEERS if _of(replays, "fill", name, p)}
            for peer, there in peers.items():
                goal = _goal(source, name, at, there) if peer == PEER else None
                metric = f"{OWN}, {name} at {100 * at:.0f} %"
                yield figure(metric, ours, "%", at_least=goal, peer=(peer, float(f"{there:.4g}")))
            if at == 1.3:
                gains.append(ours - peers[PEER])
        unallocated = [one.unallocated_milli / 1000 for one in _of(replays, "fill", name, OWN)]  # type: ignore[union-attr]
        yield figure(f"{OWN}, {name} at 130 %: devices unallocated", spread(unallocated).mean, "")
    goal = MEAN_GAIN if source.real and len(gains) > 1 else None
    yield figure(
        f"points added to {PEER}'s at 130 %, mean of {len(gains)} workloads", sum(gains) / len(gains), "", at_least=goal
    )


def _goal(source: Source, name: str, at: float, peer: float) -> float | None:
    """The goal of a workload by its name, else so much more than FGD at 130 %."""
    if not source.real:
        return None
    return GOALS.get((name, at), float(f"{peer + GAIN:.4g}") if at == 1.3 else None)


def _held_out(source: Source, replays: Replays) -> Iterator[Figure]:
    """Demand of one half, arrivals of the other; the goal is of the first half learned."""
    for what in HELD_OUT:
        name = next(key[1] for key in replays if key[0] == what)
        ours, there = (_allocated(replays, name, policy, at=1.0, what=what) for policy in (OWN, PEER))
        yield figure(
            f"{OWN}, {name} at 100 %: {what}",
            ours,
            "%",
            at_least=HELD_OUT_GOAL if source.real and what == HELD_OUT[0] else None,
            peer=(PEER, float(f"{there:.4g}")),
        )
        here, other = (_deviation(_of(replays, what, name, policy)) for policy in (OWN, PEER))
        yield figure(f"{what}: deviation over seeds", here, "", peer=(PEER, float(f"{other:.2g}")))


def _deviation(replays: Sequence[Filled | Churned]) -> float:
    """Of what is allocated at 100 %, in points."""
    return 100 * spread(one.levels[1.0] for one in replays if isinstance(one, Filled)).deviation


def _churned(source: Source, replays: Replays) -> Iterator[Figure]:
    """What is blocked, of all that is offered; and of requests for several devices."""
    name = next(key[1] for key in replays if key[0] == "churn")
    ours = _of(replays, "churn", name, OWN)
    yield from _marked(source, replays, name)
    for peer in (PEER, "BestFit"):
        if not (theirs := _of(replays, "churn", name, peer)):
            continue
        where = f"{name}, churn at {100 * LOAD:.0f} %"
        bound = BLOCKED_GOAL if source.real and peer == PEER else None
        blocked, there = ([100 * one.blocked for one in each] for each in (ours, theirs))  # type: ignore[union-attr]
        rows = (
            ("devices blocked", blocked, there, bound),
            ("requests for several blocked", _several(ours), _several(theirs), None),
        )
        for what, here, other, most in rows:
            peer_value = float(f"{spread(other).mean:.3g}")
            yield figure(f"{OWN}, {where}: {what}", spread(here).mean, "%", at_most=most, peer=(peer, peer_value))


def _marked(source: Source, replays: Replays, name: str) -> Iterator[Figure]:
    """Ours beside what would be blocked were everything packed anew at each arrival, of the same arrivals."""
    trace = source.traces[name]
    seeds = [key[3] for key in replays if key[:3] == ("churn", name, OWN)]
    stays = STAYS_QUICK if len(seeds) == 1 and source.real else STAYS
    marks = [100 * pooled(trace, _visits(trace, seed, stays)) for seed in seeds]
    blocked = spread(100 * one.blocked for one in _of(replays, "churn", name, OWN) if isinstance(one, Churned))
    where = f"{OWN}, {name}, churn at {100 * LOAD:.0f} %: devices blocked"
    yield figure(where, blocked.mean, "%", peer=("packed anew each time", float(f"{spread(marks).mean:.3g}")))
    mark = ("packed anew each time", float(f"{spread(marks).deviation:.2g}"))
    yield figure(f"{where}, deviation over {len(seeds)} seeds", blocked.deviation, "", peer=mark)


def _visits(trace: Trace, seed: int, stays: tuple[float, float]) -> Visits:
    dice = np.random.default_rng(seed)
    return churning(trace.requests, trace.capacity_milli, load=LOAD, stays=stays, generator=dice)


def _several(replays: Sequence[Filled | Churned]) -> list[float]:
    """Refused of those that want more than one device, in %."""
    counts = [[c for size, c in one.counts.items() if size.isdigit() and size != "1"] for one in replays]
    return [100 * sum(c.refused for c in of) / max(1, sum(c.came for c in of)) for of in counts]


def _moved(source: Source, replays: Replays) -> Iterator[Figure]:
    """What moves bring, and how many they were."""
    for what, goal in (("fill with moves", 95.0), ("churn with moves", 0.3)):
        name = next(key[1] for key in replays if key[0] == what)
        found = _of(replays, what, name, OWN)
        rate = spread(100 * one.moves / max(1, sum(c.came for c in one.counts.values())) for one in found).mean
        if what == "fill with moves":
            value = 100 * spread(one.allocated for one in found).mean
            bound = {"at_least": goal if source.real and name == PICKY else None}
            yield figure(f"{OWN}, {name} at 100 %, with moves", value, "%", **bound)
        else:
            value = 100 * spread(one.blocked for one in found if isinstance(one, Churned)).mean
            where = f"{name}, churn at {100 * LOAD:.0f} %, with moves"
            yield figure(f"{OWN}, {where}: devices blocked", value, "%", at_most=goal if source.real else None)
        most = MOVES_GOALS[what] if source.real else None
        yield figure(f"{OWN}, {name}, {what}: moves per 100 arrivals", rate, "", at_most=most)


def _near_optimum(*, worlds: int) -> Iterator[Figure]:
    """Small fleets, of which is known how many devices could have been used by who knows all that comes."""
    ours, there = (_optimum.reached(policy, worlds=worlds) for policy in (OWN, PEER))
    metric = f"{OWN}, of the devices that could have been used, {worlds} fleets of three hosts"
    yield figure(metric, 100 * ours, "%", peer=(PEER, float(f"{100 * there:.4g}")))


# --- how fast -----------------------------------------------------------------------------------------------------


def _speed(source: Source, *, quick: bool) -> Iterator[Figure]:
    """Decisions a second on one core with all their reasons, placing as it goes, on a fleet that is part full; and how
    long it takes to say why what fits nowhere does not."""
    trace = next(iter(source.traces.values()))
    plain = [request for request in trace.requests if not request.device_models]
    near = [_near(request) for request in plain]
    # The collector as in a process of the product.
    have_read()
    for what, requests, goal in (("openb requests", plain, 2500), ("with NUMA, switch and NIC terms", near, 1000)):
        desk = _Desk.of(requests)
        shapes = len(set(map(Shape.of, requests)))
        seconds = desk.decided(count=1000 if quick else 10_000, warm=1000 if quick else 30_000)
        where = f"{HOSTS:,} hosts, {8 * HOSTS:,} devices, {what}, {shapes} shapes"
        peer = ("kube-scheduler's own bound, extended resource, 5,000 nodes", KUBE_PER_SECOND)
        yield figure(f"decisions, {where}", len(seconds) / sum(seconds), "/s", at_least=goal, peer=peer)
        yield figure(f"decision, {where}, p50", 1e3 * median(seconds), "ms")
        bound = 1.0 if goal == 2500 else None
        yield figure(f"decision, {where}, p99", 1e3 * percentile(seconds, 0.99), "ms", at_most=bound)
        seconds = desk.decided(count=1000 if quick else 5_000, warm=0, changing=True)
        yield figure(f"the same, and a host changes before each: decision, {what}, p50", 1e3 * median(seconds), "ms")
        yield figure(f"and p99, {what}", 1e3 * percentile(seconds, 0.99), "ms")
        if requests is plain:
            yield from desk.refused()


def _near(request: Request) -> Request:
    """Everything beside each other: devices on a NUMA node and under a switch as far as they may be, and under each of
    their switches a NIC of another rail, of which one function is taken."""
    count = request.device_count
    nics = (Companion(kind="nic", count=max(1, count // 2), functions=1, rails=True, near="switch"),)
    return replace(
        request,
        numa="required" if count <= 4 else "preferred",
        same_switch=count == 2,
        same_nvlink=count > 2,
        companions=nics if count else (),
    )


IMPOSSIBLE: Mapping[str, Request] = {
    "more cores than any host has": Request(tenant="bench", milli_cores=10**9, memory_bytes=GIB),
    "more memory than any host has": Request(tenant="bench", milli_cores=1000, memory_bytes=10**15, device_count=1),
    "9 devices": Request(tenant="bench", milli_cores=1000, memory_bytes=GIB, device_count=9),
    "a model that there is not": Request(
        tenant="bench", milli_cores=1000, memory_bytes=GIB, device_count=1, device_models=frozenset({"none"})
    ),
    "3 devices on a switch of 2": Request(
        tenant="bench", milli_cores=1000, memory_bytes=GIB, device_count=3, same_switch=True, numa="required"
    ),
    "a sandbox where no host has one": Request(tenant="bench", milli_cores=1000, memory_bytes=GIB, isolation=True),
}
"""What fits nowhere on the fleet of `_machine`."""

REASONS_GOAL, CHANGE_GOAL = 10.0, 100.0
KAI_SECONDS = 249.0


@dataclass
class _Desk:
    """The product's own policy over `HOSTS` hosts. Every shape was asked for before, as it was in a system that has run
    for a while."""

    fleet: FleetArrays
    own: Own
    requests: Sequence[Request]

    @classmethod
    def of(cls, requests: Sequence[Request]) -> _Desk:
        fleet, machine = FleetArrays(), _machine()
        for n in range(HOSTS):
            fleet.set_host(HostFacts(name=f"host-{n:05}", inventory=machine))
        mix = Mix.of(Counter(map(Shape.of, requests)))
        own = Own(fleet, outlook=Outlook.derive(mix, classes(fleet)), window=devices(fleet))
        for request in dict.fromkeys(requests):
            own.decide(request)
        return cls(fleet, own, requests)

    def decided(self, *, count: int, warm: int, changing: bool = False) -> list[float]:
        """Seconds of its core for each of ``count`` decisions, after ``warm`` that filled a part; ``changing``: before
        each some host is cordoned, or comes back, or one of its devices fails, or is mended."""
        dice = np.random.default_rng(FIRST_SEED)
        order = cycle(dice.permutation(len(self.requests)).tolist())
        seconds = []
        machine = _machine()
        failed = [machine.devices[0].model_copy(update={"healthy": False}), *machine.devices[1:]]
        states = (machine, machine.model_copy(update={"devices": failed}))
        for n in range(warm + count):
            request = self.requests[next(order)]
            if changing:
                name, cordoned = f"host-{int(dice.integers(HOSTS)):05}", n % 4 == 0
                self.fleet.set_host(HostFacts(name=name, inventory=states[n % 2], schedulable=not cordoned))
            began = time.thread_time()
            decision = self.own.decide(request)
            took = time.thread_time() - began
            if isinstance(decision, Decision):
                self.fleet.hold(f"{changing}/{n}", Hold.of(decision))
            if n >= warm:
                seconds.append(took)
        return seconds

    def refused(self) -> Iterator[Figure]:
        """The slowest of what is impossible, each asked for the first time: then nothing of it is kept."""
        reasons, changes = {}, {}
        for what, request in IMPOSSIBLE.items():
            board = Board(self.fleet, self.own.policy)
            began = time.thread_time()
            board.reasons(request)
            reasons[what] = time.thread_time() - began
            answer = board.decide(request)
            changes[what] = time.thread_time() - began
            if isinstance(answer, Decision):
                sys.exit(f"{what}: placed on {answer.host}, which no host can hold")
        for said, found, goal, peer in (
            ("reasons", reasons, REASONS_GOAL, ("KAI Scheduler, the verdict alone", 1e3 * KAI_SECONDS)),
            ("reasons and the cheapest change", changes, CHANGE_GOAL, None),
        ):
            worst = max(found, key=lambda what: found[what])
            metric = f"refused, {HOSTS:,} hosts: {said}; slowest of {len(found)}: {worst}"
            yield figure(metric, 1e3 * found[worst], "ms", at_most=goal, peer=peer)


def _room(*, hosts: int) -> Iterator[Figure]:
    """How long it takes to say who would have to go, on a fleet that is full."""
    generator, machine, fleet = np.random.default_rng(FIRST_SEED), _machine(), FleetArrays()
    part = (Allocation(numa_node=0, milli_cores=4000, memory_bytes=8 * GIB),)
    for n in range(hosts):
        fleet.set_host(HostFacts(name=f"host-{n:05}", inventory=machine))
        ids = [device.id for device in machine.devices if device.kind == "gpu"]
        while ids:
            count = min(len(ids), int(generator.choice((1, 1, 1, 2, 4))))
            shares = 2 if count == 1 and generator.random() < 0.5 else 1
            for share in range(shares):
                fleet.hold(f"{n}/{ids[0]}/{share}", Hold(f"host-{n:05}", tuple(ids[:count]), part, 1000 // shares))
            ids = ids[count:]
    holdings = Holdings(fleet)
    one = Request(tenant="", milli_cores=8000, memory_bytes=GIB, device_count=1)
    asked = [replace(one, device_milli=400), *(replace(one, device_count=count) for count in (1, 2, 4, 8))]
    asked += [replace(one, device_count=2, same_switch=True), replace(one, device_count=4, numa="required")]
    seconds = []
    for request in asked * 5:
        cost = generator.integers(1, 20, holdings.claims.size).astype(np.float64)
        began = time.thread_time()
        if not removals(holdings, request, cost=cost):
            raise AssertionError("of a full fleet something can be removed")
        seconds.append(time.thread_time() - began)
    where = f"who must go so that a request fits, {hosts:,} hosts, {len(seconds)} requests"
    yield figure(f"{where}, p50", 1e3 * median(seconds), "ms")
    yield figure(f"{where}, the longest", 1e3 * max(seconds), "ms", at_most=50.0 if hosts == HOSTS else None)


def _remedied(*, hosts: int) -> Iterator[Figure]:
    """How long a refusal takes on a fleet that is nearly full, of whose claims half may be started anew elsewhere and
    half say when they end: reasons, and what would help, tried."""
    generator, machine, fleet = np.random.default_rng(FIRST_SEED), _machine(), FleetArrays()
    part = (Allocation(numa_node=0, milli_cores=4000, memory_bytes=8 * GIB),)
    sizes = {n: Request(tenant="", milli_cores=4000, memory_bytes=8 * GIB, device_count=n) for n in (1, 2, 4)}
    for n in range(hosts):
        fleet.set_host(HostFacts(name=f"host-{n:05}", inventory=machine))
        ids = [device.id for device in machine.devices if device.kind == "gpu"][int(generator.random() < 0.3) :]
        while ids:
            count = int(generator.choice([size for size in (1, 1, 1, 2, 4) if size <= len(ids)]))
            ends = int(generator.integers(1, 100_000)) if generator.random() < 0.5 else None
            tenure = Tenure(restartable=bool(generator.random() < 0.5), ends=ends)
            hold = Hold(f"host-{n:05}", tuple(ids[:count]), part, request=sizes[count], tenure=tenure)
            fleet.hold(f"{n}/{ids[0]}", hold)
            ids = ids[count:]
    claims = sum(len(fleet.held.at(name)) for name in fleet.names)
    own = Own(fleet, window=devices(fleet))
    remedies = Remedies(fleet, own.place, told=by_name(str), timed=str)
    own.remedy((remedies.moved, remedies.ended))
    wide = Request(tenant="", milli_cores=8000, memory_bytes=GIB, device_count=8)
    asked = [wide, replace(wide, device_count=4), replace(wide, device_count=4, numa="required")]
    asked.append(replace(wide, device_count=2, same_switch=True))
    for request in sizes.values():
        own.decide(request)
    seconds = []
    for number, request in enumerate(asked * 3):
        # Each is asked for anew: the arrays have changed since.
        fleet.hold("other", Hold("host-00000", (), (Allocation(numa_node=0, milli_cores=number, memory_bytes=0),)))
        began = time.thread_time()
        if not isinstance(own.decide(request), Refusal):
            continue
        seconds.append(time.thread_time() - began)
    where = f"refused, {hosts:,} hosts, {claims:,} claims of which half may be moved"
    yield figure(f"{where}: reasons and the cheapest change, p50", 1e3 * median(seconds), "ms")
    yield figure(f"{where}, the longest of {len(seconds)}", 1e3 * max(seconds), "ms", at_most=CHANGE_GOAL)


def _machine() -> Inventory:
    """Eight devices on two NUMA nodes, two to a switch, and beside each a NIC on a rail of its own."""
    devices = [
        Device(id=f"gpu{n}", kind="gpu", model="G3", numa_node=n // 4, pcie_switch=f"sw{n // 2}", nvlink_domain="nv")
        for n in range(8)
    ]
    devices += [
        Device(
            id=f"nic{n}",
            kind="nic",
            model="ConnectX-7",
            numa_node=n // 4,
            pcie_switch=f"sw{n // 2}",
            rail=n,
            functions=16,
        )
        for n in range(8)
    ]
    numa = [NumaNode(id=n, cores=64, threads=64, memory_bytes=512 * GIB) for n in range(2)]
    return Inventory(numa=numa, devices=devices, sharing="time")


def _bar(share: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{100 * share:5.1f} % replayed", end="" if share < 1 else "\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    program(
        measure,
        about=__doc__.splitlines()[0],
        data="the folder with the files of openb; without, a small trace is drawn",
    )

"""Companions, threads of one's own and huge pages by property: against a second, slow account of small fleets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations, product
from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Allocation, Decision, Request
from bessemer.core.beside import Companion
from bessemer.core.cpus import CPUS_MAX, parse_cpus
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.units import GIB, MIB
from bessemer.placement import FleetArrays, Hold, HostFacts, decide
from bessemer.placement.beside import cores_of
from bessemer.placement.cheapest import cheapest
from bessemer.placement.choose import place
from bessemer.placement.sight import Sight
from tests.placement.hosts import joined, partitions

SWITCHES = ("", "s0", "s1", "s2")


@st.composite
def numa_nodes(draw: st.DrawFn, number: int) -> NumaNode:
    sizes = draw(st.lists(st.sampled_from((1, 2, 2, 4)), min_size=1, max_size=3))
    first = 100 * number
    siblings = []
    for size in sizes:
        siblings.append(",".join(str(first + n) for n in range(size)))
        first += size
    pages = draw(st.integers(0, 3))
    return NumaNode(
        id=number,
        cores=len(sizes),
        threads=sum(sizes),
        memory_bytes=(pages + draw(st.integers(0, 3))) * GIB,
        hugepages={str(GIB): pages, str(2 * MIB): 0} if draw(st.booleans()) else {str(2 * MIB): 512 * pages},
        siblings=siblings if draw(st.integers(0, 4)) else [],
    )


@st.composite
def hosts(draw: st.DrawFn, name: str) -> HostFacts:
    nodes = draw(st.integers(1, 2))

    def devices(kind: str, models: tuple[str, ...]) -> list[Device]:
        return [
            Device(
                id=f"{kind}{n}",
                kind=kind,
                model=draw(st.sampled_from(models)),
                address=f"0000:{n:02x}:00.0",
                numa_node=draw(st.integers(0, nodes - 1)),
                pcie_switch=draw(st.sampled_from(SWITCHES)),
                nvlink_domain=draw(st.sampled_from(("", "n0"))),
                rail=draw(st.sampled_from((None, 0, 1, 2))),
                functions=draw(st.sampled_from((0, 2, 4))),
                healthy=draw(st.integers(0, 9)) > 0,
            )
            for n in range(draw(st.integers(0, 4)))
        ]

    gpus = devices("gpu", ("H100", "A100"))
    inventory = Inventory(
        numa=[draw(numa_nodes(n)) for n in range(nodes)],
        devices=[*gpus, *devices("nic", ("x7", "x6")), *devices("disk", ("nvme",))],
        nvlink_partitions=draw(partitions(gpus)),
        sharing="time",
    )
    return HostFacts(name=name, inventory=inventory, overcommit_milli=draw(st.sampled_from((1000, 1500, 4000))))


fleets = st.integers(0, 3).flatmap(lambda n: st.tuples(*(hosts(f"h{i}") for i in range(n)))).map(list)


def companions(kind: str, models: tuple[frozenset[str], ...]) -> st.SearchStrategy[Companion]:
    return st.builds(
        Companion,
        kind=st.just(kind),
        count=st.integers(1, 3),
        models=st.sampled_from(models),
        functions=st.sampled_from((0, 0, 1, 2, 3)),
        rails=st.booleans(),
        near=st.sampled_from(("", "switch", "node")),
    )


@st.composite
def requests(draw: st.DrawFn) -> Request:
    beside = [draw(companions("nic", (frozenset(), frozenset({"x7"}))))] if draw(st.integers(0, 3)) else []
    beside += [draw(companions("disk", (frozenset(),)))] if draw(st.integers(0, 3)) == 0 else []
    count, milli = draw(st.sampled_from(((0, 1000), (1, 1000), (1, 400), (2, 1000), (3, 1000))))
    if not count:
        beside = [Companion(kind=c.kind, count=c.count, functions=c.functions, rails=c.rails) for c in beside]
    return Request(
        tenant="acme",
        milli_cores=draw(st.integers(0, 4)) * 1000,
        memory_bytes=draw(st.integers(0, 3)) * GIB,
        device_count=count,
        device_milli=milli,
        device_models=draw(st.sampled_from((frozenset(), frozenset(), frozenset({"H100"})))),
        numa=draw(st.sampled_from(("required", "preferred", "legacy"))),
        same_switch=draw(st.integers(0, 4)) == 0,
        same_nvlink=draw(st.integers(0, 9)) == 0,
        companions=tuple(beside),
        cpu_policy=draw(st.sampled_from(("shared", "threads", "cores"))),
        page_bytes=draw(st.sampled_from((0, 0, 2 * MIB, GIB))),
    )


class Slow:
    """What each host has left, thread by thread."""

    def __init__(self, facts: list[HostFacts]) -> None:
        self.facts = {f.name: f for f in facts}
        self.nodes = {(f.name, n.id): n for f in facts for n in f.inventory.numa}
        self.shared: Counter[tuple[str, int]] = Counter()
        self.plain: Counter[tuple[str, int]] = Counter()
        self.pages: Counter[tuple[str, int, int]] = Counter()
        self.own: dict[str, set[int]] = {f.name: set() for f in facts}
        self.milli: Counter[tuple[str, str]] = Counter()
        self.functions: Counter[tuple[str, str]] = Counter()
        self.whole: set[tuple[str, str]] = set()

    def cores(self, name: str, node: int) -> list[tuple[int, ...]]:
        return [parse_cpus(words) for words in self.nodes[name, node].siblings]

    def left(self, name: str, node: int) -> int:
        """Milli-cores that are not sold: of the threads that nobody has, less what shares them."""
        mine = {cpu for core in self.cores(name, node) for cpu in core} & self.own[name]
        open_threads = self.nodes[name, node].threads - len(mine)
        return open_threads * self.facts[name].overcommit_milli - self.shared[name, node]

    def cores_here(self, name: str, node: int, policy: str) -> int:
        left, sold = self.left(name, node), self.facts[name].overcommit_milli
        if policy == "shared":
            return left
        cores, own = self.cores(name, node), self.own[name]
        free = sum(cpu not in own for core in cores for cpu in core)
        if policy == "threads":
            return 1000 * max(n for n in range(free + 1) if n * sold <= left)
        sizes = Counter(map(len, cores))
        smt = max(sizes, key=lambda size: (sizes[size], size)) if sizes else 0
        whole = sum(len(core) == smt and not own & set(core) for core in cores)
        return 1000 * smt * max(n for n in range(whole + 1) if n * smt * sold <= left)

    def memory_here(self, name: str, node: int, page: int) -> int:
        there = self.nodes[name, node]
        if page:
            return (there.hugepages.get(str(page), 0) - self.pages[name, node, page]) * page
        aside = sum(int(size) * count for size, count in there.hugepages.items())
        return there.memory_bytes - aside - self.plain[name, node]

    def take(self, decision: Decision) -> None:
        name = decision.host
        for part in decision.allocations:
            node = (name, part.numa_node)
            cpus = set(parse_cpus(part.cpus))
            assert not cpus & self.own[name], "a thread is one's own"
            assert cpus <= {cpu for core in self.cores(*node) for cpu in core}
            self.own[name] |= cpus
            if part.page_bytes:
                assert part.memory_bytes % part.page_bytes == 0
                self.pages[*node, part.page_bytes] += part.memory_bytes // part.page_bytes
            else:
                self.plain[node] += part.memory_bytes
            if cpus:
                sold = len(cpus) * self.facts[name].overcommit_milli
                assert part.milli_cores + part.spare_milli_cores == sold, "threads are paid for in full"
            else:
                self.shared[node] += part.milli_cores
            assert self.left(*node) >= 0, "shared claims have the threads that they were sold"
            assert self.memory_here(*node, part.page_bytes) >= 0
        for device in decision.devices:
            self.milli[name, device] += decision.device_milli
            assert self.milli[name, device] <= 1000
        for use in decision.companions:
            assert (name, use.device) not in self.whole
            self.functions[name, use.device] += use.functions
            if not use.functions:
                assert not self.functions[name, use.device]
                self.whole.add((name, use.device))

    def ways(self, name: str, request: Request) -> Iterator[tuple[list[Device], list[list[Device]]]]:
        """Every choice of devices and companions that keeps what was asked of each."""
        found = self.facts[name].inventory.devices
        gpus = [
            d for d in found if d.kind == "gpu" and d.healthy and self.milli[name, d.id] <= 1000 - request.device_milli
        ]
        gpus = [d for d in gpus if not request.device_models or d.model in request.device_models]
        beside = [list(combinations(self.free(name, one), one.count)) for one in request.companions]
        for chosen in combinations(gpus, request.device_count):
            for others in product(*beside):
                yield list(chosen), [list(other) for other in others]

    def free(self, name: str, one: Companion) -> list[Device]:
        found = []
        for device in self.facts[name].inventory.devices:
            right = device.kind == one.kind and (not one.models or device.model in one.models) and device.healthy
            used = self.functions[name, device.id]
            enough = device.functions - used >= one.functions if one.functions else used == 0
            if right and enough and (name, device.id) not in self.whole:
                found.append(device)
        return found

    def fits(self, name: str, request: Request) -> bool:
        return any(self.suits(name, request, *way) for way in self.ways(name, request))

    def suits(self, name: str, request: Request, gpus: list[Device], beside: list[list[Device]]) -> bool:
        if request.same_switch and gpus and (len({d.pcie_switch for d in gpus}) > 1 or not gpus[0].pcie_switch):
            return False
        if request.same_nvlink and gpus and not joined(self.facts[name].inventory, gpus):
            return False
        if not all(keeps(one, gpus, others) for one, others in zip(request.companions, beside, strict=True)):
            return False
        nodes = [node.id for node in self.facts[name].inventory.numa]
        cores = {node: self.cores_here(name, node, request.cpu_policy) for node in nodes}
        memory = {node: self.memory_here(name, node, request.page_bytes) for node in nodes}
        if request.numa == "required":
            every = [*gpus, *(d for others in beside for d in others)]
            return any(
                cores[node] >= request.milli_cores
                and memory[node] >= request.memory_bytes
                and all(device.numa_node == node for device in every)
                for node in nodes
            )
        return sum(cores.values()) >= request.milli_cores and sum(memory.values()) >= request.memory_bytes


def keeps(one: Companion, gpus: list[Device], others: list[Device]) -> bool:
    """Whether these lie as the companion says."""
    if one.rails and (None in (rails := [d.rail for d in others]) or len(set(rails)) < len(rails)):
        return False
    if one.near == "switch":
        places = {(d.numa_node, d.pcie_switch) for d in gpus}
        return all(switch for _, switch in places) and places == {(d.numa_node, d.pcie_switch) for d in others}
    return not one.near or {d.numa_node for d in gpus} == {d.numa_node for d in others}


def arrays_of(facts: list[HostFacts]) -> FleetArrays:
    arrays = FleetArrays()
    for fact in facts:
        arrays.set_host(fact)
    return arrays


def check(slow: Slow, decision: Decision, request: Request) -> None:
    """That the decision is a way, and says what it takes."""
    found = {d.id: d for d in slow.facts[decision.host].inventory.devices}
    uses = list(decision.companions)
    beside = []
    for one in request.companions:
        mine, uses = uses[: one.count], uses[one.count :]
        assert all(use.functions == one.functions and use.kind == one.kind for use in mine)
        beside.append([found[use.device] for use in mine])
        assert all(device in slow.free(decision.host, one) for device in beside[-1])
        assert len({device.id for device in beside[-1]}) == one.count
    assert not uses
    gpus = [found[device] for device in decision.devices]
    assert slow.suits(decision.host, request, gpus, beside)
    assert [place.id for place in decision.tree] == [d.id for d in (*gpus, *(d for more in beside for d in more))]
    assert all(found[place.id] == place for place in decision.tree)
    assert sum(part.milli_cores for part in decision.allocations) == request.milli_cores
    assert sum(part.memory_bytes for part in decision.allocations) == request.memory_bytes
    for part in decision.allocations:
        cpus = len(parse_cpus(part.cpus))
        if request.cpu_policy == "shared":
            assert not cpus
        if request.cpu_policy == "threads":
            assert cpus == part.milli_cores // 1000
        if request.cpu_policy == "cores":
            cores = [
                core for core in slow.cores(decision.host, part.numa_node) if set(core) & set(parse_cpus(part.cpus))
            ]
            assert cpus == sum(map(len, cores)) >= part.milli_cores // 1000, "siblings together"
            assert all(cpus - len(core) < part.milli_cores // 1000 for core in cores), "and no core too many"
    if request.numa == "required":
        nodes = {part.numa_node for part in decision.allocations} | {place.numa_node for place in decision.tree}
        assert len(nodes) <= 1


@given(fleets, st.lists(requests(), min_size=1, max_size=6))
@settings(max_examples=300, deadline=None)
def test_it_decides_exactly_where_a_way_exists_and_takes_what_it_says(
    facts: list[HostFacts], asked: list[Request]
) -> None:
    arrays, slow = arrays_of(facts), Slow(facts)
    for number, request in enumerate(asked):
        fitting = {name for name in slow.facts if slow.fits(name, request)}
        answer = decide(arrays, request)
        if isinstance(answer, Decision):
            assert answer.host in fitting
            assert answer.fitting == len(fitting)
            check(slow, answer, request)
            slow.take(answer)
            arrays.hold(f"claim-{number}", Hold.of(answer))
        else:
            assert not fitting
        assert sum(reason.hosts for reason in answer.reasons) == len(facts) - len(fitting)


@st.composite
def crowded(draw: st.DrawFn) -> HostFacts:
    """Room for everything, and many places to choose from."""
    nodes = draw(st.integers(1, 3))

    def devices(kind: str, least: int) -> list[Device]:
        found = []
        for n in range(draw(st.integers(least, 5))):
            switch = draw(st.integers(0, 3))
            node = switch % nodes if draw(st.integers(0, 9)) else draw(st.integers(0, nodes - 1))
            rail = draw(st.sampled_from((0, 1, 1, 2, None)))
            found.append(
                Device(
                    id=f"{kind}{n}",
                    kind=kind,
                    model="m",
                    numa_node=node,
                    pcie_switch=f"s{switch}",
                    rail=rail,
                    functions=2,
                )
            )
        return found

    numa = [NumaNode(id=n, cores=8, threads=8, memory_bytes=GIB) for n in range(nodes)]
    found = [*devices("gpu", 2), *devices("nic", 1), *devices("disk", 0)]
    return HostFacts(name="h", inventory=Inventory(numa=numa, devices=found))


@st.composite
def nearby(draw: st.DrawFn) -> Request:
    """Devices, and things near them."""
    depth = st.sampled_from(("switch", "switch", "node", ""))
    beside = [Companion(kind="nic", count=draw(st.integers(1, 4)), rails=draw(st.booleans()), near=draw(depth))]
    if draw(st.integers(0, 2)) == 0:
        functions = draw(st.integers(0, 2))
        beside += [Companion(kind="disk", count=draw(st.integers(1, 3)), functions=functions, near=draw(depth))]
    numa = draw(st.sampled_from(("legacy", "preferred", "preferred", "required")))
    count = draw(st.integers(1, 4))
    return Request(
        tenant="acme", milli_cores=1000, memory_bytes=0, device_count=count, numa=numa, companions=tuple(beside)
    )


@given(crowded(), st.lists(nearby(), min_size=1, max_size=3))
@settings(max_examples=1000, deadline=None)
def test_what_must_lie_near_does_wherever_it_can(facts: HostFacts, asked: list[Request]) -> None:
    arrays, slow = arrays_of([facts]), Slow([facts])
    for number, request in enumerate(asked):
        answer = decide(arrays, request)
        assert isinstance(answer, Decision) == slow.fits("h", request)
        if isinstance(answer, Decision):
            check(slow, answer, request)
            slow.take(answer)
            arrays.hold(f"claim-{number}", Hold.of(answer))


@given(fleets, st.lists(requests(), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_the_change_that_is_proposed_makes_it_fit(facts: list[HostFacts], asked: list[Request]) -> None:
    arrays, slow, request = arrays_of(facts), Slow(facts), asked[-1]
    for number, earlier in enumerate(asked[:-1]):
        answer = decide(arrays, earlier)
        if isinstance(answer, Decision):
            slow.take(answer)
            arrays.hold(f"claim-{number}", Hold.of(answer))
    sight = Sight.of(arrays, request)
    if place(sight) is not None:
        return
    change = cheapest(sight)
    if change is None:
        return
    changed = change.sight.request
    assert place(change.sight) is not None
    if changed == request:
        assert change.text.startswith("wait until")
        assert any(Slow(facts).fits(name, changed) for name in slow.facts), change.text
    else:
        assert any(slow.fits(name, changed) for name in slow.facts), change.text


@given(fleets, st.lists(requests(), max_size=5), st.data())
@settings(max_examples=100, deadline=None)
def test_arrays_kept_current_equal_arrays_built_anew(
    facts: list[HostFacts], asked: list[Request], data: st.DataObject
) -> None:
    kept, holds = arrays_of(facts), dict[str, Hold]()
    for number, request in enumerate(asked):
        answer = decide(kept, request)
        if isinstance(answer, Decision):
            holds[f"c{number}"] = Hold.of(answer)
            kept.hold(f"c{number}", holds[f"c{number}"])
    for uid in [uid for uid in holds if data.draw(st.booleans())]:
        kept.drop(uid)
        del holds[uid]
    renewed = [data.draw(hosts(f.name)) if data.draw(st.booleans()) else f for f in facts]
    for fact in renewed:
        kept.set_host(fact)
    anew = arrays_of(renewed)
    for uid, hold in holds.items():
        anew.hold(uid, hold)
    for fact in renewed:
        mine, other = kept.row(fact.name), anew.row(fact.name)
        assert mine is not None
        assert other is not None
        assert_equal_rows(kept, anew, rows=(mine, other))


def assert_equal_rows(kept: FleetArrays, anew: FleetArrays, *, rows: tuple[int, int]) -> None:
    """What is beside devices is the same in both, as wide as the narrower."""
    for name in (
        "cores_free",
        "memory_free",
        "threads_free",
        "wholes_free",
        "smt",
        "pages_free",
        "other_used",
        "other_whole",
        "other_sound",
    ):
        mine, other = getattr(kept, name)[rows[0]], getattr(anew, name)[rows[1]]
        width = min(len(mine), len(other))
        assert (mine[:width] == other[:width]).all(), name
    assert kept.topologies.all[kept.topology[rows[0]]] == anew.topologies.all[anew.topology[rows[1]]]
    assert +kept.parts(rows[0]).own == +anew.parts(rows[1]).own


def test_two_that_have_a_thread_for_a_while_give_it_back_once() -> None:
    node = NumaNode(id=0, cores=2, threads=4, memory_bytes=GIB, siblings=["0-1", "2-3"])
    arrays = arrays_of([HostFacts(name="h", inventory=Inventory(numa=[node]))])
    part = Allocation(numa_node=0, milli_cores=1000, memory_bytes=0, cpus="1")
    for uid in ("a", "b"):
        arrays.hold(uid, Hold("h", (), (part,)))
    arrays.drop("a")
    assert (arrays.threads_free[0, 0], arrays.wholes_free[0, 0]) == (3, 1)
    arrays.drop("b")
    assert (arrays.threads_free[0, 0], arrays.wholes_free[0, 0]) == (4, 2)


def test_who_says_all_threads_of_every_core_costs_no_second() -> None:
    began = process_time()
    assert cores_of([f"0-{CPUS_MAX - 1}"] * CPUS_MAX) == ()
    assert process_time() - began < 0.2

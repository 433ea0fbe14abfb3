"""Members that want threads or cores of their own, or huge pages: several lie on a host, as many as there are ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Gang, GangDecision, Refusal, Request
from bessemer.core.cpus import parse_cpus
from bessemer.core.units import GIB, MIB
from bessemer.placement import Hold, HostFacts, decide
from bessemer.placement.gangs import decide_gang
from bessemer.placement.gangs.room import room
from bessemer.placement.sight import Sight
from tests.placement.gangs.slow import _near
from tests.placement.hosts import ask, fleet, host
from tests.placement.test_beside import Slow, hosts

OWN = st.builds(
    lambda devices, **more: Request(tenant="acme", device_count=devices[0], device_milli=devices[1], **more),
    st.sampled_from(((0, 1000), (0, 1000), (1, 1000), (2, 1000), (1, 400))),
    milli_cores=st.sampled_from((0, 1000, 2000, 3000)),
    memory_bytes=st.sampled_from((0, GIB, 2 * GIB)),
    numa=st.sampled_from(("required", "preferred", "legacy")),
    same_switch=st.booleans(),
    cpu_policy=st.sampled_from(("shared", "threads", "cores")),
    page_bytes=st.sampled_from((0, 2 * MIB, GIB)),
)


@dataclass(frozen=True)
class Node:
    """What one has: what is not sold, threads by core that nobody has, units of memory of the sort wanted."""

    left: int
    cores: tuple[int, ...]
    memory: int


State = tuple[tuple[Node, ...], tuple[int, ...]]
"""The nodes, and thousandths of the devices."""


class Host:
    """How many of a request fit at once, trying every split over nodes and cores, and all devices."""

    def __init__(self, facts: HostFacts, request: Request) -> None:
        slow = Slow([facts])
        self.request, self.sold = request, facts.overcommit_milli
        self.gpus = [d for d in facts.inventory.devices if d.kind == "gpu"]
        sizes = [[len(core) for core in slow.cores(facts.name, node.id)] for node in facts.inventory.numa]
        self.smt = [max(n, key=lambda size: (Counter(n)[size], size)) if n else 0 for n in sizes]
        # Cores that are not as most are never given whole.
        usual = request.cpu_policy != "cores"
        nodes = tuple(
            Node(
                slow.left(facts.name, node.id),
                tuple(size for size in n if usual or size == smt),
                slow.memory_here(facts.name, node.id, request.page_bytes),
            )
            for node, n, smt in zip(facts.inventory.numa, sizes, self.smt, strict=True)
        )
        self.start: State = (nodes, tuple(1000 * d.healthy for d in self.gpus))

    def at_once(self, most: int) -> int:
        found, fresh = 0, {self.start}
        while fresh and found < most:
            fresh = {after for state in fresh for after in self._ways(state)}
            found += bool(fresh)
        return found

    def _ways(self, state: State) -> Iterator[State]:
        nodes, milli = state
        ask, free = self.request, [n for n in range(len(milli)) if milli[n] >= self.request.device_milli]
        for chosen in combinations(free, ask.device_count):
            taken = [self.gpus[n] for n in chosen]
            if not _near(ask, taken):
                continue
            after = tuple(m - ask.device_milli * (n in chosen) for n, m in enumerate(milli))
            for one in range(len(nodes)) if ask.numa == "required" else (None,):
                if one is not None and any(device.numa_node != one for device in taken):
                    continue
                among = range(len(nodes)) if one is None else (one,)
                for cores in self._cores(nodes, among):
                    for left in self._memory(cores, among):
                        yield left, after

    def _cores(self, nodes: tuple[Node, ...], among: range | tuple[int, ...]) -> Iterator[tuple[Node, ...]]:
        want = self.request.milli_cores
        if self.request.cpu_policy == "shared":
            yield from self._split(nodes, among, want=want, field="left", step=500)
            return
        found = set()
        for counts in product(*(range(1 + len(node.cores) * (n in among)) for n, node in enumerate(nodes))):
            # So many cores of each node are looked at, the last ones; of threads any number of each.
            for threads in product(*(self._threads(node, count) for node, count in zip(nodes, counts, strict=True))):
                enough = sum(map(sum, threads)) * 1000
                if not (enough == want if self.request.cpu_policy == "threads" else enough >= want):
                    continue
                left = tuple(self._less(node, some) for node, some in zip(nodes, threads, strict=True))
                if all(node.left >= 0 for node in left):
                    found.add(left)
        yield from found

    def _threads(self, node: Node, count: int) -> list[tuple[int, ...]]:
        some = node.cores[len(node.cores) - count :]
        if self.request.cpu_policy == "cores":
            return [some]
        return [way for way in product(*(range(1, size + 1) for size in some)) if 1000 * sum(way) <= 3000]

    def _less(self, node: Node, threads: tuple[int, ...]) -> Node:
        kept = len(node.cores) - len(threads)
        whole = self.request.cpu_policy == "cores"
        rest = () if whole else tuple(a - b for a, b in zip(node.cores[kept:], threads, strict=True) if a > b)
        return Node(node.left - self.sold * sum(threads), tuple(sorted((*node.cores[:kept], *rest))), node.memory)

    def _memory(self, nodes: tuple[Node, ...], among: range | tuple[int, ...]) -> Iterator[tuple[Node, ...]]:
        yield from self._split(nodes, among, want=self.request.memory_bytes, field="memory", step=GIB // 2)

    def _split(
        self, nodes: tuple[Node, ...], among: range | tuple[int, ...], *, want: int, field: str, step: int
    ) -> Iterator[tuple[Node, ...]]:
        """Amounts of one thing, of any nodes in steps."""
        have = [getattr(node, field) * (n in among) for n, node in enumerate(nodes)]
        for parts in product(*(range(0, max(0, min(want, there)) + 1, step) for there in have)):
            if sum(parts) == want:
                yield tuple(
                    Node(**{**vars_of(node), field: getattr(node, field) - part})
                    for node, part in zip(nodes, parts, strict=True)
                )


def vars_of(node: Node) -> dict[str, object]:
    return {"left": node.left, "cores": node.cores, "memory": node.memory}


yards = st.integers(1, 3).flatmap(lambda n: st.tuples(*(hosts(f"h{i}") for i in range(n)))).map(list)


@given(facts=hosts("h0"), request=OWN, most=st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_as_many_fit_at_once_as_there_are_ways(facts: HostFacts, request: Request, most: int) -> None:
    slow = Host(facts, request)
    expected = slow.at_once(most)
    arrays = fleet(facts)
    if not expected:
        assert isinstance(decide(arrays, request), Refusal)
        return
    counted = int(room(Sight.of(arrays, request), most=most)[0])
    mixed = request.cpu_policy == "cores" and request.numa != "required" and len({s for s in slow.smt if s}) > 1
    assert counted == expected or (mixed and 1 <= counted <= expected)


@given(facts=yards, request=OWN, count=st.integers(1, 8))
@settings(max_examples=150, deadline=None)
def test_what_members_take_together_is_never_more_than_there_is(
    facts: list[HostFacts], request: Request, count: int
) -> None:
    arrays, slow = fleet(*facts), Slow(facts)
    held = decide(arrays, ask(1, cpu_policy="threads"))
    if hasattr(held, "host"):
        arrays.hold("held", Hold.of(held))
        slow.take(held)
    answer = decide_gang(arrays, Gang(member=request, count=count))
    for member in answer.members if isinstance(answer, GangDecision) else ():
        assert any(slow.suits(member.host, request, *way) for way in slow.ways(member.host, request))
        slow.take(member)


def test_several_members_with_cores_of_their_own_lie_on_one_host() -> None:
    siblings = [f"{n},{n + 4}" for n in range(4)]
    node = {"id": 0, "cores": 4, "threads": 8, "memory_bytes": 64 * GIB, "siblings": siblings}
    there = fleet(*(host(name, nodes=1, numa=[node]) for name in ("a", "b")))
    answer = decide_gang(there, Gang(member=ask(2, cpu_policy="cores"), count=6))
    assert isinstance(answer, GangDecision)
    assert sorted(Counter(member.host for member in answer.members).values()) == [2, 4]
    for name in ("a", "b"):
        cpus = [
            cpu for m in answer.members if m.host == name for part in m.allocations for cpu in parse_cpus(part.cpus)
        ]
        assert len(cpus) == len(set(cpus)) == 2 * sum(m.host == name for m in answer.members)

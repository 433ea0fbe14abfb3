"""A second implementation that tries every way: what fits on a host at once, and which leaves would do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from hypothesis import strategies as st

from bessemer.core.asking import Gang, Request
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.units import GIB
from bessemer.placement import HostFacts, Wall
from tests.placement.hosts import joined, partitions, share_of

STEPS = ("host", "leaf", "spine", "site")
MODELS = ("H100", "A100")


@st.composite
def machines(draw: st.DrawFn, name: str) -> HostFacts:
    nodes = draw(st.integers(1, 2))
    devices = [
        Device(
            id=f"g{n}",
            kind="gpu",
            model=draw(st.sampled_from(MODELS)),
            numa_node=draw(st.integers(0, nodes - 1)),
            pcie_switch=draw(st.sampled_from(("s0", "s0", "s1", ""))),
            nvlink_domain=draw(st.sampled_from(("n0", "n0", "n1", ""))),
            rail=draw(st.sampled_from((None, 0, 0, 1))),
            healthy=draw(st.integers(0, 9)) > 0,
            memory_bytes=draw(st.sampled_from((80 * GIB, 40 * GIB, 0))),
        )
        for n in range(draw(st.integers(0, 4)))
    ]
    numa = [
        NumaNode(id=n, cores=4, threads=draw(st.integers(0, 4)), memory_bytes=draw(st.integers(1, 4)) * GIB)
        for n in range(nodes)
    ]
    inventory = Inventory(
        numa=numa,
        devices=devices,
        nvlink_partitions=draw(partitions(devices, blocks=True)),
        sharing=draw(st.sampled_from(("mps", "mps", "mps", "none"))),
        leaf=draw(st.sampled_from(("l0", "l0", "l1", "l2", ""))),
        spine=draw(st.sampled_from(("s0", "s0", "s1", ""))),
    )
    return HostFacts(
        name=name,
        inventory=inventory,
        wall=Wall(draw(st.sampled_from(("", "", "", "far")))),
        schedulable=draw(st.integers(0, 9)) > 0,
        taints=draw(st.sampled_from(((), (), (), ("slow",)))),
    )


yards = st.integers(0, 6).flatmap(lambda n: st.tuples(*(machines(f"h{i}") for i in range(n)))).map(list)

members = st.builds(
    lambda devices, **more: Request(
        tenant="acme", device_count=devices[0], device_milli=devices[1], device_bytes=sum(devices[2:]), **more
    ),
    st.sampled_from(
        (
            *((0, 1000), (1, 1000), (1, 1000), (2, 1000), (3, 1000), (1, 400), (1, 500)),
            *((1, 1, 20 * GIB), (1, 1, 27 * GIB), (1, 1, 60 * GIB)),
        )
    ),
    milli_cores=st.sampled_from((0, 1000, 1000, 2000, 3000)),
    memory_bytes=st.sampled_from((0, GIB, GIB, 2 * GIB)),
    device_models=st.sampled_from((frozenset[str](), frozenset({"H100"}))),
    numa=st.sampled_from(("required", "preferred", "legacy")),
    same_switch=st.booleans(),
    same_nvlink=st.booleans(),
)


@st.composite
def gangs(draw: st.DrawFn) -> Gang:
    segment = draw(st.sampled_from((0, 0, 1, 2, 3)))
    count = segment * draw(st.integers(1, 3)) if segment else draw(st.integers(1, 9))
    return Gang(
        member=draw(members),
        count=count,
        level=draw(st.sampled_from(STEPS)),
        policy=draw(st.sampled_from(("required", "preferred"))),
        segment=segment,
        segment_level=draw(st.sampled_from(STEPS)),
        per_host=draw(st.sampled_from((0, 0, 1, 2))),
        spread=draw(st.booleans()),
    )


def path(facts: HostFacts) -> tuple[tuple[str, ...], ...]:
    """What names the host, its leaf, its spine and its site."""
    found = facts.inventory
    site = (facts.wall.site,)
    own = (*site, found.spine, found.leaf, facts.name if not found.leaf else "")
    spine = (*site, found.spine) if found.spine else own
    return ((facts.name,), own, spine, site)


@dataclass(frozen=True)
class Left:
    """What is free on one host: cores and memory by node, thousandths by device."""

    cores: tuple[int, ...]
    memory: tuple[int, ...]
    milli: tuple[int, ...]

    @classmethod
    def of(cls, facts: HostFacts) -> Left:
        found = facts.inventory
        return cls(
            tuple(node.threads * 1000 for node in found.numa),
            tuple(node.memory_bytes for node in found.numa),
            tuple(1000 if device.healthy else 0 for device in found.devices),
        )


def at_once(facts: HostFacts, request: Request, *, most: int) -> int:
    """How many fit on the host, ``most`` at most, whichever devices and nodes each takes."""
    if not facts.schedulable or set(facts.taints) - set(request.tolerations):
        return 0
    if request.device_milli < 1000 and facts.inventory.sharing == "none":
        return 0
    found, fresh = 0, {Left.of(facts)}
    while fresh and found < most:
        fresh = {after for left in fresh for after in _ways(facts, request, left)}
        found += bool(fresh)
    return found


def _ways(facts: HostFacts, request: Request, left: Left) -> Iterator[Left]:
    """What may be left after one more."""
    devices = facts.inventory.devices
    free = [
        n
        for n, device in enumerate(devices)
        if left.milli[n] >= share_of(request, device)
        and (not request.device_models or device.model in request.device_models)
    ]
    for chosen in combinations(free, request.device_count):
        taken = [devices[n] for n in chosen]
        if not _near(request, taken) or (taken and request.same_nvlink and not joined(facts.inventory, taken)):
            continue
        share = share_of(request, taken[0]) if taken else 0
        milli = tuple(m - share if n in chosen else m for n, m in enumerate(left.milli))
        if request.numa == "required":
            for node in range(len(left.cores)):
                beside = all(device.numa_node == node for device in taken)
                if beside and left.cores[node] >= request.milli_cores and left.memory[node] >= request.memory_bytes:
                    yield Left(
                        _less(left.cores, request.milli_cores, (node,)),
                        _less(left.memory, request.memory_bytes, (node,)),
                        milli,
                    )
        elif sum(left.cores) >= request.milli_cores and sum(left.memory) >= request.memory_bytes:
            nodes = range(len(left.cores))
            yield Left(
                _less(left.cores, request.milli_cores, nodes), _less(left.memory, request.memory_bytes, nodes), milli
            )


def _near(request: Request, taken: Sequence[Device]) -> bool:
    above = [device.pcie_switch for device in taken]
    return not (request.same_switch and above and (len(set(above)) > 1 or not above[0]))


def _less(amounts: tuple[int, ...], want: int, nodes: Sequence[int]) -> tuple[int, ...]:
    left = list(amounts)
    for node in nodes:
        some = min(want, left[node])
        left[node] -= some
        want -= some
    return tuple(left)


@dataclass(frozen=True)
class Best:
    """The fewest switches of each level, in the order in which they count."""

    sites: int
    leaves: int
    spines: int


def rails_at(facts: HostFacts, request: Request) -> set[tuple[int, ...]]:
    """On which rails a member may have its devices there, each as often as it has one on it."""
    devices = facts.inventory.devices
    start = Left.of(facts)
    if not at_once(facts, request, most=1):
        return set()
    found = set()
    for chosen in combinations(range(len(devices)), request.device_count):
        rails = [devices[n].rail for n in chosen]
        alone = replace(start, milli=tuple(m if n in chosen else 0 for n, m in enumerate(start.milli)))
        if None not in rails and any(True for _ in _ways(facts, request, alone)):
            found.add(tuple(sorted(rail for rail in rails if rail is not None)))
    return found


def best_on_rails(facts: Sequence[HostFacts], gang: Gang) -> Best | None:
    """The same for members on the same rails, of all rails."""
    there = {fact.name: rails_at(fact, gang.member) for fact in facts}
    found = [
        best(facts, replace(gang, per_host=1), room={name: int(rails in some) for name, some in there.items()})
        for rails in sorted(set().union(*there.values()))
    ]
    return min((one for one in found if one), key=lambda one: order(one, gang), default=None)


def order(one: Best, gang: Gang) -> tuple[int, ...]:
    """Small is good."""
    if gang.level in {"host", "leaf"}:
        return (one.sites, one.leaves, one.spines)
    return (one.sites, one.spines, one.leaves)


def best(facts: Sequence[HostFacts], gang: Gang, *, room: Mapping[str, int] | None = None) -> Best | None:
    """Among all sets of leaves, and of hosts where all must be on one; None where nothing does. ``room``: for how many
    there is room on each host, where something else bounds it."""
    most = min(gang.per_host or gang.count, gang.count)
    if room is None:
        room = {fact.name: at_once(fact, gang.member, most=most) for fact in facts}
    hosts = {fact.name: path(fact) for fact in facts if room[fact.name]}
    pools = [[name] for name in hosts] if gang.level == "host" else []
    if not any(_holds(pool, hosts, room=room, gang=gang) for pool in pools):
        if gang.level == "host" and gang.policy == "required":
            return None
        leaves = sorted({above[1] for above in hosts.values()})
        pools = [
            [name for name, above in hosts.items() if above[1] in chosen]
            for size in range(1, len(leaves) + 1)
            for chosen in combinations(leaves, size)
        ]
    found = [
        Best(*(len({hosts[name][level] for name in pool}) for level in (3, 1, 2)))
        for pool in pools
        if _holds(pool, hosts, room=room, gang=gang)
    ]
    return min(found, key=lambda one: order(one, gang), default=None)


def _holds(pool: Sequence[str], hosts: dict[str, tuple], *, room: Mapping[str, int], gang: Gang) -> bool:
    """Whether there is room for all, in whole blocks, on some hosts alone."""
    level = STEPS.index(gang.level)
    if gang.policy == "required" and len({hosts[name][level] for name in pool}) > 1:
        return False
    if not gang.segment:
        return sum(room[name] for name in pool) >= gang.count
    together: dict[tuple, int] = {}
    for name in pool:
        switch = hosts[name][STEPS.index(gang.segment_level)]
        together[switch] = together.get(switch, 0) + room[name]
    return sum(count // gang.segment for count in together.values()) * gang.segment >= gang.count

"""`Alike`: what was found of one host serves every host in the same state.

Of a row the arrays hold all that the hardware's links (`filters.HARDWARE`), a policy and the choice among its devices
look at, but for how instances lie on a device that is cut, and for what lies beside devices: shapes that ask for those
are left out. So two rows of which each array holds the same are answered alike: for one shape, by one policy, and until
a host is set or removed, since numbers of models, classes and offers may stand for others then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from bessemer.core.asking import Allocation, Decision, Reason, Request
from bessemer.placement.arrays import ARRAYS
from bessemer.placement.beside import BESIDE
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.shape import Shape

STATES_MAX = 1024
"""So many are kept for a shape: a quarter of a kilobyte each, a whole one where something was taken."""

KNOWN_PART, MEMORY = 0.25, 64
"""So many of the last states, roughly, must have been known for it to be worth asking. A state costs a third of a
look."""
TRIED, TRIED_EVERY = 64, 512
"""Where it is not, so many are asked for of every so many."""

_HARDWARE = tuple(name for name, array in ARRAYS.items() if name == "present" or not array.column.open)
"""The arrays that links of the hardware look at: not those that say who may land on a host, for no two leaves are
alike."""

Figure = tuple[int, float, int, bool]
"""Of one host: verdict, value, thousandths, and whether it would span NUMA nodes."""


class Words(NamedTuple):
    """What a decision says beside what it takes."""

    score: Mapping[str, float]
    fitting: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Picked:
    """What is taken of a host, as far as hosts in one state have it in common: devices by column, of nodes with these
    numbers."""

    columns: Sequence[int]
    nodes: Sequence[int]
    allocations: tuple[Allocation, ...]
    device_milli: int

    @classmethod
    def of(cls, decision: Decision, *, fleet: FleetArrays, row: int) -> Picked:
        """What was decided of a row."""
        columns = {device.id: column for column, device in enumerate(fleet.devices(row))}
        return cls(
            [columns[device] for device in decision.devices],
            fleet.node_ids(row),
            decision.allocations,
            decision.device_milli,
        )

    def at(self, fleet: FleetArrays, row: int, *, request: Request, words: Words) -> Decision:
        """The same of another row."""
        devices = fleet.devices(row)
        tree = tuple([devices[column] for column in self.columns])
        return Decision(
            host=fleet.names[row],
            devices=tuple([device.id for device in tree]),
            allocations=self.allocations,
            device_milli=self.device_milli,
            fake=bool(fleet.fake[row]),
            score=words.score,
            fitting=words.fitting,
            reasons=words.reasons,
            request=request,
            tree=tree,
        )


@dataclass(slots=True)
class _Seen:
    """Of one state. What is taken is known once a host in it was chosen."""

    figure: Figure
    picked: Picked | None = None


class Worth:
    """Whether to ask what states are known: while enough of them are. Where many shapes are asked for in turn, hosts
    are seldom in a state that was seen, and a look costs little more than to ask; then it is tried now and then."""

    def __init__(self) -> None:
        self._asked = 0
        self._known = 1.0

    def asks(self) -> bool:
        """Whether to ask this time."""
        self._asked += 1
        return self._known >= KNOWN_PART or self._asked % TRIED_EVERY < TRIED

    def told(self, *, known: bool) -> None:
        """Whether it was."""
        self._known += (known - self._known) / MEMORY


class Alike:
    """Of one shape and policy. None is the state of rows that are looked at without asking what is known."""

    def __init__(self, fleet: FleetArrays, shape: Shape, *, worth: Worth) -> None:
        self._fleet = fleet
        self._worth = worth
        self._hosts = fleet.hosts
        self._seen: dict[bytes, _Seen] = {}
        self._last: tuple[tuple[int, int, int], bytes] | None = None
        plain = shape.cpu_policy == "shared" and not shape.page_bytes
        told = bool(shape.device_profile or shape.companions)
        self._names = () if told else tuple(name for name in _HARDWARE if not plain or name not in BESIDE)
        # Which threads of its own a claim has hangs on more than arrays.
        self._takes = bool(self._names) and plain

    def asks(self) -> bool:
        """Whether to ask for what was found in the states of some rows; else they are looked at together."""
        return bool(self._names) and self._worth.asks()

    def state(self, row: int) -> bytes:
        """All that the arrays hold of a row, as far as the shape asks for it. A digest: rows are as wide as the widest
        host, and one that has hundreds of devices would make the states of all others dear."""
        if self._hosts != self._fleet.hosts:
            self._hosts = self._fleet.hosts
            self._seen.clear()
        # The host that was taken of last is often the next to be chosen, too.
        now = (row, self._hosts, self._fleet.changes.position)
        if self._last is not None and self._last[0] == now:
            return self._last[1]
        arrays = vars(self._fleet)
        state = blake2b(b"".join([arrays[name][row].tobytes() for name in self._names]), digest_size=16).digest()
        self._last = now, state
        return state

    def figure(self, state: bytes) -> Figure | None:
        """What was found in that state."""
        seen = self._seen.get(state)
        self._worth.told(known=seen is not None)
        return seen.figure if seen is not None else None

    def found(self, state: bytes, figure: Figure) -> None:
        """Keep it."""
        if len(self._seen) >= STATES_MAX:
            self._seen.clear()
        self._seen[state] = _Seen(figure)

    def chosen(self, row: int) -> bytes | None:
        """The state of a row of which something is taken now."""
        return self.state(row) if self._takes and self._worth.asks() else None

    def picked(self, state: bytes | None, row: int) -> Picked | None:
        """What was taken of a host in that state, which is the row's."""
        if state is None:
            return None
        seen = self._seen.get(state)
        picked = seen.picked if seen is not None else None
        self._worth.told(known=picked is not None)
        return picked if picked is not None and picked.nodes == self._fleet.node_ids(row) else None

    def took(self, state: bytes | None, decision: Decision, *, row: int, figure: Figure) -> None:
        """This is taken of the row."""
        if state is not None:
            self.found(state, figure)
            self._seen[state].picked = Picked.of(decision, fleet=self._fleet, row=row)

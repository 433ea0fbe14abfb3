"""Our own rule: a request goes where the potential of the fleet rises least.

The potential of a host is what its free devices are worth less than all of them, in thousandths of a device:

- `fragments`: what typical shapes could not use of it (FGD; see `Fragments`);
- `waste`: what cannot be cut from its left-overs, at the dual prices of the cutting-stock program over the sizes of
  shares that are asked for (see `hedged_waste`); it tells a left-over that waits for its counterpart from one for good;
- `strand`: devices for which there are no cores, at as many cores a device as requests have in the mean. It keeps what
  needs few cores on hosts that have few, and what needs no device on those that have cores to spare;
- less what whole devices are worth beyond their length: `whole`, each, and `blocks`, the more the nearer those of a
  host are to the largest request, so that small ones go where little is whole, and hosts empty again. In balance only:
  while a fleet fills, nothing is given back, and what keeps one host whole breaks up another.

Two further terms bind classes of hosts that are scarce (see `class_plan`): the reduced costs of the plan, and a
surcharge where a class has more of a shape already than the plan's part of all that are held.

Rises are rounded down to steps. Differences below a step are noise, and hosts in a fixed order decide better: what
could go anywhere fills the first hosts, and leaves the last ones whole.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from bessemer.placement.demand import WHOLE, Outlook
from bessemer.placement.demand.mix import Floats
from bessemer.placement.hostclass import HostClass
from bessemer.placement.policies import Costs
from bessemer.placement.policies.fragments import Fragments
from bessemer.placement.policies.ways import cheapest_way, in_batches, rises
from bessemer.placement.shape import Shape
from bessemer.placement.states import States

GRAIN = 2.0**-20
"""Waste is rounded to it, so that sums over devices are exact in any order."""

SURCHARGE = 0.2
"""What it costs, in devices, to go beyond the plan's part of a scarce class, at a weight of 1."""

STEEP = 5
"""Of the eight devices of a free host, the first to go costs half of what they are worth as a block; the last four, all
together, a thirtieth."""

SLACK = 1.0
"""Requests by which the plan's part may be passed."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Weights of the terms, and steps in devices: ``step``, and ``idle_step`` for requests without devices.

    ``share`` and ``by_devices`` say which shapes are typical (see `Mix.typical`). In devices, ``whole`` is what an
    untouched device is worth beyond its length, and ``blocks`` what as many of one host as the largest typical request
    has are; of fewer of them, the part to the power of `STEEP`. ``plan`` weighs what binds scarce classes.
    """

    fragments: float = 0.2
    waste: float = 0.9
    strand: float = 0.3
    step: float = 0.02
    idle_step: float = 0.2
    share: float = 0.95
    by_devices: float = 0.0
    whole: float = 0.0
    blocks: float = 0.0
    plan: float = 1.0


FILLING = Tuning()
"""What fills an empty fleet furthest."""

TURNING = Tuning(fragments=5.0, strand=0.5, share=0.9999, by_devices=1.0, whole=0.4, blocks=2.0, plan=20.0)
"""What refuses least where as much goes as comes: there large requests wait for what small ones break up, so that
shapes count by their devices, and nearly all of them do. And a scarce class is left to its own: what once strays into
it is in their way for as long as it runs."""

BALANCE = 0.5
"""From this turnover on a fleet counts as in balance: what was broken up before takes a holding time to heal."""


def tuned(turnover: float) -> Tuning:
    """Between the two, by how much of what is taken is given back (see `Turnover`)."""
    part = min(max(turnover / BALANCE, 0.0), 1.0)

    def between(filling: float, turning: float) -> float:
        return filling + part * (turning - filling)

    return Tuning(
        fragments=between(FILLING.fragments, TURNING.fragments),
        waste=between(FILLING.waste, TURNING.waste),
        strand=between(FILLING.strand, TURNING.strand),
        step=between(FILLING.step, TURNING.step),
        idle_step=between(FILLING.idle_step, TURNING.idle_step),
        share=TURNING.share if part else FILLING.share,
        by_devices=between(FILLING.by_devices, TURNING.by_devices),
        whole=between(FILLING.whole, TURNING.whole),
        blocks=between(FILLING.blocks, TURNING.blocks),
        plan=between(FILLING.plan, TURNING.plan),
    )


class Potential:
    """Costs in steps. ``tuning`` in place of the one that the outlook's turnover asks for."""

    name = "LPG"

    def __init__(self, outlook: Outlook, *, tuning: Tuning | None = None) -> None:
        self.version = outlook.version
        self.tuning = tuned(outlook.turnover) if tuning is None else tuning
        self._plan = outlook.plan
        typical = outlook.mix.typical(self.tuning.share, by_devices=self.tuning.by_devices)
        self._fragments = Fragments(typical)
        self._largest = int(typical.count.max(initial=0))
        self._cores = outlook.mix.cores_per_device
        waste = outlook.waste.copy()
        if self.tuning.waste:
            waste[-1] -= 1000 * self.tuning.whole / self.tuning.waste
        self._waste: Floats = np.round(waste / GRAIN) * GRAIN
        self._kinds: tuple[Hashable, ...] = ()
        self._columns = np.full(1, -1, dtype=np.int64)

    def costs(self, shape: Shape, states: States) -> Costs:
        return in_batches(lambda part: self._costs(shape, part), states)

    def rationed(self, shape: Shape) -> bool:
        return self._plan is not None and self._plan.index(shape) is not None

    def surcharge(self, shape: Shape, held: Mapping[HostClass | None, int]) -> Mapping[HostClass | None, float]:
        row = None if self._plan is None else self._plan.index(shape)
        if self._plan is None or row is None:
            return {}
        every = sum(held.values()) + 1
        steps = float(np.floor(self.tuning.plan * SURCHARGE / self._step(shape)))
        return {
            kind: steps
            for kind, k in self._plan.classes.items()
            if self._plan.scarce[k] and held.get(kind, 0) + 1 > self._plan.share[row, k] * every + SLACK
        }

    def parts(self, shape: Shape, states: States) -> Mapping[str, Floats]:
        """[B] by term, in thousandths of a device: what the costs are made of, before they are rounded down to steps.
        Of a share, those of the way that is taken."""
        tuning, rows = self.tuning, np.arange(len(states))
        found = rises(shape, states, fragments=self._fragments, waste=self._waste)
        terms = {"fragments": tuning.fragments * found.fragments, "waste": tuning.waste * found.waste}
        if tuning.blocks and shape.device_count and self._largest > 1:
            terms["blocks"] = np.broadcast_to(self._broken(shape, states), found.fragments.shape)
        rise = np.add.reduce([*terms.values()])
        milli = np.where(rise == rise.min(axis=1, keepdims=True), states.milli if shape.shared else 0, WHOLE + 1)
        way = milli.argmin(axis=1)
        chosen: dict[str, Floats] = {name: term[rows, way] for name, term in terms.items()}
        chosen["strand"] = np.broadcast_to(tuning.strand * self._stranded(shape, states), len(states))
        chosen["plan"] = np.broadcast_to(1000.0 * tuning.plan * self._reduced(shape, states), len(states))
        return chosen

    def step(self, shape: Shape) -> float:
        """Thousandths of a device in a step of ``value``."""
        return 1000.0 * self._step(shape)

    def _costs(self, shape: Shape, states: States) -> Costs:
        tuning = self.tuning
        found = rises(shape, states, fragments=self._fragments, waste=self._waste)
        rise = tuning.fragments * found.fragments + tuning.waste * found.waste
        if tuning.blocks and shape.device_count and self._largest > 1:
            rise += self._broken(shape, states)
        least = cheapest_way(shape, states, values=rise)
        devices = (least.value + tuning.strand * self._stranded(shape, states)) / 1000.0
        devices += tuning.plan * self._reduced(shape, states)
        return Costs(np.floor(devices / self._step(shape)), least.milli)

    def _broken(self, shape: Shape, states: States) -> Floats:
        """[B, ways]: what its whole devices are worth less as a block, in thousandths; only where the largest typical
        request could ever be."""
        largest, whole = self._largest, states.milli == WHOLE
        worth = (
            1000.0 * self.tuning.blocks * (np.minimum(np.arange(states.milli.shape[1] + 1), largest) / largest) ** STEEP
        )
        count = whole.sum(axis=1)
        less = worth[count] - worth[np.maximum(count - shape.device_count, 0)]
        less = np.where((states.model >= 0).sum(axis=1) >= largest, less, 0.0)[:, None]
        return whole * less if shape.shared else less

    def _stranded(self, shape: Shape, states: States) -> Floats | float:
        """[B]: thousandths of devices without cores that there are more than before."""
        if not self._cores:
            return 0.0
        before = states.milli.sum(axis=1) - states.cores / self._cores
        after = before - (shape.milli - shape.milli_cores / self._cores)
        more: Floats = np.maximum(after, 0.0) - np.maximum(before, 0.0)
        return more

    def _reduced(self, shape: Shape, states: States) -> Floats | float:
        """[B]: what the plan says that one more of the shape costs there, in devices."""
        row = None if self._plan is None or states.kind is None else self._plan.index(shape)
        if self._plan is None or row is None:
            return 0.0
        kinds = tuple(states.kinds)
        if kinds != self._kinds:
            # The last is for hosts of which nobody says the class, whose number is -1; beyond it a column of zeros.
            known = [self._plan.classes.get(kind, -1) if isinstance(kind, HostClass) else -1 for kind in kinds]
            self._columns = np.array([*known, -1], dtype=np.int64)
            self._kinds = kinds
        costs = np.append(self._plan.reduced[row], 0.0)
        reduced: Floats = costs[self._columns[states.kind]]
        return reduced

    def _step(self, shape: Shape) -> float:
        return self.tuning.step if shape.device_count else self.tuning.idle_step

"""`Alone`: one host by itself, of which one member after the other takes something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bessemer.core.asking import Decision
from bessemer.placement.arrays import Arrays, View
from bessemer.placement.beside import Parts
from bessemer.placement.facts import Hold


class Alone(View):
    """A copy, which the fleet knows nothing of. What is cut into instances may not be taken here: how a device is cut
    stands elsewhere."""

    def __init__(self, fleet: Arrays, row: int) -> None:
        super().__init__(fleet, np.array([row]))
        self._parts = {0: fleet.parts(row)}
        self.columns: Mapping[str, int] = {device.id: column for column, device in enumerate(self.devices(0))}
        self._nodes = {node: column for column, node in enumerate(self.node_ids(0))}

    def parts(self, row: int) -> Parts:
        return self._parts[row]

    def keep(self, columns: Sequence[int]) -> None:
        """No devices but these may be taken."""
        kept = np.zeros_like(self.device_sound)
        kept[0, list(columns)] = True
        self.device_sound = self.device_sound & kept

    def take(self, decision: Decision) -> None:
        """What is left after it."""
        assert not decision.device_profile
        for part in decision.allocations:
            node = self._nodes[part.numa_node]
            self.cores_free[0, node] -= part.taken_milli_cores
            self.memory_free[0, node] -= part.plain_bytes
        for device in decision.devices:
            self.device_milli[0, self.columns[device]] -= decision.device_milli
        self._apply_beside(0, Hold.of(decision), sign=-1, nodes=self._nodes)

"""Where a request goes: pure functions over arrays of the fleet.

Placement proposes, the transaction that takes the hardware disposes. Invariants: equal fleets and requests give equal
decisions, whatever order the hosts came in; a decision never gives more than there is; in a refusal every host counts
under exactly one reason, and the change that it proposes has been tried.

It waits for nothing, looks nowhere and keeps nothing but the arrays; whoever feeds them is `kinds.fleet.inventory`.
"""

from bessemer.placement.decide import decide
from bessemer.placement.facts import Hold, HostFacts, Wall
from bessemer.placement.fleet import FleetArrays, set_wall

__all__ = ["FleetArrays", "Hold", "HostFacts", "Wall", "decide", "set_wall"]

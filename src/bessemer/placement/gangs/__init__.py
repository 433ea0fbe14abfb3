"""Where a gang goes: all of its members or none, near each other.

Invariants: equal fleets and gangs give equal decisions, whatever order the hosts came in; a decision never gives more
than there is, all members together; levels and segments hold.
"""

from bessemer.placement.gangs.decide import decide_gang, place_gang

__all__ = ["decide_gang", "place_gang"]

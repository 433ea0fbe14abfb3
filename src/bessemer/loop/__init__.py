"""Runs any kind and knows none: a queue of names, workers, leases, backoff, resync and deadlines.

A name goes onto the queue for a reason (its object changed, another kind's change concerns it, its time has come) and
the reason is forgotten there: a reconcile gets the object as it is now. Invariants: a name is never worked on twice at
the same time, and a signal that arrives during the work leads to one more turn; status is written once per turn, by the
loop, and only where it differs; a write of the loop itself wakes nobody of the same name.

It is not a workflow engine (no steps are kept), and it decides nothing about an object but how long to wait.
"""

from bessemer.loop.leadership import Granted
from bessemer.loop.loop import Loop, Source
from bessemer.loop.metrics import Metrics

__all__ = ["Granted", "Loop", "Metrics", "Source"]

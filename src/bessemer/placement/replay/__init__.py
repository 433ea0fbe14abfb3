"""Replay of traces: what a fleet would have made of requests that came, with the code that places them in earnest.

A trace is hosts and requests (`trace`); `openb` reads one from the files of the published sets, `arrivals` says who
comes when, `run` lets them come and counts. Nothing here decides: whoever does is handed in beside its fleet (`Desk`).

Equal traces, seeds and desks give equal figures. It reads no file and no clock; randomness is a NumPy Generator that it
is handed.
"""

from bessemer.placement.replay.arrivals import Visits, churning, inflated
from bessemer.placement.replay.figures import Churned, Count, Filled, Spread, spread
from bessemer.placement.replay.run import Desk, churn, fill
from bessemer.placement.replay.trace import Trace

__all__ = [
    "Churned",
    "Count",
    "Desk",
    "Filled",
    "Spread",
    "Trace",
    "Visits",
    "churn",
    "churning",
    "fill",
    "inflated",
    "spread",
]

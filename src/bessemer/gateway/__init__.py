"""The OpenAI data plane: keys, limits, endpoints and replicas in memory, bodies streamed, usage to a spool.

On a request's path there is no SQL and no buffering of an answer, and no call to the api but for a share of what is
bounded. What it knows comes from watches of ApiKey, Endpoint and Claim; while the api is away it serves from
what it holds. It decides nothing about replicas.
"""

from __future__ import annotations

from bessemer.gateway.admission import Admission
from bessemer.gateway.app import CutOff, Gateway, GatewayFacts
from bessemer.gateway.exchange import Patience
from bessemer.gateway.follow import Follower
from bessemer.gateway.front import Front
from bessemer.gateway.gauge import Reporter
from bessemer.gateway.lending import Lending
from bessemer.gateway.logbook import Logbook
from bessemer.gateway.pulse import Pulse
from bessemer.gateway.settle import Settler
from bessemer.gateway.spool import Spool
from bessemer.gateway.tables import Tables

__all__ = [
    "Admission",
    "CutOff",
    "Follower",
    "Front",
    "Gateway",
    "GatewayFacts",
    "Lending",
    "Logbook",
    "Patience",
    "Pulse",
    "Reporter",
    "Settler",
    "Spool",
    "Tables",
]

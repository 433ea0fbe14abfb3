"""What the status of an answer says, and of whom: of the replica, or of what it was asked.

An engine answers bodies that it cannot read with 500, as it does where it is broken. Whose fault it is another replica
tells: it is asked the same. Where that one answers, the first has erred (`health`); where it says 5xx, too, it is the
body's fault and nobody's, and its words are the client's. A replica that nobody else stands beside is not judged by it:
nobody could be asked instead. So no client can shut a replica out by what it asks.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from enum import Enum

from bessemer.gateway.exchange import Exchange
from bessemer.gateway.outer import no_answer
from bessemer.gateway.route import Pool, Replica

TRIES = 2
"""Of one request at one endpoint."""

Doubted = tuple[tuple[Pool, Replica], ...]
"""Who answered a request with an error of which nobody knows yet whose fault it is, and of which pool each is."""

_ELSEWHERE = (502, 503)
"""By which a replica says that it cannot now: another is asked, where there is one."""
_EMBEDS_NOT = (404, 501)
"""By which vLLM and llama.cpp say that they embed nothing: what was asked is wrong, and nobody is to rest for it."""


class Fault(Enum):
    """What is no answer yet. ``LOST``: the replica's fault; ``DOUBT``: nobody knows; ``UNFIT``: it does not embed."""

    LOST = "lost"
    DOUBT = "doubt"
    UNFIT = "unfit"


def fault(exchange: Exchange, status: int, *, tried: AbstractSet[str]) -> Fault | None:
    """Of a replica that answers with this status, after those that were ``tried``; None where that is the client's."""
    replica, several = exchange.replica, len(tried) + 1 < min(TRIES, len(exchange.endpoint.replicas))
    if status == 401 or not 200 <= status < 600:
        return Fault.LOST  # it does not know our secret, or speaks no HTTP that a client could be handed
    if replica is not None and replica.outer is not None:
        return _outer(status, alone=exchange.chain is None)
    if status == 403:
        return Fault.LOST
    if status in _EMBEDS_NOT and not exchange.wanted.generates:
        return Fault.UNFIT
    if status in _ELSEWHERE:
        return Fault.LOST if several else None
    if status < 500 or not several:
        return None
    now, adapter = exchange.means.clock.monotonic(), exchange.adapter
    others = (one for uid, one in exchange.endpoint.replicas.items() if uid not in tried and one is not replica)
    able = any(one.health.ready(now) and (not adapter or adapter in one.adapters) for one in others)
    return Fault.DOUBT if able else None


def settle(doubted: Doubted, status: int, *, now: float) -> None:
    """Somebody has answered what others answered with an error: now it is known whose fault that was."""
    if status < 500:
        for pool, replica in doubted:
            pool.erred(replica, now)


def _outer(status: int, *, alone: bool) -> Fault | None:
    """Of a service elsewhere. What its firewall or its judges think of a prompt it says by 403, as it says that it does
    not know us; that is never the client's to read."""
    if status == 403 or (status == 500 and not alone):
        return Fault.DOUBT
    return Fault.LOST if no_answer(status, alone=alone) else None

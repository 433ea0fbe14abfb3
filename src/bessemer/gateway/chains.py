"""Who answers for an endpoint that is not alone: one of its backends by weight, and those who stand in for it in order.

A chain is of one request. Each endpoint is in it once, so circles end; all are of one project; at most `ENDPOINTS_MAX`
are looked at. It is gone along only while nothing of an answer was sent, and whose turn it is of a split is decided
when the chain comes to it: who is not asked has not had his turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bessemer.gateway.route import Pool
from bessemer.gateway.tables import EndpointEntry

ENDPOINTS_MAX = 16

Endpoints = Mapping[tuple[str, str], EndpointEntry]


class Chain:
    """Those who may answer a request for the endpoint ``asked``, with the ``adapter``, of a ``session`` if not 0. Where
    it ``writes``, those that only embed are none of them; ``unfit`` says that there were such."""

    __slots__ = (
        *("_adapter", "_endpoints", "_entry", "_first", "_order", "_resting", "_session", "_writes"),
        *("asked", "unfit"),
    )

    def __init__(
        self, endpoints: Endpoints, asked: EndpointEntry, *, adapter: str = "", session: int = 0, writes: bool = False
    ) -> None:
        self._endpoints, self._entry = endpoints, asked
        self._writes, self.unfit = writes, False
        self._adapter, self._session = adapter, session
        self._order = self._along(asked, set())
        self._resting: list[EndpointEntry] = []
        self._first: EndpointEntry | None = None
        self.asked = asked.name

    def next(self, now: float) -> EndpointEntry | None:
        """Who is asked now: the next that has somebody who is not ejected; then those that are, whoever rests may have
        come back. None where all were asked; the first comes back once where nobody has anybody."""
        nobody = self._first is None
        for entry in self._order:
            self._first = self._first or entry
            if not entry.replicas:
                entry.pool.gauge.called = True
                continue
            if any(replica.health.ready(now) for replica in entry.replicas.values()):
                return entry
            self._resting.append(entry)
        if self._resting:
            return self._resting.pop(0)
        return self._first if nobody else None

    def afresh(self, now: float) -> Chain | None:
        """The same from its beginning, for one who has waited; None where nobody of them has anybody who is well."""
        well = (
            any(one.health.ready(now) for one in entry.replicas.values())
            for entry in reached(self._endpoints, self._entry)
        )
        if not any(well):
            return None
        adapter, session = self._adapter, self._session
        return Chain(self._endpoints, self._entry, adapter=adapter, session=session, writes=self._writes)

    def reaches(self, pool: Pool) -> bool:
        """Whether whoever is there may answer."""
        return any(entry.pool is pool for entry in reached(self._endpoints, self._entry))

    def instead(self, entry: EndpointEntry) -> str:
        """What was asked for, where that is another; "" else."""
        return self.asked if self.asked != entry.name else ""

    def _along(self, entry: EndpointEntry, seen: set[str]) -> Iterator[EndpointEntry]:
        if entry.name in seen or len(seen) >= ENDPOINTS_MAX:
            return
        seen.add(entry.name)
        if entry.split is not None:
            others = [entry.split.pick(self._session)]
        else:
            others = []
            if entry.embeds and self._writes:
                self.unfit = True
            elif not self._adapter or self._adapter in entry.adapters:
                yield entry
        for name in (*others, *entry.fallbacks):
            other = self._endpoints.get((entry.project, name))
            if other is not None:
                yield from self._along(other, seen)


def context_of(endpoints: Endpoints, asked: EndpointEntry) -> int:
    """The largest context of whoever may answer for it: what has to be held for a request, so that it can go to any of
    them."""
    return max((entry.context_tokens for entry in _alone(endpoints, asked)), default=0) or asked.context_tokens


def models_of(endpoints: Endpoints, asked: EndpointEntry) -> tuple[str, ...]:
    """Whoever may answer for it, as records say them."""
    return tuple(dict.fromkeys(name for entry in _alone(endpoints, asked) for name in entry.answers))


def _alone(endpoints: Endpoints, asked: EndpointEntry) -> Iterator[EndpointEntry]:
    """Those that have replicas, or may have."""
    return (entry for entry in reached(endpoints, asked) if entry.split is None)


def reached(endpoints: Endpoints, asked: EndpointEntry) -> Iterator[EndpointEntry]:
    """Whoever may answer for it, whosever turn it is, and itself."""
    seen, left = set[str](), [asked.name]
    while left and len(seen) < ENDPOINTS_MAX * ENDPOINTS_MAX:
        entry = endpoints.get((asked.project, name := left.pop()))
        if entry is None or name in seen:
            continue
        seen.add(name)
        left += entry.fallbacks
        if entry.split is not None:
            left += entry.split.weights
        yield entry

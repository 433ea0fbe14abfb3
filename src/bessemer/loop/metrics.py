"""What a loop counts. Several loops of one process (two hundred fake agents) share one `Metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0002, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
_WAITS = (*_SECONDS[:-1], 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
"""A burst of ten thousand names is waited out in minutes; how many is what one asks then."""


class Metrics:
    """The families. A registry takes one `Metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.depth = Gauge("bessemer_loop_queue_depth", "Names waiting for a worker.", ["kind"], registry=registry)
        self.busy = Gauge("bessemer_loop_busy", "Names that a worker is at.", ["kind"], registry=registry)
        self.held_back = Counter(
            "bessemer_loop_held_back", "Signals that found their name at work and waited.", ["kind"], registry=registry
        )
        self.wait = Histogram(
            "bessemer_loop_wait_seconds",
            "From the first signal to the start of the work.",
            ["kind"],
            buckets=_WAITS,
            registry=registry,
        )
        self.reconcile = Histogram(
            "bessemer_loop_reconcile_seconds",
            "One turn of a name, reading and writing included.",
            ["kind", "outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.errors = Counter("bessemer_loop_errors", "Turns that raised.", ["kind", "reason"], registry=registry)
        self.retries = Counter(
            "bessemer_loop_retries", "Turns repeated at once after a conflict.", ["kind"], registry=registry
        )
        self.backoffs = Counter("bessemer_loop_backoffs", "Turns put off after an error.", ["kind"], registry=registry)
        self.resyncs = Counter(
            "bessemer_loop_resyncs", "Turns that only the resync timer asked for.", ["kind"], registry=registry
        )
        self.relists = Counter(
            "bessemer_loop_relists", "Feeds read anew because history had run out.", ["kind"], registry=registry
        )
        self.lease = Gauge(
            "bessemer_loop_lease_held", "1 while this loop may work on the kind.", ["kind"], registry=registry
        )
        self.stuck = Gauge("bessemer_loop_stuck_objects", "Objects past a deadline.", ["kind"], registry=registry)

    def of(self, kind: str) -> KindMetrics:
        """The families' children for one kind, so that no turn pays for the lookup."""
        return KindMetrics(self, kind)


class KindMetrics:
    """`Metrics` with the kind filled in."""

    def __init__(self, metrics: Metrics, kind: str) -> None:
        self._metrics = metrics
        self._kind = kind
        self._reconcile: dict[str, Histogram] = {}
        self.depth = metrics.depth.labels(kind)
        self.busy = metrics.busy.labels(kind)
        self.held_back = metrics.held_back.labels(kind)
        self.wait = metrics.wait.labels(kind)
        self.retries = metrics.retries.labels(kind)
        self.backoffs = metrics.backoffs.labels(kind)
        self.resyncs = metrics.resyncs.labels(kind)
        self.lease = metrics.lease.labels(kind)
        self.stuck = metrics.stuck.labels(kind)

    def error(self, reason: str) -> None:
        self._metrics.errors.labels(self._kind, reason).inc()

    def reconciled(self, outcome: str, seconds: float) -> None:
        child = self._reconcile.get(outcome)
        if child is None:
            child = self._reconcile[outcome] = self._metrics.reconcile.labels(self._kind, outcome)
        child.observe(seconds)

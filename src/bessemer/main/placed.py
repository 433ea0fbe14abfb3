"""`PlacementFigures`: what placement says of itself, in the shape that Prometheus collects."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from bessemer.kinds.fleet.audit import Audit


class PlacementFigures:
    """A collector for ``CollectorRegistry.register``."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def collect(self) -> Iterator[Metric]:
        """Every figure, as Prometheus wants it."""
        yield CounterMetricFamily(
            "bessemer_placement_audited_hosts",
            "Hosts of placement's arrays that were compared with the store.",
            value=self._audit.looked,
        )
        yield CounterMetricFamily(
            "bessemer_placement_audit_differences",
            "Hosts of which the arrays said something else than the store, and that were set anew.",
            value=self._audit.found,
        )

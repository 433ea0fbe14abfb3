"""What the store counts about itself, in the shape that Prometheus collects.

Counts are plain integers. The loop and the writer's thread have the writer's by turns, as they have its connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


@dataclass(slots=True, eq=False)
class Metrics:
    """A collector for ``CollectorRegistry.register``."""

    operations: int = 0
    groups: int = 0
    changes: int = 0
    commit_seconds: float = 0.0
    failures: int = 0
    watchers: int = 0
    watcher_overflows: int = 0
    snapshots: int = 0
    compacted: int = 0

    def ended(self, operations: int, changes: int, *, seconds: float) -> None:
        """One group was written, or had nothing to write."""
        self.groups += 1
        self.operations += operations
        self.changes += changes
        self.commit_seconds += seconds

    def failed(self) -> None:
        """One group could not be written."""
        self.failures += 1

    def collect(self) -> Iterator[Metric]:
        """Every figure, as Prometheus wants it."""
        counts = {
            "operations": (self.operations, "Operations run, refused ones too."),
            "groups": (self.groups, "Transactions, those with nothing to write too."),
            "changes": (self.changes, "Revisions written."),
            "commit_seconds": (self.commit_seconds, "Seconds spent in transactions."),
            "failures": (self.failures, "Groups that the database refused."),
            "watcher_overflows": (self.watcher_overflows, "Times that a watcher fell back to reading history."),
            "compacted": (self.compacted, "Changes dropped from history."),
        }
        for name, (value, text) in counts.items():
            yield CounterMetricFamily(f"bessemer_store_{name}", text, value=value)
        yield GaugeMetricFamily("bessemer_store_watchers", "Watches open.", value=self.watchers)
        yield GaugeMetricFamily("bessemer_store_snapshots", "Paged lists that hold a snapshot.", value=self.snapshots)

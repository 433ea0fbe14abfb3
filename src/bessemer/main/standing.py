"""What a supervisor knows of its parts, as metrics of its process."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bessemer.main.supervisor import Supervisor


class PartsCollector(Collector):
    """Looks when it is asked."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def collect(self) -> Iterator[Metric]:
        running = GaugeMetricFamily("bessemer_up_part_running", "Whether a part ran at the last look.", labels=["part"])
        restarts = CounterMetricFamily("bessemer_up_restarts", "Starts of a part after it had died.", labels=["part"])
        for part in self._supervisor.standing():
            running.add_metric([part.name], part.running)
            restarts.add_metric([part.name], part.restarts)
        yield running
        yield restarts


def registry_of(supervisor: Supervisor) -> CollectorRegistry:
    """A registry that tells of its parts."""
    registry = CollectorRegistry()
    registry.register(PartsCollector(supervisor))
    return registry

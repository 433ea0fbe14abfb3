"""Figures of one api process, in a registry of their own."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LAGS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)
LAG_SECONDS = 0.1
"""Between two looks at how late the event loop is."""


FLEET = {
    "devices": "Sound devices.",
    "free_devices": "Free devices of hosts that take something new.",
    "useless_devices": "Of these, expected, that serve nothing that is asked for.",
    "stranded_devices": "Of these for want of cores or memory alone.",
    "largest_free_devices": "The most that are free entirely on one host.",
    "idle_micro_per_hour": "What free devices would earn in an hour at list price, in millionths of the currency.",
    "useless_micro_per_hour": "What those would that serve nothing.",
}
"""Gauges of the fleet by model."""


class Metrics:
    """Requests by route, verb and code; how long they took; who watches."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["route", "verb"]
        registry = self.registry
        self.requests = Counter(
            "bessemer_api_requests", "Requests by route, verb and code.", [*labels, "code"], registry=registry
        )
        self.seconds = Histogram(
            "bessemer_api_request_seconds",
            "Seconds from request to answer; streams are not counted.",
            labels,
            registry=registry,
            buckets=BUCKETS,
        )
        self.watches = Gauge("bessemer_api_watches", "Open watches by resource.", ["resource"], registry=registry)
        self.streams = Gauge("bessemer_api_agent_streams", "Agents' sockets held by this process.", registry=registry)
        self.shed = Counter(
            "bessemer_api_shed", "Requests refused since their flow had too many, by lane.", ["lane"], registry=registry
        )
        self.denied = Counter("bessemer_api_denied", "Requests refused to somebody known.", registry=registry)

        self.lag = Histogram(
            "bessemer_api_loop_lag_seconds",
            "How late a timer of the event loop rings: what a request waits at each of its steps.",
            registry=registry,
            buckets=LAGS,
        )
        self.fleet = {
            name: Gauge(f"bessemer_fleet_{name}", words, ["model", "fake"], registry=registry)
            for name, words in FLEET.items()
        }
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, route: str, verb: str, *, code: int, seconds: float | None) -> None:
        """A request was answered; ``seconds`` is None for a stream. Its children are kept: to find them by their labels
        takes longer than to count."""
        found = self._children.get((route, verb, code))
        if found is None:
            found = self.requests.labels(route, verb, code), self.seconds.labels(route, verb)
            self._children[route, verb, code] = found
        found[0].inc()
        if seconds is not None:
            found[1].observe(seconds)

    async def follow(self) -> None:
        """Look at the event loop's own clock, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self.lag.observe(max(0.0, loop.time() - due))

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)

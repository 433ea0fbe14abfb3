"""What the gateway tells Prometheus: not on its own listener, where each customer would see what the others use.

Plain numbers that one event loop counts, put into words when somebody asks: a counter of the library's takes a lock at
each step, and a request takes ten steps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from bessemer.gateway.meter import Counts
from bessemer.gateway.outbox import Written
from bessemer.gateway.waiting import Tally

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Times:
    """How long something took, by bucket."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(_SECONDS, seconds)] += 1
        self._sum += seconds

    def told(self, name: str, words: str) -> Metric:
        """As Prometheus wants it: each bucket has those before it."""
        bounds = [*(str(float(bound)) for bound in _SECONDS), "+Inf"]
        family = HistogramMetricFamily(name, words)
        family.add_metric([], list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)
        return family


class GatewayMetrics:
    """Figures of one gateway process; no label holds a tenant's free text."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests: Counter[tuple[str, int]] = Counter()
        """By route and status."""
        self.input_tokens = self.output_tokens = self.retries = self.busy = 0
        self.dialled = self.reused = 0
        self.first, self.whole = Times(), Times()
        self.unsettled: Callable[[], int] = int
        self.clients: Callable[[], int] = int
        self.silent: Callable[[], float] = float
        self.log_bytes: Callable[[], int] = int
        self.routing = Tally()
        self.logged = Written()
        registry.register(self)

    def answered(self, route: tuple[str, int], counts: Counts, *, whole: float, first: float | None) -> None:
        """A request was, by its path with this status: after so many seconds, the first byte of it after so many."""
        self.requests[route] += 1
        self.whole.observe(whole)
        if first is not None:
            self.first.observe(first)
        self.input_tokens += counts.input_tokens
        self.output_tokens += counts.output_tokens

    def collect(self) -> Iterator[Metric]:
        """Every figure."""
        requests = CounterMetricFamily("bessemer_gateway_requests", "Requests answered.", labels=["route", "code"])
        for (route, code), count in self.requests.items():
            requests.add_metric([route, str(code)], count)
        yield requests
        tokens = CounterMetricFamily("bessemer_gateway_tokens", "Tokens metered.", labels=["direction"])
        tokens.add_metric(["input"], self.input_tokens)
        tokens.add_metric(["output"], self.output_tokens)
        yield tokens
        dials = CounterMetricFamily(
            "bessemer_gateway_replica_connections", "Connections to replicas that requests went over.", labels=["how"]
        )
        dials.add_metric(["dialled"], self.dialled)
        dials.add_metric(["kept"], self.reused)
        yield dials
        yield self.first.told("bessemer_gateway_first_token_seconds", "Time to the first byte of an answer.")
        yield self.whole.told("bessemer_gateway_answer_seconds", "Time to the end of an answer.")
        yield from self._routed()
        yield GaugeMetricFamily("bessemer_gateway_busy", "Requests being answered.", value=self.busy)
        yield GaugeMetricFamily("bessemer_gateway_connections", "Connections of clients.", value=self.clients())
        yield GaugeMetricFamily(
            "bessemer_gateway_unsettled_records", "Usage that the api does not have yet.", value=self.unsettled()
        )
        yield GaugeMetricFamily(
            "bessemer_gateway_silent_seconds", "Since the api was last heard of keys.", value=self.silent()
        )
        yield CounterMetricFamily(
            "bessemer_gateway_retries", "Replicas that were lost before they answered.", value=self.retries
        )

        logged = CounterMetricFamily(
            "bessemer_gateway_logged_requests", "Prompts and answers for tenants' own places.", labels=["outcome"]
        )
        logged.add_metric(["written"], self.logged.written)
        logged.add_metric(["dropped"], self.logged.dropped)
        yield logged
        yield GaugeMetricFamily("bessemer_gateway_log_bytes", "Of these that wait in memory.", value=self.log_bytes())

    def _routed(self) -> Iterator[Metric]:
        """Who was asked, and why."""
        routing = self.routing
        chosen = CounterMetricFamily(
            "bessemer_gateway_choices", "Requests that several replicas could answer, by what decided.", labels=["by"]
        )
        for name in ("session", "prefix", "ring", "load"):
            chosen.add_metric([name], getattr(routing, name))
        yield chosen
        yield CounterMetricFamily("bessemer_gateway_ejections", "Replicas that were ejected.", value=routing.ejected)
        yield GaugeMetricFamily("bessemer_gateway_waiting", "Requests that wait for a slot.", value=routing.waiting)
        yield CounterMetricFamily("bessemer_gateway_waited", "Requests that had to wait.", value=routing.queued)
        yield CounterMetricFamily(
            "bessemer_gateway_turned_away", "Requests for which there was no room to wait.", value=routing.turned_away
        )
        yield CounterMetricFamily(
            "bessemer_gateway_fallbacks", "Times that another endpoint stood in for one.", value=routing.fell_over
        )

"""What the gateway tells Prometheus: not on its own listener, where each customer would see what the others use."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class GatewayMetrics:
    """Counters of one gateway process; no label holds a tenant's free text."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter("bessemer_gateway_requests", "Requests answered.", ["route", "code"], registry=registry)
        self.tokens = Counter("bessemer_gateway_tokens", "Tokens metered.", ["direction"], registry=registry)
        self.first = Histogram(
            "bessemer_gateway_first_token_seconds",
            "Time to the first byte of an answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.whole = Histogram(
            "bessemer_gateway_answer_seconds", "Time to the end of an answer.", buckets=_SECONDS, registry=registry
        )
        self.busy = Gauge("bessemer_gateway_busy", "Requests being answered.", registry=registry)
        self.unsettled = Gauge(
            "bessemer_gateway_unsettled_records", "Usage that the api does not have yet.", registry=registry
        )
        self.retries = Counter(
            "bessemer_gateway_retries", "Replicas that were lost before they answered.", registry=registry
        )

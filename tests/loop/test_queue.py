"""Names take turns by kind and tenant."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from bessemer.core.clock import FakeClock
from bessemer.core.resource import Key
from bessemer.loop.metrics import Metrics
from bessemer.loop.queue import Queue


async def test_a_tenants_thousand_names_keep_nobody_elses_waiting() -> None:
    metrics = Metrics(CollectorRegistry())
    queue = Queue(FakeClock(), {kind: metrics.of(kind) for kind in ("Instance", "Host")})
    for n in range(1000):
        queue.add(Key("Instance", "storm--one" if n % 2 else "storm--two", f"vm-{n:03}"))
    queue.add(Key("Instance", "calm--one", "mine"))
    queue.add(Key("Host", "", "h"))
    first = [(await queue.take())[0].name for _ in range(6)]
    assert first == ["vm-000", "h", "mine", "vm-001", "vm-002", "vm-003"]
    assert len(queue) == 996
    for _ in range(996):
        key, _ = await queue.take()
        queue.finish(key, 0)
    assert len(queue) == 0

"""What an agent counts. Two hundred fake agents of one process share one `AgentMetrics`: nothing here names a host."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from bessemer.loop import Metrics


class AgentMetrics:
    """The families. A registry takes one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"bessemer_agent_{name}", text, labels, registry=registry)

        self.loop = Metrics(registry)
        self.heartbeats = counter("heartbeats", "Heartbeats, heard or missed.", "result")
        self.statuses = counter("statuses", "Statuses sent: heard, unheard, unwanted, refused.", "result")
        self.reports = counter("reports", "Host reports sent: heard, unheard.", "result")
        self.relists = counter("relists", "Complete lists read.", "kind")
        self.disconnects = counter("disconnects", "Watches and stream sockets that ended.", "what")
        self.certificates = counter("certificates", "Certificates received.")
        self.orphans = counter("orphans", "Effects of no Claim that were removed.")
        self.evictions = counter("content_evictions", "Contents that were removed from hosts' caches to make room.")
        self.content = Gauge("bessemer_agent_content_bytes", "What hosts' caches of content hold.", registry=registry)
        self.streams = Gauge("bessemer_agent_streams", "Logs and consoles being relayed.", registry=registry)

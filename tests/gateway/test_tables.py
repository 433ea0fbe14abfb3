"""What the gateway keeps of what it hears."""

from __future__ import annotations

from bessemer.gateway import Tables
from tests.gateway.harness import claim, endpoint


def test_endpoints_that_come_and_go_leave_nothing() -> None:
    tables = Tables()
    for number in range(100):
        tables.apply(endpoint(f"e{number}"))
        tables.apply(endpoint(f"e{number}", gone=True))
    assert tables.endpoints == {}
    assert tables._homeless == {}


def test_a_replica_outlives_its_endpoint_until_its_claim_goes() -> None:
    tables = Tables()
    tables.apply(endpoint("words"))
    tables.apply(claim("c", "https://10.0.0.1:8443", of="words"))
    tables.apply(endpoint("words", gone=True))
    tables.apply(endpoint("words"))
    entry = tables.endpoints["acme--lab", "words"]
    assert [replica.host for replica in entry.replicas.values()] == ["h1"]
    tables.apply(endpoint("words", gone=True))
    tables.apply(claim("c", "https://10.0.0.1:8443", of="words", gone=True))
    assert tables._homeless == {}

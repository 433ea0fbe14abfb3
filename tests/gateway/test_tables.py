"""What the gateway keeps of what it hears."""

from __future__ import annotations

from dataclasses import replace

import orjson

from bessemer.core.notices import Notice
from bessemer.core.resource import Change
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


def test_a_replica_that_was_told_has_nothing_new_where_another_answers() -> None:
    """It keeps what it is answering, and is asked before nobody is."""
    tables = Tables()
    tables.apply(endpoint("words"))
    for uid in "ab":
        tables.apply(claim(uid, f"https://10.0.0.{ord(uid)}:8443", of="words"))
    entry = tables.endpoints["acme--lab", "words"]
    entry.replicas["a"].busy = 3
    entry.replicas["b"].busy = 5
    tables.apply(with_notice(claim("a", f"https://10.0.0.{ord('a')}:8443", of="words")))
    assert entry.replicas["a"].busy == 3
    chosen = entry.choose(0.0)
    assert chosen is not None
    assert chosen.claim_uid == "b", "busier, and it stays"
    last = entry.choose(0.0, tried=frozenset("b"))
    assert last is not None
    assert last.claim_uid == "a"


def with_notice(change: Change) -> Change:
    body = orjson.loads(change.body)
    body["metadata"]["annotations"] = Notice(1_750_000_000, "Moved").annotations()
    return replace(change, body=orjson.dumps(body))

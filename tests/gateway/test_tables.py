"""What the gateway keeps of what it hears."""

from __future__ import annotations

from dataclasses import replace

import orjson

from bessemer.core.notices import Notice
from bessemer.core.resource import Change
from bessemer.gateway import Tables
from bessemer.gateway.route import FULL, Sought
from tests.gateway.harness import change, claim, endpoint


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
    told, other = (
        claim(name, f"https://10.0.0.{number}:8443", of="words") for number, name in enumerate("ab", start=1)
    )
    for one in (told, other):
        tables.apply(one)
    entry = tables.endpoints["acme--lab", "words"]
    entry.replicas[told.uid].busy, entry.replicas[other.uid].busy = 3, 5
    tables.apply(with_notice(told))
    assert entry.replicas[told.uid].busy == 3
    assert entry.pool.choose(Sought(), 0.0) is entry.replicas[other.uid], "busier, and it stays"
    assert entry.pool.choose(Sought(), 0.0, tried=frozenset([other.uid])) is entry.replicas[told.uid]


def with_notice(change: Change) -> Change:
    body = orjson.loads(change.body)
    body["metadata"]["annotations"] = Notice(1_750_000_000, "Moved").annotations()
    return replace(change, body=orjson.dumps(body))


def test_replicas_of_two_revisions_have_each_their_own() -> None:
    """Slots and the model that is billed; what is held for a request is what any of them may come to."""
    tables = Tables()
    spec = {"model": "new", "slots": 8, "contextTokens": 1024}
    known = [{"revision": "a", "template": {"model": "old"}}, {"revision": "b", "template": {"model": "new"}}]
    tables.apply(change("Endpoint", "words", {"spec": spec, "status": {"revisions": known}}))
    for name, revision, slots, context in (("one", "a", 2, 4096), ("two", "b", 8, 1024)):
        made = claim(name, f"https://10.0.0.{slots}:8443", of="words")
        body = orjson.loads(made.body)
        body["metadata"]["labels"] = {"bessemer.dev/revision": revision}
        body["spec"]["intent"] = {"slots": slots, "contextTokens": context}
        tables.apply(replace(made, body=orjson.dumps(body)))
    entry = tables.endpoints["acme--lab", "words"]
    one, two = sorted(entry.replicas.values(), key=lambda replica: replica.slots)
    assert (one.model, two.model, entry.context_tokens) == ("old", "new", 4096)
    assert (entry.pool.slots, entry.pool.total) == (2, 10)
    for replica, busy in ((one, 2), (two, 7)):
        for _ in range(busy):
            entry.pool.began(replica, 1)
    assert entry.pool.choose(Sought(), 0.0) is two, "one more"
    entry.pool.began(two, 1)
    assert entry.pool.choose(Sought(), 0.0) is FULL
    tables.apply(claim("one", "https://10.0.0.2:8443", of="words", gone=True))
    tables.apply(change("Endpoint", "words", {"spec": spec, "status": {"revisions": known}}))
    assert tables.endpoints["acme--lab", "words"].context_tokens == 1024

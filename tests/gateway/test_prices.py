"""What tokens of a request may cost: by whoever may answer it, as records say them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from bessemer.core.resource import Change
from bessemer.gateway.chains import models_of
from bessemer.gateway.tables import Tables
from tests.gateway.harness import PROJECT, change, endpoint


def taken(name: str, *, of: str, model: str = "", owner: str = "", gone: bool = False) -> Change:
    """A replica as the control side marks it: what it was made of, and of which project that is."""
    spec = {"host": "h1", "workload": {"kind": "Endpoint", "name": of, "uid": "u", "replica": 0}, "intent": {}}
    metadata: dict[str, Any] = {"labels": {"bessemer.dev/model-of": owner} if owner else {}}
    if model:
        metadata["annotations"] = {"bessemer.dev/template": orjson.dumps({"model": model}).decode()}
    status = {"phase": "Running", "address": "https://10.0.0.2:8443"}
    return change("Claim", name, {"metadata": metadata, "spec": spec, "status": status}, gone=gone)


def answers(of: Tables, name: str) -> set[str]:
    return set(of.endpoints[PROJECT, name].answers)


def test_who_answers_is_who_the_replica_was_made_of_not_what_its_endpoint_says_by_now() -> None:
    of = Tables()
    of.apply(endpoint("chat", model="big"))
    assert answers(of, "chat") == {"big", "acme--lab/big"}, "whose it will be is not known before one is there"
    of.apply(taken("c1", of="chat", model="big"))
    assert answers(of, "chat") == {"big"}
    of.apply(endpoint("chat", model="tiny"))
    assert answers(of, "chat") == {"big", "tiny"}
    of.apply(taken("c2", of="chat", model="tiny", owner="acme--lab"))
    assert answers(of, "chat") == {"big", "acme--lab/tiny", "tiny"}
    of.apply(taken("c1", of="chat", gone=True))
    of.apply(endpoint("chat", model="tiny"))
    assert answers(of, "chat") == {"acme--lab/tiny"}
    (replica,) = of.endpoints[PROJECT, "chat"].replicas.values()
    assert replica.model == "acme--lab/tiny"


def test_a_claim_of_before_says_nothing_and_is_of_its_endpoint() -> None:
    of = Tables()
    of.apply(taken("c1", of="chat"))
    of.apply(endpoint("chat", model="big"))
    assert answers(of, "chat") == {"big"}


@pytest.mark.parametrize("name", ["gpt-4o", "acme--lab/tiny", "llama:legal"])
def test_a_service_elsewhere_is_called_as_none_of_ours(name: str) -> None:
    of = Tables()
    of.apply(change("Endpoint", "far", {"spec": {"external": {"url": "https://ai.example.org/v1", "model": name}}}))
    assert answers(of, "far") == {f"external/{name}"}
    assert of.endpoints[PROJECT, "far"].model == f"external/{name}"


def test_whoever_may_answer_instead_is_held_for_too() -> None:
    of = Tables()
    of.apply(endpoint("near", model="tiny", fallbacks=["split", "gone"]))
    of.apply(taken("c1", of="near", model="tiny"))
    backends = [{"endpoint": "big", "weight": 1}, {"endpoint": "none", "weight": 0}]
    of.apply(change("Endpoint", "split", {"spec": {"backends": backends, "fallbacks": ["near"]}}))
    of.apply(endpoint("big", model="big"))
    of.apply(taken("c2", of="big", model="big"))
    of.apply(endpoint("none", model="dear"))
    assert set(models_of(of.endpoints, of.endpoints[PROJECT, "near"])) == {"tiny", "big"}
    assert set(models_of(of.endpoints, of.endpoints[PROJECT, "split"])) == {"tiny", "big"}

"""Who answers for an endpoint, as its page says it: rollouts, scale, backends by weight, a service elsewhere."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from bessemer.portal import reading
from bessemer.portal.desk import Desk
from bessemer.portal.facts import ClaimFact, EndpointFact, PlanFact, TenantFact
from bessemer.portal.pages import endpoints, made, playing
from bessemer.portal.pages.endpoints import facts
from bessemer.portal.parts import Row

READY = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Ready"}


def fact(name: str = "chat", *, spec: dict[str, Any], status: dict[str, Any] | None = None) -> EndpointFact:
    meta = {"name": name, "namespace": "acme--lab", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return reading.endpoint({"kind": "Endpoint", "metadata": meta, "spec": spec, "status": status or READY})


class Others:
    """A desk that knows these endpoints and nothing else."""

    def __init__(self, *known: EndpointFact) -> None:
        self.known = {one.name: one for one in known}

    def find(self, _kind: type, name: str, *, project: str = "") -> EndpointFact | None:
        assert project == "acme--lab"
        return self.known.get(name)


def said(one: EndpointFact, *known: EndpointFact) -> list[tuple[str, str, str]]:
    """(what, state, why) of each row."""
    rows = cast("list[Row]", made.rows(cast("Desk", Others(*known)), one))
    return [(row.cells[0].text, row.cells[1].text, row.cells[2].text) for row in rows]


@pytest.mark.parametrize(
    ("updated", "ready", "word"), [(2, 2, "Current"), (1, 2, "Rolling out, 1 of 2"), (2, 1, "Rolling out, 2 of 2")]
)
def test_a_rollout_says_how_far_it_is(updated: int, ready: int, word: str) -> None:
    templates = [
        {"model": "small", "flavor": "f"},
        {"model": "large", "flavor": "f", "slots": 8, "adapters": ["tuned"]},
    ]
    revisions = [{"revision": f"r{at}", "number": at, "template": one} for at, one in enumerate(templates, 1)]
    status = {**READY, "revision": "r2", "revisions": revisions, "updatedReplicas": updated, "readyReplicas": ready}
    one = fact(spec={"model": "large", "flavor": "f", "replicas": 2, "adapters": ["tuned"]}, status=status)
    assert said(one) == [
        ("Revision 2", word, "large, f, 8 slots, adapters tuned"),
        ("Revision 1", "Before", "small, f"),
    ]
    assert [choice.model for choice in playing.choices(one)] == ["chat", "chat:tuned"]


def test_what_scales_says_how_many_are_wanted_and_why() -> None:
    status = {**READY, "wantedReplicas": 3, "readyReplicas": 1, "scaling": {"wanted": 3, "why": "9 wait."}}
    one = fact(spec={"model": "m", "flavor": "f", "scale": {"min": 0, "max": 4}}, status=status)
    assert one.wanted == 3
    assert said(one) == [("Scale", "1 of 3", "9 wait.")]
    asleep = {**READY, "scaling": {"wanted": 0, "why": "Nobody asks."}, "wantedReplicas": 0}
    one = fact(spec={"model": "m", "flavor": "f", "scale": {"min": 0, "max": 4}}, status=asleep)
    assert said(one) == [("Scale", "Asleep", "Nobody asks.")]


def test_backends_say_their_part_and_fallbacks_whether_they_are_there() -> None:
    spec = {
        "backends": [{"endpoint": "old", "weight": 9}, {"endpoint": "new", "weight": 1}],
        "fallbacks": ["gone"],
    }
    one, old, new = fact(spec=spec), fact("old", spec={"model": "m"}), fact("new", spec={"model": "m"})
    assert said(one, old, new) == [
        ("old", "Ready", "90 % of requests, weight 9"),
        ("new", "Ready", "10 % of requests, weight 1"),
        ("gone", "Missing", "asked where nobody here answers"),
    ]
    assert (one.wanted, endpoints.answering(one)) == (0, "answered by old, new")


def test_a_service_elsewhere_is_said_to_be_elsewhere() -> None:
    one = fact(spec={"external": {"url": "https://models.example/v1", "model": "their-70b"}})
    assert said(one)[0][0] == "their-70b"
    assert (one.wanted, endpoints.answering(one)) == (0, "their-70b, elsewhere")


def test_whoever_looks_at_an_endpoint_sees_where_its_prompts_go() -> None:
    def shown(**more: Any) -> str:
        (found,) = [one for one in facts(fact(**more)) if one.id == "fact-prompts"]
        return str(found.value)

    assert shown(spec={"model": "m"}) == "are not logged"
    s3 = {"bucket": "logs", "prefix": "p/", "endpoint": "https://s3.example.org"}
    spec = {"model": "m", "logging": {"s3": s3, "retentionDays": 7}}
    assert shown(spec=spec) == "are logged to s3://logs/p at https://s3.example.org, kept for 7 days"
    failing = {"conditions": [{"type": "Logging", "status": "False", "reason": "NoKeys"}]}
    assert shown(spec=spec, status=failing).endswith("; NoKeys")


class Priced:
    """A desk that knows these claims, and a plan."""

    def __init__(self, *claims: ClaimFact, **spec: Any) -> None:
        self.claims = {one.name: one for one in claims}
        self.plan = reading.plan({"metadata": {"name": "standard"}, "spec": spec})

    def find(self, kind: type, name: str, *, project: str = "") -> object:
        return {TenantFact: None, PlanFact: self.plan}.get(kind) if kind is not ClaimFact else self.claims.get(name)


def taken(name: str, model: str = "", **labels: str) -> ClaimFact:
    notes = {"bessemer.dev/template": json.dumps({"model": model})} if model else {}
    return reading.claim({"metadata": {"name": name, "namespace": "acme--lab", "annotations": notes, "labels": labels}})


def test_what_tokens_cost_is_of_who_answers() -> None:
    rate = {"millionInputTokens": 1, "millionCachedInputTokens": 1, "millionOutputTokens": 7_000_000}
    models = {"large": rate, "external/gpt": {**rate, "millionOutputTokens": 5_000_000}}
    rates = {"millionOutputTokens": 200_000}
    status = {**READY, "replicas": [{"replica": at, "claim": f"c{at}", "host": "h", "phase": "R"} for at in (0, 1)]}
    of = {"large": fact(spec={"model": "large", "flavor": "f"}, status=status)}
    of["far"] = fact(spec={"external": {"url": "https://ai.example.org/v1", "model": "gpt"}})

    def cost(desk: Priced, name: str = "large") -> str:
        return endpoints.tokens_of(cast("Desk", desk), of[name]).removesuffix(" per million tokens out")

    own = {"bessemer.dev/model-of": "acme--lab"}
    assert cost(Priced(rates=rates)) == "€ 0.20"
    assert cost(Priced(rates=rates, models=models)) == "", "nobody answers yet"
    assert cost(Priced(taken("c0"), rates=rates, models=models)) == ""
    assert cost(Priced(taken("c0", "large"), rates=rates, models=models)) == "€ 7.00"
    assert cost(Priced(taken("c0", "large", **own), rates=rates, models=models)) == "€ 0.20", "it only has the name"
    both = taken("c0", "large"), taken("c1", "small")
    assert cost(Priced(*both, rates=rates, models=models)) == "up to € 7.00"
    assert cost(Priced(rates=rates, models=models), "far") == "€ 5.00"

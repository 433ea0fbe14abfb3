"""How a project's endpoints answered, as the api tells it: whose it is, over time, and what cannot be asked."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.core.resource import API_VERSION
from tests.api.world import BASE, GATEWAY, World, usage_batch, usage_record

WHERE = f"{BASE}/projects/acme--lab/usage"


async def served(w: World, *records: dict[str, Any]) -> None:
    now = int(w.clock.now())
    said = [usage_record(**{"at": now, "requestId": f"r{n}", **one}) for n, one in enumerate(records)]
    assert (await w.call("POST", f"{BASE}/usage", usage_batch(said), peer=GATEWAY)).code == 200


async def test_a_row_for_each_name_the_largest_first(w: World) -> None:
    plan = {"currency": "EUR", "rates": {"millionInputTokens": 2_000_000, "millionOutputTokens": 3_000_000}}
    priced = {"apiVersion": API_VERSION, "kind": "PricePlan", "metadata": {"name": "standard"}, "spec": plan}
    assert (await w.call("POST", f"{BASE}/priceplans", priced)).code == 201
    pace = {"firstTokenMs": 40, "latencyMs": 140, "outputTokens": 11}
    await served(
        w,
        {"inputTokens": 2_000_000, "apiKey": "big", **pace},
        {"inputTokens": 5, "apiKey": "small", "ended": "cut", "replica": "c1", **pace},
        {"inputTokens": 5, "apiKey": "small", "owner": "rob", "asked": "front"},
    )
    by_key = (await w.call("GET", f"{WHERE}?by=key")).json
    assert [(row["name"], row["requests"]) for row in by_key["rows"]] == [("big", 1), ("small", 2)]
    big, small = by_key["rows"]
    assert (big["inputTokens"], big["outputTokens"], big["micro"]) == (2_000_000, 11, 4_000_033)
    assert (small["cut"], small["cancelled"], small["firstTokenMs"]["count"]) == (1, 0, 1)
    assert small["interTokenMs"]["mean"] == 10.0
    assert [step["requests"] for step in small["steps"]] == [2]
    assert (by_key["total"]["requests"], by_key["left"], by_key["currency"]) == (3, 0, "EUR")
    by_member = (await w.call("GET", f"{WHERE}?by=member&most=1")).json
    assert [(row["name"], row["requests"]) for row in by_member["rows"]] == [("", 2)]
    assert (by_member["left"], by_member["total"]["requests"]) == (1, 3)
    one = (await w.call("GET", f"{WHERE}?by=endpoint&key=small")).json
    assert [(row["name"], row["requests"], row["firstTokenMs"]["count"]) for row in one["rows"]] == [("e", 2, 1)]
    none = (await w.call("GET", f"{WHERE}?endpoint=other")).json
    assert (none["rows"], none["total"]["requests"], none["total"]["firstTokenMs"]) == ([], 0, None)


async def test_what_is_shown_of_money_goes_by_who_answered(w: World) -> None:
    """Whatever it is summed by; a plan that names no model shows bare names, as of before there were others."""
    rates = {"millionInputTokens": 2_000_000, "millionCachedInputTokens": 0, "millionOutputTokens": 0}
    spec = {"rates": {"millionInputTokens": 1_000_000}, "models": {"big": rates, "external/gpt": rates}}
    for name, said in (("standard", {"rates": spec["rates"]}), ("by-model", spec)):
        made = {"apiVersion": API_VERSION, "kind": "PricePlan", "metadata": {"name": name}, "spec": said}
        assert (await w.call("POST", f"{BASE}/priceplans", made)).code == 201
    models = ("big", "acme--lab/big", "big:tuned", "external/gpt")
    await served(w, *({"inputTokens": 10, "model": model} for model in models))
    plain = (await w.call("GET", f"{WHERE}?by=model")).json
    assert {row["name"]: (row["requests"], row["micro"]) for row in plain["rows"]} == {"big": (3, 30), "gpt": (1, 10)}
    patch = {"spec": {"pricePlan": "by-model"}}
    assert (await w.call("PATCH", f"{BASE}/tenants/acme", patch, media="application/merge-patch+json")).code == 200
    found = (await w.call("GET", f"{WHERE}?by=model")).json
    assert {row["name"]: row["micro"] for row in found["rows"]} == dict.fromkeys(models, 20) | {models[1]: 10}
    (row,) = (await w.call("GET", f"{WHERE}?by=key")).json["rows"]
    assert (row["micro"], row["steps"][0]["micro"], found["total"]["micro"]) == (70, 70, 70)
    bill = (await w.call("GET", f"{BASE}/projects/acme--lab/invoice?from=0&to={int(w.clock.now()) + 1}")).json
    assert (bill["totalMicro"], {line["model"] for line in bill["lines"]}) == (70, set(models))


async def test_how_fine_it_is_follows_from_the_time_that_is_asked(w: World) -> None:
    await served(w, {})
    now = int(w.clock.now())
    hour = (await w.call("GET", f"{WHERE}?from={now - 3600}")).json
    assert (hour["step"], hour["from"] % 300, hour["to"] % 300, hour["total"]["requests"]) == (300, 0, 0, 1)
    month = (await w.call("GET", f"{WHERE}?from={now - 30 * 86_400}")).json
    assert (month["step"], month["from"] % 3600, month["total"]["requests"]) == (43_200, 0, 1)
    old = (await w.call("GET", f"{WHERE}?from={now - 9 * 86_400}&to={now - 9 * 86_400 + 60}&step=300")).json
    assert old["step"] == 3600, "of then hours alone are kept"


@pytest.mark.parametrize(
    "query",
    ["by=colour", "step=7", "from=10&to=5", "from=1&step=300", "step=-300", "from=x", "from=1&to=99999999999999"],
)
async def test_what_means_nothing_is_refused(w: World, query: str) -> None:
    assert (await w.call("GET", f"{WHERE}?{query}")).code == 400


async def test_a_bill_is_shown_beside_what_engines_counted(w: World) -> None:
    await served(w, {"replica": "c1"}, {"replica": "c1", "ended": "cancelled"}, {"replica": "c2", "ended": "unpaid"})
    project = (await w.call("GET", f"{BASE}/projects/acme--lab")).json["metadata"]["uid"]
    found = (await w.call("GET", f"{BASE}/projects/acme--lab/reconcile")).json
    assert found["projectUid"] == project
    one, two = found["replicas"]
    assert (one["replica"], one["state"], one["gone"], one["counted"]) == ("c1", "unknown", True, None)
    assert one["billed"] == {"requests": 2, "inputTokens": 2, "outputTokens": 0}
    assert one["ended"] == {"cancelled": 1}
    assert (two["billed"]["requests"], two["ended"]) == (0, {"unpaid": 1})

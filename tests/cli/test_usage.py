"""``bessemer usage``: a table with heights over time, a page of plots, and what cannot be meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bessemer.cli.usage import charts_of, usage_text
from bessemer.core.values import UsageBatch, UsageRecord
from tests.api.world import World
from tests.cli.conftest import Cli
from tests.cli.test_plot import charts_in

PROJECT = ("-n", "acme--lab")


def step(at: int, requests: int, **more: Any) -> dict[str, Any]:
    first = {"count": requests, "mean": 41.0, "p50": 40.0, "p95": 1250.0, "p99": 1400.0}
    return {
        "at": at,
        "requests": requests,
        "inputTokens": 100 * requests,
        "cachedInputTokens": 0,
        "outputTokens": 10 * requests,
        "micro": 50 * requests,
        "firstTokenMs": first,
        "interTokenMs": None,
        **more,
    }


FOUND = {
    "by": "key",
    "from": 0,
    "to": 1500,
    "step": 300,
    "currency": "EUR",
    "left": 0,
    "rows": [
        {"name": "app", **step(0, 9), "steps": [step(0, 8), step(900, 1)]},
        {"name": "", **step(0, 3), "steps": [step(600, 3)]},
    ],
    "total": {**step(0, 12), "steps": [step(0, 8), step(600, 3), step(900, 1)]},
}


def test_a_table_of_names_and_all_of_them() -> None:
    head, app, nobody, total = usage_text(FOUND).splitlines()
    assert " ".join(head.split()) == "KEY REQUESTS IN CACHED OUT COST FIRST P50 P95 NEXT P95 OVER TIME"
    assert app.split() == [
        "app",
        "9",
        "900",
        "0",
        "90",
        "EUR",
        "0.000450",
        "40.0",
        "ms",
        "1.25",
        "s",
        "-",
        "-",
        "█",
        "▁",
    ]
    assert app.endswith("█  ▁")
    assert nobody.startswith("-")
    assert total.startswith("in all")
    narrow = usage_text({**FOUND, "left": 4}, within=90).splitlines()
    assert "OVER TIME" not in narrow[0]
    assert "and 4 more" in narrow[3]
    assert usage_text({**FOUND, "rows": []}) == "Nothing was answered."


def test_plots_are_over_time_and_say_what_is_not_known() -> None:
    charts = {chart["title"]: chart for chart in charts_of(FOUND)}
    requests, first = charts["Requests"], charts["Until the first token, half of all"]
    assert (requests["x"], requests["time"]) == ([0, 300, 600, 900, 1200], True)
    assert [line["values"] for line in requests["lines"]] == [[8, 0, 0, 1, 0], [0, 0, 3, 0, 0]]
    assert first["lines"][0]["values"] == [40.0, None, None, 40.0, None]
    assert charts["Cost, at present prices"]["lines"][0]["values"][0] == 0.0004


def test_a_bill_that_its_engine_does_not_bear_out_fails(cli: Cli) -> None:
    """Until the engine was heard, nothing says that it is right."""
    assert cli("usage", "reconcile", *PROJECT).raw == "Nothing was billed, and nothing counted.\n"
    assert "say whose" in cli("usage", "reconcile").err

    async def spend(w: World) -> None:
        said = {"status": 200, "project": "acme--lab", "endpoint": "smol", "endpoint_uid": "u", "api_key": "app"}
        record = UsageRecord(at=1, request_id="r", model="m", input_tokens=10, output_tokens=5, replica="claim", **said)
        await w.store.ledger.settle(UsageBatch(gateway_uid="g", spool_uid="s", first_sequence=1, records=[record]))

    cli.do(spend)
    told = cli("usage", "reconcile", *PROJECT)
    assert told.code == 1
    assert told.raw.splitlines()[1].split()[:9] == ["smol", "claim", "-", "1", "10", "5", "-", "-", "unknown"]
    assert told.raw.endswith("1 replicas: 1 unknown.\n")
    (found,) = json.loads(cli("usage", "reconcile", *PROJECT, "-o", "json").raw)["replicas"]
    assert found["state"] == "unknown"


def test_usage_is_told_and_plotted(cli: Cli, tmp_path: Path) -> None:
    async def spend(w: World) -> None:
        record = UsageRecord(
            at=int(w.clock.now()),
            request_id="r",
            project="acme--lab",
            endpoint="paced",
            endpoint_uid="v",
            api_key="quick",
            model="m",
            status=200,
            input_tokens=10,
            output_tokens=5,
            first_token_ms=20,
            latency_ms=60,
        )
        await w.store.ledger.settle(UsageBatch(gateway_uid="g", spool_uid="paced", first_sequence=1, records=[record]))

    cli.do(spend)
    window = ("--since", "2025-06-15")
    page = tmp_path / "usage.html"
    told = cli("usage", *PROJECT, *window, "--by", "key", "--plot", str(page))
    assert (told.code, "quick" in told.raw, "10.0 ms" in told.raw) == (0, True, True)
    assert charts_in(page.read_text())[0]["title"] == "Requests"
    found = json.loads(cli("usage", *PROJECT, *window, "-o", "json").raw)
    assert ("paced", 5) in [(row["name"], row["outputTokens"]) for row in found["rows"]]
    for wrong, words in (
        (("usage",), "say whose"),
        (("usage", *PROJECT, "--by", "colour"), "--by colour"),
        (("usage", *PROJECT, "--since", "soon"), "not a time"),
        (("usage", *PROJECT, "--plot", "x.png"), "plots are a page"),
        (("usage", *PROJECT, "--since", "2999-01-01"), "yet to come"),
    ):
        refused = cli(*wrong)
        assert refused.code != 0
        assert words in refused.err

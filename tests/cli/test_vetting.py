"""``bessemer model fit``, ``vet`` and ``price``: what is asked for, what is shown of what was found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bessemer.cli.work.vetting import lengths_of
from bessemer.core.errors import Invalid
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from bessemer.drivers.weights.fake import SMALL
from tests.cli.conftest import PROJECT, Cli

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(f"2023-11-16,{n * 10},{n}\n" for n in range(1, 101))
POINTS = [
    {
        **dict.fromkeys(("ttftP50", "ttftP95", "interTokenP50", "interTokenP95", "endP50", "endP95"), 12.5),
        "rate": rate,
        "requests": 10,
        "failed": 0,
        "held": rate < 4,
        "read": 500,
        "cached": 100,
        "written": 200,
        "seconds": 10.0,
        "busySeconds": 8.0,
        "lateMs": 0.1,
    }
    for rate in (1.0, 2.0, 4.0)
]
PRICES = {
    "currency": "EUR",
    "claimHourMicro": 45_000,
    "marginPercent": 20,
    "targetLoadPercent": 70,
    "hourMicro": 54_000,
    "millionInputTokens": 30_000,
    "millionCachedInputTokens": 3_000,
    "millionOutputTokens": 400_000,
}
VETTED = {
    "vetting": "v",
    "at": "2025-06-15T15:06:40Z",
    "digest": "sha256:x",
    "flavor": "serve",
    "engine": "llamacpp",
    "contextTokens": 2048,
    "slots": 4,
    "rate": 2.0,
    "inputPerSecond": 60.0,
    "outputPerSecond": 20.0,
    "ttftMs": 12.5,
    "interTokenMs": 12.5,
    "memoryBytes": 300 << 20,
    "estimateBytes": 290 << 20,
}


def measured(cli: Cli, name: str, *, failed: str = "", **more: Any) -> None:
    """What the control side would write."""
    body = json.loads(cli("get", "vetting", name, "-n", PROJECT, "-o", "json").raw)
    check = {"name": "tools", "verdict": "Failed" if failed else "Passed", "seen": "no call of the tool"}
    body["status"] = {
        "phase": "Failed" if failed else "Succeeded",
        "trouble": failed,
        "checks": [check],
        "points": POINTS,
        "memoryBytes": 300 << 20,
        "estimateBytes": 290 << 20,
        "prices": PRICES,
        "vetted": VETTED,
        **more,
    }
    del body["metadata"]["resourceVersion"]
    cli.do(lambda w: w.store.objects.replace(body, CONTROLLER, part="status"))


@pytest.fixture
def model(cli: Cli) -> Cli:
    """A model that is here, and flavors."""
    cli("model", "add", "hub:tiny/llama", "--no-wait")
    body = json.loads(cli("model", "show", "llama", "-o", "json").raw)
    body["status"] = {"phase": "Ready", "format": "gguf", "digest": "sha256:" + "ab" * 32, "facts": SMALL.dump()}
    del body["metadata"]["resourceVersion"]
    cli.do(lambda w: w.store.objects.replace(body, CONTROLLER, part="status"))
    for name, memory in (("serve", "1Gi"), ("tiny", "64Mi")):
        spec = {"cores": 1, "memory": memory}
        made = {"apiVersion": "bessemer.dev/v1beta1", "kind": "Flavor", "metadata": {"name": name}, "spec": spec}
        cli("apply", "-f", "-", stdin=json.dumps(made))
    return cli


def test_what_fits_is_told_by_flavor_and_context(model: Cli) -> None:
    said = model("model", "fit", "llama").raw
    rows = {line.split()[0]: line for line in said.splitlines()[3:]}
    assert rows["serve"].split()[1:] == ["1Gi", "16", "3"]
    assert rows["tiny"].split()[1:4] == ["64Mi", "-", "-"]
    assert "are there of 64 MiB" in rows["tiny"]
    found = json.loads(model("model", "vet", "llama", "--dry-run", "-o", "json").raw)
    assert found["flavors"][0]["slots"] == {"2048": 16, "8192": 3}
    packed = model("model", "fit", "llama", "--engine", "llamacpp", "--argument", "cache-type-k=q8_0", "-o", "json")
    assert json.loads(packed.raw)["flavors"][0]["slots"]["8192"] > 3
    assert "does not serve" in model("model", "fit", "llama", "--engine", "vllm").err


def test_a_vetting_is_asked_for_as_it_was_said(model: Cli, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(AZURE)
    words = ["--flavor", "serve", "-n", PROJECT, "--name", "asked", "--slots", "2", "--ttft", "500", "--shared", "30"]
    words += ["--trace", str(trace), "--rate", "1", "--rate", "2.5", "--seconds", "5", "--may-fail", "tools"]
    words += ["--engine", "llamacpp", "--argument", "cache-type-k=q8_0", "--argument", "ubatch-size=128"]
    said = model("model", "vet", "llama", *words, "--publish", "--no-wait")
    assert (said.code, said.raw) == (0, "vetting/asked created\n")
    spec = json.loads(model("get", "vetting", "asked", "-n", PROJECT, "-o", "json").raw)["spec"]
    load = spec.pop("load")
    assert spec == {
        "model": "llama",
        "flavor": "serve",
        "slots": 2,
        "contextTokens": 2048,
        "target": {"ttftMs": 500},
        "marginPercent": 20,
        "targetLoadPercent": 70,
        "deadlineMinutes": 60,
        "mayFail": ["tools"],
        "engine": {"name": "llamacpp", "arguments": {"cache-type-k": "q8_0", "ubatch-size": 128}},
        "tolerations": [],
    }
    assert (load["rates"], load["seconds"], load["sharedPercent"]) == ([1.0, 2.5], 5, 30)
    assert (load["inputTokens"][0], load["inputTokens"][-1], len(load["inputTokens"])) == (10, 1000, 21)
    assert load["outputTokens"][10] in (50, 51)
    assert json.loads(model("model", "show", "llama", "-o", "json").raw)["spec"]["vettedIn"] == PROJECT


def test_one_that_embeds_is_asked_for_and_shown_as_such(model: Cli, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(AZURE)
    words = [
        "--flavor",
        "serve",
        "-n",
        PROJECT,
        "--name",
        "e",
        "--task",
        "embed",
        "--end",
        "200",
        "--trace",
        str(trace),
    ]
    assert model("model", "vet", "llama", *words, "--no-wait").code == 0
    spec = json.loads(model("get", "vetting", "e", "-n", PROJECT, "-o", "json").raw)["spec"]
    assert (spec["task"], spec["target"], "outputTokens" in spec["load"]) == ("embed", {"endMs": 200}, False)
    refused = model("model", "vet", "llama", *words[:6], "--task", "embed", "--ttft", "5", "--no-wait")
    assert "spec.target.ttftMs" in refused.err
    from bessemer.cli.work import vetting as work

    points = [{**one, "written": 0} for one in POINTS]
    prices = {**PRICES, "millionOutputTokens": 0, "millionCachedInputTokens": PRICES["millionInputTokens"]}
    found = {**VETTED, "task": "embed", "outputPerSecond": 0.0}
    status = {"phase": "Succeeded", "checks": [], "points": points, "prices": prices, "vetted": found}
    body = {"metadata": {"name": "e"}, "spec": spec, "status": status}
    said = work.text(body)
    assert "It bears 2 requests a second: 60 tokens read a second." in said
    assert re.search(r"^1 +10 +0 +yes +- +- +- +- +12\.5 ms", said, re.MULTILINE)
    assert "output" not in said.split("TOKENS")[1]
    assert [chart["title"] for chart in work.charts_of(body)] == ["Throughput against offered load", "To the end"]
    fit = json.loads(model("model", "fit", "llama", "--task", "embed", "-o", "json").raw)
    assert fit["flavors"][0]["slots"]["2048"] < 16, "each token of a text has numbers of its own"


def test_a_model_of_the_project_is_meant_before_the_platforms(model: Cli) -> None:
    model("model", "add", "hub:tiny/mine", "--no-wait")
    words = ("--flavor", "serve", "-n", PROJECT, "--publish", "--no-wait")

    def vetted_in() -> str:
        assert model("model", "vet", "mine", *words).code == 0
        return str(json.loads(model("model", "show", "mine", "-o", "json").raw)["spec"].get("vettedIn", ""))

    model("model", "add", "hub:tiny/mine", "-n", PROJECT, "--no-wait")
    assert vetted_in() == "", "the project's own says by itself what was found"
    assert "Model mine does not say enough" in model("model", "fit", "mine", "-n", PROJECT, "--engine", "llamacpp").err
    assert model("model", "fit", "llama", "-n", PROJECT).code == 0, "without one of its own the platform's is meant"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "say where"),
        (["--flavor", "serve", "-n", PROJECT, "--plot", "x.png"], "ends with .html"),
        (["--flavor", "serve", "-n", PROJECT, "--argument", "x"], "write NAME=VALUE"),
        (["--flavor", "serve", "-n", PROJECT, "--trace", "/nowhere.csv"], "No such file"),
        (["--flavor", "serve", "-n", PROJECT, "--may-fail", "nothing"], "spec.mayFail"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_begun(model: Cli, words: list[str], why: str) -> None:
    before = model("get", "vettings", "-n", PROJECT, "-o", "name").raw
    said = model("model", "vet", "llama", *words)
    assert said.code == 1
    assert why in said.err
    assert model("get", "vettings", "-n", PROJECT, "-o", "name").raw == before


def test_time_that_is_up_ends_nothing(model: Cli) -> None:
    said = model("model", "vet", "llama", "--flavor", "serve", "-n", PROJECT, "--name", "slow", "--timeout", "0.001")
    assert said.code == 1
    assert f"it goes on: bessemer why vetting slow -n {PROJECT}" in said.err


def test_what_was_found_is_shown_and_plotted(model: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody controls this world: what is followed is written by us when it is looked at."""
    from bessemer.cli.work import vetting as work

    place, read = tmp_path / "v.html", work.read

    async def over(client: Any, key: Key) -> dict[str, Any]:
        body = await read(client, key)
        done = {"phase": model_phase[0], "checks": [], "points": POINTS, "prices": PRICES, "vetted": VETTED}
        return {**body, "status": {**done, "memoryBytes": 300 << 20, "estimateBytes": 290 << 20}}

    monkeypatch.setattr(work, "read", over)
    model_phase = ["Succeeded"]
    words = ("model", "vet", "llama", "--flavor", "serve", "-n", PROJECT)
    said = model(*words, "--plot", str(place))
    assert said.code == 0
    assert "It bears 2 requests a second: 20 tokens written a second." in said.raw
    assert "Memory: 300 MiB at most, 290 MiB estimated" in said.raw
    assert "An hour of the claim costs" in said.raw
    assert re.search(r"^output +0\.40", said.raw, re.MULTILINE) or "0.40" in said.raw
    page = place.read_text()
    assert "Throughput against offered load" in page
    assert '"values": [20.0, 20.0, 20.0]' in page
    model_phase[0] = "Failed"
    assert model(*words).code == 1


def test_prices_become_a_plan_to_be_applied(model: Cli) -> None:
    plan = {"rates": {"coreHour": 7, "millionOutputTokens": 1}, "billedStates": ["running"]}
    made = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "PricePlan", "metadata": {"name": "standard"}, "spec": plan}
    model("apply", "-f", "-", stdin=json.dumps(made))
    for name in ("v", "w", "f"):
        model("model", "vet", "llama", "--flavor", "serve", "-n", PROJECT, "--name", name, "--no-wait")
    measured(model, "v")
    measured(model, "w", prices={**PRICES, "millionInputTokens": 90_000, "millionOutputTokens": 1})
    measured(model, "f", fake=True)
    words = ("model", "price", "llama", "-n", PROJECT)
    said = model(*words, "--from-vetting", "v", "--from-vetting", "w", "-o", "yaml")
    found = yaml.safe_load(said.raw)
    assert found["metadata"] == {"name": "standard-llama"}
    rates = {"millionInputTokens": 90_000, "millionCachedInputTokens": 3_000, "millionOutputTokens": 400_000}
    assert found["spec"]["models"] == {"llama": rates}
    all_others = found["spec"]["rates"]
    assert (all_others["coreHour"], all_others["millionInputTokens"], all_others["millionOutputTokens"]) == (7, 0, 1)
    assert model("apply", "-f", "-", stdin=said.raw).code == 0
    fake = model(*words, "--from-vetting", "f")
    assert (fake.code, "fake host" in fake.err) == (1, True)
    other = model("model", "price", "other", "--from-vetting", "v", "-n", PROJECT)
    assert "is of model llama" in other.err
    assert "say whose" in model("model", "price", "llama", "--from-vetting", "v").err
    assert "no vetting in" in model("model", "price", "other", "-n", PROJECT).err


def test_what_embeds_says_nothing_of_tokens_that_are_written(model: Cli) -> None:
    rates = {"millionInputTokens": 60_000, "millionOutputTokens": 400_000}
    made = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "PricePlan", "metadata": {"name": "of-texts"}}
    model("apply", "-f", "-", stdin=json.dumps({**made, "spec": {"rates": rates}}))
    words = ("--flavor", "serve", "-n", PROJECT, "--name", "texts", "--task", "embed", "--no-wait")
    model("model", "vet", "llama", *words)
    measured(model, "texts", prices={**PRICES, "millionOutputTokens": 0})
    said = model(
        "model", "price", "llama", "-n", PROJECT, "--plan", "of-texts", "--from-vetting", "texts", "-o", "yaml"
    )
    found = yaml.safe_load(said.raw)["spec"]["models"]["llama"]
    assert (found["millionInputTokens"], found["millionOutputTokens"]) == (30_000, 400_000)


def test_what_was_derived_is_shown_beside_what_is_asked_and_taken(model: Cli) -> None:
    rates = {"millionInputTokens": 60_000, "millionOutputTokens": 400_000}
    made = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "PricePlan", "metadata": {"name": "list"}}
    model("apply", "-f", "-", stdin=json.dumps({**made, "spec": {"rates": rates}}))
    for name, more in (("p", {}), ("q", {"fake": True, "prices": {**PRICES, "millionInputTokens": 1 << 40}})):
        model("model", "vet", "priced", "--flavor", "serve", "-n", PROJECT, "--name", name, "--no-wait")
        measured(model, name, **more)
    words = ("model", "price", "priced", "-n", PROJECT, "--plan", "list")
    shown = model(*words).raw
    assert "model priced by vetting p; PricePlan list asks those of any model" in shown
    lines = {line.split("EUR")[0].strip(): line.split() for line in shown.splitlines() if "EUR 0" in line}
    assert lines["input"][-5:] == ["EUR", "0.030000", "EUR", "0.060000", "-50%"]
    assert lines["cached input"][-3:] == ["free", "until", "now"]
    assert lines["output"][-2:] == ["the", "same"]
    assert "Nothing is changed" in shown
    assert model("get", "priceplan", "dear").code == 1
    assert "priceplan/dear created" in model(*words, "--name", "dear", "--yes").raw
    assert "has these prices already" in model(*words, "--name", "dear", "--yes").raw
    again = model(*words[:-1], "dear").raw
    assert "PricePlan dear asks its own" in again
    assert again.count("the same") == 3
    assert "never change" in model(*words, "--name", "list", "--yes").err


def test_lengths_of_traces(tmp_path: Path) -> None:
    azure, mooncake, other = tmp_path / "a.csv", tmp_path / "m.jsonl", tmp_path / "o.csv"
    azure.write_text(AZURE)
    mooncake.write_text("".join(json.dumps({"input_length": n, "output_length": 2}) + "\n" for n in (7, 9)))
    other.write_text("a,b\n1,2\n3,4\n")
    assert lengths_of(azure)[0][:2] == [10, 20]
    assert lengths_of(mooncake) == ([7, 9], [2, 2])
    with pytest.raises(Invalid, match="ContextTokens and GeneratedTokens or input_length and output_length"):
        lengths_of(other)
    mooncake.write_text("{}")
    with pytest.raises(Invalid):
        lengths_of(mooncake)

"""What the command line does for vettings: what fits where, a vetting's course as a bar, and its report."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from bessemer.cli import render
from bessemer.cli.plot import COLOURS, Chart
from bessemer.cli.progress import bar
from bessemer.cli.work.objects import list_all
from bessemer.cli.work.waiting import standing
from bessemer.client import Client, an_object
from bessemer.core.errors import BessemerError, Invalid, NotFound
from bessemer.core.ports import Scope
from bessemer.core.resource import Key
from bessemer.core.units import show_bytes, show_money
from bessemer.drivers.engine.protocol import Task
from bessemer.kinds.inference.endpoint.spec import EngineChoice
from bessemer.kinds.inference.fitting import device_bytes, fit_table
from bessemer.kinds.inference.vetting.shape import quantiles_of
from bessemer.kinds.inference.vetting.spec import ENDED

LOOK_SECONDS = 0.5
TRACE_BYTES_MAX = 1 << 30

_COLUMNS = (("ContextTokens", "GeneratedTokens"), ("input_length", "output_length"))
"""What the two lengths are called: in Azure's traces, and in Mooncake's."""


# --- what is asked ----------------------------------------------------------------------------------------------


def spec_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """The Vetting's spec, out of the command's options by their names. Raises Invalid."""
    target = {"ttftMs": said["ttft"], "interTokenMs": said["inter_token"], "endMs": said["end"]}
    return {
        "model": said["name"],
        "flavor": said["flavor"],
        "slots": said["slots"],
        "contextTokens": said["context_tokens"],
        **({"task": said["task"]} if said["task"] != "generate" else {}),
        "target": {name: most for name, most in target.items() if most},
        "load": load_of(said),
        "marginPercent": said["margin"],
        "targetLoadPercent": said["target_load"],
        "tolerations": [{"key": key} for key in said["tolerate"] or ()],
        **({"mayFail": list(said["may_fail"])} if said["may_fail"] else {}),
        **engine_of(said["engine"], said["argument"] or ()),
    }


def engine_of(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """``spec.engine``. Raises Invalid for an argument that is none."""
    found: dict[str, Any] = {}
    for word in arguments:
        key, sign, value = word.partition("=")
        if not sign:
            raise Invalid(f"--argument {word}: write NAME=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return {"engine": {"name": name, "arguments": found}} if name != "auto" or found else {}


def load_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """``spec.load``; of a trace quantiles are told, and nothing else. Raises Invalid."""
    said: dict[str, Any] = {
        "shape": options["shape"],
        "sharedPercent": options["shared"],
        "seconds": options["seconds"],
    }
    if options["rate"]:
        said["rates"] = list(options["rate"])
    if options["trace"] is not None:
        inputs, outputs = lengths_of(options["trace"])
        said |= {"inputTokens": quantiles_of(inputs)}
        said |= {"outputTokens": quantiles_of(outputs)} if options["task"] != "embed" else {}
    return said


def lengths_of(trace: Path) -> tuple[list[int], list[int]]:
    """Of prompts and answers in a trace, CSV or JSON lines. Raises Invalid for a file that is none."""
    try:
        if trace.stat().st_size > TRACE_BYTES_MAX:
            raise Invalid(f"--trace {trace}: it is larger than {show_bytes(TRACE_BYTES_MAX)}")
        with trace.open(encoding="utf-8", newline="") as file:
            rows = (
                csv.DictReader(file) if trace.suffix == ".csv" else (json.loads(line) for line in file if line.strip())
            )
            found = [_lengths(row) for row in rows]
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise Invalid(f"--trace {trace}: {error}") from error
    if len(found) < 2:
        raise Invalid(f"--trace {trace}: it has no two requests")
    return [one for one, _ in found], [two for _, two in found]


def _lengths(row: Mapping[str, Any]) -> tuple[int, int]:
    for one, two in _COLUMNS:
        if one in row and two in row:
            return int(row[one]), int(row[two])
    raise ValueError(f"a request says its lengths as {' or '.join(map(' and '.join, _COLUMNS))}")


def name_of(model: str, flavor: str) -> str:
    """A name that is not taken, hardly."""
    return f"{re.sub('[^a-z0-9-]', '-', f'{model}-{flavor}')[:56].strip('-')}-{secrets.token_hex(3)}"


# --- what fits --------------------------------------------------------------------------------------------------


async def fitting(
    client: Client,
    name: str,
    *,
    project: str = "",
    engine: str = "auto",
    arguments: Sequence[str] = (),
    task: Task = "generate",
) -> dict[str, Any]:
    """For each flavor and context how many slots; of the project's model of that name where it has one. Raises Invalid
    where the model's files do not say enough."""
    choice = EngineChoice.model_validate(engine_of(engine, arguments).get("engine", {}))
    body = await _meant(client, name, project=project)
    hosts: Sequence[Mapping[str, Any]] = []
    with suppress(BessemerError):  # for whoever may read them
        hosts = await list_all(client, Scope(kind="Host"))
    flavors = await list_all(client, Scope(kind="Flavor"))
    table = fit_table(body, flavors, devices=device_bytes(hosts), choice=choice, task=task)
    rows = [
        {
            "flavor": row.name,
            "memory": row.memory,
            "devices": row.devices,
            "slots": {str(fit.context): fit.slots for fit in row.fits},
            "why": row.why,
        }
        for row in table.flavors
    ]
    found = {"weights": table.weights, "tokenBytes": table.token_bytes, "engineBytes": table.engine_bytes}
    return {"model": name, "engine": table.engine, **found, "contexts": list(table.contexts), "flavors": rows}


async def _meant(client: Client, name: str, *, project: str) -> dict[str, Any]:
    """The project's model of that name where it has one, else the platform's. Raises NotFound."""
    if project:
        with suppress(NotFound):
            return await read(client, Key("ProjectModel", project, name))
    return await read(client, Key("Model", "", name))


def fit_text(found: Mapping[str, Any], *, within: int = 0) -> str:
    """A row per flavor, a column per context."""
    contexts = [str(size) for size in found["contexts"]]
    head = ["FLAVOR", "MEMORY", "DEVICES", *(f"{int(size):,}" for size in contexts), "WHY NOT"]
    rows = [
        [
            row["flavor"],
            row["memory"],
            row["devices"],
            *(str(row["slots"][size] or "-") for size in contexts),
            row["why"],
        ]
        for row in found["flavors"]
    ]
    said = (
        f"{found['model']} by {found['engine']}: weights of {show_bytes(found['weights'])}, "
        f"{show_bytes(found['tokenBytes'])} of cache a token. Requests at the same time, by context:"
    )
    return f"{said}\n\n{render.columns(head, rows, within=within)}"


# --- its course -------------------------------------------------------------------------------------------------


async def read(client: Client, key: Key) -> dict[str, Any]:
    """The object. Raises NotFound."""
    body: dict[str, Any] = orjson.loads((await client.get(key)).body)
    return body


async def begun(client: Client, name: str, *, project: str, spec: Mapping[str, Any]) -> Key:
    """Make it. Raises what the api refuses."""
    key = Key("Vetting", project, name)
    await client.create(an_object(key, spec))
    return key


async def publish(client: Client, model: str, *, project: str) -> None:
    """Have the Model show what vettings of the project find; the project's own does so by itself. Raises Forbidden for
    who may not change it."""
    if (await _meant(client, model, project=project))["kind"] == "Model":
        await client.patch(Key("Model", "", model), {"spec": {"vettedIn": project}})


async def followed(client: Client, key: Key, *, timeout: float) -> dict[str, Any]:
    """The object at its end, with a bar meanwhile. Raises Invalid where the time is up; it goes on in any case."""
    end = time.monotonic() + timeout
    with bar(f"vetting {key.name}") as tell:
        while True:
            body = await read(client, key)
            status = body.get("status", {})
            if status.get("phase") in ENDED:
                return body
            if time.monotonic() > end:
                line = standing(key, body).line()
                raise Invalid(f"{line}; it goes on: bessemer why vetting {key.name} -n {key.namespace}")
            tell(status.get("progressPercent", 0) / 100)
            await asyncio.sleep(LOOK_SECONDS)


# --- its report -------------------------------------------------------------------------------------------------


def text(body: Mapping[str, Any], *, within: int = 0) -> str:
    """The report for a person."""
    return "\n\n".join(part for part in _parts(body, within=within) if part)


def _parts(body: Mapping[str, Any], *, within: int) -> Iterator[str]:
    spec, status = body["spec"], body.get("status", {})
    fake = "   FAKE HOST: nothing of this is real" if status.get("fake") else ""
    where = f"on {spec['flavor']}, {spec.get('slots', 4)} slots of {spec.get('contextTokens', 2048):,} tokens"
    phase = ": ".join(word for word in (status.get("phase", "Pending"), status.get("message", "")) if word)
    yield f"vetting/{body['metadata']['name']}: {spec['model']} {where}{fake}\n{phase}"
    checks = [[one["name"], one["verdict"], one.get("seen", "")] for one in status.get("checks", ())]
    yield render.columns(["CHECK", "", "SEEN"], checks, within=within) if checks else ""
    head = ["RATE/S", "SENT", "FAILED", "HELD", "TTFT P50", "P95", "TOKEN P50", "P95", "END P95", "READ/S", "WRITTEN/S"]
    points = [_row(one) for one in status.get("points", ())]
    yield render.columns(head, points, within=within) if points else ""
    if status.get("memoryBytes"):
        estimate = status.get("estimateBytes", 0)
        beside = f", {show_bytes(estimate)} estimated" if estimate else ""
        yield f"Memory: {show_bytes(status['memoryBytes'])} at most{beside}"
    if vetted := status.get("vetted"):
        yield f"It bears {vetted['rate']:g} requests a second: {_tokens(vetted)} a second."
    if prices := status.get("prices"):
        yield _prices(prices)


def _tokens(vetted: Mapping[str, Any]) -> str:
    if vetted.get("task") == "embed":
        return f"{vetted['inputPerSecond']:g} tokens read"
    return f"{vetted['outputPerSecond']:g} tokens written"


def _row(one: Mapping[str, Any]) -> list[str]:
    seconds = one["seconds"] or 1.0
    # What embeds writes nothing, and has no first token.
    streams = bool(one["written"])
    names = ("ttftP50", "ttftP95", "interTokenP50", "interTokenP95", "endP95")
    times = ("-" if not streams and name != "endP95" else _ms(one[name]) for name in names)
    counts = ((one["read"] + one["cached"]) / seconds, one["written"] / seconds)
    first = [f"{one['rate']:g}", str(one["requests"]), str(one["failed"]), "yes" if one["held"] else "no"]
    return [*first, *times, *(f"{n:.1f}" for n in counts)]


def _ms(ms: float) -> str:
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.1f} ms"


def _prices(prices: Mapping[str, Any]) -> str:
    currency = prices["currency"]
    sorts = [("input", "millionInputTokens"), ("cached input", "millionCachedInputTokens")]
    sorts += [("output", "millionOutputTokens")] if prices["millionOutputTokens"] else []  # what embeds writes none
    rows = [[word, show_money(prices[field], currency)] for word, field in sorts]
    hour = show_money(prices["claimHourMicro"], currency)
    words = f"An hour of the claim costs {hour}; at {prices['targetLoadPercent']} % of that load it earns "
    words += f"{show_money(prices['hourMicro'], currency)}, {prices['marginPercent']} % more."
    return f"{words}\n\n{render.columns(['TOKENS', 'A MILLION'], rows)}"


def charts_of(body: Mapping[str, Any]) -> Iterator[Chart]:
    """Over the offered rate: what is written, and the times."""
    points = body["status"]["points"]
    rates = [one["rate"] for one in points]

    def chart(title: str, unit: str, *lines: tuple[str, list[float]]) -> Chart:
        drawn = [{"name": name, "colour": COLOURS[n], "values": values} for n, (name, values) in enumerate(lines)]
        return {"title": title, "along": "requests a second", "x": rates, "lines": drawn, "unit": unit}

    streams = body["spec"].get("task") != "embed"
    word, counts = ("written", ("written",)) if streams else ("read", ("read", "cached"))
    tokens = [round(sum(one[name] for name in counts) / (one["seconds"] or 1.0), 2) for one in points]
    yield chart("Throughput against offered load", f"tokens {word} a second", (word, tokens))
    times = (("To the first token", "ttft"), ("Between two tokens", "interToken")) if streams else ()
    for title, name in (*times, ("To the end", "end")):
        lines = [(half, [one[f"{name}{half}"] for one in points]) for half in ("P50", "P95")]
        yield chart(title, "ms", *lines)

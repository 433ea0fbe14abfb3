"""A model: what was measured of it under load, what it can do, on which flavors it fits, what its tokens take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from bessemer.core.errors import Invalid
from bessemer.core.resource import Key
from bessemer.drivers.engine.protocol import Task
from bessemer.kinds.inference.endpoint.spec import EngineChoice
from bessemer.kinds.inference.fitting import FitTable, FlavorFit, fit_table
from bessemer.kinds.inference.vetting.report import Point, knee
from bessemer.portal import code, words
from bessemer.portal.desk import Desk
from bessemer.portal.live import Page, Part
from bessemer.portal.pages.shell import EVERYTHING, Here, page
from bessemer.portal.parts import Cell, Fact, Head, LoadPlots, Row, Stat, Text
from bessemer.portal.reading import seconds

Body = Mapping[str, Any]
VETTINGS_SHOWN = 20
PHONE_CONTEXTS = 2

_DONE = ("Succeeded", "Failed")
_NONE = (
    "Not measured yet. A vetting runs it on a flavor, asks what it should be able to do, and raises the load until it "
    "gives no more. Its claim is billed to the project while it lasts."
)


@dataclass(frozen=True, slots=True)
class Short:
    """A vetting in a line."""

    key: str
    name: str
    project: str
    phase: str
    flavor: str
    rate: float
    fake: bool
    created: float


@dataclass(slots=True)
class Held:
    """What an open page was last told: the model without its ``files``, its vettings, and all that one of them says.
    ``fit`` is the table of what fits, or why there is none."""

    model: Body
    files: int
    shorts: Sequence[Short]
    chosen: Body | None
    fit: FitTable | str = ""

    @property
    def shown(self) -> str:
        """Which vetting that is, as PROJECT/NAME; "" where none."""
        return named(self.chosen) if self.chosen is not None else ""

    @property
    def vetted(self) -> Body:
        """What came of it, in short: the vetting's, or what the model says of one that is not the session's to see."""
        of = self.chosen if self.chosen is not None else self.model
        return of.get("status", {}).get("vetted") or {}


def named(vetting: Body) -> str:
    """PROJECT/NAME."""
    return f"{vetting['metadata']['namespace']}/{vetting['metadata']['name']}"


def short_of(vetting: Body) -> Short:
    """One of the list."""
    meta, spec, status = vetting["metadata"], vetting["spec"], vetting.get("status", {})
    return Short(
        key=named(vetting),
        name=meta["name"],
        project=meta["namespace"],
        phase=status.get("phase", "Pending"),
        flavor=spec["flavor"],
        rate=(status.get("vetted") or {}).get("rate", 0.0),
        fake=bool(status.get("fake")),
        created=seconds(meta.get("creationTimestamp")) or 0.0,
    )


def fit_of(model: Body, flavors: Sequence[Body], *, devices: Mapping[str, int], chosen: Body | None) -> FitTable | str:
    """What fits where, with the engine that the vetting was made with; or why nobody knows."""
    choice = EngineChoice.model_validate(chosen["spec"].get("engine", {}) if chosen is not None else {})
    offered = [one for one in flavors if one["spec"].get("offered", True)]
    try:
        task: Task = "embed" if chosen is not None and chosen["spec"].get("task") == "embed" else "generate"
        return fit_table(model, offered, devices=devices, choice=choice, task=task)
    except Invalid as error:
        return error.message


def build(desk: Desk, key: Key, *, held: Held, body: str) -> Page:
    """One model; ``body`` is its manifest."""
    project, name, kind = key.namespace, key.name, key.kind.lower()
    place = project or "TENANT--PROJECT"
    of = f" -n {project}" if project else ""
    section = "kinds/projectmodels" if project else "models"
    back = f"/in/{project}/kinds/projectmodels" if project else "/models"
    lines = (
        f"bessemer model show {name}{of}",
        f"bessemer model fit {name}{of}",
        f"bessemer model vet {name} --flavor FLAVOR -n {place} --plot {name}.html",
    )
    kubectl = f"kubectl{of} get {kind} {name} -o yaml\nkubectl get vettings {f'-n {project}' if project else '-A'}"
    here = Here(
        section=section,
        title=name,
        scope=project or EVERYTHING,
        crumbs=((words.place(project) if project else "Everything", ""), ("Models", back), (name, "")),
        code=(("CLI", "\n".join(lines)), ("kubectl", kubectl), ("YAML", body)),
        request=code.path(f"{kind}s", name, project=project),
    )
    contexts = held.fit.contexts if isinstance(held.fit, FitTable) else ()
    heads = [(f"{size:,}", "num" + " lo" * (at >= PHONE_CONTEXTS)) for at, size in enumerate(contexts)]
    lists: dict[str, Sequence[Part]] = {
        "head": [_head(held.model)],
        "stats": [*_stats(held)],
        "load": [_plots(held, command=lines[2])],
        "load-of": [Text("load-of-text", _of(held))],
        "figures": [Text("figures-now", _figures(held))],
        "points": _points(held),
        "checks": _checks(held),
        "vettings": _vettings(held, key),
        "prices": [*_prices(held)],
        "memory": [*_memory(held)],
        "facts": [*_facts(held)],
    }
    fixed = {"sub": _sub(held.model, project), "fits": [*_fits(held.fit)], "fit_heads": heads, "by": _by(held.fit)}
    return page(desk, here, template="model.html", lists=lists, name=name, **fixed)


def _sub(model: Body, project: str) -> str:
    whose = f"Model of {words.place(project)}" if project else "Model of the platform"
    spec = model["spec"]
    more = [spec.get("description", ""), spec.get("licence", "")]
    return ". ".join([", ".join([whose, *filter(None, more[1:])]), *filter(None, more[:1])]) + "."


def _head(model: Body) -> Head:
    status = model.get("status", {})
    word = status.get("phase", "Pending")
    return Head("head-state", ((word, words.tone(word), None),))


def _of(held: Held) -> str:
    """Of which vetting the report is."""
    if held.chosen is None:
        return ""
    spec, status = held.chosen["spec"], held.chosen.get("status", {})
    fake = ", on a fake host: nothing of it is real" if status.get("fake") else ""
    slots = f"{spec.get('slots', 4)} slots of {spec.get('contextTokens', 2048):,} tokens"
    going = "" if status.get("phase") in _DONE else f"; {status.get('progressPercent', 0)} %"
    return f"{held.chosen['metadata']['name']} on {spec['flavor']}, {slots}{fake}{going}"


def embeds(held: Held) -> bool:
    """Whether what is shown was measured for embedding."""
    of = held.chosen["spec"] if held.chosen is not None else held.vetted
    return bool(of.get("task") == "embed")


# --- its figures ------------------------------------------------------------------------------------------------


def _stats(held: Held) -> Iterator[Part]:
    """What it bears, how fast, and with how much memory."""
    vetted = held.vetted
    note = "of 95 % at most, at that load" if vetted else "not measured yet"
    at = f"on {vetted['flavor']}" if vetted else "not measured yet"
    yield _stat("It bears", vetted.get("rate"), ident="bears", unit="requests/s", note=at)
    if embeds(held):
        yield _stat("Reads", vetted.get("inputPerSecond"), ident="reads", unit="tokens/s", note="at that load")
        yield _stat("An answer", vetted.get("endMs"), ident="end", unit="ms", note=note)
    else:
        yield _stat("Writes", vetted.get("outputPerSecond"), ident="writes", unit="tokens/s", note="at that load")
        yield _stat("First token", vetted.get("ttftMs"), ident="first", unit="ms", note=note)
        yield _stat("Next token", vetted.get("interTokenMs"), ident="next", unit="ms", note=note)
    taken, estimate = vetted.get("memoryBytes", 0), vetted.get("estimateBytes", 0)
    beside = f"{words.gib(estimate)} estimated" if estimate else "not estimated"
    figure, _, unit = words.gib(taken).partition(" ") if taken else ("–", "", "")
    yield Stat(id="stat-memory", label="Memory", figure=figure, unit=unit, note=beside if taken else "")


def _stat(label: str, value: float | None, *, ident: str, unit: str, note: str) -> Stat:
    return Stat(id=f"stat-{ident}", label=label, figure=_number(value), unit=unit if value else "", note=note)


def _number(value: float | None) -> str:
    """Three digits decide."""
    if not value:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _plots(held: Held, *, command: str) -> LoadPlots:
    if held.chosen is None:
        return LoadPlots("load-plots", embeds=False, empty=_NONE, command=command)
    some = bool(held.chosen.get("status", {}).get("points"))
    return LoadPlots("load-plots", embeds=embeds(held), empty="" if some else "Nothing is measured of it yet.")


def _figures(held: Held) -> str:
    """What the plots draw, as JSON; "" where there is nothing to be drawn."""
    said = held.chosen["status"].get("points", ()) if held.chosen is not None and "status" in held.chosen else ()
    if not said or held.chosen is None:
        return ""
    points = [Point.model_validate(one) for one in said]
    target = held.chosen["spec"].get("target", {})
    best = knee(points, bounded=bool(target))
    names = ("ttft_p50", "ttft_p95", "inter_token_p50", "inter_token_p95", "end_p50", "end_p95")
    found = {
        "rate": [one.rate for one in points],
        "tokens": [round(one.per_second, 2) for one in points],
        **{name: [getattr(one, name) for one in points] for name in names},
        "knee": best.rate if best is not None else None,
        "goals": {"ttft": target.get("ttftMs"), "inter_token": target.get("interTokenMs"), "end": target.get("endMs")},
    }
    return orjson.dumps(found).decode()


def _points(held: Held) -> list[Part]:
    """What the plots show, in numbers."""
    said = (held.chosen or {}).get("status", {}).get("points", ())
    rows: list[Part] = []
    for at, one in enumerate(said):
        point, streams = Point.model_validate(one), one["interTokenP95"] or one["ttftP95"]
        held_it = ("in time", "ok") if point.held else ("not all", "failed") if point.failed else ("too late", "stuck")
        cells = (
            Cell(f"{point.rate:g}", "name", note=f"{point.requests - point.failed} of {point.requests}"),
            Cell(held_it[0], "state", tone=held_it[1]),
            Cell(f"{point.per_second:,.1f}", "num"),
            Cell(_ms(point.ttft_p95) if streams else "–", "num", low=True),
            Cell(_ms(point.inter_token_p95) if streams else "–", "num", low=True),
            Cell(_ms(point.end_p95), "num"),
        )
        rows.append(Row(f"point-{at}", cells))
    return rows or [Row("point-none", (Cell("No rate was tried yet.", "empty"),))]


def _ms(value: float) -> str:
    return words.duration(value / 1000) if value >= 1000 else f"{_number(value)} ms"


def _checks(held: Held) -> list[Part]:
    said = (held.chosen or {}).get("status", {}).get("checks", ())
    rows: list[Part] = []
    for one in said:
        word = one["verdict"]
        name = Cell(one["name"].capitalize(), "name", note=one.get("seen", ""))
        rows.append(Row(f"check-{one['name']}", (name, Cell(word, "state", tone=words.tone(word)))))
    text = "What it was asked stands in its vetting, which is not yours to see." if held.vetted else "Not asked yet."
    return rows or [Row("check-none", (Cell(text, "empty"),))]


def _vettings(held: Held, key: Key) -> list[Part]:
    base = (f"/in/{key.namespace}" if key.namespace else "") + f"/models/{key.name}"
    rows: list[Part] = []
    for at, one in enumerate(held.shorts):
        rate = f"{_number(one.rate)}/s" if one.rate else "–"
        note = f"{words.place(one.project)}, {one.flavor}"
        name = Cell(one.name, "name", note=note, href=f"{base}?vetting={one.key}", fake=one.fake)
        rows.append(
            Row(f"vetting-{at}", (name, Cell(one.phase, "state", tone=words.tone(one.phase)), Cell(rate, "num")))
        )
    return rows or [Row("vetting-none", (Cell("No vetting of it that you may see.", "empty"),))]


# --- what it takes ----------------------------------------------------------------------------------------------


def _prices(held: Held) -> Iterator[Part]:
    """What a million tokens take of a claim, and in money for whom the vetting is."""
    vetted, prices = held.vetted, (held.chosen or {}).get("status", {}).get("prices") or {}
    if not vetted:
        yield Fact("price-none", "Tokens", "not measured yet")
        return
    sorts = (("Input", "input", "Input"), ("Cached input", "cached", "CachedInput"), ("Output", "output", "Output"))
    for label, word, field in sorts:
        time = vetted.get(f"{word}Seconds", 0.0)
        if not time:
            continue
        money = words.money(prices[f"million{field}Tokens"], prices["currency"]) if prices else ""
        shown = ", ".join(filter(None, (money, f"{words.duration(time)} of a claim")))
        yield Fact(f"price-{word}", label, shown, num=True, strong=bool(money))
    if prices:
        hour = words.money(prices["claimHourMicro"], prices["currency"], digits=4)
        earned = f"at {prices['targetLoadPercent']} % of the load, {prices['marginPercent']} % beyond cost"
        yield Fact("price-claim", "An hour of it", hour, num=True)
        yield Fact("price-terms", "Counted", earned)


def _memory(held: Held) -> Iterator[Part]:
    """Estimated against measured."""
    vetted, table = held.vetted, held.fit if isinstance(held.fit, FitTable) else None
    taken, estimate = vetted.get("memoryBytes", 0), vetted.get("estimateBytes", 0)
    if estimate:
        yield Fact("memory-estimate", "Estimated", words.gib(estimate), num=True)
    if taken:
        off = f" ({(taken - estimate) / estimate:+.0%})".replace("-", "−") if estimate else ""
        yield Fact("memory-taken", "Measured, at most", f"{words.gib(taken)}{off}", num=True)
    if table is not None:
        yield Fact("memory-weights", "Weights", words.gib(table.weights), num=True)
        yield Fact("memory-token", "A token in the cache", f"{table.token_bytes / 1024:,.1f} KiB", num=True)
        yield Fact("memory-engine", "Engine by itself", words.gib(table.engine_bytes), num=True)
    if table is None and not taken:
        yield Fact("memory-none", "Memory", "not known yet")


def _by(table: FitTable | str) -> str:
    return f"by {table.engine}; requests at the same time, by tokens of context" if isinstance(table, FitTable) else ""


def _fits(table: FitTable | str) -> Iterator[Row]:
    """A row for each flavor."""
    if isinstance(table, str):
        yield Row("fit-none", (Cell(table, "empty"),))
        return
    yield from (_fit(row) for row in table.flavors)
    if not table.flavors:
        yield Row("fit-none", (Cell("No flavor is offered.", "empty"),))


def _fit(row: FlavorFit) -> Row:
    has = ", ".join(filter(None, (row.memory, row.devices)))
    name = Cell(row.name, "name", note=f"{has}: {row.why}" if row.why else has)
    cells = (Cell(str(fit.slots or "–"), "num", low=at >= PHONE_CONTEXTS) for at, fit in enumerate(row.fits))
    return Row(f"fit-{row.name}", (name, *cells))


def _facts(held: Held) -> Iterator[Part]:
    spec, status = held.model["spec"], held.model.get("status", {})
    facts = status.get("facts") or {}
    million = facts.get("parameters", 0) / 1e6
    size = f"{million / 1000:,.1f} billion" if million >= 1000 else f"{million:,.0f} million"
    source: tuple[str, Body] = next(iter(spec.get("source", {}).items()), ("", {}))
    where = ", ".join(f"{value}" for value in source[1].values() if isinstance(value, str))
    found = (
        ("Source", f"{source[0]}: {where}" if where else source[0], False),
        ("Revision", status.get("revision", ""), True),
        ("Size", words.gib(status["sizeBytes"]) if status.get("sizeBytes") else "", False),
        ("Files", f"{held.files:,}" if held.files > 1 else "", False),
        ("Format", " ".join(filter(None, (facts.get("format"), facts.get("quantisation")))), False),
        ("Architecture", facts.get("architecture", ""), False),
        ("Parameters", size if million else "", False),
        ("Context", f"{facts['contextTokens']:,} tokens" if facts.get("contextTokens") else "", False),
        ("Adapter of", spec.get("adapterOf", ""), False),
        ("Shared", "with the tenant's other projects" if spec.get("shared") else "", False),
        ("Digest", status.get("digest", "").removeprefix("sha256:"), True),
    )
    for at, (label, value, mono) in enumerate(found):
        if value:
            yield Fact(f"fact-{at}", label, value, mono=mono)

"""``--plot FILE``: what a replay came to, or how endpoints answered, as a page by itself, with plots to look into
(uPlot, as in the portal).

The page (`plot.html`) holds its data and its scripts, and fetches nothing: it can be kept, sent, and opened anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from bessemer.cli.verbs import Document
from bessemer.core.errors import Invalid

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Told apart by whoever does not see all colours (Okabe, Ito: Color Universal Design, 2008)."""

Chart = Mapping[str, Any]
"""``title``; ``along`` what and in which ``unit``; ``x`` and ``lines`` of equal length; ``names`` of the places of
bars, which stand about 0, 1, 2 …; ``most`` of the scale; ``time`` where ``x`` are seconds since the epoch."""


def require_place(path: Path) -> None:
    """Raises Invalid where no page can be written, before anything dear is done."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise Invalid(f"--plot {path}: plots are a page: name a file that ends with .html")
    if path.is_dir():
        raise Invalid(f"--plot {path} is a folder")
    if not path.parent.is_dir():
        raise Invalid(f"--plot {path}: there is no folder {path.parent}")


def write(path: Path, found: Document, *, text: str) -> None:
    """The page of what a replay came to; ``text`` is the same in words. Raises Invalid where it cannot be written."""
    write_page(path, f"Replay of {_subject(found)}", charts=list(charts_of(found)), text=text)


def write_page(path: Path, title: str, *, charts: Sequence[Chart], text: str) -> None:
    """A page of plots, with the same in words below. Raises Invalid where it cannot be written."""
    package = files("bessemer")
    library = package / "portal" / "static" / "uplot"
    parts = {
        "title": escape(title),
        "style": (library / "uplot.css").read_text(encoding="utf-8"),
        "library": (library / "uplot.js").read_text(encoding="utf-8"),
        # The page is handed on, and the library with it: so are its terms.
        "license": (library / "LICENSE").read_text(encoding="utf-8"),
        "text": escape(text),
        # Words of a file, within a script: what would end that is written otherwise.
        "charts": json.dumps(charts).replace("<", "\\u003c"),
    }
    whole = (package / "cli" / "plot.html").read_text(encoding="utf-8")
    pieces = whole.split("@")
    try:
        # What stands between two signs is a part's name; nothing that is put in is looked at again.
        path.write_text("".join(parts[one] if n % 2 else one for n, one in enumerate(pieces)), encoding="utf-8")
    except OSError as error:
        raise Invalid(f"--plot {path}: {error.strerror}") from error


def _subject(found: Document) -> str:
    if "replays" in found:
        return f"{found['trace']['requests']:,} requests over replicas that scale"
    if "cases" in found:
        return found["history"] if "history" in found else f"a load of {found['load']:g}"
    return f"{found['trace']['requests']:,} requests over {found['trace']['hosts']:,} hosts"


def charts_of(found: Document) -> Iterator[Chart]:
    """What is plotted: over time, over what had come, and by size of request."""
    if "replays" in found:
        yield from _of_inference(found["replays"])
        return
    cases = found.get("cases")
    if cases is None:
        yield from _of_a_trace(found)
        return
    names = [case_name(case) for case in cases]
    for title, field, unit, most in (
        ("Devices allocated", "allocation_percent", "% of devices", 100.0),
        ("Free, and of no use for what is asked for", "useless_percent", "% of devices", None),
        ("Requests that wait", "waiting", "requests", None),
    ):
        values = [case["series"][field] for case in cases]
        lines = lines_of(names, values)
        yield {"title": title, "along": "hours", "x": cases[0]["series"]["hours"], "lines": lines, "unit": unit} | (
            {"most": most} if most else {}
        )
    waits = list(cases[0]["wait_hours"])
    words = {"p50": "half of all", "p90": "90 % of all", "p99": "99 % of all", "most": "longest"}
    values = [[case["wait_hours"][name] for name in waits] for case in cases]
    places = [words.get(name, name) for name in waits]
    yield _bars("How long at most they waited", places, lines=lines_of(names, values), unit="hours")
    values = [[case["earned_per_hour"], case["worth_per_hour"]] for case in cases]
    yield _bars("Money, an hour", ["earned", "worth"], lines=lines_of(names, values), unit=found["currency"])
    values = [[float(case["moves"])] for case in cases]
    yield _bars("Moves", ["of all seeds"], lines=lines_of(names, values), unit="moves")
    sizes = list(dict.fromkeys(row["devices"] for case in cases for row in case["blocked"]))
    if sizes:
        values = [_refused(case["blocked"], sizes) for case in cases]
        yield _bars("Never began, by devices wanted", sizes, lines=lines_of(names, values), unit="% of these")


def _of_inference(replays: Sequence[Mapping[str, Any]]) -> Iterator[Chart]:
    """What each policy gave and took, and how many it had while requests came."""
    names = [one["policy"] for one in replays]
    values = [[one["attained_percent"]] for one in replays]
    yield _bars("Answered within the target", ["of all"], lines=lines_of(names, values), unit="% of requests")
    values = [[one["device_hours"]] for one in replays]
    yield _bars("Device-hours", ["of all replicas"], lines=lines_of(names, values), unit="hours")
    shares = ("p50", "p95", "p99")
    values = [[one["ttft_ms"][share] or 0.0 for share in shares] for one in replays]
    yield _bars("To the first token", shares, lines=lines_of(names, values), unit="ms")
    longest = max((one["series"] for one in replays), key=lambda series: len(series["seconds"]))
    hours = [round(at / 3600, 4) for at in longest["seconds"]]
    came = longest["arriving"]
    yield {"title": "Requests", "along": "hours", "x": hours, "lines": lines_of(["come"], [came]), "unit": "a second"}
    values = [_padded(one["series"]["ready"], len(hours)) for one in replays]
    lines = lines_of(names, values)
    yield {"title": "Replicas that answer", "along": "hours", "x": hours, "lines": lines, "unit": "replicas"}


def _padded(values: Sequence[float], length: int) -> list[float | None]:
    return [*values, *([None] * (length - len(values)))]


def _of_a_trace(found: Document) -> Iterator[Chart]:
    if found.get("levels"):
        arrived = [row["arrived_percent"] for row in found["levels"]]
        values = [[row["allocation_percent"] for row in found["levels"]]]
        words = "what had come, % of devices"
        lines = lines_of([found["policy"]], values)
        of = {"title": "Devices allocated", "along": words, "unit": "% of devices", "most": 100.0}
        yield {**of, "x": arrived, "lines": lines}
    sizes = [row["devices"] for row in found["blocked"]]
    values = [_refused(found["blocked"], sizes)]
    yield _bars("Refused, by devices wanted", sizes, lines=lines_of([found["policy"]], values), unit="% of these")


def case_name(case: Mapping[str, Any]) -> str:
    """``LPG h100+20``."""
    return " ".join([case["policy"], *(f"{group}{count:+d}" for group, count in case["more"].items())])


def _refused(rows: Sequence[Mapping[str, Any]], sizes: Sequence[str]) -> list[float]:
    by_size = {row["devices"]: 100 * row["refused"] / max(1, row["came"]) for row in rows}
    return [round(by_size.get(size, 0.0), 4) for size in sizes]


def lines_of(names: Sequence[str], values: Sequence[Sequence[float | None]]) -> list[dict[str, Any]]:
    colours = (COLOURS[n % len(COLOURS)] for n in range(len(names)))
    return [
        {"name": name, "colour": colour, "values": list(line)}
        for name, colour, line in zip(names, colours, values, strict=True)
    ]


def _bars(title: str, names: Sequence[str], *, lines: Sequence[Mapping[str, Any]], unit: str) -> Chart:
    """Bars of each line at each place, those of one place beside each other."""
    many = len(lines)
    x = [place + 0.8 * (n + 0.5 - many / 2) / many for place in range(len(names)) for n in range(many)]
    apart = []
    for n, line in enumerate(lines):
        values: list[float | None] = [None] * len(x)
        values[n::many] = line["values"]
        apart.append({**line, "values": values})
    return {"title": title, "along": "", "names": list(names), "x": x, "lines": apart, "unit": unit}

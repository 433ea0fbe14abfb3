"""Runs the programs and writes docs/performance.md from what they say: ``make performance``, or for some of them
``python bench/_report.py NAME …``. Some stand on other pages (`PAGES`, docs/performance-NAME.md); `placement`,
`scaling` and `size` have one each in a form of their own.

What each program said last is kept in docs/performance.json, with the machine, the day and what the program said of
itself then, so that one can be run again without the others; one that fails keeps what it said before. No figure in the
page is written by hand.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import _filled
import _scaled
import _size
from _common import Figure, environment, table
from _page import machine

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
PAGES = {
    "api": ("Performance of the API", ("control_plane", "fairness")),
    "gangs": ("Performance of gangs", ("gangs",)),
    "fleet": ("Performance of deciding and taking", ("rivals", "turns", "commit")),
    "gateway": ("Performance of the gateway", ("gateway", "path", "affinity")),
    "serving": ("Performance of serving", ("throughput", "firsttoken", "waking")),
}
"""By name: what a page is called, and whose figures stand there."""

FORMS = {
    "placement": ("performance-placement.md", _filled.page),
    "scaling": ("performance-scaling.md", _scaled.page),
    "size": ("size.md", _size.page),
}
"""Those that have a page and a form of their own."""

APART = (*(name for _, names in PAGES.values() for name in names), *FORMS)
PROGRAMS = (
    "control_plane",
    "reconcile",
    "fairness",
    "startup",
    "gateway",
    "path",
    "affinity",
    "throughput",
    "firsttoken",
    "waking",
    "scaling",
    "placement",
    "gangs",
    "rivals",
    "turns",
    "commit",
    "size",
)


def main() -> None:
    """Run what is named, or all, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PROGRAMS)}; all where none is named")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peer", default="", metavar="DIR", help="for control_plane: see tools/kube-peer")
    parser.add_argument("--placement-peer", default="", metavar="DIR", help="for commit: see tools/placement-peer")
    parser.add_argument("--gateway-peer", default="", metavar="DIR", help="for gateway: nginx, envoy, litellm below it")
    parser.add_argument("--data", default="", metavar="DIR", help="for placement: the files of openb")
    parser.add_argument("--traces", default="", metavar="DIR", help="for affinity and scaling: azure_llm and mooncake")
    parser.add_argument("--page", action="store_true", help="run nothing: write the page from what is kept")
    given = parser.parse_args()
    if unknown := set(given.names) - set(PROGRAMS):
        parser.error(f"no program is called {', '.join(sorted(unknown))}")
    kept_path = DOCS / "performance.json"
    kept: dict[str, Any] = json.loads(kept_path.read_text()) if kept_path.exists() else {}
    failed = []
    for name in () if given.page else given.names or PROGRAMS:
        try:
            kept[name] = _run(name, *_words(name, given), quick=given.quick)
        except (subprocess.CalledProcessError, ValueError) as error:
            print(f"{name}: {error}: what it said before is kept", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        kept_path.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n")
        _write(kept)
    _write(kept)
    sys.exit(f"Failed: {', '.join(failed)}" if failed else 0)


def _words(name: str, given: argparse.Namespace) -> list[str]:
    """What a program is told of its peer and its data."""
    peers = {"control_plane": given.peer, "commit": given.placement_peer, "gateway": given.gateway_peer}
    traces = {"affinity": f"{given.traces}/mooncake", "scaling": given.traces} if given.traces else {}
    data = {"placement": given.data, **traces}
    found = []
    for option, of in (("--peer", peers), ("--data", data)):
        found += [option, of[name]] if of.get(name) else []
    return found


def _write(kept: dict[str, Any]) -> None:
    (DOCS / "performance.md").write_text(_page("Performance", kept, [n for n in PROGRAMS if n not in APART]))
    for where, (title, names) in PAGES.items():
        if any(name in kept for name in names):
            (DOCS / f"performance-{where}.md").write_text(_page(title, kept, names))
    for name, (where, form) in FORMS.items():
        if name in kept:
            figures = [Figure(**row) for row in kept[name]["figures"]]
            (DOCS / where).write_text(form(figures, about=_about(name, kept), how=_how(kept[name])))


def _run(name: str, *more: str, quick: bool) -> dict[str, Any]:
    load_before = os.getloadavg()[0]
    print(f"{datetime.now(UTC):%H:%M:%S} {name}, load average {load_before:.1f}", flush=True)
    argv = [sys.executable, str(HERE / f"{name}.py"), "--json", *more, *(["--quick"] if quick else [])]
    said = subprocess.run(argv, env=environment(), stdout=subprocess.PIPE, check=True).stdout
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "about": _about(name, {}),
        "machine": machine(),
        "quick": quick,
        "load_before": round(load_before, 1),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "figures": json.loads(said),
    }


def _page(title: str, kept: dict[str, Any], names: Sequence[str]) -> str:
    parts = [
        f"# {title}",
        "",
        "Written by `make performance` on a quiet machine: every figure comes from a program in `bench/`, none is",
        "written by hand. What is run once has more noise than a median. A peer marked *kept* was measured earlier",
        "on a machine of this size; `tools/kube-peer DIR` and `tools/placement-peer DIR` build them, and",
        "`make performance PEER=DIR PLACEMENT_PEER=DIR GATEWAY_PEER=DIR` runs them beside ours. Read ratios rather",
        "than absolutes, and the load before a run as its noise.",
    ]
    for name in names:
        if name not in kept:
            continue
        run = kept[name]
        about = _about(name, kept)
        parts += ["", f"## `bench/{name}.py`", "", about, "", f"*{_how(run)}.*", ""]
        parts.append(table(Figure(**row) for row in run["figures"]))
    return "\n".join(parts) + "\n"


def _about(name: str, kept: dict[str, Any]) -> str:
    """What a program says of itself; of one whose figures are kept, what it said when it was run."""
    said: str = kept.get(name, {}).get("about") or importlib.import_module(name).__doc__ or ""
    return said.strip()


def _how(run: dict[str, Any]) -> str:
    """When, and on what."""
    how = f"{run['date']}, {run['machine']}, load average before the run {run['load_before']}"
    how += f", nice {run['nice']}" if run["nice"] else ""
    how += f"; {run['note']}" if run.get("note") else ""
    return f"{how}{', --quick' if run['quick'] else ''}"


if __name__ == "__main__":
    main()

"""fleet: what there is of each model, how much of it serves nothing that is asked for, and what that costs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import typer

from bessemer.cli import render
from bessemer.cli.connection import run
from bessemer.cli.output import OutputOption, shown
from bessemer.core.units import show_money


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    app.command("fleet")(fleet)


def fleet(context: typer.Context, *, output: OutputOption = "table") -> None:
    """Devices by model: how many are free, how many of those serve nothing that is asked for, and what that costs.

    For who may read hosts. Example: `bessemer fleet` · `bessemer fleet -o json`
    """
    found = run(context, lambda client: client.fleet.figures())
    typer.echo(shown(found, output, text=lambda within: fleet_text(found, within=within)))


def fleet_text(found: Mapping[str, Any], *, within: int = 0) -> str:
    """A line per model, and what the words mean."""
    if not found["models"]:
        return "No host has a device."
    head = ["MODEL", "DEVICES", "FREE", "NO USE", "STRANDED", "MOST ON ONE HOST", "IDLE", "WASTED", "STILL FITS"]
    rows = [_row(one, found["currency"]) for one in found["models"]]
    spare = ["STRANDED", "MOST ON ONE HOST", "IDLE"]
    table = render.columns(head, rows, within=within, spare=spare)
    shapes = found["shapes"]
    asked = f"{shapes} shape{'s are' if shapes != 1 else ' is'} asked for" if shapes else "nothing was asked for yet"
    note = f"Of {found['hosts']} hosts; {asked}. NO USE: free, and too little together for what is asked for"
    words = f"{note}; STRANDED: of that, for want of cores or memory."
    return "\n\n".join([table, "\n".join(textwrap.wrap(words, within)) if within else words])


def _row(one: Mapping[str, Any], currency: str) -> list[str]:
    money = one.get("money") or {}
    return [
        f"{one['model']}{' FAKE' if one['fake'] else ''}",
        " + ".join([f"{one['devices']:,}", *([f"{one['unsound']:,} unsound"] if one["unsound"] else [])]),
        _part(one["freeMilli"], one),
        _part(one.get("uselessMilli"), one),
        _part(one.get("strandedMilli"), one),
        f"{one['largest']:,}",
        _hourly(money.get("idle"), currency),
        _hourly(money.get("useless"), currency),
        one["largestShape"] or "-",
    ]


def _part(milli: int | None, one: Mapping[str, Any]) -> str:
    """``12.5 (3.1 %)`` of the model's devices."""
    if milli is None:
        return "-"
    return f"{milli / 1000:,.6g} ({milli / 10 / max(1, one['devices']):.1f} %)"


def _hourly(micro: int | None, currency: str) -> str:
    return "-" if micro is None else f"{show_money(micro, currency)}/h"

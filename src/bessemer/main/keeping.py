"""``bessemer store check`` and ``store copy``: over the store of a state directory, or over two places."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

from rich.console import Console

from bessemer.cli import render
from bessemer.cli.output import shown
from bessemer.cli.verbs import CheckOptions, CopyOptions
from bessemer.core.clock import SystemClock
from bessemer.kinds import KINDS
from bessemer.main.settings import Paths, load, require_address, state_directory
from bessemer.main.steps import Steps
from bessemer.main.storage import guard_of, located, with_password
from bessemer.store import store_kinds
from bessemer.store.check import check_store
from bessemer.store.copy import copy_store
from bessemer.store.places import is_address
from bessemer.store.tally import Tally

_SPARE = ("HOLDS",)


def check(options: CheckOptions) -> int:
    """Look at the store and say what is wrong; 1 where something is. Raises Invalid, Conflict, Unavailable, OSError."""
    paths = Paths(state_directory(options.state))
    found = asyncio.run(checked(paths, store=options.store))
    value = {"ok": all(tally.ok for tally in found), "checks": [tally.document() for tally in found]}
    print(shown(value, options.output, text=lambda within: as_table(found, within=within)))
    return int(not value["ok"])


async def checked(paths: Paths, *, store: str | None = None) -> list[Tally]:
    """Every check of an installation's store."""
    where = located(paths, load(paths, store=store))
    looks = check_store(where, clock=SystemClock(), kinds=store_kinds(KINDS), guard=guard_of(paths))
    return [tally async for tally in looks]


def as_table(found: list[Tally], *, within: int = 0) -> str:
    """A line for each check; below, what is wrong."""
    rows = [[t.check, str(t.rows), "ok" if t.ok else f"{t.count} wrong", t.holds] for t in found]
    lines = [render.columns(["CHECK", "ROWS", "RESULT", "HOLDS"], rows, within=within, spare=_SPARE)]
    for tally in (one for one in found if not one.ok):
        lines += ["", f"{tally.check}: not so: {tally.holds}"]
        lines += [f"  {words}" for words in tally.wrong]
        if tally.count > len(tally.wrong):
            lines.append(f"  and {tally.count - len(tally.wrong)} more")
    return "\n".join(lines)


def copy(options: CopyOptions) -> int:
    """Copy a store to an empty place. Raises Invalid, Conflict, Unavailable, OSError."""
    paths = Paths(state_directory(options.state))
    source, target = (_place(paths, word) for word in (options.source, options.target))
    steps = Steps(Console(stderr=True))
    with steps.step("Copy") as step:
        rows = copy_store(source, target, clock=SystemClock(), told=step.update)
        step.note = f"{sum(rows.values())} rows of {len(rows)} tables, and they are the same"
    print(_next(options))
    return 0


def _place(paths: Paths, word: str) -> str | Path:
    """A file, or an address with its password. Raises Invalid."""
    if not is_address(word):
        return Path(word).expanduser()
    require_address(word)
    return with_password(paths, word)


def _next(options: CopyOptions) -> str:
    if is_address(options.target):
        return f"Move {options.source} away, then: bessemer up --store {shlex.quote(options.target)}"
    return f"Put {options.target} where the state directory has its store.db, and take `store` out of settings.json"

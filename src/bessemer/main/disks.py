"""``bessemer disks``: which disks of this host guests have, how far others are wiped, and what a person decides of one
that could not be. The agent reads it at its next look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from rich.console import Console
from rich.table import Table

from bessemer.cli.output import DOCUMENTS, document
from bessemer.cli.verbs import DisksOptions
from bessemer.core.errors import Conflict, NotFound
from bessemer.drivers.wipe.records import Debt, Records
from bessemer.drivers.wipe.wipes import said_of
from bessemer.main.hostdrivers import disk_records
from bessemer.main.settings import Paths, state_directory


def disks(options: DisksOptions) -> int:
    """Do what is asked, then print what there is; 1 where a disk could not be wiped. Raises NotFound, Conflict."""
    records = disk_records(Paths(state_directory(options.state)).agent)
    if options.retry:
        debt = _failed(records, options.retry)
        if debt.reason == "RecordUnreadable":
            raise Conflict(f"{debt.message}: nobody knows which disk it is; --release, once you do")
        # From the beginning: what was done before it failed proves nothing.
        records.keep(replace(debt, phase="due", way="", done_bytes=0, tries=0, reason="", message=""))
    if options.release:
        records.drop(_failed(records, options.release).device)
    found = records.all()
    if options.output in DOCUMENTS:
        print(document([{**asdict(debt), "said": _said(debt)} for debt in found], options.output))
    else:
        _show(found)
    return int(any(debt.phase == "failed" for debt in found))


def _failed(records: Records, device: str) -> Debt:
    """What is not failed is the agent's alone: it is a guest's, or under its hands."""
    debt = next((debt for debt in records.all() if debt.device == device), None)
    if debt is None:
        raise NotFound(f"no guest has had disk {device}")
    if debt.phase != "failed":
        raise Conflict(f"disk {device}: {_said(debt)}")
    return debt


def _said(debt: Debt) -> str:
    return f"claim {debt.uid} has it" if debt.phase in ("asked", "handed") else said_of(debt)


def _show(found: Sequence[Debt]) -> None:
    table = Table("DISK", "ADDRESS", "STATE", box=None, pad_edge=False)
    for debt in found:
        table.add_row(debt.device, debt.address or "-", _said(debt))
    Console().print(table if found else "No guest has, or had, a disk of this host.", soft_wrap=True)

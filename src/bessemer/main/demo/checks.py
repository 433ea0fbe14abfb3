"""What the demo claims, checked: by the kernel's process table, the gateway's refusals, a second implementation."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

import bessemer
from bessemer.core.errors import DriverError
from bessemer.kinds.context import HostDrivers

ORACLE = Path(bessemer.__file__).resolve().parents[2] / "tests" / "oracle" / "invoice.py"


def failed(what: str) -> DriverError:
    """A check that did not hold."""
    return DriverError("DemoFailed", what)


async def process_of(machine: HostDrivers, claim: Mapping[str, Any]) -> int:
    """The process id in a Claim's status, after asking the machine that it lives and is that claim's. Raises
    DriverError where it is not, or where the claim is a fake host's."""
    uid, kind = claim["metadata"]["uid"], claim["spec"]["workload"]["kind"]
    found = await machine.qemu.find(uid) if kind == "Instance" else await machine.engine.find(uid)
    told = claim.get("status", {}).get("pid")
    if found is None or found.pid != told:
        raise failed(f"claim {claim['metadata']['name']} says pid {told}, the machine says {found}")
    if claim["spec"]["fake"]:
        raise failed(f"claim {claim['metadata']['name']} is on a fake host")
    return int(told)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the gateway owes to somebody who may not."""

    what: str
    status: int
    code: str

    def __str__(self) -> str:
        return f"{self.what} {self.status} {self.code}"


async def refused(ai: openai.AsyncOpenAI, expected: Refusal, *, model: str) -> None:
    """Ask, and be refused exactly so. Raises DriverError where it is answered, or refused in another way."""
    try:
        await ai.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}], max_tokens=1)
    except openai.APIStatusError as error:
        if (error.status_code, error.code) != (expected.status, expected.code):
            raise failed(f"{expected} is due, and it was {error.status_code} {error.code}") from error
    else:
        raise failed(f"{expected} is due, and it was answered")


def same_total(bill: Mapping[str, Any], export: Path) -> str:
    """An invoice's total and the second implementation's of its exported rows, in words. Raises DriverError where they
    differ."""
    ours = f"{bill['currency']} {bill['totalMicro'] // 10**6}.{bill['totalMicro'] % 10**6:06d}"
    theirs = _second_opinion(export)
    said = f"ours {ours}, theirs {theirs or 'not in this installation'}"
    if theirs and theirs != ours:
        raise failed(said)
    return said


def _second_opinion(export: Path) -> str:
    """What the second implementation makes of exported rows, as it prints it; "" without a checkout beside."""
    if not ORACLE.exists():
        return ""
    said, before = io.StringIO(), sys.argv
    sys.argv = [str(ORACLE), str(export)]
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_path(str(ORACLE), run_name="__main__")
    finally:
        sys.argv = before
    return said.getvalue().strip()


def write_export(path: Path, ledger: Mapping[str, Any]) -> None:
    """Ledger rows and price plan as ``bessemer invoice --export`` writes them."""
    path.write_text(json.dumps(ledger, indent=2) + "\n")

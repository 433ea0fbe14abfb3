"""What hardware would cost for an hour while it runs: the invoice of that hour, derived as every invoice is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bessemer.core.units import SECONDS_PER_HOUR
from bessemer.core.values import LedgerEntry
from bessemer.metering.invoice import Invoice, derive
from bessemer.metering.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What ``count`` replicas would hold each, as a Claim's row in the ledger would say it."""

    milli_cores: int
    memory_bytes: int
    devices: int = 0
    device_milli: int = 1000
    in_part: bool = False
    device_model: str = ""
    fake: bool = False
    count: int = 1

    @property
    def shared(self) -> bool:
        """Whether it is of one device in part."""
        return self.in_part


def hour(held: Iterable[Hardware], plan: Plan, *, workload: str = "") -> Invoice:
    """All of it together, each line rounded once, as of one workload. What the plan does not bill costs nothing."""
    rows = [
        LedgerEntry(
            id=number + 1,
            at=0,
            kind="open",
            tenant="",
            project="",
            workload_kind="",
            workload_name=workload,
            workload_uid="",
            claim_uid=str(number),
            state="running",
            fake=one.fake,
            milli_cores=one.count * one.milli_cores,
            memory_bytes=one.count * one.memory_bytes,
            devices=one.count * one.devices,
            device_milli=one.device_milli,
            device_model=one.device_model,
        )
        for number, one in enumerate(held)
    ]
    return derive(rows, plan, start=0, end=SECONDS_PER_HOUR)

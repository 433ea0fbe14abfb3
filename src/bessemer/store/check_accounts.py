"""Checks of what is final, and of what is secret: the ledger, the trail, sealed values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, or_, select

from bessemer.core.errors import Unavailable
from bessemer.store.audit import TrailView
from bessemer.store.heads import Signing
from bessemer.store.schema import audit, data_keys, filled, ledger, sealed
from bessemer.store.snapshot import Snapshot
from bessemer.store.tally import Survey, Tally
from bessemer.store.vault import DataKey, Vault

_FIELDS = ("id", "claim_uid", "kind", "at", "state", "tenant_uid", "project_uid")
_INTERVALS = (
    select(*(ledger.c[name] for name in _FIELDS))
    .where(filled(ledger.c.claim_uid), ledger.c.kind != "correction")
    .order_by(ledger.c.id)
)
_CORRECTED = ledger.alias("corrected")
_CORRECTIONS = (
    select(ledger.c.id, ledger.c.corrects, _CORRECTED.c.id)
    .select_from(ledger.outerjoin(_CORRECTED, ledger.c.corrects == _CORRECTED.c.id))
    .where(or_(ledger.c.kind == "correction", ledger.c.corrects.is_not(None)))
    .order_by(ledger.c.id)
)
_SEALED = select(sealed.c.uid, sealed.c.field, sealed.c.ciphertext).order_by(sealed.c.uid, sealed.c.field)
_KEYS = select(data_keys.c.id, data_keys.c.kek, data_keys.c.wrapped)
_ROWS_OF_TRAIL = select(func.count()).select_from(audit)


# --- the ledger -----------------------------------------------------------------------------------------------------


def intervals(snapshot: Snapshot, survey: Survey) -> Tally:
    """One interval per Claim."""
    tally = Tally(
        "intervals", "a Claim has one interval: opened once, in order of time, open while it stands, no longer"
    )
    last: dict[str, dict[str, Any]] = {}
    for values in snapshot.rows(_INTERVALS):
        row = dict(zip(_FIELDS, values, strict=True))
        tally.rows += 1
        before = last.get(row["claim_uid"])
        if wrong := _out_of_order(before, row):
            tally.fault(f"row {row['id']} of Claim {row['claim_uid']}: {wrong}")
        state = row["state"] or (before["state"] if before is not None else None)
        last[row["claim_uid"]] = {**row, "state": state}
    for uid, (key, _) in survey.claims.items():
        if uid not in last or last[uid]["kind"] == "close":
            tally.fault(f"{key}: stands, and no interval of it is open")
    for uid, end in last.items():
        if end["kind"] != "close" and uid not in survey.claims:
            tally.fault(f"row {end['id']} of Claim {uid}: the Claim is gone, and its interval open")
    return tally


def _out_of_order(before: Mapping[str, Any] | None, row: Mapping[str, Any]) -> str:
    """What is wrong with a row after the one before it of the same Claim."""
    if before is None:
        return "" if row["kind"] == "open" else f"{row['kind']} before open"
    if row["kind"] == "open":
        return "opened a second time"
    if before["kind"] == "close":
        return f"{row['kind']} after close"
    if row["at"] < before["at"]:
        return f"its time is before that of row {before['id']}"
    if row["state"] is not None and row["state"] == before["state"]:
        return f"{row['state']} a second time in a row"
    same = (row["tenant_uid"], row["project_uid"]) == (before["tenant_uid"], before["project_uid"])
    return "" if same else f"is of another tenant or project than row {before['id']}"


def corrections(snapshot: Snapshot, survey: Survey) -> Tally:
    """A correction is of something."""
    tally = Tally("corrections", "a correction names a row before it")
    for number, corrects, found in snapshot.rows(_CORRECTIONS):
        good = found is not None and found < number
        tally.require(good, f"row {number}: corrects row {corrects}, which is not before it")
    return tally


# --- secrets --------------------------------------------------------------------------------------------------------


def owned_values(snapshot: Snapshot, survey: Survey) -> Tally:
    """Sealed values go with their objects."""
    tally = Tally("sealed", "a sealed value is of an object that exists")
    for uid, field in snapshot.rows(select(sealed.c.uid, sealed.c.field)):
        tally.require(uid in survey.by_uid, f"{field} of uid {uid}: the object is gone")
    return tally


async def secrets(snapshot: Snapshot, survey: Survey, *, vault: Vault) -> Tally:
    """Each value opens. Nothing of one is kept or told."""
    tally = Tally("secrets", "a sealed value opens with the keys that are here")
    kept = {str(row[0]): DataKey(row[0], row[1], bytes(row[2])) for row in snapshot.rows(_KEYS)}

    async def find(name: str) -> DataKey | None:
        return kept.get(name)

    for uid, field, ciphertext in snapshot.rows(_SEALED):
        tally.rows += 1
        try:
            await vault.open(bytes(ciphertext), find, uid=uid, field=field)
        except Unavailable as error:
            known = survey.by_uid.get(uid)
            tally.fault(f"{field} of {known.key if known is not None else f'uid {uid}'}: {error.message}")
    return tally


# --- the trail ------------------------------------------------------------------------------------------------------


async def chained(snapshot: Snapshot, survey: Survey, *, signing: Signing) -> Tally:
    """The rows of the trail, and the heads that were signed of them."""
    tally = Tally("audit", "the trail's rows hang together, up to its signed heads in the database and beside it")
    tally.rows = int(snapshot.all(_ROWS_OF_TRAIL)[0][0])
    fault = await TrailView(snapshot.reader, signing=signing).verify()
    if fault is not None:
        sound = f"sound up to row {fault.sound}" if fault.sound else "no row before is vouched for"
        tally.fault(f"{fault.words} ({sound})")
    return tally

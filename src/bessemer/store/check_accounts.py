"""Checks of what is final, and of what is secret: the ledger, the trail, sealed values, and what keeps them so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import Select, column, func, literal_column, or_, select, table, text

from bessemer.core.errors import Unavailable
from bessemer.store.audit import Trail
from bessemer.store.heads import Signing
from bessemer.store.schema import audit, data_keys, filled, ledger, sealed
from bessemer.store.schema_versions import ddl, ddl_of_database
from bessemer.store.snapshot import Snapshot
from bessemer.store.tally import Survey, Tally
from bessemer.store.vault import DataKey, Vault
from bessemer.store.writer import Committer

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

_MADE = re.compile(r"^CREATE (?:UNIQUE )?(TABLE|INDEX|TRIGGER|FUNCTION) (\w+)", re.MULTILINE)
_THERE: Select[Any] = select(table("sqlite_master", column("name"), column("sql")))
_HERE = "current_schema()::regnamespace"
_OF_DATABASE: tuple[Select[Any], ...] = (
    select(literal_column("'TABLE', relname, ''"))
    .select_from(text("pg_class"))
    .where(text(f"relkind = 'r' AND relnamespace = {_HERE}")),
    select(literal_column("'INDEX', i.relname, t.relname || CASE WHEN indisunique THEN ' UNIQUE' ELSE '' END"))
    .select_from(text("pg_index JOIN pg_class i ON i.oid = indexrelid JOIN pg_class t ON t.oid = indrelid"))
    .where(text(f"indisvalid AND i.relnamespace = {_HERE}")),
    select(literal_column("'TRIGGER', tgname, relname || ' ' || tgtype || ' ' || proname"))
    .select_from(text("pg_trigger JOIN pg_class t ON t.oid = tgrelid JOIN pg_proc p ON p.oid = tgfoid"))
    .where(text(f"tgenabled IN ('O', 'A') AND relnamespace = {_HERE} AND pronamespace = {_HERE}")),
    select(literal_column("'FUNCTION', proname, prosrc"))
    .select_from(text("pg_proc"))
    .where(text(f"pronamespace = {_HERE}")),
)
"""(what, name, what it is) of all that works in the schema that is ours: an index whose making was stopped and a
trigger that is switched off do not."""
_MADE_IN_DATABASE = re.compile(
    r"^CREATE (?P<unique>UNIQUE )?(?P<what>TABLE|INDEX|TRIGGER|FUNCTION) (?P<name>\w+)"
    r"(?:(?P<when>[^\n(]*) ON (?P<on>\w+)(?:.* EXECUTE FUNCTION (?P<calls>\w+))?|\(\) [^$]*\$\$(?P<source>[^$]*)\$\$)?",
    re.MULTILINE,
)
_WHEN = {"FOR EACH ROW": 1, "BEFORE": 2, "INSERT": 4, "DELETE": 8, "UPDATE": 16, "TRUNCATE": 32}
"""What the server keeps of a trigger as a number."""


def schema(snapshot: Snapshot, survey: Survey) -> Tally:
    """What refuses to change what is final, and what is unique, is there to refuse."""
    tally = Tally("schema", "every table, index and trigger of this release is there")
    if snapshot.remote:
        found = {(what, name): words.split() for ask in _OF_DATABASE for what, name, words in snapshot.all(ask)}
        for made in _MADE_IN_DATABASE.finditer(ddl_of_database()):
            what, name = made["what"], made["name"]
            same = found.get((what, name)) == _kept(made).split()
            tally.require(same, f"{what.lower()} {name} is not there, is another, or is switched off")
        return tally
    there = dict(snapshot.all(_THERE))
    for statement in ddl().split(";\n"):
        for what, name in _MADE.findall(statement):
            same = name in there and (what == "TABLE" or _words(there[name]) == _words(statement))
            tally.require(same, f"{what.lower()} {name} is not there, or is another")
    return tally


def _kept(made: re.Match[str]) -> str:
    """What the server keeps of it, as `_OF_DATABASE` asks for it."""
    if made["what"] == "TRIGGER":
        return f"{made['on']} {sum(bit for word, bit in _WHEN.items() if word in made[0])} {made['calls']}"
    if made["what"] == "INDEX":
        return f"{made['on']} {made['unique'] or ''}"
    return made["source"] or ""


def _words(sql: str) -> list[str]:
    return sql.rstrip(";").split()


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
    nobody = cast(Committer, None)  # who verifies writes nothing
    fault = await Trail(nobody, snapshot.reader, clock=snapshot.clock, signing=signing).verify()
    if fault is not None:
        sound = f"sound up to row {fault.sound}" if fault.sound else "no row before is vouched for"
        tally.fault(f"{fault.words} ({sound})")
    return tally

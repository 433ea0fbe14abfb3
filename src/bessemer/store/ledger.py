"""`ports.Ledger`: the append-only account of what every claim and every token amounted to. Quantities only.

Invariants: the rows of a claim are one ``open``, a ``state`` per change of billing state and one ``close``, each in the
transaction of the write behind it, each at the server's time and never before its predecessor; a record of a spool is
settled once, whoever sends it; a row names the tenant and the project that it is of by their uids, too. Triggers keep
rows as they are. What they cost is metering's to say.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update

from bessemer.core.errors import Conflict, Forbidden, Invalid, NotFound
from bessemer.core.ports import Writer
from bessemer.core.resource import Key, tenant_of
from bessemer.core.values import BILLING, QUANTITIES, BillingState, ClaimSpec, LedgerEntry, UsageBatch, UsageRecord
from bessemer.store import audit, bounds, difference, money, served
from bessemer.store.kinds import PROJECT, TENANT
from bessemer.store.periods import Period, Periods
from bessemer.store.reader import Reader
from bessemer.store.rows import find
from bessemer.store.schema import filled, ledger, of, spools
from bessemer.store.transaction import Tx
from bessemer.store.writer import FEW, Committer

_FIELDS = tuple(column.name for column in ledger.c)
_DEFAULTS: Mapping[str, Any] = {
    name: field.default for name, field in LedgerEntry.model_fields.items() if not field.is_required()
}

_ROWS = select(ledger)
_ALL = _ROWS.order_by(ledger.c.id)
_WRITE = insert(ledger).values({name: bindparam(name) for name in _FIELDS if name != "id"})
_APPEND = _WRITE.returning(ledger.c.id)
_LAST = (
    _ROWS.where(of(ledger.c.claim_uid), filled(ledger.c.claim_uid), ledger.c.kind != "correction")
    .order_by(ledger.c.id.desc())
    .limit(1)
)
_ROW = _ROWS.where(of(ledger.c.id))
_SERVED_BY = (
    select(ledger.c.fake, ledger.c.tenant_uid, ledger.c.project_uid)
    .where(of(ledger.c.workload_uid))
    .order_by(ledger.c.id.desc())
    .limit(1)
)
_NEWEST = select(func.coalesce(func.max(ledger.c.id), 0))
_NEXT_PROJECT = (
    select(ledger.c.project_uid)
    .where(of(ledger.c.tenant_uid), ledger.c.project_uid > bindparam("after"))
    .order_by(ledger.c.project_uid)
    .limit(1)
)
_SPOOL = of(spools.c.spool_uid)
_SETTLED = select(spools.c.sequence).where(_SPOOL)
_ADVANCE = update(spools).values(sequence=bindparam("sequence"), gateway_uid=bindparam("gateway_uid")).where(_SPOOL)
_NEW_SPOOL = insert(spools)


class LedgerTable:
    """Implements `ports.Ledger`."""

    def __init__(self, committer: Committer, reader: Reader) -> None:
        self._committer = committer
        self._reader = reader
        self._periods = Periods(reader)

    async def settle(self, batch: UsageBatch) -> int:
        """Append what is new. Sequences count from 1; an unknown spool has settled 0. Raises Conflict, Invalid."""
        return await self._committer.submit(lambda tx: _settle(tx, batch), apart=len(batch.records) > FEW)

    async def window(self, *, start: int, end: int, project_uid: str) -> AsyncIterator[LedgerEntry]:
        """What is needed to account for ``[start, end)``; see `ports.Ledger.window`. Of nobody there is nothing."""
        if project_uid:
            async for row in self._periods.read(Period(project_uid, start, end)):
                yield _entry(row)

    async def last(self) -> int:
        """See `ports.Ledger.last`."""
        ((number,),) = await self._reader.ask(_NEWEST)
        return int(number)

    async def projects(self, tenant_uid: str) -> Sequence[str]:
        """See `ports.Ledger.projects`. One step through the index for each."""
        found: list[str] = []
        while rows := await self._reader.ask(_NEXT_PROJECT, of_tenant_uid=tenant_uid, after=found[-1] if found else ""):
            found.append(rows[0][0])
        return found

    async def entries(self) -> Sequence[LedgerEntry]:
        """Every row in order."""
        return [_entry(row) for row in await self._reader.rows(_ALL)]

    async def lose(self, claims: Collection[str]) -> int:
        """See `ports.Ledger.lose`."""
        return await self._committer.submit(lambda tx: sum(_lose(tx, uid) for uid in claims), apart=len(claims) > FEW)

    async def correct(self, row: int, quantities: Mapping[str, int], writer: Writer) -> LedgerEntry:
        """Append a correction that names the row. Raises NotFound, Forbidden, Invalid."""
        if writer.kind not in ("user", "system"):
            raise Forbidden("a ledger row is corrected by an administrator alone")
        wrong = [name for name, value in quantities.items() if name not in QUANTITIES or value < 0]
        if wrong:
            raise Invalid(f"{', '.join(wrong)}: no quantity of a ledger row, or less than nothing")
        return await self._committer.submit(lambda tx: _correct(tx, row, quantities=quantities, writer=writer))


def open_interval(tx: Tx, spec: ClaimSpec, *, project: str, claim_uid: str) -> None:
    """A claim begins."""
    row = _row(
        at=int(tx.now),
        kind="open",
        tenant=spec.tenant,
        project=project,
        **_owners(tx, tenant=spec.tenant, project=project),
        workload_kind=spec.workload.kind,
        workload_name=spec.workload.name,
        workload_uid=spec.workload.uid,
        claim_uid=claim_uid,
        host=spec.host,
        fake=spec.fake,
        state="deploying",
        flavor=spec.flavor,
        device_model=spec.device_model,
        devices=len(spec.devices),
        device_milli=spec.device_milli,
        milli_cores=spec.milli_cores,
        memory_bytes=spec.memory_bytes,
    )
    # Nobody asks for its number: it may go in with those of the group's other claims.
    tx.add(_WRITE, **row)


def follow(tx: Tx, claim_uid: str, *, phase: str) -> None:
    """The claim's agent reports a phase: a row where the billing state moves. Raises Invalid for an unknown phase."""
    state = BILLING.get(phase)
    if state is None:
        raise Invalid(f"{phase[:63]!r} is no phase of a Claim")
    last = _last(tx, claim_uid)
    if last is not None and last["kind"] != "close" and last["state"] != state:
        _move(tx, last, state=state)


def close_interval(tx: Tx, claim_uid: str) -> None:
    """The claim ends."""
    last = _last(tx, claim_uid)
    if last is not None and last["kind"] != "close":
        _append(tx, **{**last, "kind": "close", "state": None, "at": max(int(tx.now), last["at"])})


def _lose(tx: Tx, claim_uid: str) -> bool:
    last = _last(tx, claim_uid)
    ran = last is not None and last["kind"] != "close" and last["state"] in ("deploying", "running")
    if last is not None and ran:
        _move(tx, last, state="lost")
    return ran


def _move(tx: Tx, last: Mapping[str, Any], *, state: BillingState) -> None:
    _append(tx, **{**last, "kind": "state", "state": state, "at": max(int(tx.now), last["at"])})


def _owners(tx: Tx, *, tenant: str, project: str) -> dict[str, str]:
    """Who bears the names now."""
    found = {"tenant_uid": find(tx, Key(TENANT, "", tenant)), "project_uid": find(tx, Key(PROJECT, "", project))}
    return {column: row.uid if row is not None else "" for column, row in found.items()}


def _last(tx: Tx, claim_uid: str) -> dict[str, Any] | None:
    row = tx.one(_LAST, of_claim_uid=claim_uid)
    return dict(zip(_FIELDS[1:], row[1:], strict=True)) if row is not None else None


def _row(**values: Any) -> dict[str, Any]:
    row = {**_DEFAULTS, **values}
    row["fake"] = int(row["fake"])
    return row


def _append(tx: Tx, **values: Any) -> LedgerEntry:
    row = _row(**values)
    number = tx.one(_APPEND, **row)[0]
    return _entry((number, *(row[name] for name in _FIELDS[1:])))


def _entry(row: Any) -> LedgerEntry:
    values = dict(zip(_FIELDS, row, strict=True))
    values["fake"] = bool(values["fake"])
    return LedgerEntry.model_construct(**values)


def _settle(tx: Tx, batch: UsageBatch) -> int:
    if batch.first_sequence < 1:
        raise Invalid("sequences of a spool count from 1")
    known = tx.one(_SETTLED, of_spool_uid=batch.spool_uid)
    settled: int = known[0] if known is not None else 0
    if batch.first_sequence > settled + 1:
        raise Conflict(f"the spool is settled up to {settled}: records from {settled + 1} on are missing")
    fresh = batch.records[settled + 1 - batch.first_sequence :]
    if not fresh:
        return settled
    for records in _grouped([record for record in fresh if record.ended == "unpaid"]):
        served.bill(tx, _owners_of(tx, records[0])["project_uid"], records=records)
    for records in _grouped([record for record in fresh if record.ended != "unpaid"]):
        held = sum(record.held_micro or 0 for record in records)
        row = _append_tokens(tx, records)
        money.settle(tx, row, holder=batch.gateway_uid, held=held)
        bounds.settle(tx, row, holder=batch.gateway_uid, records=records)
        served.note(tx, row, records=records)
    highest = batch.first_sequence + len(batch.records) - 1
    if known is None:
        tx.run(_NEW_SPOOL, gateway_uid=batch.gateway_uid, spool_uid=batch.spool_uid, sequence=highest)
    else:
        tx.run(_ADVANCE, of_spool_uid=batch.spool_uid, sequence=highest, gateway_uid=batch.gateway_uid)
    return highest


def _grouped(records: Sequence[UsageRecord]) -> list[list[UsageRecord]]:
    """One group per row: the same endpoint, key and model, and whose the key was."""
    groups: dict[tuple[str | None, ...], list[UsageRecord]] = {}
    for record in records:
        name = (record.project, record.endpoint, record.endpoint_uid, record.api_key, record.model, record.owner)
        groups.setdefault(name, []).append(record)
    return list(groups.values())


def _owners_of(tx: Tx, record: UsageRecord) -> dict[str, Any]:
    """Tokens may come late, when others have the names: they are of whoever had the endpoint's hardware."""
    found = tx.one(_SERVED_BY, of_workload_uid=record.endpoint_uid)
    if found is not None:
        return {"fake": bool(found[0]), "tenant_uid": found[1], "project_uid": found[2]}
    return {"fake": False, **_owners(tx, tenant=tenant_of(record.project), project=record.project)}


def _append_tokens(tx: Tx, records: Sequence[UsageRecord]) -> LedgerEntry:
    first = records[0]
    return _append(
        tx,
        at=int(tx.now),
        kind="tokens",
        tenant=tenant_of(first.project),
        project=first.project,
        **_owners_of(tx, first),
        workload_kind="Endpoint",
        workload_name=first.endpoint,
        workload_uid=first.endpoint_uid,
        model=first.model,
        api_key=first.api_key,
        requests=len(records),
        input_tokens=sum(record.input_tokens for record in records),
        cached_input_tokens=sum(record.cached_input_tokens for record in records),
        output_tokens=sum(record.output_tokens for record in records),
    )


def _correct(tx: Tx, number: int, *, quantities: Mapping[str, int], writer: Writer) -> LedgerEntry:
    row = tx.one(_ROW, of_id=number)
    if row is None:
        raise NotFound(f"there is no ledger row {number}")
    old = dict(zip(_FIELDS[1:], row[1:], strict=True))
    entry = _append(tx, **{**old, **quantities, "kind": "correction", "corrects": number, "at": int(tx.now)})
    change = difference.of_fields({name: old[name] for name in quantities}, dict(quantities))
    audit.append(tx, writer, verb="correct", key=Key("LedgerEntry", "", str(number)), uid="", change=change)
    return entry

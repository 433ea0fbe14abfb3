"""How endpoints answered, summed as it is settled: in the transaction that appends the ledger's row of it.

Invariants: a record counts once, as in the ledger; of a step nothing is added up outside the database. What a request
came to in money is nowhere here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import BindParameter, Select, bindparam, delete, func, insert, or_, select, update

from bessemer.core.reconcile import Billed, Counted, Replica
from bessemer.core.served import (
    COARSE_SECONDS,
    COLUMNS,
    FINE_KEPT_SECONDS,
    FINE_SECONDS,
    LATE_SECONDS,
    Asked,
    Served,
)
from bessemer.core.values import LedgerEntry, UsageRecord
from bessemer.store.documents import Document
from bessemer.store.reader import Reader
from bessemer.store.rows import Row
from bessemer.store.schema import answered, counted, of, served
from bessemer.store.scopes import owner
from bessemer.store.transaction import Tx

_PLACE = (
    of(served.c.project_uid),
    of(served.c.step),
    of(served.c.start),
    of(served.c.endpoint_uid),
    of(served.c.api_key),
    of(served.c.owner),
    of(served.c.model),
)
_ADD = update(served).values({name: served.c[name] + bindparam(f"more_{name}") for name in COLUMNS}).where(*_PLACE)
_NEW = insert(served)
_OLD = delete(served).where(of(served.c.project_uid), of(served.c.step), served.c.start < bindparam("before"))

_BILLED = ("requests", "input_tokens", "cached_input_tokens", "output_tokens")
_BILL = (
    update(answered)
    .values(
        {name: answered.c[name] + bindparam(f"more_{name}") for name in _BILLED}
        | {answered.c.until.name: bindparam("now")}
    )
    .where(of(answered.c.project_uid), of(answered.c.endpoint_uid), of(answered.c.replica), of(answered.c.how))
)
_NEW_BILL = insert(answered)

_SUMS = tuple(func.sum(served.c[name]) for name in COLUMNS)
_ENDPOINT: BindParameter[str] = bindparam("endpoint")
_KEY: BindParameter[str] = bindparam("key")


_FORGET = delete(counted).where(of(counted.c.project_uid), of(counted.c.claim_uid))
_KEEP = insert(counted)
_KEPT = select(counted.c.claim_uid, counted.c.endpoint_uid, counted.c.endpoint, counted.c.host, counted.c.said).where(
    of(counted.c.project_uid)
)
_BILLED_OF = select(
    answered.c.replica,
    answered.c.how,
    answered.c.endpoint_uid,
    answered.c.endpoint,
    answered.c.requests,
    answered.c.input_tokens,
    answered.c.output_tokens,
    answered.c.until,
).where(of(answered.c.project_uid))


def _read(name: str) -> Select[Any]:
    return (
        select(served.c[name], served.c.model.label("answered_by"), *_SUMS)
        .where(
            of(served.c.project_uid),
            of(served.c.step),
            served.c.start >= bindparam("start"),
            served.c.start < bindparam("end"),
            or_(_ENDPOINT == "", served.c.endpoint == _ENDPOINT),
            or_(_KEY == "", served.c.api_key == _KEY),
        )
        .group_by(served.c[name], served.c.model)
    )


_READS = {"key": _read("api_key"), "endpoint": _read("endpoint"), "member": _read("owner"), "model": _read("model")}


def note(tx: Tx, row: LedgerEntry, *, records: Sequence[UsageRecord]) -> None:
    """A row of tokens was appended to the ledger, for these records, which are of one endpoint, key and owner."""
    bill(tx, row.project_uid, records=records)
    if not row.project_uid:
        return  # nobody would ever see it
    now = int(tx.server_time)
    for step in (FINE_SECONDS, COARSE_SECONDS):
        for start, sums in _stepped(records, step=step, now=now).items():
            _add(tx, row, owner=records[0].owner or "", step=step, start=start, sums=sums)


def _stepped(records: Iterable[UsageRecord], *, step: int, now: int) -> dict[int, Served]:
    found: dict[int, Served] = {}
    for record in records:
        at = record.at if now - LATE_SECONDS < record.at <= now else now
        found.setdefault(at - at % step, Served()).take(record)
    return found


def _add(tx: Tx, row: LedgerEntry, *, owner: str, step: int, start: int, sums: Served) -> None:
    place = {
        "project_uid": row.project_uid,
        "step": step,
        "start": start,
        "endpoint_uid": row.workload_uid,
        "api_key": row.api_key,
        "owner": owner,
        "model": row.model,
    }
    more = zip(COLUMNS, sums.values, strict=True)
    if tx.run(_ADD, **_of(place), **{f"more_{name}": value for name, value in more}):
        return
    tx.run(_NEW, **place, endpoint=row.workload_name, **dict(zip(COLUMNS, sums.values, strict=True)))
    if step == FINE_SECONDS:
        before = int(tx.server_time) - FINE_KEPT_SECONDS
        tx.run(_OLD, of_project_uid=row.project_uid, of_step=step, before=before)


def bill(tx: Tx, project_uid: str, *, records: Iterable[UsageRecord]) -> None:
    """What was billed of each replica, by how its answers ended; of one endpoint. Who does not say, is an older
    gateway's."""
    groups: dict[tuple[str, str], list[UsageRecord]] = {}
    for record in records:
        if record.replica:
            groups.setdefault((record.replica, record.ended or ""), []).append(record)
    now = int(tx.server_time)
    for (replica, how), mine in groups.items():
        place = {"project_uid": project_uid, "endpoint_uid": mine[0].endpoint_uid, "replica": replica, "how": how}
        sums = {
            "requests": len(mine),
            "input_tokens": sum(one.input_tokens for one in mine),
            "cached_input_tokens": sum(one.cached_input_tokens for one in mine),
            "output_tokens": sum(one.output_tokens for one in mine),
        }
        if not tx.run(_BILL, **_of(place), **{f"more_{name}": value for name, value in sums.items()}, now=now):
            tx.run(_NEW_BILL, **place, endpoint=mine[0].endpoint, **sums, since=now, until=now)


def _of(place: Mapping[str, Any]) -> dict[str, Any]:
    return {f"of_{name}": value for name, value in place.items()}


def keep(tx: Tx, row: Row, *, document: Document) -> None:
    """The claim goes: what its engine had counted stays, as its host said last."""
    said = document.get("status", {}).get("detail", {}).get("counted")
    workload = document["spec"]["workload"]
    uid = owner(tx, f"project/{row.key.namespace}") if Counted.read(said) is not None else ""
    if not uid:
        return
    tx.run(_FORGET, of_project_uid=uid, of_claim_uid=row.uid)
    tx.run(
        _KEEP,
        project_uid=uid,
        claim_uid=row.uid,
        endpoint_uid=workload["uid"],
        endpoint=workload["name"],
        host=row.host,
        at=int(tx.server_time),
        said=orjson.dumps(said).decode(),
    )


class ServedTable:
    """Implements `core.served.Figures` and `core.reconcile.Accounts`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def steps(self, asked: Asked) -> AsyncIterator[tuple[int, Mapping[tuple[str, str], Served]]]:
        """See `core.served.Figures.steps`. A read for each step, between which others have their turn."""
        for start in range(asked.start, asked.end, asked.step):
            rows = await self._reader.ask(
                _READS[asked.by],
                of_project_uid=asked.project_uid,
                of_step=asked.grain,
                start=start,
                end=min(start + asked.step, asked.end),
                endpoint=asked.endpoint,
                key=asked.key,
            )
            if rows:
                yield start, {(name, model): Served([int(value) for value in sums]) for name, model, *sums in rows}

    async def replicas(self, project_uid: str) -> Sequence[Replica]:
        """See `core.reconcile.Accounts.replicas`."""
        found: dict[str, Replica] = {}
        for uid, endpoint_uid, endpoint, host, said in await self._reader.ask(_KEPT, of_project_uid=project_uid):
            read = Counted.read(orjson.loads(said))
            found[uid] = Replica(endpoint=endpoint, endpoint_uid=endpoint_uid, uid=uid, host=host, counted=read)
        for uid, how, endpoint_uid, endpoint, *sums in await self._reader.ask(_BILLED_OF, of_project_uid=project_uid):
            replica = found.get(uid) or Replica(endpoint=endpoint, endpoint_uid=endpoint_uid, uid=uid)
            found[uid] = replace(replica, billed={**replica.billed, how: Billed(*map(int, sums))})
        return sorted(found.values(), key=lambda one: (one.endpoint, one.endpoint_uid, one.uid))

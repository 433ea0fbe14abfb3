"""`ports.Capacity`: the one writer of Claims. Quota, hardware, ledger, object and audit move in one transaction.

Invariant: for every Claim that exists its devices name it, its nodes and quotas count it, and its ledger interval is
open; for none that does not. Placement proposes what is taken here; the rows dispose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sqlalchemy import func, select

from bessemer.core.clock import Clock
from bessemer.core.errors import Conflict, Invalid
from bessemer.core.hosts import Inventory
from bessemer.core.money import Wish
from bessemer.core.notices import NAMES, SPARED, Notice
from bessemer.core.ports import HEARTBEATS, DeviceUse, Stored, Writer
from bessemer.core.quota import Quota, Share, Use, amounts_of
from bessemer.core.resource import Key
from bessemer.core.taking import Telling, Wanted
from bessemer.core.values import ClaimSpec
from bessemer.store import (
    audit,
    difference,
    documents,
    events,
    hardware,
    leases,
    ledger,
    money,
    pinned,
    quota,
    rules,
    served,
    walls,
)
from bessemer.store.cascade import Cascades
from bessemer.store.collect import finish_deletion, mark
from bessemer.store.documents import Document
from bessemer.store.forward import Forwarding
from bessemer.store.kinds import CLAIM, HOST, PROJECT, TENANT, StoreKind
from bessemer.store.leases import Time
from bessemer.store.objects import replace_part, require_owners
from bessemer.store.quota import set_bounds
from bessemer.store.reader import Reader
from bessemer.store.rows import Row, find, load, save
from bessemer.store.runner import Operation
from bessemer.store.schema import filled, objects, of
from bessemer.store.transaction import Tx
from bessemer.store.writer import FEW, Committer

_STANDING = (
    select(func.count()).select_from(objects).where(of(objects.c.kind), of(objects.c.host), filled(objects.c.host))
)

_BOUND = MappingProxyType({"tenant": TENANT, "project": PROJECT})


class CapacityTable:
    """Implements `ports.Capacity`."""

    def __init__(
        self,
        committer: Committer,
        reader: Reader,
        *,
        kinds: Mapping[str, StoreKind],
        clock: Clock,
        time: Time,
        cascades: Cascades,
    ) -> None:
        self._committer = committer
        self._cascades = cascades
        self._reader = reader
        self._kinds = kinds
        self._forward = Forwarding(kinds)
        self._clock = clock
        self._time = time

    async def declare(
        self,
        host: str,
        inventory: Inventory,
        *,
        overcommit_milli: int = 1000,
        schedulable: bool = True,
        revision: str = "",
    ) -> None:
        """Let the rows of capacity follow what the agent found. Raises Conflict."""

        def follow(tx: Tx) -> None:
            _require_current(tx, Key(HOST, "", host), revision=revision)
            hardware.declare(tx, host, inventory=inventory, overcommit_milli=overcommit_milli, schedulable=schedulable)

        await self._committer.submit(follow)

    async def withdraw(self, host: str, *, revision: str = "") -> None:
        """Drop the rows of a host, its lease's with them. Raises Conflict, also while a Claim stands there."""

        def drop(tx: Tx) -> None:
            _require_current(tx, Key(HOST, "", host), revision=revision)
            _withdraw(tx, host)

        await self._committer.submit(drop)

    async def take(
        self, claims: Sequence[Wanted], writer: Writer, *, terms: str = "", tells: Telling | None = None
    ) -> Sequence[Stored]:
        """All of them or none. Raises QuotaExceeded, Walled, Taken, Forbidden, Invalid, and Conflict where a name is in
        use, or the object whose status is told has changed."""
        rules.may_take(writer)
        wanted = [
            (key, spec, _document(key, spec, metadata=metadata, kinds=self._kinds)) for key, spec, metadata in claims
        ]
        tell = None
        if tells is not None:
            tell = _telling(tells, kinds=self._kinds, writer=writer, forward=self._forward)

        def follow(tx: Tx) -> list[Stored]:
            # First: what is told asks who goes with the workload, which the claims about to be put off do, too.
            told = [tell(tx)] if tell is not None else []
            return [_take(tx, claim, kinds=self._kinds, writer=writer, terms=terms) for claim in wanted] + told

        return await self._committer.submit(follow, apart=len(wanted) > FEW)

    async def amend(self, key: Key, intent: Mapping[str, Any], writer: Writer, *, uid: str = "") -> Stored:
        """New intent on the same hardware. Raises NotFound, Conflict; changes nothing of a Claim that is to end."""
        rules.may_take(writer)
        said = documents.settled({"metadata": {}, "spec": {"intent": intent}})["spec"]["intent"]
        return await self._committer.submit(lambda tx: _amend(tx, _own(tx, key, uid=uid), intent=said, writer=writer))

    async def retire(self, key: Key, writer: Writer, *, uid: str = "", notice: Notice | None = None) -> Stored:
        """Ask for the end, or tell that it will be asked for. Raises NotFound, Conflict."""
        rules.may_take(writer)

        def follow(tx: Tx) -> Stored:
            row = _own(tx, key, uid=uid)
            if notice is not None:
                return _tell(tx, row, notice=notice, writer=writer)
            return mark(tx, row, writer=writer, verb="retire").stored()

        return await self._committer.submit(follow)

    async def release(self, key: Key, writer: Writer, *, fenced: bool = False, uid: str = "") -> None:
        """Free the hardware, close the interval, remove the Claim. Raises Conflict unless it is Gone or fenced."""
        rules.may_take(writer)
        await self._cascades.submit(
            lambda tx: _release(tx, _there(tx, key, uid=uid), kinds=self._kinds, writer=writer, fenced=fenced)
        )

    async def set_quota(self, scope: str, quota: Quota, *, revision: str = "") -> None:
        """Bounds of a scope. Raises Conflict, and Invalid where it is none."""
        what, _, name = scope.partition("/")

        def follow(tx: Tx) -> None:
            _require_current(tx, Key(_BOUND.get(what, ""), "", name), revision=revision)
            set_bounds(tx, scope, wanted=quota)

        await self._committer.submit(follow)

    async def use(self, scope: str) -> Sequence[Use]:
        """Each meter of the scope."""
        rows = await self._reader.ask(quota.USE, of_scope=scope)
        uses = [await self._with_held(use) for use in map(quota.read_use, rows) if quota.tells(use)]
        given = {meter: (start, used) for meter, start, used in await self._reader.ask(quota.WINDOWS, of_scope=scope)}
        now = await self._now() if given else 0.0
        return [quota.within_window(use, given.get(use.meter), now=now) for use in uses]

    async def _with_held(self, use: Use) -> Use:
        """The use, where its meter is money: with what gateways hold."""
        if use.meter != money.METER:
            return use
        kind, _, name = use.scope.partition("/")
        asked = {f"of_{kind}": name, "now": int(await self._now())}
        ((held,),) = await self._reader.ask(money.HELD[kind], **asked)
        return replace(use, held=int(held))

    async def hold(self, project: str, *, meter: str, amount: int, money: Wish | None = None) -> Share:
        """Give out a part of what may be had within the present window. Raises QuotaExceeded, Invalid."""
        if amount < 0 or (money is not None and money.micro < 0):
            raise Invalid("nobody holds less than nothing")
        counted = quota.window_meter(meter)
        return await self._committer.submit(
            lambda tx: quota.hold(tx, project, meter=counted, amount=amount, wish=money)
        )

    async def held_by(self, holder: str) -> Sequence[str]:
        """The projects of which a gateway holds money."""
        rows = await self._reader.ask(money.HELD_BY, of_holder=holder)
        return [project for (project,) in rows]

    async def told(self, scope: str, *, meter: str, used: int, upto: int) -> None:
        """What the ledger came to, up to a row. Raises Invalid for a meter that is counted here."""
        await self._committer.submit(lambda tx: money.tell(tx, scope, meter=meter, used=used, upto=upto))

    async def devices(self) -> Sequence[DeviceUse]:
        """Every device row."""
        rows = await self._reader.rows(hardware.ALL_DEVICES)
        return [DeviceUse(host, device, model, claim, bool(lost)) for host, device, model, claim, lost in rows]

    async def _now(self) -> float:
        """As `Tx.server_time`, by which windows begin and holds end."""
        return await self._time.now(self._reader) if self._reader.remote else self._clock.now()


def _document(key: Key, spec: ClaimSpec, *, metadata: Mapping[str, Any], kinds: Mapping[str, StoreKind]) -> Document:
    # What is said of the Claim is the caller's, and copied; its spec is put into words here, for nobody else.
    said = {**documents.decode(documents.encode(metadata)), "name": key.name, "namespace": key.namespace}
    document = documents.shaped({"kind": CLAIM, "metadata": said, "spec": spec.dump()})
    documents.key_of(document, kinds)
    if any(min(part.milli_cores, part.memory_bytes, part.spare_milli_cores) < 0 for part in spec.allocations):
        raise Invalid("a claim takes no less than nothing")
    return document


def _telling(
    tells: Telling, *, kinds: Mapping[str, StoreKind], writer: Writer, forward: Forwarding
) -> Operation[Stored]:
    """What writes a status, and what it tells."""
    said = forward.document(documents.shaped({**tells.body, "metadata": dict(tells.body["metadata"])}))
    key = documents.key_of(said, kinds)

    def tell(tx: Tx) -> Stored:
        before = find(tx, key)
        first = before is not None and b'"status":' not in before.body
        stored = replace_part(tx, said, key=key, part="status", writer=writer, forward=forward)
        events.note(tx, stored, happenings=tells.happenings, first=first)
        return stored

    return tell


def _claim(key: Key) -> Key:
    return Key(CLAIM, key.namespace, key.name)


def _require_current(tx: Tx, key: Key, *, revision: str) -> None:
    """That the object is as it was read. Raises Conflict."""
    if not revision:
        return
    row = find(tx, key)
    if row is None or str(row.revision) != revision:
        raise Conflict(f"{key} has changed since it was read")


def _there(tx: Tx, key: Key, *, uid: str) -> Row | None:
    """The Claim, unless it is gone, or the name is another's by now."""
    row = find(tx, _claim(key))
    return row if row is not None and uid in ("", row.uid) else None


def _own(tx: Tx, key: Key, *, uid: str) -> Row:
    """The Claim. Raises NotFound, and Conflict where the name is another's by now."""
    row = load(tx, _claim(key))
    if uid not in ("", row.uid):
        raise Conflict(f"{row.key} is another one by now")
    return row


def _withdraw(tx: Tx, host: str) -> None:
    standing = tx.one(_STANDING, of_kind=CLAIM, of_host=host)[0]
    if standing:
        raise Conflict(f"{standing} claims stand on host {host}")
    hardware.withdraw(tx, host)
    leases.forget(tx, HEARTBEATS + host)


def _take(
    tx: Tx, claim: tuple[Key, ClaimSpec, Document], *, kinds: Mapping[str, StoreKind], writer: Writer, terms: str
) -> Stored:
    key, spec, said = claim
    row = find(tx, _claim(key))
    if row is not None:
        held = ClaimSpec.model_validate(row.document()["spec"])
        if (held.workload, held.host) != (spec.workload, spec.host):
            raise Conflict(f"{row.key} exists and belongs to another workload, replica or host")
        return row.stored()
    document = documents.fresh(pinned.told(tx, spec, said=said), _claim(key), facts=kinds[CLAIM], now=tx.now)
    document["status"] = {"phase": "Pending"}
    _require_holder(tx, document, holder=Key(spec.workload.kind, key.namespace, spec.workload.name))
    walls.admit(tx, spec, terms=terms)
    money.begin(tx, spec, project=key.namespace)
    uid = document["metadata"]["uid"]
    pinned.keep(tx, spec)
    models = hardware.take(tx, spec, uid=uid)
    pinned.require_free(tx, spec)
    quota.take(tx, key.namespace, tenant=spec.tenant, amounts=amounts_of(spec, models))
    saved = save(tx, document, before=None)
    ledger.open_interval(tx, spec, project=key.namespace, claim_uid=uid)
    audit.append(tx, writer, verb="take", key=saved.key, uid=uid, change=difference.made(document))
    return saved.stored()


def _require_holder(tx: Tx, document: Document, *, holder: Key) -> None:
    """`require_owners`, where its only owner is who holds it: had by its name, which needs nothing of the group written
    first. Raises Conflict, Invalid."""
    row = find(tx, holder)
    if row is None or documents.owners_of(document) != [row.uid]:
        require_owners(tx, document)


def _amend(tx: Tx, row: Row, *, intent: Document, writer: Writer) -> Stored:
    document = row.document()
    if document["spec"].get("intent", {}) == intent or documents.deleting(document):
        return row.stored()
    document["spec"] = {**document["spec"], "intent": intent}
    document["metadata"]["generation"] += 1
    change = difference.between(row.document(), document)
    audit.append(tx, writer, verb="amend", key=row.key, uid=row.uid, change=change)
    return save(tx, document, before=row).stored()


def _tell(tx: Tx, row: Row, *, notice: Notice, writer: Writer) -> Stored:
    """That its end is near, or that it is not: no new intent, so no new generation."""
    document = row.document()
    told = document["metadata"].get("annotations", {})
    before = Notice.read(told)
    spared = notice == SPARED
    over = before is not None and before.at <= tx.now
    if documents.deleting(document) or (before is None) == spared or over:
        return row.stored()
    rest = {name: value for name, value in told.items() if name not in NAMES}
    document["metadata"] = {**document["metadata"], "annotations": rest if spared else {**told, **notice.annotations()}}
    change = difference.between(row.document(), document)
    audit.append(tx, writer, verb="spare" if spared else "notify", key=row.key, uid=row.uid, change=change)
    return save(tx, document, before=row).stored()


def _release(tx: Tx, row: Row | None, *, kinds: Mapping[str, StoreKind], writer: Writer, fenced: bool) -> None:
    if row is None:
        return
    document = row.document()
    if not fenced and document.get("status", {}).get("phase") != "Gone":
        raise Conflict(f"{row.key} is not gone from host {row.host}: its agent has not said so")
    spec = ClaimSpec.model_validate(document["spec"])
    models = hardware.free(tx, spec, uid=row.uid)
    quota.give(tx, row.key.namespace, tenant=spec.tenant, amounts=amounts_of(spec, models))
    ledger.close_interval(tx, row.uid)
    served.keep(tx, row, document=document)
    finish_deletion(tx, row, writer=writer, kinds=kinds, verb="release")

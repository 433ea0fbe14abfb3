"""The end of a tenant: everything that it has is released, in order, with a receipt of what went when and what it cost.

It is a level: each look releases what is next and says so in the status, so that it goes on wherever it was stopped. A
step is written down before it is done: how many there were before the first is deleted, and a project's account before
the project is. Nothing new comes meanwhile, for the store makes nothing in a tenant that is closed.

What late tokens a gateway still had in its spool are in the ledger behind the receipt: it says until when it counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import orjson
from pydantic import Field

from bessemer.core.clock import rfc3339
from bessemer.core.errors import NotFound
from bessemer.core.ports import CONTROLLER, Scope, Stored
from bessemer.core.resource import ApiModel, Kind, keyed_by, tenant_of
from bessemer.kinds.context import Context
from bessemer.kinds.tenancy.spend import prices_of
from bessemer.metering.invoice import Account

FIRST = ("Endpoint", "Vetting", "Instance", "Job")
"""What holds hardware goes first, what answers to clients before what it is made of."""

LOOK_SECONDS = 2.0
REMEDY = "See what the message names: bring its host's agent back, fence the host, or take a finalizer off."


class Released(ApiModel):
    """All objects of one kind."""

    kind: str = Field(description="The kind.")
    count: int = Field(0, description="How many there were.")
    began: str = Field(description="When their release began.")
    at: str | None = Field(None, description="When the last of them was gone.")


class FinalAccount(ApiModel):
    """What a project amounted to in the end. The ledger keeps its rows, by its uid."""

    project: str = Field(description="Its name.")
    project_uid: str = Field(description="Its uid, by which the ledger knows it.")
    until: str = Field(description="It counts what was noted until then.")
    ledger_rows: int = Field(description="Rows of the ledger that it is made of.")
    ledger_digest: str = Field(description="SHA-256 over those rows as JSON, a line each.")
    price_plan: str = Field(description="The plan by which it is priced.")
    currency: str = Field(description="Of the amount.")
    total_micro: int = Field(description="What all of it cost, in millionths.")
    invoice_digest: str = Field(description="SHA-256 over the invoice as JSON.")


class Receipt(ApiModel):
    """What was released when. ``digest`` is there once nothing is left, and then for good."""

    released: list[Released] = Field(
        default_factory=list, description="By kind, in order.", json_schema_extra=keyed_by("kind")
    )
    accounts: list[FinalAccount] = Field(
        default_factory=list, description="The last of each project.", json_schema_extra=keyed_by("project")
    )
    closed_at: str | None = Field(None, description="When the last of it was gone.")
    digest: str = Field("", description="SHA-256 over all of the above as JSON.")


async def close(ctx: Context, *, tenant: str, plan: str, receipt: Receipt) -> tuple[Receipt, str, float]:
    """One step. Answers the receipt as it is then, what it waits for ("" once all is gone), and when to look again."""
    now = rfc3339(ctx.clock.now())
    projects = [stored for stored in await _all(ctx, Scope(kind="Project")) if tenant_of(stored.key.name) == tenant]
    for kind in order():
        found = [one for project in projects for one in await _all(ctx, Scope(kind=kind, namespace=project.key.name))]
        receipt, waits, again = await _release(ctx, receipt, found=found, kind=kind, now=now)
        if waits:
            return receipt, waits, again
    known = {account.project_uid for account in receipt.accounts}
    for project in projects:
        if project.uid not in known:
            account = await _account(ctx, project, plan=plan)
            accounts = [*receipt.accounts, account]
            return receipt.model_copy(update={"accounts": accounts}), f"the account of {account.project} is closed", 0.0
    receipt, waits, again = await _release(ctx, receipt, found=projects, kind="Project", now=now)
    if waits or receipt.digest:
        return receipt, waits, again
    receipt = receipt.model_copy(update={"closed_at": now})
    return receipt.model_copy(update={"digest": _digest(receipt.dump())}), "", 0.0


def order() -> Iterator[str]:
    """Kinds whose objects live in projects, in the order in which they go. A Claim goes with its workload."""
    from bessemer.kinds import KINDS  # the table of contents holds the kind that asks

    yield from FIRST
    yield "Claim"
    yield from (kind.name for kind in KINDS if _deletable(kind))


def _deletable(kind: Kind[Any, Any]) -> bool:
    return kind.namespaced and not kind.readonly and kind.name not in (*FIRST, "Claim", "Event")


async def _release(
    ctx: Context, receipt: Receipt, *, found: Sequence[Stored], kind: str, now: str
) -> tuple[Receipt, str, float]:
    """Let go of all of a kind: first it is said how many there are, then they are deleted, then that they are gone."""
    entry = next((one for one in receipt.released if one.kind == kind), None)
    if entry is None:
        entry = Released(kind=kind, count=len(found), began=now, at=None if found else now)
        return _with(receipt, entry), _waits(kind, found), 0.0
    if found:
        if kind != "Claim":  # which goes with its workload
            await _delete(ctx, found)
        # More than were counted came between the last create and the write that closed the tenant.
        more = entry.model_copy(update={"count": max(entry.count, len(found)), "at": None})
        return _with(receipt, more), _waits(kind, found), LOOK_SECONDS
    return _with(receipt, entry.model_copy(update={"at": entry.at or now})), "", 0.0


async def _delete(ctx: Context, found: Sequence[Stored]) -> None:
    for stored in found:
        with suppress(NotFound):
            await ctx.objects.delete(stored.key, CONTROLLER, uid=stored.uid)


def _with(receipt: Receipt, entry: Released) -> Receipt:
    if entry in receipt.released:
        return receipt
    kept = [entry if one.kind == entry.kind else one for one in receipt.released]
    if entry not in kept:
        kept.append(entry)
    return receipt.model_copy(update={"released": kept})


def _waits(kind: str, found: Sequence[Stored]) -> str:
    if not found:
        return ""
    first = f"{found[0].key.namespace}/{found[0].key.name}".lstrip("/")
    return f"{len(found)} of {kind} {'is' if len(found) == 1 else 'are'} being released, {first} first"


async def _account(ctx: Context, project: Stored, *, plan: str) -> FinalAccount:
    """Everything that the ledger has of the project, and what it cost."""
    end = int(ctx.clock.now()) + 1
    prices = await prices_of(ctx, plan)
    account, rows, digest = Account(prices, start=0, end=end), 0, hashlib.sha256()
    async for entry in ctx.ledger.window(start=0, end=end, project_uid=project.uid):
        account.take(entry)
        rows += 1
        digest.update(orjson.dumps(entry.dump(), option=orjson.OPT_SORT_KEYS) + b"\n")
    invoice = account.invoice()
    return FinalAccount(
        project=project.key.name,
        project_uid=project.uid,
        until=rfc3339(end),
        ledger_rows=rows,
        ledger_digest=digest.hexdigest(),
        price_plan=plan,
        currency=invoice.currency,
        total_micro=invoice.total_micro,
        invoice_digest=_digest(invoice.dump()),
    )


async def _all(ctx: Context, scope: Scope) -> Sequence[Stored]:
    return (await ctx.objects.list(scope)).items


def _digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def steps_done(receipt: Receipt) -> int:
    """Grows with what is done: a deadline is measured from the last step forward."""
    return sum(one.at is not None for one in receipt.released) + len(receipt.released) + len(receipt.accounts)

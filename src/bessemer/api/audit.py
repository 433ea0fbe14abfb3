"""The audit trail over HTTP: finding rows, exporting the chain, and dropping what was archived.

Who may audit (`may_audit`) sees all of it; a tenant's administrators see the rows of what is their tenant's. Of those,
a refusal of somebody who is no member of the tenant is left out, whatever they are bound to there: who tried belongs to
somebody else; so does what happened under the tenant's name before it was there. An export is itself a row of the
trail, and so are logs and consoles that are opened and secrets that are read: their routes say so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse

from bessemer.api import body as bodies
from bessemer.api.query import flag, number
from bessemer.api.state import Call, answer
from bessemer.core.clock import epoch, rfc3339
from bessemer.core.errors import Forbidden, Malformed
from bessemer.core.ports import AuditFilter, AuditRow
from bessemer.core.resource import Key

LIMIT, LIMIT_MAX = 100, 1000
TYPE = "application/jsonl"
EXPORT, DIGEST_LENGTH = "export", 64
_WORDS = ("who", "verb", "kind", "namespace", "name")


def may_audit(call: Call) -> bool:
    """Whether all of the trail is the asker's to read."""
    return call.state.access.audits(call.who)


async def find(call: Call) -> Response:
    """GET /audit: the newest rows first. Raises Forbidden, Malformed."""
    wanted = _filter(call, tenant=_tenant(call))
    limit = min(number(call.query, "limit") or LIMIT, LIMIT_MAX)
    before = number(call.query, "continue")
    rows, more = await call.state.ports.audit.find(wanted, before=before, limit=limit)
    shown = [_shown(row) for row in rows if _may_see(call, row, tenant=wanted.tenant)]
    return answer({"rows": shown, "continue": str(more) if more else ""})


async def export(call: Call) -> Response:
    """GET /audit/export?after=N: the chain as JSON lines, which `bessemer audit verify` reads."""
    after, audit = number(call.query, "after"), call.state.ports.audit
    await audit.note(call.writer, EXPORT, key=Key("Trail", "", str(after)))
    parts = audit.export(after=after)
    first = await anext(parts)  # what cannot be had is an error, and no file that ends too soon
    return StreamingResponse(_from(first, parts), media_type=TYPE)


async def trim(call: Call) -> Response:
    """POST /audit/trim: drop the rows up to ``through``, whose digest is ``digest``. Raises Conflict, Malformed."""
    limits = call.state.context.limits
    said = bodies.as_object(bodies.parse_json(await bodies.read(call.request, limits), limits.depth))
    await call.still()
    through, digest = said.get("through"), said.get("digest")
    if not isinstance(through, int) or isinstance(through, bool) or not 0 < through < 1 << 53:
        raise Malformed("through is the number of a row")
    if not isinstance(digest, str) or len(digest) != DIGEST_LENGTH:
        raise Malformed(f"digest is that row's, {DIGEST_LENGTH} digits")
    return answer({"dropped": await call.state.ports.audit.trim(through, digest=digest, writer=call.writer)})


def _tenant(call: Call) -> str:
    """Whose rows are asked for; "" is everybody's. Another's tenant and one that is not there are refused alike."""
    said = call.query.get("tenant", "")
    if may_audit(call):
        return said
    who, access = call.who, call.state.access
    ruled = sorted(tenant for tenant in access.tenants(who) if access.audits(who, tenant))
    if said in ruled:
        return said
    if said or not ruled:
        raise Forbidden(f'User "{who.name}" may not read the audit trail' + (f" of tenant {said[:63]}" if said else ""))
    if len(ruled) > 1:
        raise Malformed(f"say of which tenant: ?tenant= one of {', '.join(ruled)}")
    return ruled[0]


def _filter(call: Call, *, tenant: str) -> AuditFilter:
    query = call.query
    words = {name: query.get(name, "") for name in _WORDS}
    allowed = flag(query, "allowed") if "allowed" in query else None
    since, until = (_time(query.get(name, "")) for name in ("since", "until"))
    made = 0.0 if may_audit(call) else call.state.directory.terms(tenant).made
    return AuditFilter(**words, tenant=tenant, allowed=allowed, since=max(since or 0.0, made), until=until)


def _time(text: str) -> float | None:
    """RFC 3339, or None where nothing is said."""
    try:
        return epoch(text) if text else None
    except ValueError as error:
        raise Malformed(f"not a time: {text[:40]!r}; write 2026-01-31T08:00:00Z") from error


def _may_see(call: Call, row: AuditRow, *, tenant: str) -> bool:
    """A tenant's administrator is shown who was refused only where that is one of theirs, by themselves or by their
    program: by membership, since whom one binds, and so could ask about, may be anybody."""
    kind, _, name = row.writer.partition(":")
    user = name.partition("/")[0]
    return row.allowed or may_audit(call) or (kind == "user" and bool(call.state.directory.role(user, tenant)))


def _shown(row: AuditRow) -> dict[str, Any]:
    said = asdict(row)
    said["at"] = rfc3339(row.at)
    said["requestId"] = said.pop("request_id")
    said["change"] = orjson.loads(row.change) if row.change else {}
    return said


async def _from(first: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in parts:
        yield part

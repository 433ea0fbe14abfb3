"""The walls of a tenant, looked at in the transaction in which something of it is made or lands.

Invariants: nothing new is made in a project that is going away, or of a tenant that is not active; a Claim stands on no
host that is dedicated to others, nor at a site that is not its tenant's. What is stored of a Tenant here follows it in
the transaction of its write. What was made before a wall stood stays: it is not for moving anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import delete, insert, or_, select

from bessemer.core.errors import Forbidden, Taken, Walled
from bessemer.core.resource import Key, tenant_of
from bessemer.core.values import ClaimSpec
from bessemer.store import documents
from bessemer.store.documents import Document, labels_of, read_labels
from bessemer.store.kinds import EVENT, HOST, PROJECT, TENANT
from bessemer.store.known import Look
from bessemer.store.rows import find, look
from bessemer.store.schema import objects, of, walls
from bessemer.store.transaction import Tx

ACTIVE = "Active"

_LABELS = select(objects.c.labels).where(of(objects.c.kind), objects.c.namespace == "", of(objects.c.name))
_MINE = select(walls.c.what, walls.c.value).where(of(walls.c.tenant))
_STATE = select(walls.c.value).where(of(walls.c.tenant), walls.c.what == "state")
_BOUNDS = select(walls.c.what, walls.c.value).where(
    of(walls.c.tenant), or_(walls.c.what == "state", walls.c.what == "site", walls.c.what == "only")
)
_BY_NAME = select(walls.c.tenant).where(walls.c.what == "host", of(walls.c.value))
_ANY_BY_NAME = select(walls.c.tenant).where(walls.c.what == "host").limit(1)
_BY_LABELS = select(walls.c.value, walls.c.tenant).where(walls.c.what == "labels")
_FOLLOW = insert(walls)
_DROP = delete(walls).where(of(walls.c.tenant), of(walls.c.what), of(walls.c.value))
_FORGET = delete(walls).where(of(walls.c.tenant))

_RESUME = "an administrator of the platform may set its spec.state to Active"


def require_open(tx: Tx, key: Key) -> None:
    """Nothing is made in a project that is going away, and no project of such a tenant: what holds it might go before
    it is seen, and the next of that name would find it. Nor is anything of a tenant that is not active, but what is
    told of its objects. Raises Forbidden."""
    above = _above(key)
    if above is None:
        return
    row = find(tx, above)
    if row is not None and documents.deleting(row.document()):
        raise Forbidden(f"{above.kind.lower()} {above.name} is being deleted: nothing new is made there")
    tenant = tenant_of(key.name if key.kind == PROJECT else key.namespace)
    for (state,) in tx.look(_STATE, of_tenant=tenant):
        raise _not_active(tenant, state)


def looks(key: Key) -> Iterator[Look]:
    """What `require_open` asks."""
    if (above := _above(key)) is not None:
        yield look(above)
        yield Look(_STATE, {"of_tenant": tenant_of(key.name if key.kind == PROJECT else key.namespace)})


def _above(key: Key) -> Key | None:
    """What must not be going away for anything to be made there."""
    project = key.name if key.kind == PROJECT else key.namespace
    if not project or key.kind == EVENT:
        return None
    return Key(TENANT, "", tenant_of(project)) if key.kind == PROJECT else Key(PROJECT, "", project)


def _not_active(tenant: str, state: str) -> Walled:
    if state == "Suspended":
        return Walled(f"tenant {tenant} is suspended: what it has goes on, nothing new is made; {_RESUME}")
    return Walled(f"tenant {tenant} is closed: nothing new is made")


def follow(tx: Tx, document: Document) -> None:
    """The walls of a Tenant that is being stored stand from this transaction on."""
    if document["kind"] != TENANT:
        return
    name = document["metadata"]["name"]
    wanted, current = set(rows_of(document)), set(tx.all(_MINE, of_tenant=name))
    for what, value in sorted(current - wanted):
        tx.run(_DROP, of_tenant=name, of_what=what, of_value=value)
    for what, value in sorted(wanted - current):
        tx.run(_FOLLOW, what=what, value=value, tenant=name)


def forget(tx: Tx, tenant: str) -> None:
    """The tenant is gone: its hosts are anybody's."""
    tx.run(_FORGET, of_tenant=tenant)


def rows_of(tenant: Document) -> Iterator[tuple[str, str]]:
    """(what, value) of each wall that a Tenant says."""
    spec = tenant.get("spec", {})
    hosts = spec.get("hosts") or {}
    if (state := spec.get("state", ACTIVE)) != ACTIVE:
        yield "state", state
    yield from (("site", site) for site in spec.get("sites", ()))
    if hosts.get("only"):
        yield "only", ""
    if tenant.get("status", {}).get("phase") == "Closed":
        return  # until then what it had may still be there
    yield from (("host", name) for name in hosts.get("names", ()))
    if labels := hosts.get("matchLabels"):
        yield "labels", labels_of({"metadata": {"labels": dict(sorted(labels.items()))}})


# --- where a claim lands ----------------------------------------------------------------------------------------


def admit(tx: Tx, spec: ClaimSpec, *, terms: str = "") -> None:
    """That the claim's tenant is active and may be on the host. ``terms`` is the revision of the Tenant by which it was
    decided. Raises Walled, and Taken where the host is none of its, or the terms have changed since."""
    tenant, host = spec.tenant, spec.host
    bounds = tx.look(_BOUNDS, of_tenant=tenant)
    for _, state in (one for one in bounds if one[0] == "state"):
        raise _not_active(tenant, state)
    present = find(tx, Key(TENANT, "", tenant)) if terms else None
    if terms and (present is None or terms != str(present.revision)):
        raise Taken(f"tenant {tenant} has changed since the place was chosen")
    owners = _owners(tx, host)
    if owners and tenant not in owners:
        raise Taken(f"host {host} is dedicated to another tenant")
    if ("only", "") in bounds and tenant not in owners:
        raise Taken(f"host {host} is none of those that tenant {tenant} is kept to")
    sites = [value for what, value in bounds if what == "site"]
    if sites and _site_of(tx, host) not in sites:
        raise Taken(f"host {host} is at none of the sites of tenant {tenant}")


def _owners(tx: Tx, host: str) -> set[str]:
    """The tenants that the host is dedicated to."""
    # That no host is anybody's by name, as in most fleets, is known to all of a group.
    found = {tenant for (tenant,) in tx.all(_BY_NAME, of_value=host)} if tx.look(_ANY_BY_NAME) else set[str]()
    if selectors := tx.look(_BY_LABELS):
        row = tx.one(_LABELS, of_kind=HOST, of_name=host)
        labels = read_labels(row[0]) if row is not None else {}
        found |= {tenant for wanted, tenant in selectors if read_labels(wanted).items() <= labels.items()}
    return found


def _site_of(tx: Tx, host: str) -> str:
    row = find(tx, Key(HOST, "", host))
    return str(row.document().get("spec", {}).get("site", "")) if row is not None else ""

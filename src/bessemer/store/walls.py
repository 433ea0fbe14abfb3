"""The walls of a tenant, looked at in the transaction in which something of it is made or lands.

Invariants: nothing new is made in a project that is going away, or of a tenant that is not active; a Claim stands on no
host that is dedicated to others, nor at a site that is not its tenant's. What is stored of a Tenant here follows it in
the transaction of its write. What was made before a wall stood stays: it is not for moving anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlalchemy import and_, bindparam, delete, insert, or_, select

from bessemer.core.errors import Forbidden, Taken, Walled
from bessemer.core.resource import Key, tenant_of
from bessemer.core.values import ClaimSpec
from bessemer.store import documents
from bessemer.store.documents import Document, labels_of, read_labels
from bessemer.store.kinds import EVENT, HOST, PROJECT, TENANT
from bessemer.store.rows import ROWS, Row, find
from bessemer.store.schema import dedications, objects, of
from bessemer.store.transaction import Tx

ACTIVE = "Active"

_ABOVE = ROWS.where(
    objects.c.namespace == "",
    or_(
        and_(objects.c.kind == PROJECT, objects.c.name == bindparam("project")),
        and_(objects.c.kind == TENANT, objects.c.name == bindparam("tenant")),
    ),
)
_FOLLOW = insert(dedications)
_FORGET = delete(dedications).where(of(dedications.c.tenant))
_MINE = select(dedications.c.what, dedications.c.value).where(of(dedications.c.tenant))
_BY_NAME = select(dedications.c.tenant).where(dedications.c.what == "host", of(dedications.c.value))
_BY_LABELS = select(dedications.c.value, dedications.c.tenant).where(dedications.c.what == "labels")

_RESUME = "an administrator of the platform may set its spec.state to Active"


def require_open(tx: Tx, key: Key) -> None:
    """Nothing is made in a project that is going away, and no project of such a tenant: what holds it might go before
    it is seen, and the next of that name would find it. Nor is anything of a tenant that is not active, but what is
    told of its objects. Raises Forbidden."""
    project = key.name if key.kind == PROJECT else key.namespace
    if not project or key.kind == EVENT:
        return
    for row in map(Row.of, tx.all(_ABOVE, project=key.namespace, tenant=tenant_of(project))):
        document = row.document()
        if documents.deleting(document) and PROJECT in (row.key.kind, key.kind):
            what = f"{row.key.kind.lower()} {row.key.name}"
            raise Forbidden(f"{what} is being deleted: nothing new is made there")
        if row.key.kind == TENANT:
            _require_active(document)


def _require_active(tenant: Document) -> None:
    state, name = tenant.get("spec", {}).get("state", ACTIVE), tenant["metadata"]["name"]
    if state == "Suspended":
        raise Walled(f"tenant {name} is suspended: what it has goes on, nothing new is made; {_RESUME}")
    if state != ACTIVE:
        raise Walled(f"tenant {name} is closed: nothing new is made")


# --- hosts ------------------------------------------------------------------------------------------------------


def follow(tx: Tx, document: Document) -> None:
    """The hosts that a Tenant which is being stored has to itself are kept from others from this transaction on."""
    if document["kind"] != TENANT:
        return
    name = document["metadata"]["name"]
    wanted = set(_dedicated(document))
    current = {(what, value) for what, value in tx.all(_MINE, of_tenant=name)}
    if wanted == current:
        return
    tx.run(_FORGET, of_tenant=name)
    for what, value in sorted(wanted):
        tx.run(_FOLLOW, what=what, value=value, tenant=name)


def forget(tx: Tx, tenant: str) -> None:
    """The tenant is gone: its hosts are anybody's."""
    tx.run(_FORGET, of_tenant=tenant)


def _dedicated(tenant: Document) -> Iterator[tuple[str, str]]:
    """Until everything of a closed tenant is gone from them, they stay its own."""
    if tenant.get("status", {}).get("phase") == "Closed":
        return
    hosts = tenant.get("spec", {}).get("hosts") or {}
    for name in hosts.get("names", ()):
        yield "host", name
    if labels := hosts.get("matchLabels"):
        yield "labels", labels_of({"metadata": {"labels": dict(sorted(labels.items()))}})


def admit(tx: Tx, spec: ClaimSpec, *, terms: str = "") -> None:
    """That the claim's tenant is active and may be on the host. ``terms`` is the revision of the Tenant by which it was
    decided. Raises Walled, and Taken where the host is dedicated or the terms have changed since."""
    row = find(tx, Key(TENANT, "", spec.tenant))
    tenant: Document = row.document() if row is not None else {"metadata": {"name": spec.tenant}}
    if row is not None and terms not in ("", str(row.revision)):
        raise Taken(f"tenant {spec.tenant} has changed since the place was chosen")
    _require_active(tenant)
    wants = tenant.get("spec", {})
    host = find(tx, Key(HOST, "", spec.host))
    owners = _owners(tx, spec.host, labels=read_labels(host.labels) if host is not None else {})
    if owners and spec.tenant not in owners:
        raise Taken(f"host {spec.host} is dedicated to another tenant")
    if (wants.get("hosts") or {}).get("only") and spec.tenant not in owners:
        raise Taken(f"host {spec.host} is none of those that tenant {spec.tenant} is kept to")
    sites = wants.get("sites") or ()
    if sites and (host is None or host.document().get("spec", {}).get("site") not in sites):
        raise Taken(f"host {spec.host} is at none of the sites of tenant {spec.tenant}")


def _owners(tx: Tx, host: str, *, labels: Mapping[str, str]) -> set[str]:
    """The tenants that the host is dedicated to."""
    found = {tenant for (tenant,) in tx.all(_BY_NAME, of_value=host)}
    for wanted, tenant in tx.all(_BY_LABELS):
        if read_labels(wanted).items() <= labels.items():
            found.add(tenant)
    return found

"""The tables. Two for objects and their history, one each for what two writers could both take, or what never changes.

Invariants: ``changes.revision`` is dense and in order of commit; ``ledger`` and ``audit`` refuse UPDATE and DELETE by
trigger; a device row names at most one claim; no counter is negative. Types are plain integers (of 64 bits), texts (in
the order of their bytes) and bytes, so that statements compiled from here run on a bare driver with no conversion.

This is not where statements live: each module keeps its own beside its operation.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Float, Index, LargeBinary, Table, text

from bessemer.store.columns import INTEGER, METADATA, TEXT, filled, is_kind, of, some, string, whole
from bessemer.store.schema_bounds import bounds, levels, stated
from bessemer.store.schema_usage import answered, counted, served

counters = Table(
    "counters",
    METADATA,
    string("name", primary_key=True),
    whole("value"),
    sqlite_with_rowid=False,
)
"""``revision``: the last one given. ``floor``: history reaches back to the changes after it. ``audit_base``: the last
row of the trail that is archived; ``audit_floor``: the last that was gone before those were dropped."""

objects = Table(
    "objects",
    METADATA,
    string("kind", primary_key=True),
    string("namespace", primary_key=True),
    string("name", primary_key=True),
    string("uid"),
    string("host"),
    whole("generation"),
    whole("revision"),
    whole("updated"),
    string("labels"),
    Column("body", LargeBinary, nullable=False),
    Index("objects_uid", "uid", unique=True),
    some("objects_host", "kind", "host", "namespace", "name", where="host <> ''"),
    some("objects_events", "updated", where="kind = 'Event'"),
    sqlite_with_rowid=False,
)

changes = Table(
    "changes",
    METADATA,
    whole("revision", primary_key=True, autoincrement=False),
    whole("at"),
    whole("type"),
    string("kind"),
    string("namespace"),
    string("name"),
    string("uid"),
    string("host"),
    string("labels"),
    string("labels_before"),
    Column("body", LargeBinary, nullable=False),
    some("changes_host", "kind", "host", "revision", where="host <> ''"),
)

labels = Table(
    "labels",
    METADATA,
    string("kind", primary_key=True),
    string("label", primary_key=True),
    string("value", primary_key=True),
    string("namespace", primary_key=True),
    string("name", primary_key=True),
    sqlite_with_rowid=False,
)
"""The labels of bodies, the other way round: a selector reads what it selects and no more."""

dependents = Table(
    "dependents",
    METADATA,
    string("owner", primary_key=True),
    string("uid", primary_key=True),
    # An older release that still writes says nothing of it: 2 is not known, and taken for 1 until it is.
    whole("blocks", server_default=text("2")),
    Index("dependents_uid", "uid"),
    some("dependents_blocks", "owner", where="blocks > 0"),
    sqlite_with_rowid=False,
)
"""The owner references of bodies (and which object an Event is about), the other way round. ``blocks`` is 1 where an
owner that is deleted in the foreground waits for the object."""

cascades = Table(
    "cascades",
    METADATA,
    string("uid", primary_key=True),
    string("upto"),
    string("writer"),
    sqlite_with_rowid=False,
)
"""Objects that are marked, and whose dependents go, or are left behind, before them: up to which uid these were seen
to (all of them: `cascade.ALL`), and who asked for it."""

hosts = Table(
    "hosts",
    METADATA,
    string("host", primary_key=True),
    whole("schedulable"),
    sqlite_with_rowid=False,
)

numa = Table(
    "numa",
    METADATA,
    string("host", primary_key=True),
    whole("node", primary_key=True, autoincrement=False),
    whole("milli_cores"),
    whole("milli_cores_used"),
    whole("memory_bytes"),
    whole("memory_bytes_used"),
    CheckConstraint("milli_cores_used >= 0 AND memory_bytes_used >= 0"),
    sqlite_with_rowid=False,
)
"""A node may be used beyond what it has: when its totals shrink under what runs. `take` never passes them."""

devices = Table(
    "devices",
    METADATA,
    string("host", primary_key=True),
    string("device", primary_key=True),
    string("model"),
    string("kind"),
    whole("healthy"),
    string("claim"),
    whole("lost"),
    some("devices_claim", "claim", where="claim <> ''"),
    CheckConstraint("lost = 0 OR claim <> ''"),
    sqlite_with_rowid=False,
)

partitions = Table(
    "partitions",
    METADATA,
    string("host", primary_key=True),
    string("model", primary_key=True),
    string("body"),
    sqlite_with_rowid=False,
)
"""Into what a host's devices of a model can be cut, as its agent said (JSON of `core.slices.Partitioning`)."""

shares = Table(
    "shares",
    METADATA,
    string("host", primary_key=True),
    string("device", primary_key=True),
    string("claim", primary_key=True),
    whole("milli"),
    string("profile"),
    whole("start"),
    Index("shares_claim", "claim"),
    CheckConstraint("milli > 0 AND milli <= 1000"),
    sqlite_with_rowid=False,
)
"""What claims have of devices that they have in part: thousandths, and where it is an instance its ``profile`` and the
slice with which it begins. The device's row names no claim then, but `sharing.SHARED`, while there is one."""

quota = Table(
    "quota",
    METADATA,
    string("scope", primary_key=True),
    string("meter", primary_key=True),
    whole("used"),
    Column("bound", INTEGER),
    CheckConstraint("used >= 0"),
    sqlite_with_rowid=False,
)

windows = Table(
    "windows",
    METADATA,
    string("scope", primary_key=True),
    string("meter", primary_key=True),
    whole("start"),
    whole("used"),
    CheckConstraint("used >= 0"),
    sqlite_with_rowid=False,
)
"""What was given out of a meter that is counted within a window, in the window that began at ``start`` (epoch)."""

looks = Table(
    "looks",
    METADATA,
    string("scope", primary_key=True),
    whole("upto"),
    sqlite_with_rowid=False,
)
"""Of each scope whose money is bounded and counted: up to which row the ledger was looked at."""

holds = Table(
    "holds",
    METADATA,
    string("project", primary_key=True),
    string("holder", primary_key=True),
    string("tenant"),
    whole("micro"),
    whole("number"),
    whole("until"),
    CheckConstraint("micro >= 0"),
    Index("holds_tenant", "tenant"),
    sqlite_with_rowid=False,
)
"""The money of a project that a gateway holds in all, by its statement of that ``number``, until then (epoch)."""

walls = Table(
    "walls",
    METADATA,
    string("what", primary_key=True),
    string("value", primary_key=True),
    string("tenant", primary_key=True),
    Index("walls_tenant", "tenant", "what"),
    sqlite_with_rowid=False,
)
"""What of a Tenant is looked at wherever something of it is made or lands, the other way round: ``state`` where it is
not active, ``site`` for each, ``only`` where it is kept to its own hosts, and these: ``host`` by name, ``labels``."""

ledger = Table(
    "ledger",
    METADATA,
    whole("id", primary_key=True),
    whole("at"),
    string("kind"),
    string("tenant"),
    string("project"),
    string("tenant_uid"),
    string("project_uid"),
    string("workload_kind"),
    string("workload_name"),
    string("workload_uid"),
    string("claim_uid"),
    string("host"),
    whole("fake"),
    Column("state", TEXT),
    string("flavor"),
    string("device_model"),
    whole("devices"),
    whole("milli_cores"),
    whole("memory_bytes"),
    string("model"),
    string("api_key"),
    whole("requests"),
    whole("input_tokens"),
    whole("cached_input_tokens"),
    whole("output_tokens"),
    Column("corrects", INTEGER),
    # An older release that still writes holds nothing in part.
    whole("device_milli", server_default=text("1000")),
    some("ledger_claim", "claim_uid", "id", where="claim_uid <> ''"),
    Index("ledger_workload", "workload_uid", "id"),
    Index("ledger_project", "project_uid", "kind", "at"),
    Index("ledger_tenant", "tenant_uid", "project_uid"),
    some("ledger_once", "claim_uid", "kind", unique=True, where="kind IN ('open', 'close')"),
)

spools = Table(
    "spools",
    METADATA,
    string("spool_uid", primary_key=True),
    string("gateway_uid"),
    whole("sequence"),
    sqlite_with_rowid=False,
)
"""A spool's uid is random and stands in its file: it alone says what is settled. Who sent last is only noted."""

leases = Table(
    "leases",
    METADATA,
    string("name", primary_key=True),
    string("holder"),
    whole("fence"),
    Column("expires_at", Float, nullable=False),
    Column("ttl", Float, nullable=False),
    string("note"),
    sqlite_with_rowid=False,
)

audit = Table(
    "audit",
    METADATA,
    whole("id", primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    string("writer"),
    string("verb"),
    string("key"),
    string("uid"),
    whole("allowed"),
    string("reason"),
    string("request_id"),
    string("source"),
    string("digest"),
    # An older release that still writes says nothing of these.
    string("tenant", server_default=""),
    string("change", server_default=""),
    some("audit_tenant", "tenant", "id", where="tenant <> ''"),
)

audit_heads = Table(
    "audit_heads",
    METADATA,
    string("kind", primary_key=True),
    whole("id", primary_key=True, autoincrement=False),
    string("digest"),
    Column("at", Float, nullable=False),
    string("key"),
    string("signature"),
    sqlite_with_rowid=False,
)
"""Signed: which row of ``audit`` had which digest. They are kept outside, too."""

sealed = Table(
    "sealed",
    METADATA,
    string("uid", primary_key=True),
    string("field", primary_key=True),
    Column("ciphertext", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

data_keys = Table(
    "data_keys",
    METADATA,
    string("id", primary_key=True),
    string("kek"),
    Column("wrapped", LargeBinary, nullable=False),
    whole("made"),
    sqlite_with_rowid=False,
)
"""The keys under which values are sealed, each wrapped by the key-encryption key that ``kek`` names."""

APPEND_ONLY = ("ledger", "audit")
"""Tables whose rows are final; triggers say so to whoever writes SQL by hand. Rows of ``audit`` may go once they were
archived: up to the counter ``audit_base``."""

__all__ = [
    "APPEND_ONLY",
    "METADATA",
    "answered",
    "audit",
    "audit_heads",
    "bounds",
    "cascades",
    "changes",
    "counted",
    "counters",
    "data_keys",
    "dependents",
    "devices",
    "filled",
    "holds",
    "hosts",
    "is_kind",
    "labels",
    "leases",
    "ledger",
    "levels",
    "looks",
    "numa",
    "objects",
    "of",
    "partitions",
    "quota",
    "sealed",
    "served",
    "shares",
    "spools",
    "stated",
    "walls",
    "windows",
]
